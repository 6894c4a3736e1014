//! What may still fail: what the loss of one server, or on machines of one machine, would cost.

use super::seen::{self, ServingState};
use crate::rollout::View;
use crate::topology;
use crate::words::all_of;
use gaiola_model::inventory::Host;
use gaiola_model::placement::DatabaseRole;
use gaiola_model::status::MayFail;
use gaiola_model::{ServerName, Tier};
use std::collections::{BTreeMap, BTreeSet};

/// Each part whose service or data the loss of one server would cost; on machines, of one machine.
pub(super) fn may_fail(view: &View<'_>, store: &[ServerName]) -> Vec<MayFail> {
    let tiers = Tier::ALL
        .into_iter()
        .filter_map(|tier| tier_may_fail(view, tier));
    let mut parts: Vec<MayFail> = tiers.chain(store_may_fail(view, store)).collect();
    let fragile = parts.iter().filter_map(|part| part.tier).collect();
    parts.extend(shared_machines(view, &fragile));
    parts
}

/// What fails as a whole: a machine, or in the lab each server by itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum FailureDomain<'a> {
    Machine(&'a Host),
    Server(ServerName),
}

fn domain<'a>(view: &View<'a>, server: ServerName) -> FailureDomain<'a> {
    let location = topology::location(view.placement, server);
    match location.filter(|_| view.placement.config.machines.is_some()) {
        Some(location) => FailureDomain::Machine(&location.host),
        None => FailureDomain::Server(server),
    }
}

/// The machine that all of these servers stand on, if there are several of them.
fn shared_by<'a>(view: &View<'a>, servers: &[ServerName]) -> Option<&'a Host> {
    let mut domains = servers.iter().map(|server| domain(view, *server));
    match domains.next()? {
        FailureDomain::Machine(host) if servers.len() > 1 => {
            let on_it = FailureDomain::Machine(host);
            domains.all(|other| other == on_it).then_some(host)
        }
        _ => None,
    }
}

/// Machines that carry servers of several tiers, at least one of which does not survive a loss.
fn shared_machines(view: &View<'_>, fragile: &BTreeSet<Tier>) -> Vec<MayFail> {
    let mut on: BTreeMap<FailureDomain<'_>, Vec<ServerName>> = BTreeMap::new();
    for server in view.placement.servers.keys() {
        on.entry(domain(view, *server)).or_default().push(*server);
    }
    let shared = on.into_iter().filter_map(|(domain, servers)| {
        let FailureDomain::Machine(host) = domain else {
            return None;
        };
        let tiers: BTreeSet<Tier> = servers.iter().map(|server| server.tier).collect();
        let counts = tiers.len() > 1 && !tiers.is_disjoint(fragile);
        counts.then(|| MayFail {
            tier: None,
            words: format!("{} stand on the same machine {host}", all_of(&servers)),
        })
    });
    shared.collect()
}

fn tier_may_fail(view: &View<'_>, tier: Tier) -> Option<MayFail> {
    let placed = topology::servers_of(view.placement, tier).count();
    let seen: Vec<(ServerName, ServingState)> = topology::servers_of(view.placement, tier)
        .map(|server| (server, seen::server(view, server)))
        .collect();
    let used = seen.iter().filter(|(_, seen)| seen.is_used());
    let serving: Vec<ServerName> = used.map(|(server, _)| *server).collect();
    let unknown = seen.iter().any(|(_, seen)| seen.is_unknown());
    let shared = shared_by(view, &serving);
    let words = match (tier, placed, serving.as_slice()) {
        (_, 0, _) => return None,
        (_, _, []) if unknown => {
            format!("unknown whether any {tier} server serves: no proxy that sends to them answers")
        }
        (_, _, []) => format!("no {tier} server serves: {}", without(view, tier)),
        (_, 1, [only]) => format!(
            "{only} is the only {tier} server: without it {}",
            without(view, tier)
        ),
        (_, _, [only]) => format!(
            "{only} is the last {tier} server that serves: without it {}",
            without(view, tier)
        ),
        (_, _, all) if let Some(host) = shared => format!(
            "{} stand on the same machine {host}: without it {}",
            all_of(all),
            without(view, tier)
        ),
        (Tier::Database, _, _) => return unreplicated(view),
        _ => return None,
    };
    Some(MayFail {
        tier: Some(tier),
        words,
    })
}

fn without(view: &View<'_>, tier: Tier) -> &'static str {
    match tier {
        Tier::Balancer => "no client can connect",
        Tier::App if view.placement.config.web.is_some() => "only files are served",
        Tier::Web | Tier::App => "no request is answered",
        Tier::Database => "nothing can be read or written",
    }
}

/// Several database servers serve; does any besides the primary hold every acknowledged write?
fn unreplicated(view: &View<'_>) -> Option<MayFail> {
    let mut databases = topology::servers_of(view.placement, Tier::Database);
    let primary = view.primary();
    let is_apart = |server: ServerName| {
        primary.is_none_or(|primary| domain(view, primary) != domain(view, server))
    };
    let is_sync = |server: ServerName| {
        let holds = view.role(server) == DatabaseRole::SyncStandby;
        holds && is_apart(server) && view.server_serves(server).is_ok()
    };
    let words = match (primary, databases.any(is_sync)) {
        (Some(_), true) => return None,
        (Some(primary), false) => {
            format!("no standby holds every write: without {primary} the last ones are lost")
        }
        (None, _) => "there is no primary: nothing can be written".into(),
    };
    Some(MayFail {
        tier: Some(Tier::Database),
        words,
    })
}

fn store_may_fail(view: &View<'_>, store: &[ServerName]) -> Option<MayFail> {
    let live = store
        .iter()
        .filter(|server| view.live(**server).is_some())
        .count();
    let quorum = store.len() / 2 + 1;
    let words = match store {
        [] => return None,
        [only] => format!(
            "{only} has the store's only member: without it the site keeps running, but cannot be changed"
        ),
        _ if live <= quorum => format!(
            "{live} of the store's {} members are up: with one less the site keeps running, but cannot be changed",
            store.len()
        ),
        _ => return None,
    };
    Some(MayFail { tier: None, words })
}
