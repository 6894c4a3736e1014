//! The site's status for `gaiola status`: what is observed, what is missing, and what would not survive a loss.

mod crons;
mod may_fail;
mod render;
mod seen;

pub use render::{render, workers_in_words};

use crate::resources;
use crate::rollout::{self, Facts, View, dated, settled};
use crate::topology;
use crate::words::all_of;
use gaiola_model::placement::{
    Aside, DatabaseRole, InstanceState, Maintenance, ObservedDatabase, Phase, PlacedServer,
};
use gaiola_model::resources::Resources;
use gaiola_model::status::{
    Generation, InstanceStatus, MaintenanceStatus, MayFail, ReleaseStatus, SCHEMA, ServerState,
    ServerStatus, Status, VipStatus, WorkerStatus,
};
use gaiola_model::{Desired, InstanceName, Placement, Revision, ServerName, Tier};
use may_fail::may_fail;
use seen::ServingState;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The status of a site under `placement`, which the store holds at revision `at`, given these facts.
///
/// The caller adds events. The store's quorum is not judged here: without one there are no facts.
pub fn status(desired: &Desired, placement: &Placement, at: Revision, facts: &Facts) -> Status {
    let placement = &dated(placement, at);
    let view = View::new(placement, at, facts);
    let left = resources::findings(placement.servers.keys().filter_map(|name| {
        let observed = view.live(*name)?;
        Some((*name, &observed.resources))
    }));
    let mut missing = settled(desired, placement, at, facts)
        .err()
        .unwrap_or_default();
    missing.extend(left.faults);
    without_consequences(&mut missing);
    let next = rollout::next(desired, placement, at, facts);
    let store = store(desired, facts);
    let mut warnings = left.warnings;
    warnings.extend(
        placement
            .servers
            .keys()
            .flat_map(|name| unlimited(&view, *name)),
    );
    warnings.extend(desired.aside.as_ref().map(aside));
    warnings.extend(crons::warnings(placement));
    warnings.extend(desired.maintenance.as_ref().map(maintenance));
    let servers = placement.servers.iter();
    let servers = servers
        .map(|(name, placed)| server(&view, *name, placed, &store))
        .collect();
    let vips = placement.vips.iter();
    let vips = vips.map(|(vip, home)| VipStatus {
        address: *vip,
        home: *home,
        owners: view.owners(*vip),
    });
    Status {
        schema: SCHEMA,
        site: placement.config.site.clone(),
        healthy: missing.is_empty(),
        missing,
        warnings,
        may_fail: may_fail(&view, &store),
        waiting: next
            .waiting
            .into_iter()
            .map(|waiting| waiting.text)
            .collect(),
        failed: next.failed.map(|failure| failure.reason),
        generation: Generation {
            desired: desired.generation,
            placed: placement.generation,
            revision: at,
        },
        release: releases(desired, placement),
        servers,
        crons: crons::all(placement, facts.wall),
        vips: vips.collect(),
        primary: view.primary(),
        store,
        doors: topology::front_door(placement),
        aside: desired.aside.clone(),
        maintenance: desired.maintenance.as_ref().map(|on| MaintenanceStatus {
            since: on.since.clone(),
            by: on.by.clone(),
            allow: on.allow.clone(),
        }),
        documents: placement.schema,
        events: Vec::new(),
    }
}

/// Limits of processes that do not hold on a server, in words.
fn unlimited(view: &View<'_>, server: ServerName) -> Vec<String> {
    let observed = view.live(server).map(|observed| &observed.unlimited);
    let words = observed.into_iter().flatten();
    words.map(|why| format!("{server}: {why}")).collect()
}

/// A machine that is set aside, in words.
fn aside(aside: &Aside) -> String {
    let Aside { host, servers, by } = aside;
    let drained: Vec<ServerName> = servers.iter().copied().collect();
    let drained = match drained.as_slice() {
        [] => String::new(),
        all => format!(" ({})", all_of(all)),
    };
    format!(
        "{host} is set aside{drained} by {by}: where that no longer runs, run it again, or end it with gaiola undrain"
    )
}

/// Maintenance, in words.
fn maintenance(on: &Maintenance) -> String {
    let Maintenance {
        since, by, allow, ..
    } = on;
    let allowed = match allow.as_slice() {
        [] => String::new(),
        all => format!(", except those from {}", all_of(all)),
    };
    format!(
        "maintenance is on since {since} by {by}: clients get 503{allowed}; end it with: gaiola maintenance off"
    )
}

/// Removes entries that follow from another one: `web1 waits for lb2, which is silent` beside `lb2 is silent`.
fn without_consequences(missing: &mut Vec<String>) {
    let all: BTreeSet<String> = missing.iter().cloned().collect();
    missing.retain(|text| {
        let mut links = [" waits for ", " is on "].into_iter();
        !links.any(|link| {
            let cause = text
                .split_once(link)
                .and_then(|(_, rest)| rest.split_once(", which "));
            cause.is_some_and(|(whose, why)| all.contains(&format!("{whose} {why}")))
        })
    });
}

/// Marks servers that are switched off, and counts them as missing: their last reports outlive them by a lease.
pub fn mark_off(status: &mut Status, off: &BTreeSet<ServerName>) {
    for server in &mut status.servers {
        if off.contains(&server.name) {
            server.state = ServerState::Lost;
            server.reason = "is switched off".into();
            add_missing(&mut status.missing, server.name, &server.reason);
        }
    }
    status.healthy = status.missing.is_empty();
}

/// Adds a server that is missing, unless something is said of it already.
fn add_missing(missing: &mut Vec<String>, server: ServerName, why: &str) {
    let is_reported = |text: &String| text.starts_with(&format!("{server} "));
    if !missing.iter().any(is_reported) {
        missing.push(format!("{server} {why}"));
    }
}

/// Marks servers whose processes have not answered recently, each with the process and for how long.
///
/// Agents publish only changes, so the store's entry for a hung server seems current.
pub fn mark_silent(status: &mut Status, silent: &BTreeMap<ServerName, Silence>) {
    for server in &mut status.servers {
        let Some(silence) = silent.get(&server.name) else {
            continue;
        };
        let seconds = silence.since.as_secs();
        let why = match silence.of {
            Silent::Agent => {
                format!("has not answered for {seconds} s, so its last report is outdated")
            }
            Silent::Proxy => format!("has a proxy that has not answered for {seconds} s"),
        };
        if server.state.serves() {
            server.state = ServerState::Degraded;
        }
        if server.state == ServerState::Degraded {
            server.reason.clone_from(&why);
        }
        if silence.of == Silent::Agent {
            for instance in &mut server.instances {
                instance.doubted = instance.state == Some(InstanceState::Ready);
                instance.busy = false;
                instance.reason = format!("state as of {seconds} s ago");
            }
        }
        add_missing(&mut status.missing, server.name, &why);
    }
    let doubted = Tier::ALL
        .into_iter()
        .filter_map(|tier| doubt(status, silent, tier));
    let doubted: Vec<MayFail> = doubted.collect();
    status.may_fail.extend(doubted);
    status.healthy = status.missing.is_empty();
}

/// A tier whose silent servers leave at most one known to serve, unless it is reported already.
fn doubt(status: &Status, silent: &BTreeMap<ServerName, Silence>, tier: Tier) -> Option<MayFail> {
    let of_tier = status.servers.iter().filter(|server| server.tier == tier);
    let serving = of_tier.filter(|server| server.state.serves());
    let names = silent.keys().filter(|server| server.tier == tier);
    let names: Vec<String> = names.map(ToString::to_string).collect();
    let is_reported = status.may_fail.iter().any(|part| part.tier == Some(tier));
    (!names.is_empty() && !is_reported && serving.count() < 2).then(|| MayFail {
        tier: Some(tier),
        words: format!(
            "unknown whether the {tier} tier survives a loss while {} does not answer",
            names.join(", ")
        ),
    })
}

/// A process that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The process.
    pub of: Silent,
    /// Time since its last answer.
    pub since: Duration,
}

/// The kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silent {
    /// The agent: nothing reported about its server is current.
    Agent,
    /// The proxy.
    Proxy,
}

/// The store's members as the placement names them, or else the default ones.
fn store(desired: &Desired, facts: &Facts) -> Vec<ServerName> {
    if facts.store_members.is_empty() {
        rollout::store_members(&desired.config)
    } else {
        facts.store_members.iter().copied().collect()
    }
}

fn releases(desired: &Desired, placement: &Placement) -> ReleaseStatus {
    let mut running: Vec<_> = placement
        .instances
        .values()
        .map(|placed| placed.release)
        .collect();
    running.sort_by(|a, b| b.cmp(a));
    running.dedup();
    ReleaseStatus {
        desired: desired.release.number,
        released: placement.released,
        running,
    }
}

fn server(
    view: &View<'_>,
    name: ServerName,
    placed: &PlacedServer,
    store: &[ServerName],
) -> ServerStatus {
    let observed = view.live(name);
    let (state, reason) = state(view, name, placed);
    let on_it = view
        .placement
        .instances
        .keys()
        .filter(|instance| instance.server == name);
    ServerStatus {
        name,
        tier: name.tier,
        location: placed.location.clone(),
        state,
        reason,
        vips: observed.map_or_else(Vec::new, |observed| observed.vips.iter().copied().collect()),
        instances: on_it
            .filter_map(|instance| instance_status(view, *instance))
            .collect(),
        workers: workers(view, name),
        database: observed.and_then(|observed| observed.database.clone()),
        store_member: store.contains(&name),
        resources: observed.map_or_else(Resources::default, |observed| observed.resources.clone()),
        troubles: observed.map_or_else(Vec::new, |observed| observed.troubles.clone()),
    }
}

fn workers(view: &View<'_>, server: ServerName) -> Vec<WorkerStatus> {
    let placed = view.placement.workers.iter();
    let here = placed.filter(|(name, _)| name.server == server);
    let status = here.map(|(name, placed)| {
        let seen = view
            .live(server)
            .and_then(|observed| observed.workers.get(name));
        WorkerStatus {
            name: name.clone(),
            release: placed.release,
            state: seen.map(|seen| seen.state),
            restarts: seen.map_or(0, |seen| seen.restarts),
            reason: view.worker_runs(name).err().unwrap_or_default(),
        }
    });
    status.collect()
}

fn state(view: &View<'_>, name: ServerName, placed: &PlacedServer) -> (ServerState, String) {
    if view.live(name).is_none() {
        let was_heard = view.facts.was_heard_of(name);
        let state = if was_heard || view.is_dead(name) {
            ServerState::Lost
        } else {
            ServerState::Starting
        };
        return (state, "has sent no report".into());
    }
    match (placed.phase, seen::server(view, name)) {
        (Phase::Drain, _) if view.drained(name).is_ok() => (ServerState::Drained, String::new()),
        (Phase::Drain, _) => (ServerState::Draining, String::new()),
        (Phase::Serve, ServingState::Serving) => (ServerState::Serving, String::new()),
        (Phase::Serve, ServingState::Busy(why)) => (ServerState::Busy, why),
        (
            Phase::Serve,
            ServingState::Doubted(why) | ServingState::Down(why) | ServingState::Unknown(why),
        ) => (ServerState::Degraded, why),
    }
}

/// `None`: its server is not in the placement.
fn instance_status(view: &View<'_>, name: InstanceName) -> Option<InstanceStatus> {
    let address = topology::address_of_instance(view.placement, name)?;
    let placed = &view.placement.instances[&name];
    let seen = view
        .live(name.server)
        .and_then(|observed| observed.instances.get(&name));
    let reported = || seen.map(|seen| seen.reason.clone());
    let (busy, reason) = match placed.phase {
        Phase::Drain => (false, "is drained".into()),
        Phase::Serve => {
            let by_senders = seen::instance(view, name);
            let busy = by_senders.is_busy();
            (busy, by_senders.why().or_else(reported).unwrap_or_default())
        }
    };
    let is_ready = seen.is_some_and(|seen| seen.state == InstanceState::Ready);
    Some(InstanceStatus {
        doubted: is_ready && placed.phase == Phase::Serve && !busy && !reason.is_empty(),
        busy,
        name,
        address,
        release: placed.release,
        state: seen.map(|seen| seen.state),
        restarts: seen.map_or(0, |seen| seen.restarts),
        reason,
    })
}

/// A database in words: `primary, timeline 5`, `sync standby, streaming, 0 B behind`.
fn database_in_words(database: &ObservedDatabase) -> String {
    let role = database.role.in_words();
    match (database.role, database.lag_bytes) {
        (DatabaseRole::Primary, _) => format!("{role}, timeline {}", database.timeline),
        (_, Some(lag)) => format!("{role}, {}, {lag} B behind", database.state),
        (_, None) => format!("{role}, {}", database.state),
    }
}

#[cfg(test)]
mod tests;
