//! The files through which the agent configures the VIP keeper and the keeper reports to the agent.

use crate::schema;
use crate::vrrp::{Priority, Vrid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

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
/// assert_eq!(config.check(), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperConfig {
    /// The schema that the agent and the keeper write their files in.
    #[serde(default = "schema::unnumbered")]
    pub schema: u64,
    /// The interface for the VIPs and for VRRP.
    pub interface: String,
    /// This server's own address there, the source of its advertisements.
    pub address: IpAddr,
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
    /// How messages travel by UDP; only sealed ones do. `None`: by multicast alone.
    #[serde(default)]
    pub udp: Option<KeeperUdp>,
}

/// How a keeper's messages travel by UDP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperUdp {
    /// The port at this server's address where messages arrive.
    pub port: u16,
    /// Where the other balancers' keepers receive.
    #[serde(default)]
    pub balancers: Vec<SocketAddr>,
    /// Whether one of them would take the VIPs: one that is drained would not.
    #[serde(default)]
    pub has_heir: bool,
    /// Servers that forward messages to the other balancers.
    #[serde(default)]
    pub relays: Vec<SocketAddr>,
    /// With `true` messages go to each of `balancers` too, not only to the multicast group, which not every network passes.
    /// Default `false`.
    #[serde(default)]
    pub unicast: bool,
}

/// One VIP that a server may hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperVip {
    /// The virtual address.
    pub vip: IpAddr,
    /// Its VRID, the same on every server.
    pub vrid: Vrid,
    /// Length of the prefix that the address is added with. Default 32: its network is reached as before. One of IPv6 brings no route, whatever it is.
    #[serde(default = "default_prefix")]
    pub prefix: u8,
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

fn default_prefix() -> u8 {
    32
}

fn default_interval_ms() -> u32 {
    100
}

/// The length of an address in bits.
const fn width(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl KeeperConfig {
    /// Whether this configuration can be used.
    ///
    /// # Errors
    /// The first reason why it cannot.
    pub fn check(&self) -> Result<(), KeeperConfigError> {
        if !(10..=40_950).contains(&self.interval_ms) {
            return Err(KeeperConfigError::Interval(self.interval_ms));
        }
        for (
            n,
            KeeperVip {
                vip,
                vrid,
                prefix,
                priority,
                ..
            },
        ) in self.vips.iter().enumerate()
        {
            if !(1..=width(vip)).contains(prefix) {
                let (vip, found) = (*vip, *prefix);
                return Err(KeeperConfigError::Prefix { vip, found });
            }
            if !(1..=254).contains(&priority.0) {
                let (vip, found) = (*vip, *priority);
                return Err(KeeperConfigError::Priority { vip, found });
            }
            let mut before = self.vips[..n].iter();
            if before.any(|other| other.vip == *vip || other.vrid == *vrid) {
                let (vip, vrid) = (*vip, *vrid);
                return Err(KeeperConfigError::Twice { vip, vrid });
            }
        }
        Ok(())
    }
}

/// Why a keeper's configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeeperConfigError {
    /// No interval that advertisements can have.
    #[error("interval_ms is {0}; it must be 10 to 40950")]
    Interval(u32),
    /// No prefix length of its family.
    #[error("the prefix of {vip} is {found}; it must be 1 to {}", width(vip))]
    Prefix {
        /// The VIP.
        vip: IpAddr,
        /// Its prefix length.
        found: u8,
    },
    /// A priority that VRRP reserves.
    #[error("the priority of {vip} is {found}; it must be 1 to 254")]
    Priority {
        /// The VIP.
        vip: IpAddr,
        /// Its priority.
        found: Priority,
    },
    /// An address or VRID that an earlier VIP has.
    #[error("{vip} or its VRID {vrid} is there twice")]
    Twice {
        /// The VIP.
        vip: IpAddr,
        /// Its VRID.
        vrid: Vrid,
    },
}

/// In JSON, words that may be missing are a string, which is empty then.
mod words {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        words: &Option<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(words.as_deref().unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        let words = String::deserialize(deserializer)?;
        Ok(Some(words).filter(|words| !words.is_empty()))
    }
}

/// The file `keeper-state.json`: rewritten as a whole whenever something in it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperState {
    /// The schema that it is written in: the configuration's.
    #[serde(default = "schema::unnumbered")]
    pub schema: u64,
    /// The newest schema that the keeper reads.
    #[serde(default = "schema::unnumbered")]
    pub reads: u64,
    /// The keeper's process id.
    pub pid: u32,
    /// Whether VIPs may be held here.
    pub ready: bool,
    /// Why not, in words; `None` when ready.
    #[serde(with = "words")]
    pub reason: Option<String>,
    /// What is wrong with `keeper.json`, in words; the previous one stays in force.
    #[serde(with = "words")]
    pub config_problem: Option<String>,
    /// Every VIP of the configuration.
    pub vips: BTreeMap<IpAddr, VipState>,
    /// Rejected advertisements, by reason, since the keeper started.
    pub rejected: BTreeMap<String, u64>,
}

/// One VIP as this server's keeper sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipState {
    /// This server's role for it.
    pub state: VipRole,
    /// Address of its holder; `None` while none is heard.
    pub owner: Option<IpAddr>,
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
    pub standby: Option<IpAddr>,
    /// The same one, if its priority is higher than this server's and it has stood by for long enough that the VIP may
    /// go back to it.
    #[serde(default)]
    pub settled: Option<IpAddr>,
    /// How often this server became Active since the keeper started, by reason (`gaiola_failovers_total`).
    pub takeovers: BTreeMap<String, u64>,
    /// How often this server took the VIP, or kept it against another holder: each time `vip_command` is run again.
    #[serde(default)]
    pub claims: u64,
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
    use std::net::Ipv4Addr;

    #[test]
    fn a_configuration_that_cannot_work_is_refused_in_words() {
        let good = KeeperConfig {
            schema: schema::SCHEMA,
            interface: "eth0".into(),
            address: IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1)),
            key: None,
            interval_ms: 100,
            vips: vec![KeeperVip {
                vip: IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100)),
                vrid: Vrid::new(1).unwrap(),
                prefix: 32,
                priority: Priority(200),
                preempt: false,
                yields: 0,
                holds_back: false,
            }],
            maintenance: false,
            udp: None,
        };
        assert_eq!(good.check(), Ok(()));
        let mut twice = good.clone();
        twice.vips.push(good.vips[0].clone());
        let problem = |config: &KeeperConfig| config.check().unwrap_err().to_string();
        assert!(problem(&twice).contains("twice"));
        let mut owner = good.clone();
        owner.vips[0].priority = Priority(255);
        assert!(problem(&owner).contains("1 to 254"));
        let fast = KeeperConfig {
            interval_ms: 1,
            ..good
        };
        assert_eq!(fast.check(), Err(KeeperConfigError::Interval(1)));
    }

    #[test]
    fn words_that_are_missing_are_an_empty_string_in_json() {
        let state = KeeperState {
            reason: Some("maintenance".into()),
            ..KeeperState::default()
        };
        let json = serde_json::to_value(&state).unwrap();
        assert_eq!(
            (&json["reason"], &json["config_problem"]),
            (&"maintenance".into(), &"".into())
        );
        assert_eq!(serde_json::from_value::<KeeperState>(json).unwrap(), state);
    }
}
