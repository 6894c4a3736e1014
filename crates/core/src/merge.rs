//! Which value wins when a site is changed: the file's, or one changed by hand since the file was last applied.
//!
//! Merges three configurations: `base`, the last applied file; `mine`, that file with the changes of `scale`; `theirs`, the
//! current file. A value changed in the file wins; an unchanged one keeps the value set by hand.

mod change;
mod scale;

pub use change::{Change, Refusal, changes, refusals};
pub use scale::{Scale, ScaleError, ScaleTo, scale};

use gaiola_model::Tier;
use gaiola_model::config::{App, Balancer, Config, Database, Web};
use std::fmt;

/// The configuration that results from applying `theirs`.
///
/// ```
/// use gaiola_core::merge::{merge, scale};
/// # use gaiola_model::{Config, config::App};
/// # let file = Config { site: "a".parse().unwrap(), balancer: None, web: None, app: App::new("bin/a"), database: None, drill: None, machines: None };
/// let by_hand = scale(&file, &"app=4".parse().unwrap()).unwrap();
///
/// let mut changed = file.clone();
/// changed.app.run = "bin/b".into();
/// let merged = merge(&file, &by_hand, &changed);
/// assert_eq!((merged.app.servers, merged.app.run.as_str()), (4, "bin/b"));
///
/// changed.app.servers = 3;
/// assert_eq!(merge(&file, &by_hand, &changed).app.servers, 3);
/// ```
pub fn merge(base: &Config, mine: &Config, theirs: &Config) -> Config {
    Config {
        site: theirs.site.clone(),
        balancer: tier(&base.balancer, &mine.balancer, &theirs.balancer, balancer),
        web: tier(&base.web, &mine.web, &theirs.web, web),
        app: app(&base.app, &mine.app, &theirs.app),
        database: tier(&base.database, &mine.database, &theirs.database, database),
        drill: pick(&base.drill, &mine.drill, &theirs.drill),
        machines: pick(&base.machines, &mine.machines, &theirs.machines),
    }
}

/// Values set by hand that differ from the file and stay in force: for `plan` and `up` to report.
pub fn kept(file: &Config, merged: &Config) -> Vec<Kept> {
    let servers = Tier::ALL.into_iter().map(|tier| Kept {
        tier,
        what: "servers",
        file: file.servers(tier),
        hand: merged.servers(tier),
    });
    let instances = Kept {
        tier: Tier::App,
        what: "instances",
        file: file.app.instances,
        hand: merged.app.instances,
    };
    servers
        .chain([instances])
        .filter(|kept| kept.file != kept.hand)
        .collect()
}

/// A value changed by hand and not in the file since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The tier.
    pub tier: Tier,
    /// The key: `servers` or `instances`.
    pub what: &'static str,
    /// The file's value.
    pub file: u16,
    /// The value in force.
    pub hand: u16,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tier,
            what,
            file,
            hand,
        } = self;
        write!(
            f,
            "{tier}: {what} stay {hand} as scaled by hand (the file says {file})"
        )
    }
}

/// One value: if changed in the file it wins, otherwise the value set by hand stays.
fn pick<T: Clone + PartialEq>(base: &T, mine: &T, theirs: &T) -> T {
    if theirs == base { mine } else { theirs }.clone()
}

/// The file decides whether a tier exists; one that stays is merged value by value.
fn tier<T: Clone>(
    base: &Option<T>,
    mine: &Option<T>,
    theirs: &Option<T>,
    merge: impl Fn(&T, &T, &T) -> T,
) -> Option<T> {
    match (base, mine, theirs) {
        (Some(base), Some(mine), Some(theirs)) => Some(merge(base, mine, theirs)),
        _ => theirs.clone(),
    }
}

fn balancer(base: &Balancer, mine: &Balancer, theirs: &Balancer) -> Balancer {
    Balancer {
        servers: pick(&base.servers, &mine.servers, &theirs.servers),
        vips: pick(&base.vips, &mine.vips, &theirs.vips),
        listen: pick(&base.listen, &mine.listen, &theirs.listen),
        tls: pick(&base.tls, &mine.tls, &theirs.tls),
    }
}

fn web(base: &Web, mine: &Web, theirs: &Web) -> Web {
    Web {
        servers: pick(&base.servers, &mine.servers, &theirs.servers),
        root: pick(&base.root, &mine.root, &theirs.root),
    }
}

fn app(base: &App, mine: &App, theirs: &App) -> App {
    App {
        servers: pick(&base.servers, &mine.servers, &theirs.servers),
        instances: pick(&base.instances, &mine.instances, &theirs.instances),
        run: pick(&base.run, &mine.run, &theirs.run),
        release: pick(&base.release, &mine.release, &theirs.release),
        health: pick(&base.health, &mine.health, &theirs.health),
        maxconn: pick(&base.maxconn, &mine.maxconn, &theirs.maxconn),
        grace: pick(&base.grace, &mine.grace, &theirs.grace),
    }
}

fn database(base: &Database, mine: &Database, theirs: &Database) -> Database {
    Database {
        servers: pick(&base.servers, &mine.servers, &theirs.servers),
        strict: pick(&base.strict, &mine.strict, &theirs.strict),
        maxconn: pick(&base.maxconn, &mine.maxconn, &theirs.maxconn),
        wait: pick(&base.wait, &mine.wait, &theirs.wait),
    }
}

#[cfg(test)]
mod tests;
