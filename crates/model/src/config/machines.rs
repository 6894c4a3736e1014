//! The machines of a site: which machine each server stands on, and which are spare.

use crate::id::{Host, ServerName, Tier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// `servers` of every tier as a list, and `[machines]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machines {
    /// The machine of each server. Several servers may stand on one machine.
    pub servers: BTreeMap<ServerName, Machine>,
    /// Machines that are prepared and have no server, in the order in which they are taken.
    #[serde(default)]
    pub spare: Vec<Machine>,
    /// Machines that gave their place to another one for good, the newest last: the site accepts nothing of theirs. No file has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Machine>,
    /// How long a machine is gone until a spare one takes its place without an operator, who may do it at any time. `None`: only an
    /// operator does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_after: Option<Duration>,
    /// The operator's command that switches a machine off or on, for drills. The site does not keep it.
    #[serde(skip)]
    pub power: Option<String>,
    /// Whether only the site's machines may connect to its inner ports. Default true.
    #[serde(default = "yes")]
    pub firewall: bool,
    /// Whether the tiers speak mutual TLS with each other. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypt: bool,
}

const fn yes() -> bool {
    true
}

impl Default for Machines {
    fn default() -> Self {
        Self {
            servers: BTreeMap::new(),
            spare: Vec::new(),
            lost: Vec::new(),
            replace_after: None,
            firewall: yes(),
            encrypt: false,
            power: None,
        }
    }
}

/// A machine as the file names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What `ssh` takes: a name, `user@host`, an alias of the operator's configuration. It is the machine's name too.
    pub ssh: String,
    /// The address that other servers use. Default: what the name resolves to; the command line fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The interface that VIPs are added to. Default: the one that has the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

impl Machine {
    /// A machine of which the file says only this.
    pub fn new(ssh: impl Into<String>) -> Self {
        Self {
            ssh: ssh.into(),
            address: None,
            interface: None,
        }
    }

    /// Whether it is the same machine at the same address: a server stays on it.
    pub fn is_where(&self, other: &Self) -> bool {
        (&self.ssh, self.address) == (&other.ssh, other.address)
    }

    /// The name under which the site knows it.
    pub fn host(&self) -> Host {
        Host(self.ssh.clone())
    }
}

impl Machines {
    /// [`replace_after`](Self::replace_after) where the file says `replace = "auto"` alone.
    pub const REPLACE_AFTER: Duration = Duration::from_secs(600);

    /// Every machine once: those with servers in the order of their servers, then the spare ones.
    pub fn all(&self) -> Vec<&Machine> {
        let mut all: Vec<&Machine> = Vec::new();
        for machine in self.servers.values().chain(&self.spare) {
            if all.iter().all(|other| other.ssh != machine.ssh) {
                all.push(machine);
            }
        }
        all
    }

    /// The machine with this name.
    pub fn find(&self, ssh: &str) -> Option<&Machine> {
        let mut all = self.servers.values().chain(&self.spare);
        all.find(|machine| machine.ssh == ssh)
    }

    /// Whether the machine with this name gave its place to another one, and is not in use again.
    pub fn is_lost(&self, host: &Host) -> bool {
        self.lost.iter().any(|lost| lost.ssh == host.0) && self.find(&host.0).is_none()
    }

    /// Whether a server stands on the machine with this name.
    pub fn has_server(&self, ssh: &str) -> bool {
        self.servers.values().any(|machine| machine.ssh == ssh)
    }

    /// The machines of one tier, in the order of its servers.
    pub fn of(&self, tier: Tier) -> impl Iterator<Item = (ServerName, &Machine)> {
        let servers = self.servers.iter().map(|(name, machine)| (*name, machine));
        servers.filter(move |(name, _)| name.tier == tier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_several_servers_is_one_machine() {
        let (one, two) = (Machine::new("one"), Machine::new("two"));
        let servers = [("lb1", &one), ("web1", &one), ("app1", &two)];
        let servers = servers.map(|(name, machine)| (name.parse().unwrap(), machine.clone()));
        let machines = Machines {
            servers: servers.into(),
            spare: vec![Machine::new("three")],
            ..Machines::default()
        };
        let names: Vec<&str> = machines.all().iter().map(|m| m.ssh.as_str()).collect();
        assert_eq!(names, ["one", "two", "three"]);
        let web: Vec<ServerName> = machines.of(Tier::Web).map(|(name, _)| name).collect();
        assert_eq!(web, ["web1".parse().unwrap()]);
    }
}
