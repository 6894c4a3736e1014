//! What stands on a machine, what its process has to do about that, and what machines may ask of each other.
//!
//! Every machine decides for itself, by the newest placement that it knows.

mod lost;

pub use lost::{is_lost, lost_addresses};

use gaiola_model::inventory::Host;
use gaiola_model::placement::{Release, ReleaseNumber};
use gaiola_model::{Config, Inventory, Placement, ServerName, Tier};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The servers that a placement has on a machine.
pub fn servers_on(placement: &Placement, host: &Host) -> BTreeSet<ServerName> {
    let servers = placement.servers.iter();
    let here = servers.filter(|(_, placed)| placed.location.host == *host);
    here.map(|(name, _)| *name).collect()
}

/// What a machine's process knows of its servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Servers whose processes run.
    pub on: BTreeSet<ServerName>,
    /// Servers that were switched off, or ended by themselves, and stay off.
    pub off: BTreeSet<ServerName>,
    /// Servers that are being switched on or stopped.
    pub busy: BTreeSet<ServerName>,
    /// Servers that have a directory.
    pub directories: BTreeSet<ServerName>,
    /// Whether the whole site is to stay down.
    pub is_down: bool,
}

/// What the last `up` or `down` said. Of two the newer holds; where they have the same number, the site is up: that loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Power {
    /// Counts them.
    pub number: u64,
    /// Whether the site is to be up.
    pub is_up: bool,
}

impl Default for Power {
    /// A site that was never brought down.
    fn default() -> Self {
        Self {
            number: 0,
            is_up: true,
        }
    }
}

impl Power {
    /// What an `up` or a `down` says that knows of this one.
    ///
    /// ```
    /// use gaiola_core::machines::Power;
    ///
    /// let down = Power::default().next(false);
    /// assert!(Power::default() < down && down < down.next(true));
    /// ```
    pub const fn next(self, is_up: bool) -> Self {
        Self {
            number: self.number.saturating_add(1),
            is_up,
        }
    }
}

/// What is to be done about a server of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its directory is prepared, its processes are started.
    SwitchOn(ServerName),
    /// Its processes are stopped and its directory is removed.
    TakeAway(ServerName),
    /// Its processes are stopped, and stay so; what is on its disk stays too.
    SwitchOff(ServerName),
}

/// What a machine has to do. `confirmed`: the store holds this placement now; what a server has on its disk is removed only then.
/// A server that is placed at this machine's own `address` is never taken away, whatever name the placement has for its machine.
///
/// A machine that gave its place to another one stops; its disk stays until an operator has it emptied.
pub fn steps(
    placement: &Placement,
    (host, address): (&Host, IpAddr),
    held: &Held,
    confirmed: bool,
) -> Vec<Step> {
    let wanted = servers_on(placement, host);
    let is_idle = |server: &&ServerName| !held.busy.contains(*server);
    let missing = wanted.iter().filter(is_idle).filter(|server| {
        !held.is_down && !held.on.contains(*server) && !held.off.contains(*server)
    });
    let former: BTreeSet<ServerName> = held.directories.union(&held.on).copied().collect();
    let former = former.difference(&wanted).filter(is_idle);
    let is_at_address = |server: &ServerName| {
        let placed = placement.servers.get(server);
        placed.is_some_and(|placed| placed.location.address == address)
    };
    let is_lost = is_lost(placement, host);
    let former = former.filter(|server| !is_at_address(server));
    let former = former.filter_map(|server| match (is_lost, confirmed) {
        (true, _) => (held.on.contains(server)).then_some(Step::SwitchOff(*server)),
        (false, true) => Some(Step::TakeAway(*server)),
        (false, false) => None,
    });
    let missing = missing.copied().map(Step::SwitchOn);
    missing.chain(former).collect()
}

/// A request of one machine to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The newest order.
    Order,
    /// A signature on the certificate of a server.
    Sign(ServerName),
    /// The key of the site's authority, and all secrets.
    Authority,
    /// The passwords and keys that the asking machine's servers need.
    Secrets,
    /// A release.
    Release,
    /// The certificates that balancers serve.
    Certificates,
    /// To fetch something from the machine that asks.
    Fetch,
    /// To stop servers, or let them start again.
    Power,
    /// To encrypt a secret that the operator sets, which the asking machine cannot.
    Seal,
}

/// Whether a machine of the site may ask this. `placement`: the newest that the asked machine knows.
pub fn may_ask(placement: Option<&Placement>, host: &Host, asked: Asked) -> bool {
    let is_here = |server: &ServerName| {
        let placed = placement.and_then(|placement| placement.servers.get(server));
        placed.is_some_and(|placed| placed.location.host == *host)
    };
    let has_tier = |tiers: &[Tier]| {
        let here = placement.map(|placement| servers_on(placement, host));
        here.is_some_and(|here| here.iter().any(|server| tiers.contains(&server.tier)))
    };
    if placement.is_some_and(|placement| is_lost(placement, host)) {
        // It learns that it is out, and nothing else.
        return asked == Asked::Order;
    }
    match asked {
        Asked::Order | Asked::Release | Asked::Fetch | Asked::Power | Asked::Seal => true,
        Asked::Sign(server) => is_here(&server),
        Asked::Authority => placement.is_some_and(|placement| has_member(placement, host)),
        Asked::Secrets => has_tier(&[Tier::Balancer, Tier::App, Tier::Database]),
        Asked::Certificates => has_tier(&[Tier::Balancer]),
    }
}

/// Whether a member of the store stands on a machine, or is to.
pub fn has_member(placement: &Placement, host: &Host) -> bool {
    let here = servers_on(placement, host);
    placement.store.iter().any(|member| here.contains(member))
}

/// The releases that the servers of a machine run from, each with its digest where the placement names that.
pub fn releases_needed<'a>(
    placement: &'a Placement,
    host: &Host,
) -> BTreeMap<ReleaseNumber, Option<&'a str>> {
    let here = servers_on(placement, host);
    let processes = placement.processes();
    let processes = processes.filter(|process| here.contains(&process.server));
    let has_web = here.iter().any(|server| server.tier == Tier::Web);
    let web = placement.web_releases.iter().filter(|_| has_web);
    processes
        .map(|process| process.release)
        .chain(web.copied())
        .map(|number| (number, digest_of(placement, number)))
        .collect()
}

fn digest_of(placement: &Placement, number: ReleaseNumber) -> Option<&str> {
    placement.digests.get(&number).map(String::as_str)
}

/// How much higher than all that are known the number of a new release may be: each `up` that failed may have used one.
const MOST_AHEAD: u64 = 100;

/// Why a machine does not fetch a release that another one offers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferRefused {
    /// The placement has other contents under this number.
    #[error(
        "release {0} has other contents here, by the newest placement that is known: they stay"
    )]
    InUse(ReleaseNumber),
    /// A release that is new has a new number.
    #[error("release {number} is not needed: {newest} is the newest that is known here")]
    Old {
        /// The number that was offered.
        number: ReleaseNumber,
        /// The highest number known.
        newest: ReleaseNumber,
    },
    /// No series of changes leads to this number.
    #[error("{number} is no number of the next release: {newest} is the newest that is known here")]
    Implausible {
        /// The number that was offered.
        number: ReleaseNumber,
        /// The highest number known.
        newest: ReleaseNumber,
    },
}

/// Whether a machine fetches a release with this number and digest because another one asks it to. `desired`: the release that is
/// desired, where that is known. What is desired or placed is never replaced by other contents.
///
/// # Errors
/// Why it does not.
pub fn may_fetch(
    placement: Option<&Placement>,
    desired: Option<&Release>,
    (number, digest): (ReleaseNumber, &str),
) -> Result<(), OfferRefused> {
    let mut known: BTreeMap<ReleaseNumber, Option<&str>> = BTreeMap::new();
    if let Some(placement) = placement {
        let named = placement.releases().into_iter();
        known.extend(named.map(|number| (number, None)));
        let described = placement.digests.iter();
        known.extend(described.map(|(number, digest)| (*number, Some(digest.as_str()))));
    }
    known.extend(desired.map(|desired| (desired.number, Some(desired.digest.as_str()))));
    if let Some(known) = known.get(&number) {
        let is_same = *known == Some(digest);
        return is_same.then_some(()).ok_or(OfferRefused::InUse(number));
    }
    let newest = known.last_key_value().map(|(number, _)| *number);
    let newest = newest.unwrap_or_default();
    if number <= newest {
        Err(OfferRefused::Old { number, newest })
    } else if number.0 - newest.0 > MOST_AHEAD {
        Err(OfferRefused::Implausible { number, newest })
    } else {
        Ok(())
    }
}

/// The digest of the certificates that balancers of a machine serve; `None`: it has none, or they serve none.
pub fn certificates_needed<'a>(placement: &'a Placement, host: &Host) -> Option<&'a str> {
    let has_balancer = (servers_on(placement, host).iter()).any(|s| s.tier == Tier::Balancer);
    let tls = placement.config.tls().filter(|_| has_balancer)?;
    Some(&tls.contents)
}

/// What of a new release goes to a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parcel {
    /// The release itself.
    pub release: bool,
    /// The balancers' certificates.
    pub certificates: bool,
}

/// The machines that need a new release or its certificates before it is desired.
pub fn recipients(config: &Config, inventory: &Inventory) -> BTreeMap<Host, Parcel> {
    let mut all: BTreeMap<Host, Parcel> = BTreeMap::new();
    for (server, location) in &inventory.servers {
        let parcel = all.entry(location.host.clone()).or_default();
        match server.tier {
            Tier::Balancer => parcel.certificates |= config.speaks_tls(),
            Tier::Web | Tier::App => parcel.release = true,
            Tier::Database => {}
        }
    }
    all.retain(|_, parcel| *parcel != Parcel::default());
    all
}

/// The order in which a site is stopped without a loss: the standbys, then the primary while the store still answers, then the rest.
pub fn stop_order(placement: &Placement, primary: Option<ServerName>) -> [Vec<ServerName>; 3] {
    let mut order = [Vec::new(), Vec::new(), Vec::new()];
    for server in placement.servers.keys().copied() {
        let turn = match server.tier {
            Tier::Database if Some(server) == primary => 1,
            Tier::Database => 0,
            Tier::Balancer | Tier::Web | Tier::App => 2,
        };
        order[turn].push(server);
    }
    order
}

/// The addresses of all machines: those that a machine was prepared with, and newer ones of the placement.
pub fn addresses(
    prepared: impl IntoIterator<Item = (Host, IpAddr)>,
    placement: Option<&Placement>,
) -> BTreeMap<Host, IpAddr> {
    let mut all: BTreeMap<Host, IpAddr> = prepared.into_iter().collect();
    let Some(placement) = placement else {
        return all;
    };
    for machine in placement.config.machines.iter().flat_map(|m| m.all()) {
        all.extend(machine.address.map(|address| (machine.host(), address)));
    }
    let placed = placement.servers.values();
    all.extend(placed.map(|placed| (placed.location.host.clone(), placed.location.address)));
    all.retain(|host, _| !is_lost(placement, host));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout;
    use gaiola_model::config::{App, Balancer, BalancerTls, Database, Web};
    use gaiola_model::placement::{Desired, ReleaseRun};

    fn name(name: &str) -> ServerName {
        name.parse().unwrap()
    }

    fn names<const N: usize>(all: [&str; N]) -> BTreeSet<ServerName> {
        all.map(name).into()
    }

    /// The address of a machine that no server is placed at.
    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));

    fn host(name: &str) -> Host {
        Host(name.into())
    }

    /// lb1 and web1 on `a`, app1 and db1 on `b`, db2 on `c`.
    fn placement() -> Placement {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.app.servers = 1;
        config.balancer = Some(Balancer {
            servers: 1,
            tls: Some(BalancerTls {
                contents: "abc".into(),
                ..BalancerTls::new(Vec::new())
            }),
            ..Balancer::default()
        });
        config.web = Some(Web {
            servers: 1,
            ..Web::default()
        });
        config.database = Some(Database::default());
        let mut inventory = Inventory::numbered(&config, [192, 0]);
        let hosts = [
            ("lb1", "a"),
            ("web1", "a"),
            ("app1", "b"),
            ("db1", "b"),
            ("db2", "c"),
        ];
        for (server, on) in hosts {
            inventory.servers.get_mut(&name(server)).unwrap().host = host(on);
        }
        let release = Release {
            number: ReleaseNumber(7),
            digest: String::new(),
        };
        let desired = Desired::first(config, release, inventory);
        rollout::first(&desired, "one".into())
    }

    #[test]
    fn a_machine_switches_on_what_stands_on_it_and_is_not_on() {
        let (placement, mut held) = (placement(), Held::default());
        let now = |held: &Held| steps(&placement, (&host("a"), OWN), held, true);
        let [lb1, web1] = ["lb1", "web1"].map(name);
        assert_eq!(now(&held), [Step::SwitchOn(lb1), Step::SwitchOn(web1)]);
        held.on.insert(lb1);
        assert_eq!(now(&held), [Step::SwitchOn(web1)]);
        held.busy.insert(web1);
        assert_eq!(now(&held), []);
        held.busy.clear();
        held.off.insert(web1);
        assert_eq!(now(&held), []);
        held.off.clear();
        held.is_down = true;
        assert_eq!(now(&held), []);
    }

    #[test]
    fn what_is_not_placed_here_is_taken_away_once_the_store_confirms_it() {
        let placement = placement();
        let held = Held {
            on: names(["app1", "db1", "web2"]),
            directories: names(["app1", "db1", "web2", "db3"]),
            ..Held::default()
        };
        let now = |confirmed| steps(&placement, (&host("b"), OWN), &held, confirmed);
        let gone = ["web2", "db3"].map(|server| Step::TakeAway(name(server)));
        assert_eq!(now(true), gone);
        assert_eq!(now(false), []);
        let spare = steps(&placement, (&host("spare"), OWN), &Held::default(), true);
        assert_eq!(spare, []);
    }

    #[test]
    fn a_machine_under_another_name_keeps_the_servers_placed_at_its_address() {
        let placement = placement();
        let held = Held {
            on: names(["db2"]),
            directories: names(["db2", "db3"]),
            ..Held::default()
        };
        let own = placement.servers[&name("db2")].location.address;
        let renamed = steps(&placement, (&host("root@c"), own), &held, true);
        assert_eq!(renamed, [Step::TakeAway(name("db3"))]);
        let other = steps(&placement, (&host("other"), OWN), &held, true);
        let all = ["db2", "db3"].map(|server| Step::TakeAway(name(server)));
        assert_eq!(other, all);
    }

    #[test]
    fn machines_get_what_their_servers_need_and_no_more() {
        let placement = placement();
        let may = |on: &str, asked| may_ask(Some(&placement), &host(on), asked);
        for on in ["a", "b", "c", "spare"] {
            for all in [Asked::Order, Asked::Release, Asked::Fetch, Asked::Power] {
                assert!(may(on, all) && may_ask(None, &host(on), all));
            }
            for none in [Asked::Authority, Asked::Secrets, Asked::Certificates] {
                assert!(!may_ask(None, &host(on), none));
            }
            assert_eq!(may(on, Asked::Secrets), on != "spare", "{on}");
            assert_eq!(may(on, Asked::Certificates), on == "a", "{on}");
            assert_eq!(may(on, Asked::Sign(name("db2"))), on == "c", "{on}");
        }
        // The store's members: lb1, web1 and app1.
        assert!(may("a", Asked::Authority) && may("b", Asked::Authority));
        assert!(!may("c", Asked::Authority) && !may("spare", Asked::Authority));
        assert!(!may("a", Asked::Sign(name("web9"))));
    }

    #[test]
    fn a_machine_needs_the_releases_that_its_servers_run_from() {
        let mut placement = placement();
        let needed = |placement: &Placement, on: &str| -> BTreeSet<ReleaseNumber> {
            releases_needed(placement, &host(on)).into_keys().collect()
        };
        placement.web_releases = vec![ReleaseNumber(7), ReleaseNumber(6)];
        let instance = placement.instances.values().next().cloned();
        let web: BTreeSet<_> = [ReleaseNumber(6), ReleaseNumber(7)].into();
        assert_eq!(needed(&placement, "a"), web);
        let app: BTreeSet<_> = instance.iter().map(|instance| instance.release).collect();
        assert_eq!(needed(&placement, "b"), app);
        assert_eq!(needed(&placement, "c"), [].into());
        placement.release_run = Some(ReleaseRun {
            release: ReleaseNumber(8),
            command: "migrate".into(),
            env: 0,
            server: name("app1"),
            boot: Default::default(),
            generation: 2,
            stop: false,
        });
        assert!(needed(&placement, "b").contains(&ReleaseNumber(8)));
        assert_eq!(certificates_needed(&placement, &host("a")), Some("abc"));
        assert_eq!(certificates_needed(&placement, &host("b")), None);
    }

    #[test]
    fn a_new_release_goes_where_web_and_application_servers_stand() {
        let placement = placement();
        let mut inventory = Inventory::default();
        for (server, placed) in &placement.servers {
            (inventory.servers).insert(*server, placed.location.clone());
        }
        let [both, release] = [true, false].map(|certificates| Parcel {
            release: true,
            certificates,
        });
        let to = recipients(&placement.config, &inventory);
        assert_eq!(to, [(host("a"), both), (host("b"), release)].into());
    }

    #[test]
    fn standbys_stop_first_and_the_primary_before_the_store() {
        let order = stop_order(&placement(), Some(name("db1")));
        let rest = ["lb1", "web1", "app1"].map(name);
        assert_eq!(order, [vec![name("db2")], vec![name("db1")], rest.into()]);
        let [standbys, primary, _] = stop_order(&placement(), None);
        assert_eq!((standbys.len(), primary.len()), (2, 0));
    }

    #[test]
    fn a_placement_knows_machines_that_came_later() {
        let one: IpAddr = "198.51.100.1".parse().unwrap();
        let prepared = [(host("a"), one), (host("spare"), one)];
        assert_eq!(addresses(prepared.clone(), None).len(), 2);
        let placement = placement();
        let all = addresses(prepared, Some(&placement));
        let own = placement.servers[&name("lb1")].location.address;
        let names: Vec<_> = all.keys().map(|host| host.0.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "spare"]);
        // The first server's address of a machine with several is as good as the last one's.
        assert!(all[&host("a")] == own || all[&host("a")] != one);
    }

    #[test]
    fn a_release_that_is_desired_or_placed_is_never_replaced_by_other_contents() {
        let mut placement = placement();
        placement.digests = [(ReleaseNumber(7), "a7".to_string())].into();
        placement.web_releases = vec![ReleaseNumber(7), ReleaseNumber(6)];
        let desired = Release {
            number: ReleaseNumber(8),
            digest: "a8".into(),
        };
        let offer = |number, digest| {
            let offered = (ReleaseNumber(number), digest);
            may_fetch(Some(&placement), Some(&desired), offered)
        };
        assert_eq!(offer(7, "a7"), Ok(()));
        assert_eq!(offer(8, "a8"), Ok(()));
        let in_use = |number| Err(OfferRefused::InUse(ReleaseNumber(number)));
        assert_eq!(offer(7, "b7"), in_use(7));
        assert_eq!(offer(8, "b8"), in_use(8));
        // In use, and what it contains is not known.
        assert_eq!(offer(6, "a6"), in_use(6));
    }

    #[test]
    fn a_new_release_has_one_of_the_next_numbers() {
        let placement = placement();
        let offer = |number| may_fetch(Some(&placement), None, (ReleaseNumber(number), "new"));
        let newest = ReleaseNumber(7);
        let (old, far) = (ReleaseNumber(5), ReleaseNumber(108));
        assert_eq!(offer(8), Ok(()));
        assert_eq!(offer(107), Ok(()));
        assert_eq!(
            offer(5),
            Err(OfferRefused::Old {
                number: old,
                newest
            })
        );
        let implausible = OfferRefused::Implausible {
            number: far,
            newest,
        };
        assert_eq!(offer(108), Err(implausible));
        assert!(offer(u64::MAX).is_err() && offer(0).is_err());
        // Of a new site nothing is known yet.
        let first = |number| may_fetch(None, None, (ReleaseNumber(number), "new"));
        assert!(first(1).is_ok() && first(0).is_err() && first(101).is_err());
    }
}
