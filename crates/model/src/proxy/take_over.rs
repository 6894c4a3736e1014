//! What one proxy process hands to the next one, which takes over from it while it finishes what is open.

use super::{Address, Admission, ProxyConfig, TicketKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Everything that a process hands over. After its line follow the counts of all limits, then the sockets, both in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    /// The sockets that follow.
    pub sockets: Vec<HandedSocket>,
    /// What it serves, with the weights and states that were set at run time.
    pub config: Option<ProxyConfig>,
    /// Local addresses whose admission is not `Accept`.
    pub admissions: BTreeMap<IpAddr, Admission>,
    /// Keys of session tickets, the newest first.
    pub tickets: Vec<TicketKey>,
    /// Whether it made them itself.
    pub own_tickets: bool,
    /// The secret that it hashes the keys of limits with, where the configuration has none.
    pub limit_secret: TicketKey,
    /// Its rate limits.
    pub limits: Vec<HandedLimit>,
    /// What it knows of each server.
    pub health: Vec<KnownServer>,
}

/// Copies of a socket's descriptors, or of those that share its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedSocket {
    /// Which.
    pub what: SocketUse,
    /// How many descriptors.
    pub count: usize,
}

/// What a socket is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketUse {
    /// It listens for clients.
    Listener(Address),
    /// It listens for requests for metrics and health.
    Admin(SocketAddr),
    /// It listens for control requests.
    Control(PathBuf),
    /// It receives the peers' counts.
    Peers(SocketAddr),
    /// A pipe that ends with the process that the system knows: then all others end too.
    Lifeline,
}

/// A limit's counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedLimit {
    /// Hash of what it counts and of the secret: limits with the same one count the same.
    pub identity: u64,
    /// How many counts follow.
    pub counts: usize,
}

/// What is known of a member of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownServer {
    /// The backend's name.
    pub backend: String,
    /// The member's.
    pub server: String,
    /// Where it listens.
    pub address: Address,
    /// By its checks and its traffic.
    pub health: KnownHealth,
    /// How long ago it went up or down, or an operator changed its state.
    pub changed_ms: u64,
    /// How long ago it came up again, if it was down.
    pub up_ms: Option<u64>,
    /// How long ago it was seen to have answered a request.
    pub answered_ms: Option<u64>,
}

/// A member's health, with times counted from now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownHealth {
    /// By its checks.
    pub checked: KnownCheck,
    /// Whether and how its traffic ejected it.
    pub ejected: Option<KnownEjection>,
    /// Probes in a row without any reply.
    pub lost: u32,
    /// Time until its next probe.
    pub probe_in_ms: u64,
    /// The last result in words.
    pub reason: String,
}

/// A member's state by its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownCheck {
    /// No probe has ended yet.
    Unproven,
    /// Up, after this many failures in a row.
    Up {
        /// Failures.
        failures: u32,
    },
    /// Down.
    Down {
        /// Successes in a row.
        successes: u32,
        /// What its failed probe showed.
        symptom: Symptom,
    },
}

/// What a failed probe or attempt showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Symptom {
    /// No reply at all: no connection in time, or no route. It is dead, or its listen queue is full.
    Lost,
    /// The connection was refused: nothing listens. If the process died its connections end by themselves; one that
    /// shuts down cleanly may still answer on them.
    Refused,
    /// A connection was accepted and no answer came in time: it is busy, or hangs.
    Silent,
    /// It gave a bad answer, or its connection ended.
    Bad,
}

/// Why a member's traffic ejected it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ejected {
    /// No connection could be made.
    Unreachable,
    /// It accepts connections, but requests failed.
    Errors,
    /// It answers much later than the others.
    Slow,
}

/// An ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownEjection {
    /// Why.
    pub why: Ejected,
    /// Time until it is over.
    pub left_ms: u64,
    /// Ejections in a row before it.
    pub times: u32,
    /// Whether no attempt that led to it had any reply.
    pub lost: bool,
}

/// What the new process uses of what it was handed, once it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenOver {
    /// The listeners that it serves.
    pub listeners: Vec<Address>,
    /// Its control socket.
    pub control: Option<PathBuf>,
}

/// What a limit has counted since it was handed over: its identity; key, window and count of each.
pub type LateCounts = (u64, Vec<(u64, u64, u32)>);
