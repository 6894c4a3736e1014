//! What holds whatever happens to the members.

use super::*;
use proptest::prelude::*;
fn any_kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(all_kinds().to_vec())
}

fn any_server() -> impl Strategy<Value = Server> {
    let parts = (0u16..20, proptest::option::of(0u32..5), any::<bool>());
    parts.prop_map(|(weight, maxconn, spare)| Server {
        maxconn,
        spare,
        ..server(0, weight)
    })
}

/// Something that happens to one member.
#[derive(Clone, Debug)]
enum Event {
    Share(u8),
    Enter,
    Leave,
    LeaveUncounted,
    Weight(u16),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0u8..=WHOLE).prop_map(Event::Share),
        Just(Event::Share(0)),
        Just(Event::Enter),
        Just(Event::Leave),
        Just(Event::LeaveUncounted),
        (0u16..20).prop_map(Event::Weight),
    ]
}

fn any_backend(kind: Kind) -> impl Strategy<Value = Backend> {
    (proptest::collection::vec(any_server(), 0..8), any::<bool>()).prop_map(
        move |(servers, all_spares)| {
            let named = servers.into_iter().enumerate().map(|(n, server)| Server {
                name: format!("s{n}"),
                ..server
            });
            Backend {
                algorithm: kind.clone(),
                all_spares,
                ..Backend::new("app", named.collect())
            }
        },
    )
}

proptest! {
    /// Whatever happens: a member that is known to be down, or that has no room, gets nothing; and as long as there is
    /// another that may take it, a request is not turned away.
    #[test]
    fn only_usable_members_with_room_are_picked(
        backend in any_kind().prop_flat_map(any_backend),
        history in proptest::collection::vec(
            (0usize..8, any_event(), proptest::option::of(any::<u64>()), proptest::collection::vec(0usize..8, 0..4)),
            1..60,
        ),
    ) {
        let mut site = Site::of(backend);
        let count = site.in_flight.len();
        let mut shares = vec![WHOLE; count];
        for (index, event, key, tried) in history {
            if index < count {
                match event {
                    Event::Share(share) => shares[index] = share,
                    Event::Enter => site.in_flight[index] += 1,
                    Event::Leave => {
                        site.in_flight[index] = site.in_flight[index].saturating_sub(1);
                        site.balancer.lighten(index, || site.in_flight[index]);
                    }
                    Event::LeaveUncounted => site.in_flight[index] = site.in_flight[index].saturating_sub(1),
                    Event::Weight(weight) => {
                        site.backend.servers[index].weight = weight;
                        site.balancer = Balancer::after(&site.balancer, &site.backend);
                    }
                }
                site.balancer.set_shares(&shares);
            }
            let tried: Vec<_> = tried.into_iter().filter(|&index| index < count).collect();
            let servers = &site.backend.servers;
            let takes = |index: usize| shares[index] > 0 && servers[index].weight > 0;
            let spares_too = !(0..count).any(|index| takes(index) && !servers[index].spare);
            let first_spare = (0..count).find(|&index| takes(index));
            let fits = |index: usize| {
                let in_turn = !servers[index].spare
                    || spares_too && (site.backend.all_spares || first_spare == Some(index));
                takes(index) && in_turn && !tried.contains(&index)
                    && servers[index].maxconn.is_none_or(|most| site.in_flight[index] < most)
            };
            let fitting: Vec<_> = (0..count).filter(|&index| fits(index)).collect();
            match site.ask(key, &tried) {
                Ok(index) => prop_assert!(fitting.contains(&index), "{} is not among {:?}", index, fitting),
                Err(_) => prop_assert!(fitting.is_empty(), "{:?} were passed over", fitting),
            }
        }
    }

    /// As above, with what the checks and the traffic show.
    #[test]
    fn no_server_that_is_down_is_picked_while_another_is_up(
        kind in any_kind(),
        history in proptest::collection::vec((0usize..4, 0u8..5, 0u64..3000, any::<u64>()), 1..80),
    ) {
        let check = Check {
            kind: CheckKind::Tcp,
            port: None,
            host: None,
            headers: std::collections::BTreeMap::new(),
            status: Vec::new(),
            interval: Duration::from_millis(1000),
            fast_interval: Duration::from_millis(200),
            connect: Duration::from_millis(500),
            timeout: Duration::from_millis(500),
            rise: 2,
            fall: 3,
        };
        let mut now = Time::ZERO;
        let health = Health::new(Some(check), Ejection::default(), Unproven::Up, now);
        let mut all = vec![health; 4];
        let mut site = Site::weighted(&kind, &[1, 2, 3, 4]);
        for (index, event, wait, key) in history {
            now = now + Duration::from_millis(wait);
            let input = match event {
                0 => Input::ProbePassed("well".into()),
                1 => Input::ProbeFailed(Symptom::Bad, "badly".into()),
                2 => Input::Errored(Symptom::Refused, "refused".into()),
                3 => Input::TooSlow("late".into()),
                _ => Input::Served,
            };
            for health in &mut all {
                health.step(now, Input::Deadline, &mut Vec::new());
            }
            all[index].step(now, input, &mut Vec::new());
            let up: Vec<_> = all.iter().map(Health::is_up).collect();
            site.set_up(&up);
            for key in [None, Some(key)] {
                match site.ask(key, &[]) {
                    Ok(index) => prop_assert!(up[index], "{} is down", index),
                    Err(why) => prop_assert!(why == NotPicked::NoneUp && !up.contains(&true)),
                }
            }
        }
    }

    #[test]
    fn round_robin_shares_follow_weights_exactly(weights in proptest::collection::vec(1u16..30, 1..8)) {
        let total: usize = weights.iter().map(|&weight| usize::from(weight)).sum();
        let shares = Site::weighted(&Kind::RoundRobin, &weights).shares(total * 3);
        for (share, weight) in shares.iter().zip(&weights) {
            prop_assert_eq!(*share, usize::from(*weight) * 3);
        }
    }

    #[test]
    fn least_conn_fills_by_weight(weights in proptest::collection::vec(1u16..30, 1..40)) {
        let mut site = Site::weighted(&Kind::LeastConn, &weights);
        let total: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
        for _ in 0..total * 10 {
            let index = site.pick().unwrap();
            site.in_flight[index] += 1;
        }
        for (in_flight, weight) in site.in_flight.iter().zip(&weights) {
            let fair = u32::from(*weight) * 10;
            prop_assert!(in_flight.abs_diff(fair) <= 1, "{in_flight} instead of {fair}");
        }
    }

    #[test]
    fn least_conn_takes_the_least_loaded(
        loads in proptest::collection::vec((0u32..10, 1u16..5), 1..40),
        leaving in proptest::collection::vec(0usize..40, 0..60),
    ) {
        let weights: Vec<_> = loads.iter().map(|&(_, weight)| weight).collect();
        let mut site = Site::weighted(&Kind::LeastConn, &weights);
        site.in_flight = loads.iter().map(|&(load, _)| load).collect();
        for index in leaving.into_iter().filter(|&index| index < loads.len()) {
            if site.in_flight[index] > 0 {
                site.in_flight[index] -= 1;
                site.balancer.lighten(index, || site.in_flight[index]);
            }
            let picked = site.pick().unwrap();
            let load = |index: usize| {
                u64::from(site.in_flight[index] + 1) * 60 / u64::from(weights[index])
            };
            let least = (0..loads.len()).map(load).min().unwrap();
            prop_assert_eq!(load(picked), least);
            site.in_flight[picked] += 1;
        }
    }

    /// A server that is removed, by its health or by a new configuration, moves its own keys and no others.
    #[test]
    fn a_removal_moves_only_its_keys(count in 2usize..12, gone in 0usize..12, weight in 1u16..9) {
        let gone = gone % count;
        let mut site = Site::weighted(&hash(None), &vec![weight; count]);
        let mut up = vec![true; count];
        up[gone] = false;
        let mut down = site.clone();
        down.set_up(&up);
        let mut fewer = site.backend.clone();
        fewer.servers.remove(gone);
        let names: Vec<_> = fewer.servers.iter().map(|server| server.name.clone()).collect();
        let mut fewer = Site::of(fewer);
        for key in keys(300) {
            let before = site.ask(Some(key), &[]).unwrap();
            let after = down.ask(Some(key), &[]).unwrap();
            prop_assert!(after == before || before == gone);
            let configured = fewer.ask(Some(key), &[]).unwrap();
            prop_assert_eq!(&names[configured], &site.backend.servers[after].name);
        }
    }

    #[test]
    fn no_member_is_loaded_beyond_the_bound(
        weights in proptest::collection::vec(1u16..6, 1..8),
        keys in proptest::collection::vec(0u64..5, 1..200),
    ) {
        let mut site = Site::weighted(&hash(Some(125)), &weights);
        let total: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
        for key in keys {
            let key = super::hash::of(&[&key.to_le_bytes()]);
            let index = site.ask(Some(key), &[]).unwrap();
            site.in_flight[index] += 1;
            let all: u32 = site.in_flight.iter().sum();
            let most = (all * 125 * u32::from(weights[index])).div_ceil(total * 100);
            prop_assert!(site.in_flight[index] <= most);
        }
    }
}
