//! Whether a machine may give its place to another one.

use super::{Facts, View, dated, is_elsewhere};
use crate::words::all_of;
use gaiola_model::inventory::Host;
use gaiola_model::placement::Phase;
use gaiola_model::{Desired, Placement, Revision, ServerName, Tier};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a machine is silent until another one takes its place by itself, where the file says `replace = "auto"`.
pub const GONE: Duration = Duration::from_secs(600);

/// A machine that is to give its place to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving<'a> {
    /// The machine.
    pub host: &'a Host,
    /// Its servers.
    pub servers: &'a BTreeSet<ServerName>,
    /// Whether its process answers the other machines.
    pub answers: bool,
    /// Whether the operator means it also where it is alive.
    pub confirmed: bool,
}

/// Why a machine does not give its place to another one, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceRefused {
    /// It is not lost.
    #[error(
        "{host} still answers{}; it is drained and then emptied with: gaiola replace {host} --yes",
        if live.is_empty() { String::new() } else { format!(", and {live} with it") }
    )]
    Answers {
        /// The machine.
        host: Host,
        /// Its servers that report, in words.
        live: String,
    },
    /// It may have what no other machine has.
    #[error(
        "{server} on {host} may have the last copy of the data: no other database server is primary; \
         switch {host} on again, or wait until a standby has taken over (gaiola status)"
    )]
    LastCopy {
        /// The machine.
        host: Host,
        /// Its database server.
        server: ServerName,
    },
    /// It is alive, and nobody takes its traffic.
    #[error(
        "no {section} server on another machine serves, so {server} cannot be drained; \
         bring one back first (gaiola undrain, gaiola up), or add one (gaiola scale)",
        section = server.tier.section()
    )]
    OnlyOne {
        /// Its server.
        server: ServerName,
    },
    /// Without it the store cannot be changed.
    #[error(
        "{left} of the store's {members} members are up without {host}, which is no majority; bring another machine back first"
    )]
    NoQuorum {
        /// The machine.
        host: Host,
        /// Living members elsewhere.
        left: usize,
        /// All members.
        members: usize,
    },
}

/// Whether a machine may give its place to another one now: no data is lost with it, and the store keeps its majority. One that is
/// alive only where that is meant, and where its traffic has somewhere to go.
///
/// # Errors
/// The first reason why not.
pub fn may_replace(
    leaving: &Leaving<'_>,
    desired: &Desired,
    placement: &Placement,
    at: Revision,
    facts: &Facts,
) -> Result<(), ReplaceRefused> {
    let stored = dated(placement, at);
    let view = View::new(&stored, at, facts);
    let servers = leaving.servers.iter().copied();
    let live: Vec<ServerName> = servers.filter(|it| view.live(*it).is_some()).collect();
    let is_alive = leaving.answers || !live.is_empty();
    if is_alive && !leaving.confirmed {
        let host = leaving.host.clone();
        let live = all_of(&live);
        return Err(ReplaceRefused::Answers { host, live });
    }
    keeps_data(leaving, &view)?;
    if live.is_empty() {
        keeps_quorum(leaving, &view)
    } else {
        has_others(leaving, desired, &view)
    }
}

fn keeps_data(leaving: &Leaving<'_>, view: &View<'_>) -> Result<(), ReplaceRefused> {
    let mut databases = leaving.servers.iter();
    let placed = |server: &&ServerName| {
        server.tier == Tier::Database && view.placement.servers.contains_key(server)
    };
    let Some(server) = databases.find(placed).copied() else {
        return Ok(());
    };
    let primary = view.primary();
    // One that is alive hands over before it goes.
    let is_kept = primary
        .is_some_and(|primary| !leaving.servers.contains(&primary) || view.live(server).is_some());
    let host = leaving.host.clone();
    is_kept
        .then_some(())
        .ok_or(ReplaceRefused::LastCopy { host, server })
}

fn keeps_quorum(leaving: &Leaving<'_>, view: &View<'_>) -> Result<(), ReplaceRefused> {
    let all = &view.placement.store;
    let is_left =
        |member: &&ServerName| !leaving.servers.contains(member) && view.live(**member).is_some();
    let (left, members) = (all.iter().filter(is_left).count(), all.len());
    let host = leaving.host.clone();
    (members == 0 || left > members / 2)
        .then_some(())
        .ok_or(ReplaceRefused::NoQuorum {
            host,
            left,
            members,
        })
}

/// Whether another server of each tier serves, which takes what is drained.
fn has_others(
    leaving: &Leaving<'_>,
    desired: &Desired,
    view: &View<'_>,
) -> Result<(), ReplaceRefused> {
    for server in leaving.servers {
        let is_out =
            |other: &ServerName| leaving.servers.contains(other) || desired.drained.contains(other);
        let mut others = desired.config.servers_of(server.tier);
        let has_other = others.any(|other| !is_out(&other) && view.server_serves(other).is_ok());
        if !has_other && view.live(*server).is_some() {
            return Err(ReplaceRefused::OnlyOne { server: *server });
        }
    }
    Ok(())
}

/// The machine that another one is to replace without an operator, where the file says so: all of its servers have been silent for
/// [`GONE`], no other server is, nothing else is under way, and a machine is spare. The last spare one is kept unless something on the
/// lost machine would not survive another loss.
pub fn due(desired: &Desired, placement: &Placement, at: Revision, facts: &Facts) -> Option<Host> {
    let machines = desired.config.machines.as_ref()?;
    let is_wanted = machines.replace && !machines.spare.is_empty();
    if !is_wanted || facts.store_in_doubt || !is_at_rest(desired, placement) {
        return None;
    }
    let (first, _) = facts.silent_since.first_key_value()?;
    let host = &placement.servers.get(first)?.location.host;
    let on_it = placement.servers.iter();
    let on_it = on_it.filter(|(_, placed)| placed.location.host == *host);
    let servers: BTreeSet<ServerName> = on_it.map(|(name, _)| *name).collect();
    let is_drained = servers.iter().any(|it| desired.drained.contains(it));
    let silent: BTreeSet<ServerName> = facts.silent_since.keys().copied().collect();
    let mut since = facts.silent_since.values();
    let is_gone = silent == servers && since.all(|since| facts.now - *since >= GONE);
    if !is_gone || is_drained {
        return None;
    }
    let stored = dated(placement, at);
    let view = View::new(&stored, at, facts);
    (machines.spare.len() > 1 || !is_redundant(&servers, &view)).then(|| host.clone())
}

/// Whether the servers are those that are wanted, where they are wanted, and none is leaving.
fn is_at_rest(desired: &Desired, placement: &Placement) -> bool {
    let wanted: BTreeSet<ServerName> = desired.config.server_names().collect();
    let is_there = |(name, placed): (&ServerName, &gaiola_model::placement::PlacedServer)| {
        let stays = placed.phase == Phase::Serve || desired.drained.contains(name);
        wanted.contains(name) && stays && !is_elsewhere(desired, placement, *name)
    };
    desired.generation == placement.generation
        && placement.servers.len() == wanted.len()
        && placement.servers.iter().all(is_there)
}

/// Whether what these servers were part of survives the loss of one more: two others of each tier serve, and more members of the store
/// than it needs are left.
fn is_redundant(lost: &BTreeSet<ServerName>, view: &View<'_>) -> bool {
    let serves = |tier: Tier| {
        let all = view.placement.servers.keys();
        let others = all.filter(|it| it.tier == tier && !lost.contains(it));
        others.filter(|it| view.server_serves(**it).is_ok()).count()
    };
    let members = &view.placement.store;
    let left = members.iter().filter(|it| !lost.contains(it)).count();
    let is_store_safe = left == members.len() || left > members.len() / 2 + 1;
    lost.iter().all(|server| serves(server.tier) >= 2) && is_store_safe
}
