//! `gaiola replace`: a machine that is lost for good gives its place to a spare one.

use gaiola_model::config::{Machine, Machines};
use gaiola_model::{Config, ServerName};
use std::collections::BTreeSet;

/// Machines that gave their place away and are still remembered.
const MOST_LOST: usize = 64;

/// Why no machine takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// The provider has servers of its own.
    #[error(
        "cannot replace {0}: the lab provides the servers, and switches a lost one on again: gaiola power on {0}"
    )]
    NoMachines(String),
    /// Neither a server nor a machine with one.
    #[error(
        "{0} is neither a server of the site nor a machine that has one; see which there are with: gaiola status"
    )]
    Unknown(String),
    /// It has no server.
    #[error(
        "{0} is a spare machine, and there is nothing to replace; to let it go take it out of `spare` of [machines] and run `gaiola up`"
    )]
    HasNoServer(String),
    /// There is none.
    #[error(
        "no machine is spare that could take the place of {0}; add one to `spare` of [machines] in the file and run `gaiola up` first"
    )]
    NoneSpare(String),
    /// It is not a spare machine.
    #[error(
        "{onto} is no spare machine and cannot take the place of {lost}; spare are {}",
        if spare.is_empty() { "none".into() } else { spare.join(", ") }
    )]
    NotSpare {
        /// The machine that is lost.
        lost: String,
        /// The requested one.
        onto: String,
        /// The spare machines.
        spare: Vec<String>,
    },
}

/// A machine that takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The machine that is lost.
    pub lost: Machine,
    /// The one that takes its place.
    pub onto: Machine,
    /// The servers that move: all that the lost machine had.
    pub servers: BTreeSet<ServerName>,
    /// The configuration afterwards.
    pub config: Config,
}

/// The machine of `what`, a server or a machine, gives its place to the first spare one, or to `onto`. Its servers keep their names.
///
/// # Errors
/// Why none can.
pub fn replace(
    config: &Config,
    what: &str,
    onto: Option<&str>,
) -> Result<Replacement, ReplaceError> {
    let Some(machines) = &config.machines else {
        return Err(ReplaceError::NoMachines(what.into()));
    };
    let lost = machine_of(machines, what)?.clone();
    let new = spare_for(machines, &lost, onto)?.clone();
    let mut after = machines.clone();
    let mut servers = BTreeSet::new();
    for (name, on) in &mut after.servers {
        if on.ssh == lost.ssh {
            on.clone_from(&new);
            servers.insert(*name);
        }
    }
    after.spare.retain(|spare| spare.ssh != new.ssh);
    after.lost.retain(|other| other.ssh != lost.ssh);
    after.lost.push(lost.clone());
    let surplus = after.lost.len().saturating_sub(MOST_LOST);
    after.lost.drain(..surplus);
    let mut config = config.clone();
    config.set_machines(after);
    Ok(Replacement {
        lost,
        onto: new,
        servers,
        config,
    })
}

/// The configuration once these machines were emptied: they may be named again.
pub fn readmit(config: &Config, emptied: &[String]) -> Config {
    let mut config = config.clone();
    if let Some(machines) = &mut config.machines {
        machines.lost.retain(|lost| !emptied.contains(&lost.ssh));
    }
    config
}

fn machine_of<'a>(machines: &'a Machines, what: &str) -> Result<&'a Machine, ReplaceError> {
    let server: Option<ServerName> = what.parse().ok();
    let of_server = server.and_then(|server| machines.servers.get(&server));
    let mut all = machines.servers.values();
    match of_server.or_else(|| all.find(|machine| machine.ssh == what)) {
        Some(machine) => Ok(machine),
        None if machines.spare.iter().any(|spare| spare.ssh == what) => {
            Err(ReplaceError::HasNoServer(what.into()))
        }
        None => Err(ReplaceError::Unknown(what.into())),
    }
}

fn spare_for<'a>(
    machines: &'a Machines,
    lost: &Machine,
    onto: Option<&str>,
) -> Result<&'a Machine, ReplaceError> {
    let Some(onto) = onto else {
        let first = machines.spare.first();
        return first.ok_or_else(|| ReplaceError::NoneSpare(lost.ssh.clone()));
    };
    let named = machines.spare.iter().find(|spare| spare.ssh == onto);
    named.ok_or_else(|| ReplaceError::NotSpare {
        lost: lost.ssh.clone(),
        onto: onto.into(),
        spare: machines.spare.iter().map(|m| m.ssh.clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::merge;
    use gaiola_model::config::App;

    /// app1 and db1 on `a`, app2 and db2 on `b`; `m` and `n` are spare.
    fn site() -> Config {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.database = Some(gaiola_model::config::Database::default());
        let servers = [("app1", "a"), ("db1", "a"), ("app2", "b"), ("db2", "b")];
        let servers = servers.map(|(name, on)| (name.parse().unwrap(), Machine::new(on)));
        config.set_machines(Machines {
            servers: servers.into(),
            spare: ["m", "n"].map(Machine::new).into(),
            ..Machines::default()
        });
        config
    }

    fn shown(config: &Config) -> String {
        let machines = config.machines.as_ref().unwrap();
        let servers = machines.servers.iter();
        let servers = servers.map(|(name, on)| format!("{name}={} ", on.ssh));
        let names =
            |all: &[Machine]| -> Vec<String> { all.iter().map(|m| m.ssh.clone()).collect() };
        let (spare, lost) = (names(&machines.spare), names(&machines.lost));
        let servers: String = servers.collect();
        format!(
            "{servers}spare: {} lost: {}",
            spare.join(" "),
            lost.join(" ")
        )
    }

    #[test]
    fn all_servers_of_a_lost_machine_move_to_a_spare_one_and_keep_their_names() {
        let done = replace(&site(), "db2", None).unwrap();
        assert_eq!(
            shown(&done.config),
            "app1=a app2=m db1=a db2=m spare: n lost: b"
        );
        let names: Vec<String> = done.servers.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["app2", "db2"]);
        let onto = replace(&site(), "b", Some("n")).unwrap();
        assert_eq!(
            shown(&onto.config),
            "app1=a app2=n db1=a db2=n spare: m lost: b"
        );
    }

    #[test]
    fn what_cannot_be_replaced_is_told() {
        let why = |what: &str, onto| replace(&site(), what, onto).unwrap_err().to_string();
        assert!(why("db3", None).starts_with("db3 is neither a server"));
        assert!(why("m", None).starts_with("m is a spare machine"));
        assert_eq!(
            why("a", Some("b")),
            "b is no spare machine and cannot take the place of a; spare are m, n"
        );
        let mut config = site();
        config.machines.as_mut().unwrap().spare.clear();
        let why = replace(&config, "a", None).unwrap_err().to_string();
        assert!(why.starts_with("no machine is spare"), "{why}");
        config.machines = None;
        let why = replace(&config, "web1", None).unwrap_err().to_string();
        assert!(why.ends_with("gaiola power on web1"), "{why}");
    }

    #[test]
    fn a_file_that_still_names_the_lost_machine_changes_nothing_and_makes_it_no_spare_one() {
        let (file, after) = (site(), replace(&site(), "b", None).unwrap().config);
        assert_eq!(merge(&file, &after, &file, None), after);
        let mut written = file.clone();
        let machines = written.machines.as_mut().unwrap();
        for on in machines.servers.values_mut().filter(|on| on.ssh == "b") {
            *on = Machine::new("m");
        }
        machines.spare.retain(|spare| spare.ssh != "m");
        assert_eq!(merge(&file, &after, &written, None), after);
        // Emptied, it is a machine as any other.
        let back = readmit(&after, &["b".into()]);
        assert_eq!(
            shown(&merge(&file, &back, &file, None)),
            "app1=a app2=m db1=a db2=m spare: n b lost: "
        );
    }
}
