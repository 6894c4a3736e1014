//! Which value wins when a site is changed: the file's, or one changed by hand since the file was last applied.
//!
//! Merges three configurations: `base`, the last applied file; `mine`, that file with the changes of `scale`; `theirs`, the
//! current file. A value changed in the file wins; an unchanged one keeps the value set by hand.
//!
//! On machines the list of a tier's machines is one such value. Servers keep their names: whoever adds one passes the
//! placement, whose names may still be in use by servers that are leaving.

mod change;
mod machines;
mod replace;
mod scale;

pub use change::{
    Change, CronChange, MachineChange, Refusal, WorkerChange, changes, on_lost_machine, refusals,
};
pub use replace::{ReplaceError, Replacement, readmit, replace};
pub use scale::{Scale, ScaleError, ScaleTo, scale};

use gaiola_model::config::{App, Balancer, Config, Database, Web};
use gaiola_model::{Placement, Tier};
use std::fmt;

/// The configuration that results from applying `theirs` where `placed` stands.
///
/// ```
/// use gaiola_core::merge::{merge, scale};
/// # use gaiola_model::{Config, config::App};
/// # let file = Config { site: "a".parse().unwrap(), balancer: None, web: None, app: App::new("bin/a"), workers: Default::default(), crons: Default::default(), database: None, drill: None, env: Default::default(), env_file: None, machines: None };
/// let by_hand = scale(&file, &"app=4".parse().unwrap(), None).unwrap();
///
/// let mut changed = file.clone();
/// changed.app.run = "bin/b".into();
/// let merged = merge(&file, &by_hand, &changed, None);
/// assert_eq!((merged.app.servers, merged.app.run.as_str()), (4, "bin/b"));
///
/// changed.app.servers = 3;
/// assert_eq!(merge(&file, &by_hand, &changed, None).app.servers, 3);
/// ```
pub fn merge(base: &Config, mine: &Config, theirs: &Config, placed: Option<&Placement>) -> Config {
    let mut merged = Config {
        site: theirs.site.clone(),
        balancer: tier(&base.balancer, &mine.balancer, &theirs.balancer, balancer),
        web: tier(&base.web, &mine.web, &theirs.web, web),
        app: app(&base.app, &mine.app, &theirs.app),
        workers: pick(&base.workers, &mine.workers, &theirs.workers),
        crons: pick(&base.crons, &mine.crons, &theirs.crons),
        database: tier(&base.database, &mine.database, &theirs.database, database),
        drill: pick(&base.drill, &mine.drill, &theirs.drill),
        env: pick(&base.env, &mine.env, &theirs.env),
        env_file: theirs.env_file.clone(),
        machines: None,
    };
    if let Some(theirs) = &theirs.machines {
        let last = base.machines.as_ref().zip(mine.machines.as_ref());
        merged.set_machines(machines::merge(last, theirs, placed));
    }
    merged
}

/// Values set by hand that differ from the file and stay in force: for `plan` and `up` to report.
pub fn kept(file: &Config, merged: &Config) -> Vec<Kept> {
    let servers = Tier::ALL.into_iter().map(|tier| Kept {
        tier,
        what: "servers",
        file: servers_of(tier, file),
        hand: servers_of(tier, merged),
    });
    let instances = Kept {
        tier: Tier::App,
        what: "instances",
        file: file.app.instances.to_string(),
        hand: merged.app.instances.to_string(),
    };
    let all = servers.chain([instances]);
    all.filter(|kept| kept.file != kept.hand).collect()
}

/// The number of a tier's servers, or their machines in alphabetical order.
fn servers_of(tier: Tier, config: &Config) -> String {
    let Some(machines) = &config.machines else {
        return config.servers(tier).to_string();
    };
    let mut names: Vec<&str> = machines.of(tier).map(|(_, on)| on.ssh.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}

/// A value changed by hand and not in the file since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The tier.
    pub tier: Tier,
    /// The key: `servers` or `instances`.
    pub what: &'static str,
    /// The file's value.
    pub file: String,
    /// The value in force.
    pub hand: String,
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
        prefixes: pick(&base.prefixes, &mine.prefixes, &theirs.prefixes),
        listen: pick(&base.listen, &mine.listen, &theirs.listen),
        tls: pick(&base.tls, &mine.tls, &theirs.tls),
        vip_command: pick(&base.vip_command, &mine.vip_command, &theirs.vip_command),
        trust: pick(&base.trust, &mine.trust, &theirs.trust),
        accept_proxy: pick(&base.accept_proxy, &mine.accept_proxy, &theirs.accept_proxy),
        drain: pick(&base.drain, &mine.drain, &theirs.drain),
        proxy: pick(&base.proxy, &mine.proxy, &theirs.proxy),
        compress: pick(&base.compress, &mine.compress, &theirs.compress),
    }
}

fn web(base: &Web, mine: &Web, theirs: &Web) -> Web {
    Web {
        servers: pick(&base.servers, &mine.servers, &theirs.servers),
        root: pick(&base.root, &mine.root, &theirs.root),
        files: pick(&base.files, &mine.files, &theirs.files),
        app_paths: pick(&base.app_paths, &mine.app_paths, &theirs.app_paths),
        compress: pick(&base.compress, &mine.compress, &theirs.compress),
    }
}

fn app(base: &App, mine: &App, theirs: &App) -> App {
    App {
        servers: pick(&base.servers, &mine.servers, &theirs.servers),
        instances: pick(&base.instances, &mine.instances, &theirs.instances),
        run: pick(&base.run, &mine.run, &theirs.run),
        release: pick(&base.release, &mine.release, &theirs.release),
        health: pick(&base.health, &mine.health, &theirs.health),
        check: pick(&base.check, &mine.check, &theirs.check),
        maxconn: pick(&base.maxconn, &mine.maxconn, &theirs.maxconn),
        count_tunnels: pick(
            &base.count_tunnels,
            &mine.count_tunnels,
            &theirs.count_tunnels,
        ),
        queue_size: pick(&base.queue_size, &mine.queue_size, &theirs.queue_size),
        ejection: pick(&base.ejection, &mine.ejection, &theirs.ejection),
        slow_ejection: pick(
            &base.slow_ejection,
            &mine.slow_ejection,
            &theirs.slow_ejection,
        ),
        grace: pick(&base.grace, &mine.grace, &theirs.grace),
        env: pick(&base.env, &mine.env, &theirs.env),
        limits: pick(&base.limits, &mine.limits, &theirs.limits),
        deploy: pick(&base.deploy, &mine.deploy, &theirs.deploy),
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
