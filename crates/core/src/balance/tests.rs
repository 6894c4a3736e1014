mod properties;

use super::*;
use crate::health::{Health, Input, Symptom, Unproven};
use gaiola_model::Time;
use gaiola_model::proxy::Ejection;
use gaiola_model::proxy::{Algorithm as Kind, Backend, Check, CheckKind, HashKey, Server};
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

    /// How many of a number of picks each member gets.
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
