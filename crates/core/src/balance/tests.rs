use super::*;
use crate::health::{Health, Input, Symptom, Unproven};
use gaiola_model::Time;
use gaiola_model::proxy::Ejection;
use gaiola_model::proxy::{Algorithm as Kind, Backend, Check, CheckKind, HashKey, Server};
use proptest::prelude::*;
use std::time::Duration;

/// A balancer, and what its members have to do.
#[derive(Clone)]
struct Site {
    backend: Backend,
    balancer: Balancer,
    in_flight: Vec<u32>,
    rng: fastrand::Rng,
}

impl Site {
    fn new(algorithm: &Kind, servers: Vec<Server>) -> Self {
        let backend = Backend {
            algorithm: algorithm.clone(),
            ..Backend::new("app", servers)
        };
        Self::of(backend)
    }

    /// With all of its servers up.
    fn of(backend: Backend) -> Self {
        let mut balancer = Balancer::new(&backend);
        balancer.set_shares(&vec![WHOLE; backend.servers.len()]);
        Self {
            in_flight: vec![0; backend.servers.len()],
            balancer,
            backend,
            rng: fastrand::Rng::with_seed(7),
        }
    }

    fn weighted(algorithm: &Kind, weights: &[u16]) -> Self {
        let servers = weights.iter().enumerate();
        Self::new(
            algorithm,
            servers.map(|(n, &weight)| server(n, weight)).collect(),
        )
    }

    fn ask(&mut self, key: Option<u64>, tried: &[usize]) -> Result<usize, NotPicked> {
        let ask = Ask {
            key,
            tried,
            in_flight: self.in_flight.iter().copied().map(u64::from).sum(),
        };
        self.balancer
            .pick(&ask, |index| self.in_flight[index], &mut self.rng)
    }

    fn pick(&mut self) -> Result<usize, NotPicked> {
        self.ask(None, &[])
    }

    fn picks(&mut self, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.pick().unwrap()).collect()
    }

    /// How many of so many picks each member gets.
    fn shares(&mut self, count: usize) -> Vec<usize> {
        let mut shares = vec![0; self.in_flight.len()];
        self.picks(count)
            .into_iter()
            .for_each(|index| shares[index] += 1);
        shares
    }

    fn set_up(&mut self, up: &[bool]) {
        let shares: Vec<_> = up.iter().map(|&up| if up { WHOLE } else { 0 }).collect();
        self.balancer.set_shares(&shares);
    }
}

fn server(number: usize, weight: u16) -> Server {
    Server {
        weight,
        ..Server::new(format!("s{number}"), ([127, 0, 0, 1], 80))
    }
}

fn hash(bound: Option<u16>) -> Kind {
    Kind::Hash {
        key: HashKey::Source,
        bound,
    }
}

fn all_kinds() -> [Kind; 6] {
    [
        Kind::RoundRobin,
        Kind::LeastConn,
        Kind::Random,
        Kind::First,
        hash(None),
        hash(Some(Kind::USUAL_BOUND)),
    ]
}

/// Keys as requests have them.
fn keys(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|n| super::hash::of(&[&n.to_le_bytes()]))
}

#[test]
fn heavy_members_are_spread_out() {
    let mut site = Site::weighted(&Kind::RoundRobin, &[4, 1, 1]);
    let picks = site.picks(6);
    assert!(picks.windows(4).all(|four| four != [0; 4]), "{picks:?}");
    assert_eq!(picks, site.picks(6));
    // As many light ones as the heavy one weighs: it comes back soon all the same.
    let mut weights = vec![1; 101];
    weights[0] = 100;
    let picks = Site::weighted(&Kind::RoundRobin, &weights).picks(200);
    let longest = picks.chunk_by(|a, b| a == b).map(<[usize]>::len).max();
    assert!(longest <= Some(2), "{picks:?}");
}

#[test]
fn a_new_weight_leaves_the_others_turns_as_they_are() {
    let mut site = Site::weighted(&Kind::RoundRobin, &[1, 1, 1, 1]);
    assert_eq!(site.picks(2), [0, 1]);
    site.backend.servers[0].weight = 2;
    site.backend.servers.push(server(9, 1));
    let mut after = Balancer::after(&site.balancer, &site.backend);
    after.set_shares(&[WHOLE; 5]);
    site.balancer = after;
    site.in_flight.push(0);
    let picks: Vec<_> = site
        .picks(12)
        .into_iter()
        .filter(|&index| (1..4).contains(&index))
        .collect();
    assert_eq!(picks[..3], [2, 3, 1]);
    let shares = site.shares(60);
    assert_eq!(shares, [20, 10, 10, 10, 10]);
}

#[test]
fn a_member_that_comes_back_does_not_make_up_for_the_time() {
    let mut site = Site::weighted(&Kind::RoundRobin, &[1, 1]);
    site.set_up(&[true, false]);
    site.picks(100);
    site.set_up(&[true, true]);
    let shares = site.shares(10);
    assert!(shares[1] <= 6, "{shares:?}");
}

#[test]
fn a_full_member_does_not_make_up_for_the_time() {
    let mut full = server(1, 1);
    full.maxconn = Some(1);
    let mut site = Site::new(&Kind::RoundRobin, vec![server(0, 1), full]);
    site.in_flight[1] = 1;
    assert_eq!(site.shares(50), [50, 0]);
    site.in_flight[1] = 0;
    let shares = site.shares(10);
    assert!(shares[1] <= 6, "{shares:?}");
}

#[test]
fn full_members_make_the_session_wait_and_dead_ones_do_not() {
    for kind in all_kinds() {
        let mut full = server(0, 1);
        full.maxconn = Some(3);
        let mut site = Site::new(&kind, vec![full, server(1, 1), server(2, 0)]);
        site.in_flight[0] = 3;
        assert_eq!(site.pick(), Ok(1));
        assert_eq!(site.ask(Some(1), &[]), Ok(1));
        assert_eq!(site.ask(None, &[1]), Err(NotPicked::Full));
        assert_eq!(site.ask(Some(1), &[0, 1]), Err(NotPicked::AllTried));
        site.set_up(&[true, false, true]);
        assert_eq!(site.pick(), Err(NotPicked::Full));
        site.in_flight[0] = 2;
        assert_eq!(site.ask(Some(1), &[]), Ok(0));
        assert_eq!(site.ask(None, &[0]), Err(NotPicked::AllTried));
        site.set_up(&[false, false, true]);
        assert_eq!(site.pick(), Err(NotPicked::NoneUp));
        let mut nobody = Site::new(&kind, Vec::new());
        assert_eq!(nobody.pick(), Err(NotPicked::NoneUp));
        assert_eq!(nobody.ask(Some(1), &[]), Err(NotPicked::NoneUp));
    }
}

#[test]
fn equals_take_turns() {
    let mut site = Site::weighted(&Kind::LeastConn, &[1, 1, 1]);
    assert_eq!(site.picks(6), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn the_first_is_filled_before_the_next() {
    let servers = (0..3).map(|n| Server {
        maxconn: Some(2),
        ..server(n, 1)
    });
    let mut site = Site::new(&Kind::First, servers.collect());
    for expected in [0, 0, 1, 1, 2, 2] {
        assert_eq!(site.pick(), Ok(expected));
        site.in_flight[expected] += 1;
    }
    site.in_flight[0] -= 1;
    assert_eq!(site.pick(), Ok(0));
}

#[test]
fn spares_wait_until_nobody_else_is_up() {
    for kind in all_kinds() {
        let spare = |n| Server {
            spare: true,
            ..server(n, 1)
        };
        let servers = vec![spare(0), server(1, 1), spare(2), spare(3)];
        let mut site = Site::new(&kind, servers);
        assert_eq!(site.shares(20)[1], 20);
        assert_eq!(site.ask(None, &[1]), Err(NotPicked::AllTried));
        let spare = |site: &Site, tried: &[usize]| {
            let in_flight = |index: usize| site.in_flight[index];
            site.balancer.waiting_spare(tried, in_flight)
        };
        assert_eq!(spare(&site, &[]), Some(0), "{kind:?}");
        assert_eq!(spare(&site, &[0, 1]), Some(2));
        site.set_up(&[false, false, true, true]);
        assert_eq!(site.shares(20)[2], 20, "{kind:?}");
        site.backend.all_spares = true;
        let mut site = Site::of(site.backend);
        site.set_up(&[true, false, true, true]);
        let picked: Vec<_> = keys(200)
            .map(|key| {
                let index = site.ask(Some(key), &[]).unwrap();
                site.in_flight[index] += 1;
                index
            })
            .collect();
        assert!(!picked.contains(&1));
        if kind != Kind::First {
            assert!(
                [0, 2, 3].iter().all(|spare| picked.contains(spare)),
                "{kind:?}"
            );
        }
        site.set_up(&[true, true, true, true]);
        assert_eq!(site.shares(20)[1], 20);
    }
}

#[test]
fn a_share_is_a_part_of_the_weight() {
    for kind in [Kind::RoundRobin, Kind::Random] {
        let mut site = Site::weighted(&kind, &[3, 3]);
        site.balancer.set_shares(&[WHOLE, 4]);
        let shares = site.shares(1000);
        assert!(shares[1].abs_diff(200) < 50, "{shares:?}");
    }
    let mut site = Site::weighted(&hash(None), &[3, 3]);
    site.balancer.set_shares(&[WHOLE, 4]);
    let small = keys(1000)
        .filter(|&key| site.ask(Some(key), &[]) == Ok(1))
        .count();
    assert!(small.abs_diff(200) < 100, "{small}");
}

#[test]
fn of_two_drawn_the_idle_one_is_taken() {
    let mut site = Site::weighted(&Kind::Random, &[1, 1]);
    site.in_flight = vec![5, 4];
    assert_eq!(site.shares(50), [0, 50]);
    let mut site = Site::weighted(&Kind::Random, &[1; 10]);
    for _ in 0..1000 {
        let index = site.pick().unwrap();
        site.in_flight[index] += 1;
    }
    let most = site.in_flight.iter().max().unwrap();
    assert!(*most <= 105, "{:?}", site.in_flight);
}

#[test]
fn keys_are_spread_by_weight() {
    let mut site = Site::weighted(&hash(None), &[2, 1, 1]);
    let mut shares = [0usize; 3];
    for key in keys(8000) {
        shares[site.ask(Some(key), &[]).unwrap()] += 1;
    }
    for (share, fair) in shares.iter().zip([4000, 2000, 2000]) {
        assert!(share.abs_diff(fair) < fair / 3, "{shares:?}");
    }
}

#[test]
fn requests_without_a_key_go_round_robin() {
    let mut site = Site::weighted(&hash(Some(125)), &[1, 1, 1]);
    assert_eq!(site.picks(6), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn large_rings_stay_within_their_size() {
    let site = Site::weighted(&hash(None), &[256; 300]);
    let Algorithm::Hash(state) = &site.balancer.algorithm else {
        panic!("it hashes");
    };
    assert!(state.points() <= 1 << 18, "{}", state.points());
}

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
    LeaveUntold,
    Weight(u16),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0u8..=WHOLE).prop_map(Event::Share),
        Just(Event::Share(0)),
        Just(Event::Enter),
        Just(Event::Leave),
        Just(Event::LeaveUntold),
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
                    Event::LeaveUntold => site.in_flight[index] = site.in_flight[index].saturating_sub(1),
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
