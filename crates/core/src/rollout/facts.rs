//! What the conductor observes, and since when.

use super::compare::Compared;
use super::view::View;
use super::{SILENCE, STORE_DOUBT, dated};
use crate::topology::{self, TrafficTarget};
use gaiola_model::placement::{BootNumber, DoorState, Encryption, Phase};
use gaiola_model::{InstanceName, Observed, Placement, Revision, ServerName, Tier, Time, UnixTime};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// A conductor's observations so far. They begin empty: a new conductor waits out every deadline again.
///
/// ```
/// use gaiola_core::rollout::Facts;
///
/// let facts = Facts::default(); // then, whenever anything changed: facts.observe(now, &placement, at, observed)
/// assert!(facts.observed.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Time of the last observation.
    pub now: Time,
    /// The same by the wall clock; `None`: nobody said, and no cron is due.
    pub wall: Option<UnixTime>,
    /// The servers that hold a lease.
    pub observed: BTreeMap<ServerName, Observed>,
    /// Servers that carry a store member, learners included, as the placement names them; empty: not known. None of
    /// them is removed.
    pub store_members: BTreeSet<ServerName>,
    /// Servers that were switched off since they were last on, and up to which boot. Whoever controls their power
    /// reports it, and nothing from those boots still runs.
    pub over: BTreeMap<ServerName, BootNumber>,
    /// The newest schema that the process reads that powers the servers, as it reports; `None`: there is none beside the agents.
    pub provider_reads: Option<u64>,
    /// More than half of the servers vanished within [`STORE_DOUBT`].
    pub store_in_doubt: bool,
    /// Placed servers without a lease.
    pub silent_since: BTreeMap<ServerName, Time>,
    /// How the placement has the tiers speak with each other, and since when the rules of every database server fit that.
    pub(super) encryption_since: Option<(Encryption, Time)>,
    /// Drained targets whose drain every proxy knows.
    pub(super) acknowledged: BTreeMap<TrafficTarget, Acknowledged>,
    /// Doors that no longer receive clients.
    pub closing_since: BTreeMap<SocketAddr, Time>,
    /// Instances that should serve and do not, although their server is up.
    pub unready_since: BTreeMap<InstanceName, Time>,
    /// What became of requests since new instances run beside old ones.
    pub(super) compared: Compared,
    /// Servers that carry a member of the store which has begun, but have no member data.
    pub store_lost_since: BTreeMap<ServerName, Time>,
    /// Placed servers that held a lease and lost it.
    vanished_at: BTreeMap<ServerName, Time>,
}

/// Every proxy's acknowledgement of a drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// Start of the grace.
    pub(super) since: Time,
    /// Dead servers, which were not waited for. One that returns has been sending until now.
    left_out: BTreeSet<ServerName>,
}

impl Facts {
    /// Takes an observation: `placement` is what the store holds at revision `at`, `observed` the reports of servers
    /// with a lease.
    pub fn observe(
        &mut self,
        now: Time,
        placement: &Placement,
        at: Revision,
        observed: BTreeMap<ServerName, Observed>,
    ) {
        let stored = dated(placement, at);
        self.now = now;
        self.see_vanished(&stored, observed);
        self.see_silent(&stored);
        let closing = |(address, door): (&SocketAddr, &_)| is_closing(door).then_some(*address);
        let closing = stored.doors.iter().filter_map(closing).collect();
        self.closing_since = since(&self.closing_since, now, closing);
        self.encryption_since = self.see_encryption(&stored, at);
        let view = View::new(&stored, at, self);
        let acknowledged =
            drained_targets(&stored).filter(|target| view.unacknowledged(*target).is_empty());
        let unready = stored.instances.iter().filter(|(name, placed)| {
            placed.phase == Phase::Serve
                && view.live(name.server).is_some()
                && view.instance_serves(**name).is_err()
        });
        let acknowledged = acknowledged.map(|target| (target, self.acknowledge(&view, target)));
        let acknowledged = acknowledged.collect();
        let unready = unready.map(|(name, _)| *name).collect();
        let compared = std::mem::take(&mut self.compared);
        self.compared = compared.observe(&View::new(&stored, at, self));
        self.acknowledged = acknowledged;
        self.unready_since = since(&self.unready_since, now, unready);
        let has_lost = |server: &&ServerName| {
            let observed = self.observed.get(server);
            let begun = stored.store_begun == Some(**server);
            let may_begin = stored.store_joining == Some(**server) && !begun;
            let has_none = |observed: &Observed| {
                observed.revision >= stored.store_since && observed.store_data == Some(false)
            };
            !may_begin && observed.is_some_and(has_none)
        };
        let lost = stored.store.iter().filter(has_lost).copied().collect();
        self.store_lost_since = since(&self.store_lost_since, now, lost);
    }

    /// It begins with the last database server.
    fn see_encryption(&self, stored: &Placement, at: Revision) -> Option<(Encryption, Time)> {
        let view = View::new(stored, at, self);
        let mut databases = topology::servers_of(stored, Tier::Database);
        let step = stored.encryption;
        let held = self.encryption_since.filter(|(held, _)| *held == step);
        let all = databases.all(|server| view.database_accepts(server).is_ok());
        all.then(|| held.unwrap_or((step, self.now)))
    }

    /// A server that was left out and is now removed has not been back.
    fn acknowledge(&self, view: &View<'_>, target: TrafficTarget) -> Acknowledged {
        let before = self.acknowledged.get(&target);
        let left_out = before.iter().flat_map(|before| &before.left_out).copied();
        let still_placed = left_out.filter(|server| view.placement.servers.contains_key(server));
        let still_placed: BTreeSet<ServerName> = still_placed.collect();
        let one_is_back = still_placed.iter().any(|server| !self.is_dead(*server));
        let before = before.filter(|_| !one_is_back);
        Acknowledged {
            since: before.map_or(self.now, |before| before.since),
            left_out: still_placed
                .into_iter()
                .filter(|server| self.is_dead(*server))
                .chain(view.left_out(target))
                .collect(),
        }
    }

    fn see_vanished(&mut self, stored: &Placement, observed: BTreeMap<ServerName, Observed>) {
        let before = std::mem::replace(&mut self.observed, observed);
        let vanished = before.keys().chain(self.vanished_at.keys()).copied();
        let vanished: BTreeSet<ServerName> = vanished
            .filter(|server| stored.servers.contains_key(server))
            .filter(|server| !self.observed.contains_key(server))
            .collect();
        self.vanished_at = since(&self.vanished_at, self.now, vanished);
        let recent = |at: &&Time| self.now - **at < STORE_DOUBT;
        let recently = self.vanished_at.values().filter(recent).count();
        self.store_in_doubt = recently > 1 && recently > self.observed.len();
    }

    /// While the store is in doubt no server counts as silent; the time starts when the doubt ends.
    fn see_silent(&mut self, stored: &Placement) {
        if self.store_in_doubt {
            self.silent_since.clear();
            return;
        }
        let placed = stored.servers.keys().copied();
        let silent = placed
            .filter(|server| !self.observed.contains_key(server))
            .collect();
        self.silent_since = since(&self.silent_since, self.now, silent);
    }

    /// Whether the server has been without a lease for so long that nobody waits for it.
    pub fn is_dead(&self, server: ServerName) -> bool {
        let silent = self.silent_since.get(&server);
        silent.is_some_and(|since| self.now - *since >= SILENCE)
    }

    /// Members of the store that have lost their data. A server that founds the store writes its first data a
    /// moment after its agent appears, so this takes as long as being declared dead.
    pub fn lost_members(&self) -> BTreeSet<ServerName> {
        let lost = self.store_lost_since.iter();
        let lost = lost.filter(|(_, since)| self.now - **since >= SILENCE);
        lost.map(|(server, _)| *server).collect()
    }

    /// Whether a silent server held a lease earlier, since these facts began.
    pub(crate) fn was_heard_of(&self, server: ServerName) -> bool {
        self.vanished_at.contains_key(&server)
    }

    /// When to observe again if nothing changes before: the next deadline that could let a step continue.
    pub fn next_deadline(&self, grace: std::time::Duration) -> Option<Time> {
        let silent = self.silent_since.values().map(|since| *since + SILENCE);
        let acknowledged = self.acknowledged.values();
        let acknowledged = acknowledged
            .flat_map(|known| [grace, super::MOVED_WITHIN].map(|limit| known.since + limit));
        let closing = self.closing_since.values().map(|since| *since + grace);
        let unready = self
            .unready_since
            .values()
            .map(|since| *since + super::READY_DEADLINE);
        let doubt = self.vanished_at.values().map(|since| *since + STORE_DOUBT);
        let settled = self.encryption_since.iter();
        let settled = settled.map(|(_, since)| *since + super::encryption::SETTLE);
        let lost = self.store_lost_since.values().map(|since| *since + SILENCE);
        let watched = self.compared.watched_until().into_iter().flatten();
        silent
            .chain(watched)
            .chain(lost)
            .chain(settled)
            .chain(acknowledged)
            .chain(closing)
            .chain(unready)
            .chain(doubt)
            .filter(|deadline| *deadline > self.now)
            .min()
    }
}

fn is_closing(door: &gaiola_model::placement::Door) -> bool {
    door.state == DoorState::Closing
}

/// Everything that should take no more traffic.
fn drained_targets(stored: &Placement) -> impl Iterator<Item = TrafficTarget> {
    let drained = |server: &ServerName| {
        let placed = stored.servers.get(server);
        placed.is_some_and(|placed| placed.phase == Phase::Drain)
    };
    let servers = stored
        .servers
        .keys()
        .copied()
        .filter(move |server| drained(server));
    let instances = stored
        .instances
        .iter()
        .filter(move |(name, placed)| placed.phase == Phase::Drain || drained(&name.server));
    let instances = instances.map(|(name, _)| TrafficTarget::Instance(*name));
    servers.map(TrafficTarget::Server).chain(instances)
}

/// The current keys: existing ones with their old time, new ones with `now`.
fn since<K: Ord + Copy>(
    before: &BTreeMap<K, Time>,
    now: Time,
    keys: BTreeSet<K>,
) -> BTreeMap<K, Time> {
    let dated = |key| (key, before.get(&key).copied().unwrap_or(now));
    keys.into_iter().map(dated).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::Desired;
    use gaiola_model::config::{App, Balancer, Config};
    use gaiola_model::placement::{ObservedProxy, Release, ReleaseNumber};
    use std::time::Duration;

    fn placement() -> Placement {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.balancer = Some(Balancer {
            servers: 3,
            ..Balancer::default()
        });
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = gaiola_model::Inventory::numbered(&config, [10, 77]);
        super::super::first(&Desired::first(config, release, inventory), "test".into())
    }

    /// All placed servers but these, with every proxy up to date.
    fn all_but(placement: &Placement, silent: &[ServerName]) -> BTreeMap<ServerName, Observed> {
        let heard = placement.servers.keys().filter(|s| !silent.contains(s));
        let observed = |server: &ServerName| Observed {
            proxy: Some(ObservedProxy {
                revision: Revision(u64::MAX),
                ..ObservedProxy::default()
            }),
            ..Observed::nothing_on(*server)
        };
        heard.map(|server| (*server, observed(server))).collect()
    }

    #[test]
    fn the_grace_begins_anew_for_a_proxy_that_is_back_and_for_none_that_is_removed() {
        let mut placement = placement();
        let [first, second] = [1, 2].map(|number| ServerName::new(Tier::Balancer, number));
        let drained = *placement.instances.keys().next().unwrap();
        placement.instances.get_mut(&drained).unwrap().phase = Phase::Drain;
        let target = TrafficTarget::Instance(drained);
        assert!(crate::topology::senders(&placement, target).contains(&first));

        let mut facts = Facts::default();
        let mut observe = |seconds, placement: &Placement, silent: &[ServerName]| {
            let now = Time::from_start(Duration::from_secs(seconds));
            facts.observe(now, placement, Revision(1), all_but(placement, silent));
            let since = facts.acknowledged.get(&target).map(|known| known.since);
            since.map(|since| since.since_start().as_secs())
        };
        assert_eq!(observe(0, &placement, &[first]), None);
        assert_eq!(observe(10, &placement, &[first]), Some(10));
        assert_eq!(observe(11, &placement, &[first, second]), None);
        assert_eq!(observe(21, &placement, &[first, second]), Some(21));
        placement.servers.remove(&first);
        assert_eq!(observe(22, &placement, &[second]), Some(21));
        assert_eq!(observe(23, &placement, &[]), Some(23));
    }
}
