//! The files through which the agent configures the VIP keeper and the keeper reports to the agent.

use crate::schema;
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
    /// The schema that the agent and the keeper write their files in.
    #[serde(default = "schema::unnumbered")]
    pub schema: u64,
    /// The interface for the VIPs and for VRRP.
    pub interface: String,
    /// This server's own address there, the source of its advertisements.
    pub address: Ipv4Addr,
    /// Secret of the site's keepers in hexadecimal, at least 16 bytes. If set, advertisements are sealed, and those
    /// without a valid seal are ignored. `None`: plain VRRP, compatible with keepalived.
    #[serde(default)]
    pub key: Option<String>,
    /// Advertisement interval in milliseconds, 10 to 40950. Default 100.
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
    /// Its VRID, the same on every server.
    pub vrid: Vrid,
    /// This server's priority for it, 1 to 254; the VIP's home has the highest.
    pub priority: Priority,
    /// With `true` this router takes the VIP from a lower one as soon as it is ready. Default `false`: the holder keeps
    /// it, and the conductor asks it to yield when the home is ready.
    #[serde(default)]
    pub preempt: bool,
    /// Raised by one to request a hand-over: the keeper that holds the VIP lets another take it, without a gap, and
    /// keeps it if nobody does. Default 0.
    #[serde(default)]
    pub yields: u64,
    /// With `true` the proxy is about to leave new connections unanswered until its last request in flight has ended:
    /// the keeper queues their SYNs and forwards them to the next holder. Default `false`.
    #[serde(default)]
    pub holds_back: bool,
}

fn default_interval_ms() -> u32 {
    100
}

impl KeeperConfig {
    /// Why this configuration is unusable, in words; `None`: it is usable.
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

/// The file `keeper-state.json`: rewritten as a whole whenever something in it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperState {
    /// The schema that it is written in: the configuration's.
    #[serde(default = "schema::unnumbered")]
    pub schema: u64,
    /// The keeper's process id.
    pub pid: u32,
    /// Whether VIPs may be held here.
    pub ready: bool,
    /// Why not, in words; empty when ready.
    pub reason: String,
    /// What is wrong with `keeper.json`, in words; the previous one stays in force. Empty: nothing.
    pub config_problem: String,
    /// Every VIP of the configuration.
    pub vips: BTreeMap<Ipv4Addr, VipState>,
    /// Rejected advertisements, by reason, since the keeper started.
    pub rejected: BTreeMap<String, u64>,
}

/// One VIP as this server's keeper sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipState {
    /// This server's role for it.
    pub state: VipRole,
    /// Address of its holder; `None` while none is heard.
    pub owner: Option<Ipv4Addr>,
    /// When `state` or `owner` changed last, in milliseconds since 1970.
    pub since_ms: u64,
    /// Why it changed, in words.
    pub reason: String,
    /// The last value of `yields` that was carried out.
    pub yields: u64,
    /// The release of the VIP was announced, and nobody has taken it yet.
    #[serde(default)]
    pub is_yielding: bool,
    /// SYNs are being queued, as `holds_back` requests.
    #[serde(default)]
    pub is_holding_back: bool,
    /// Address of the router that would take the VIP if it were released now: it is heard, ready, and hears this
    /// server.
    #[serde(default)]
    pub standby: Option<Ipv4Addr>,
    /// The same one, if its priority is higher than this server's and it has stood by for long enough that the VIP may
    /// go back to it.
    #[serde(default)]
    pub settled: Option<Ipv4Addr>,
    /// How often this server became Active since the keeper started, by reason (`gaiola_failovers_total`).
    pub takeovers: BTreeMap<String, u64>,
}

/// A server's role for a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VipRole {
    /// It may not hold it now.
    Initialize,
    /// It takes the VIP if nobody else has it.
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
            schema: schema::SCHEMA,
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
