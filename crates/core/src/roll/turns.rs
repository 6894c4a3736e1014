//! Which machines have a turn, in which order, and what is drained for it.

use crate::words::all_of;
use gaiola_model::inventory::Host;
use gaiola_model::status::{ServerState, ServerStatus, Status};
use gaiola_model::{ServerName, Tier};
use std::collections::{BTreeMap, BTreeSet};

/// What a machine is set aside for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Whatever the operator's command does: nothing on it serves meanwhile.
    Command,
    /// Another version of Gaiola: its proxies take over from each other, its agents adopt what runs, and a VIP stays while its keeper is
    /// exchanged; only PostgreSQL stops, with its keeper.
    Upgrade,
}

/// One machine's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The machine; in the lab the server's name.
    pub host: Host,
    /// The servers on it.
    pub servers: Vec<ServerName>,
    /// Those of them that are drained for it.
    pub drain: BTreeSet<ServerName>,
    /// Those of them that stop serving and have no other of their tier: this interrupts the site.
    pub alone: Vec<ServerName>,
}

/// Why there is no turn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTurn {
    /// Each with what is missing.
    #[error("the site is not healthy, and one machine less might interrupt it: {}", .0.join("; "))]
    NotHealthy(Vec<String>),
    /// A word of the command line.
    #[error("{word} is no tier, server or machine of the site; there are {}", all_of(.known))]
    Unknown {
        /// The word.
        word: String,
        /// The words that there are.
        known: Vec<String>,
    },
    /// A machine that has no turn was left set aside.
    #[error("{host} is still set aside by {by}: name it too, or end that with gaiola undrain")]
    Aside {
        /// The machine.
        host: Host,
        /// By what.
        by: String,
    },
}

/// The turns of the machines that `words` name (tiers, servers, machines; none: all), in this order: one that an earlier command left set
/// aside, then spare machines, then the others, the primary's last, so that the database switches over once.
///
/// `machines`: the site stands on machines; in the lab each server has a turn of its own.
///
/// # Errors
/// Where nothing may begin.
pub fn turns(
    status: &Status,
    machines: bool,
    spare: &[Host],
    words: &[String],
    purpose: Purpose,
) -> Result<Vec<Turn>, NoTurn> {
    if !status.healthy {
        return Err(NoTurn::NotHealthy(status.missing.clone()));
    }
    let mut standing: BTreeMap<Host, Vec<&ServerStatus>> = BTreeMap::new();
    standing.extend(spare.iter().map(|host| (host.clone(), Vec::new())));
    for server in &status.servers {
        let host = host_of(server, machines);
        standing.entry(host).or_default().push(server);
    }
    let chosen = chosen(&standing, words)?;
    let mut all: Vec<Turn> = standing
        .iter()
        .filter(|(host, _)| chosen.contains(*host))
        .map(|(host, servers)| turn(host, servers, status, machines, purpose))
        .collect();
    let aside = status.aside.as_ref();
    if let Some(aside) = aside.filter(|aside| !chosen.contains(&aside.host)) {
        return Err(NoTurn::Aside {
            host: aside.host.clone(),
            by: aside.by.clone(),
        });
    }
    let is_aside = |turn: &Turn| aside.is_some_and(|aside| aside.host == turn.host);
    let has_primary =
        |turn: &Turn| (status.primary).is_some_and(|primary| turn.servers.contains(&primary));
    all.sort_by_key(|turn| (!is_aside(turn), !turn.servers.is_empty(), has_primary(turn)));
    Ok(all)
}

/// What a server shares its fate with.
fn host_of(server: &ServerStatus, machines: bool) -> Host {
    if machines {
        server.location.host.clone()
    } else {
        Host(server.name.to_string())
    }
}

fn chosen(
    standing: &BTreeMap<Host, Vec<&ServerStatus>>,
    words: &[String],
) -> Result<BTreeSet<Host>, NoTurn> {
    if words.is_empty() {
        return Ok(standing.keys().cloned().collect());
    }
    let mut chosen = BTreeSet::new();
    for word in words {
        let means = |(host, servers): &(&Host, &Vec<&ServerStatus>)| {
            let mut names = servers.iter();
            let of_it = |server: &&ServerStatus| {
                server.name.to_string() == *word || server.tier.section() == word
            };
            host.0 == *word || names.any(of_it)
        };
        let meant: Vec<Host> = (standing.iter().filter(means))
            .map(|(host, _)| host.clone())
            .collect();
        if meant.is_empty() {
            let word = word.clone();
            let known = known(standing);
            return Err(NoTurn::Unknown { word, known });
        }
        chosen.extend(meant);
    }
    Ok(chosen)
}

fn known(standing: &BTreeMap<Host, Vec<&ServerStatus>>) -> Vec<String> {
    let servers = || standing.values().flatten();
    let tiers: BTreeSet<Tier> = servers().map(|server| server.tier).collect();
    let mut known: Vec<String> = tiers
        .iter()
        .map(|tier| tier.section().to_string())
        .collect();
    known.extend(servers().map(|server| server.name.to_string()));
    let hosts = standing.keys().map(|host| host.0.clone());
    let hosts: Vec<String> = hosts.filter(|host| !known.contains(host)).collect();
    known.extend(hosts);
    known
}

fn turn(
    host: &Host,
    servers: &[&ServerStatus],
    status: &Status,
    machines: bool,
    purpose: Purpose,
) -> Turn {
    let mut turn = Turn {
        host: host.clone(),
        servers: servers.iter().map(|server| server.name).collect(),
        drain: BTreeSet::new(),
        alone: Vec::new(),
    };
    let stops = |server: &&&ServerStatus| match purpose {
        Purpose::Command => true,
        Purpose::Upgrade => server.tier == Tier::Database,
    };
    // What is set aside serves again before the next turn.
    let is_aside = |server: &ServerStatus| {
        let aside = status.aside.as_ref();
        aside.is_some_and(|aside| aside.servers.contains(&server.name))
    };
    for server in servers.iter().filter(stops) {
        let replaces = |other: &&ServerStatus| {
            let serves = other.state.serves() || is_aside(other);
            other.tier == server.tier && serves && host_of(other, machines) != *host
        };
        // What the operator drained before is neither drained for this, nor returned to traffic afterwards.
        let is_drained = matches!(server.state, ServerState::Draining | ServerState::Drained);
        match status.servers.iter().any(|other| replaces(&other)) {
            _ if is_drained && !is_aside(server) => {}
            true => _ = turn.drain.insert(server.name),
            false => turn.alone.push(server.name),
        }
    }
    turn
}
