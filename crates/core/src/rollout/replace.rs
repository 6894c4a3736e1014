//! Whether a machine may give its place to another one.

use super::{Facts, View, dated};
use crate::words::all_of;
use gaiola_model::inventory::Host;
use gaiola_model::placement::DoorState;
use gaiola_model::{Desired, Placement, Revision, ServerName, Tier};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

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
    /// The roll-out closes no door while no other one is open.
    #[error(
        "clients enter the site at {door} on {host} and nowhere else; add a {section} server on another machine first: gaiola scale {section}=+MACHINE",
        section = tier.section()
    )]
    OnlyDoor {
        /// The machine.
        host: Host,
        /// Its door.
        door: SocketAddr,
        /// The tier behind it.
        tier: Tier,
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
    // The store's only member moves before it goes.
    if live.is_empty() || view.placement.store.len() > 1 {
        keeps_quorum(leaving, &view)?;
    }
    if live.is_empty() {
        return keeps_door(leaving, &view);
    }
    has_others(leaving, desired, &view)
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
    if !all.iter().any(|member| leaving.servers.contains(member)) {
        return Ok(());
    }
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

/// Whether clients have another way into the site than an address of the machine itself; VIPs move.
fn keeps_door(leaving: &Leaving<'_>, view: &View<'_>) -> Result<(), ReplaceRefused> {
    let placed = leaving.servers.iter();
    let placed = placed.filter_map(|server| view.placement.servers.get(server));
    let own: BTreeSet<IpAddr> = placed.map(|placed| placed.location.address).collect();
    let doors = view.placement.doors.iter();
    let mut open = doors.filter(|(_, door)| door.state == DoorState::Open);
    let is_own = |at: &SocketAddr| own.contains(&at.ip());
    match open.next() {
        Some((at, door)) if is_own(at) && open.all(|(other, _)| is_own(other)) => {
            Err(ReplaceRefused::OnlyDoor {
                host: leaving.host.clone(),
                door: *at,
                tier: door.tier,
            })
        }
        _ => Ok(()),
    }
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
