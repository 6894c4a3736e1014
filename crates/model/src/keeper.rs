//! What the agent tells the VIP keeper in a file, and what the keeper tells in another.

use crate::vrrp::{Priority, Vrid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The file `keeper.json`: which VIPs this server may hold, and on which interface.
///
/// ```
/// use gaiola_model::keeper::KeeperConfig;
///
/// let text = r#"{
///     "interface": "eth0", "address": "10.77.1.1",
///     "vips": [{"vip": "10.77.0.100", "vrid": 1, "priority": 200}]
/// }"#;
/// let config: KeeperConfig = serde_json::from_str(text).unwrap();
/// assert_eq!(config.interval_ms, 100);
/// assert!(!config.vips[0].preempt);
/// assert_eq!(config.problem(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperConfig {
    /// The interface that the VIPs are added to and VRRP is spoken on.
    pub interface: String,
    /// This server's own address there, from which it advertises.
    pub address: Ipv4Addr,
    /// Secret of the site's keepers in hexadecimal, at least 16 bytes. With one set, advertisements are sealed, and
    /// those without a good seal are ignored. `None`: plain VRRP, as keepalived speaks it.
    #[serde(default)]
    pub key: Option<String>,
    /// Milliseconds between two advertisements, 10 to 40950. Default 100.
    #[serde(default = "default_interval_ms")]
    pub interval_ms: u32,
    /// The VIPs.
    #[serde(default)]
    pub vips: Vec<KeeperVip>,
    /// With `true` no VIP is held here, whatever the data plane does. Default `false`.
    #[serde(default)]
    pub maintenance: bool,
}

/// One VIP that a server may hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperVip {
    /// The virtual address.
    pub vip: Ipv4Addr,
    /// Its virtual router's number, the same on every server.
    pub vrid: Vrid,
    /// This server's priority for it, 1 to 254; the VIP's home has the highest.
    pub priority: Priority,
    /// With `true` a lower router loses the VIP to this one as soon as this one is ready. Default `false`: who has it
    /// keeps it, and the conductor asks it to yield when the home is ready.
    #[serde(default)]
    pub preempt: bool,
    /// Raised by one to ask for the VIP to be handed over: the keeper that holds it lets another take it, without a
    /// gap, and keeps it where no other does. Default 0.
    #[serde(default)]
    pub yields: u64,
    /// With `true` the proxy is about to leave new connections unanswered until its last request in flight has ended:
    /// the keeper keeps their SYNs and passes them on to the next holder. Default `false`.
    #[serde(default)]
    pub holds_back: bool,
}

fn default_interval_ms() -> u32 {
    100
}

impl KeeperConfig {
    /// What makes this configuration unusable, in words; `None`: nothing.
    pub fn problem(&self) -> Option<String> {
        if !(10..=40_950).contains(&self.interval_ms) {
            let found = self.interval_ms;
            return Some(format!("interval_ms is {found}; it must be 10 to 40950"));
        }
        if let Some(vip) = self
            .vips
            .iter()
            .find(|vip| !(1..=254).contains(&vip.priority.0))
        {
            let (vip, found) = (vip.vip, vip.priority);
            return Some(format!(
                "the priority of {vip} is {found}; it must be 1 to 254"
            ));
        }
        self.vips.iter().enumerate().find_map(|(n, vip)| {
            let twice = self.vips[..n]
                .iter()
                .any(|other| other.vip == vip.vip || other.vrid == vip.vrid);
            twice.then(|| format!("{} or its VRID {} is there twice", vip.vip, vip.vrid))
        })
    }
}

/// The file `keeper-state.json`: written anew, as a whole, whenever something in it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperState {
    /// The keeper's process.
    pub pid: u32,
    /// Whether VIPs may be held here.
    pub ready: bool,
    /// Why not, in words; empty when ready.
    pub reason: String,
    /// What is wrong with `keeper.json`, in words; the one before stays in force. Empty: nothing.
    pub config_problem: String,
    /// Every VIP of the configuration.
    pub vips: BTreeMap<Ipv4Addr, VipState>,
    /// Advertisements that were not believed, by reason, since the keeper started.
    pub rejected: BTreeMap<String, u64>,
}

/// One VIP as this server's keeper sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipState {
    /// What this server is to it.
    pub state: VipRole,
    /// Who holds it, by own address; `None` while nobody is heard.
    pub owner: Option<Ipv4Addr>,
    /// When `state` or `owner` changed last, in milliseconds since 1970.
    pub since_ms: u64,
    /// Why it changed, in words.
    pub reason: String,
    /// The last value of `yields` that was obeyed.
    pub yields: u64,
    /// Others were told that the VIP is let go, and none has taken it yet.
    #[serde(default)]
    pub is_yielding: bool,
    /// SYNs are kept, as `holds_back` asks.
    #[serde(default)]
    pub is_holding_back: bool,
    /// Who would take the VIP if it were let go now, by own address: it is heard, it is ready, and it hears this server.
    #[serde(default)]
    pub standby: Option<Ipv4Addr>,
    /// The same one, if its priority is higher than this server's, and it has stood by for long enough that the VIP may
    /// go back to it.
    #[serde(default)]
    pub settled: Option<Ipv4Addr>,
    /// How often this server became Active since the keeper started, by reason (`gaiola_failovers_total`).
    pub takeovers: BTreeMap<String, u64>,
}

/// What a server is to a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VipRole {
    /// It may not hold it now.
    Initialize,
    /// It takes the VIP when nobody else has it.
    Backup,
    /// It holds it.
    Active,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_cannot_work_is_refused_in_words() {
        let good = KeeperConfig {
            interface: "eth0".into(),
            address: Ipv4Addr::new(10, 77, 1, 1),
            key: None,
            interval_ms: 100,
            vips: vec![KeeperVip {
                vip: Ipv4Addr::new(10, 77, 0, 100),
                vrid: Vrid::new(1).unwrap(),
                priority: Priority(200),
                preempt: false,
                yields: 0,
                holds_back: false,
            }],
            maintenance: false,
        };
        assert_eq!(good.problem(), None);
        let mut twice = good.clone();
        twice.vips.push(good.vips[0].clone());
        assert!(twice.problem().unwrap().contains("twice"));
        let mut owner = good.clone();
        owner.vips[0].priority = Priority(255);
        assert!(owner.problem().unwrap().contains("1 to 254"));
        let fast = KeeperConfig {
            interval_ms: 1,
            ..good
        };
        assert!(fast.problem().is_some());
    }
}
