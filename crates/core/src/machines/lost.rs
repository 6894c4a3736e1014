//! Machines that gave their place to another one for good.

use super::servers_on;
use gaiola_model::Placement;
use gaiola_model::inventory::Host;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Whether a machine gave its place to another one for good, by this placement.
pub fn is_lost(placement: &Placement, host: &Host) -> bool {
    let machines = placement.config.machines.as_ref();
    machines.is_some_and(|machines| machines.is_lost(host))
        && servers_on(placement, host).is_empty()
}

/// The addresses of machines that gave their place to another one, and that no machine of the site has now.
pub fn lost_addresses(placement: &Placement) -> BTreeSet<IpAddr> {
    let machines = placement.config.machines.iter();
    let lost = machines.clone().flat_map(|machines| &machines.lost);
    let mut lost: BTreeSet<IpAddr> = lost.filter_map(|machine| machine.address).collect();
    let named = machines.flat_map(|machines| machines.all());
    let placed = placement.servers.values();
    let placed = placed.map(|placed| placed.location.address);
    for used in named.filter_map(|machine| machine.address).chain(placed) {
        lost.remove(&used);
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machines::{Asked, Held, Step, may_ask, steps};
    use crate::rollout;
    use gaiola_model::config::{App, Machine, Machines};
    use gaiola_model::placement::{Desired, Release, ReleaseNumber};
    use gaiola_model::{Config, Inventory, ServerName};

    /// app1 on `a`; `out` was replaced.
    fn placement() -> Placement {
        let machine = |name: &str, last: u8| Machine {
            address: Some([192, 0, 2, last].into()),
            ..Machine::new(name)
        };
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.set_machines(Machines {
            servers: [("app1".parse().unwrap(), machine("a", 1))].into(),
            lost: vec![machine("out", 66)],
            ..Machines::default()
        });
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = Inventory::on_machines(&config, None).unwrap();
        rollout::first(&Desired::first(config, release, inventory), "one".into())
    }

    #[test]
    fn a_machine_that_gave_its_place_away_stops_and_is_told_no_more_than_that() {
        let (placement, out, a) = (placement(), Host("out".into()), Host("a".into()));
        let app1: ServerName = "app1".parse().unwrap();
        let held = Held {
            on: [app1].into(),
            directories: [app1, "db1".parse().unwrap()].into(),
            ..Held::default()
        };
        for confirmed in [false, true] {
            let now = steps(&placement, (&out, [192, 0, 2, 66].into()), &held, confirmed);
            assert_eq!(now, [Step::SwitchOff(app1)]);
        }
        let may = |asked| may_ask(Some(&placement), &out, asked);
        assert!(may(Asked::Order));
        for asked in [Asked::Power, Asked::Fetch, Asked::Release, Asked::Secrets] {
            assert!(!may(asked), "{asked:?}");
        }
        assert!(may_ask(Some(&placement), &a, Asked::Power));
        assert_eq!(lost_addresses(&placement), [[192, 0, 2, 66].into()].into());
    }

    #[test]
    fn one_that_has_servers_still_is_not_out_yet() {
        let mut placement = placement();
        let placed = placement.servers.values_mut().next().unwrap();
        placed.location.host = Host("out".into());
        placed.location.address = [192, 0, 2, 66].into();
        assert!(!is_lost(&placement, &Host("out".into())));
        assert_eq!(lost_addresses(&placement), [].into());
    }
}
