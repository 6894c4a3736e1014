//! `gaiola doctor`: whether machines can carry a site, judged from what they say of themselves.
//!
//! Nothing here changes a machine. A finding that is [`Severity::Refused`] is one with which `up` could not succeed.

mod facts;
mod judge;
mod ports;

pub use facts::{ClockOffset, Facts, Service, UsedPort, Version};
pub use judge::judge;

use gaiola_model::inventory::{Host, Inventory, Ports};
use gaiola_model::{Config, ServerName, SiteName, Tier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What is expected of the machines of a site.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The site.
    pub site: SiteName,
    /// The architecture of the operator's program, as `uname -m` has it: the machines get this very program.
    pub architecture: String,
    /// Each machine, in the order of the file.
    pub machines: Vec<ExpectedMachine>,
    /// Addresses and ports at which the balancers serve.
    pub entries: Vec<(IpAddr, u16)>,
    /// Whether the site has a database tier.
    pub database: bool,
    /// Whether instances listen on the loopback, behind a proxy that speaks TLS.
    pub encrypted: bool,
}

/// What is expected of one machine.
#[derive(Clone, Debug)]
pub struct ExpectedMachine {
    /// The machine.
    pub host: Host,
    /// The address that the others use.
    pub address: IpAddr,
    /// The interface that the file names.
    pub interface: Option<String>,
    /// Its servers and their ports; none: it is spare.
    pub servers: Vec<(ServerName, Ports)>,
    /// Whether the running site counts on it already: it may be away for a while.
    pub is_known: bool,
}

impl ExpectedMachine {
    fn has(&self, tier: Tier) -> bool {
        self.servers.iter().any(|(name, _)| name.tier == tier)
    }

    fn is_spare(&self) -> bool {
        self.servers.is_empty()
    }
}

impl Expected {
    /// What a site expects of its machines. `known`: those that the running site counts on. Without machines nothing is expected.
    pub fn of(config: &Config, architecture: &str, known: &[Host]) -> Self {
        let all = config.machines.iter().flat_map(|machines| machines.all());
        let named = config.machines.iter().flat_map(|m| &m.servers);
        let addressed = named.filter_map(|(name, machine)| Some((*name, machine.address?)));
        let ports: BTreeMap<_, _> = Inventory::at_addresses(addressed);
        let machines = all.filter_map(|machine| {
            let address = machine.address?;
            let here = ports.iter().filter(|(_, at)| at.address == address);
            Some(ExpectedMachine {
                host: machine.host(),
                address,
                interface: machine.interface.clone(),
                servers: here.map(|(name, at)| (*name, at.ports)).collect(),
                is_known: known.contains(&machine.host()),
            })
        });
        let own = ports.iter().filter(|(name, _)| name.tier == Tier::Balancer);
        let own: Vec<IpAddr> = own.map(|(_, at)| at.address).collect();
        let balancer = config.balancer.iter();
        let entries = balancer.flat_map(|balancer| {
            let addresses = match balancer.vips() {
                [] => &own,
                vips => vips,
            };
            let addresses = addresses.iter();
            addresses.flat_map(|at| balancer.ports().map(|port| (*at, port)))
        });
        Self {
            site: config.site.clone(),
            architecture: architecture.into(),
            machines: machines.collect(),
            entries: entries.collect(),
            database: config.database.is_some(),
            encrypted: config.encrypts(),
        }
    }
}

/// What was found on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// What it says of itself.
    Facts(Box<Facts>),
    /// It could not be asked.
    NotAsked {
        /// Why.
        why: String,
        /// What to do.
        remedy: String,
        /// Whether it may be away: it did not answer at all.
        is_away: bool,
    },
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is to be done.
    Fine,
    /// `up` goes on; the operator should know.
    Warning,
    /// `up` could not succeed.
    Refused,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The machine.
    pub machine: Host,
    /// How much it matters.
    pub severity: Severity,
    /// What was found.
    pub finding: String,
    /// What to do; may be empty.
    pub remedy: String,
}

/// Whether `up` could succeed.
pub fn is_ready(findings: &[Finding]) -> bool {
    findings.iter().all(|it| it.severity < Severity::Refused)
}

/// One line per finding: machine, finding, what to do.
pub fn render(findings: &[Finding]) -> String {
    let widest = |of: fn(&Finding) -> &str| {
        let lengths = findings.iter().map(|it| of(it).chars().count());
        lengths.max().unwrap_or(0)
    };
    let machine = widest(|it| &it.machine.0);
    let mut text = String::new();
    for it in findings {
        let mark = match it.severity {
            Severity::Fine => "ok",
            Severity::Warning => "warning",
            Severity::Refused => "refused",
        };
        let remedy = match it.remedy.as_str() {
            "" => String::new(),
            remedy => format!(": {remedy}"),
        };
        let (host, what) = (&it.machine.0, &it.finding);
        text.push_str(&format!("{host:<machine$}  {mark:<7}  {what}{remedy}\n"));
    }
    text
}

#[cfg(test)]
mod tests;
