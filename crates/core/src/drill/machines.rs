//! A drill on machines: which machines the harm is done on, how, and what else it hits.

use super::target::Target;
use gaiola_model::ServerName;
use gaiola_model::inventory::{Host, Location};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How long after a held fault's span a machine undoes it by itself.
const GRACE: Duration = Duration::from_secs(10);
/// After how long a machine starts again by itself what a drill has killed: longer than a drill may take.
const KILLED_FOR: Duration = Duration::from_secs(300);

/// What is done on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineHarm {
    /// The harm.
    pub target: Target,
    /// Addresses of other machines that are cut off together with this one, and still reach it.
    pub together: Vec<IpAddr>,
    /// After how many seconds the machine undoes it by itself.
    pub for_s: u64,
}

/// What is done on which machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineHarms {
    /// By machine.
    pub machines: BTreeMap<Host, MachineHarm>,
    /// For the report: how it is done, and what else it hits.
    pub notes: Vec<String>,
}

/// A drill that is not done on machines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOnMachines {
    /// Others share the disk.
    #[error(
        "{0} is possible in the lab only: a machine's disk is shared by everything on it, ssh and its journal too"
    )]
    Fill(Target),
    /// Nothing knows where it stands.
    #[error("there is no {0}")]
    Unknown(ServerName),
}

/// What a target is on machines. `power`: the file has a command that switches machines off and on.
///
/// # Errors
/// Where it is not possible.
pub fn on_machines(
    target: &Target,
    servers: &BTreeMap<ServerName, Location>,
    hold: Duration,
    power: bool,
) -> Result<MachineHarms, NotOnMachines> {
    if matches!(target, Target::Fill(_)) {
        return Err(NotOnMachines::Fill(target.clone()));
    }
    let named = target.servers();
    let mut harmed: BTreeMap<Host, IpAddr> = BTreeMap::new();
    for server in &named {
        let location = servers.get(server).ok_or(NotOnMachines::Unknown(*server))?;
        harmed.insert(location.host.clone(), location.address);
    }
    let span = if target.is_held() {
        hold + GRACE
    } else {
        KILLED_FOR
    };
    let on = |host: &Host| {
        let others = harmed.iter().filter(|(other, _)| *other != host);
        MachineHarm {
            target: target.clone(),
            together: others.map(|(_, address)| *address).collect(),
            for_s: span.as_secs(),
        }
    };
    let mut notes: Vec<String> = how(target, &harmed, power).into_iter().collect();
    notes.extend(also_hit(target, &named, servers));
    Ok(MachineHarms {
        machines: harmed.keys().map(|host| (host.clone(), on(host))).collect(),
        notes,
    })
}

/// How the power is cut.
fn how(target: &Target, harmed: &BTreeMap<Host, IpAddr>, power: bool) -> Option<String> {
    let Target::Power(_) = target else {
        return None;
    };
    let machine = harmed.keys().next()?;
    Some(if power {
        format!("{machine} was switched off by the command of [machines] power")
    } else {
        format!(
            "{machine} was cut off from the network and everything of the site on it was killed; name a command in [machines] power to switch it off instead"
        )
    })
}

/// Servers that stand on a harmed machine and are harmed with it.
fn also_hit(
    target: &Target,
    named: &[ServerName],
    servers: &BTreeMap<ServerName, Location>,
) -> Option<String> {
    if !is_of_machine(target) {
        return None;
    }
    let harmed: BTreeSet<&Host> = named
        .iter()
        .filter_map(|server| Some(&servers.get(server)?.host))
        .collect();
    let others: Vec<String> = servers
        .iter()
        .filter(|(server, at)| harmed.contains(&at.host) && !named.contains(server))
        .map(|(server, at)| format!("{server} on {}", at.host))
        .collect();
    (!others.is_empty()).then(|| format!("harmed with it: {}", others.join(", ")))
}

/// Whether it is done to a whole machine, with all servers on it.
const fn is_of_machine(target: &Target) -> bool {
    matches!(
        target,
        Target::Power(_) | Target::Cut(_) | Target::Mute(_) | Target::Deaf(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> BTreeMap<ServerName, Location> {
        let all = [("lb1", "a", 1), ("app1", "a", 1), ("db1", "b", 2)];
        let at = |(name, host, last): (&str, &str, u8)| {
            let mut location = Location::at([10, 0, 0, last].into());
            location.host = Host(host.into());
            (name.parse().unwrap(), location)
        };
        all.map(at).into()
    }

    fn harms(target: &str, power: bool) -> MachineHarms {
        let target = target.parse().unwrap();
        on_machines(&target, &servers(), Duration::from_secs(30), power).unwrap()
    }

    #[test]
    fn servers_that_are_cut_off_together_reach_each_other() {
        let harms = harms("cut app1,db1", false);
        let together: Vec<_> = harms
            .machines
            .iter()
            .map(|(host, harm)| (host.0.as_str(), harm.together[0].to_string()))
            .collect();
        assert_eq!(
            together,
            [("a", "10.0.0.2".into()), ("b", "10.0.0.1".into())]
        );
        assert_eq!(harms.notes, ["harmed with it: lb1 on a"]);
        let for_s = harms.machines.values().map(|harm| harm.for_s);
        assert_eq!(for_s.collect::<Vec<_>>(), [40, 40]);
    }

    #[test]
    fn it_is_said_how_the_power_is_cut() {
        let by_command = harms("power db1", true).notes;
        assert_eq!(
            by_command,
            ["b was switched off by the command of [machines] power"]
        );
        let without = harms("power lb1", false).notes;
        assert!(without[0].starts_with("a was cut off from the network and everything of"));
        assert_eq!(without[1], "harmed with it: app1 on a");
    }

    #[test]
    fn what_is_done_to_processes_hits_no_other_server() {
        for target in ["kill lb1", "kill app1/app", "freeze lb1"] {
            let harms = harms(target, false);
            assert_eq!((harms.notes, harms.machines.len()), (Vec::new(), 1));
        }
    }

    #[test]
    fn a_disk_is_not_filled() {
        let refused = |target: &str| {
            let target = target.parse().unwrap();
            on_machines(&target, &servers(), Duration::ZERO, false)
                .unwrap_err()
                .to_string()
        };
        assert!(refused("fill db1").starts_with("fill db1 is possible in the lab only"));
        assert_eq!(refused("cut db7"), "there is no db7");
    }
}
