//! What one choice costs, for two servers and for two thousand: `cargo run --release -p gaiola-core --example pick`.
//!
//! Each choice is followed by the end of an earlier one, so that 64 requests are always in flight.

#![expect(
    clippy::disallowed_methods,
    reason = "a measurement needs a clock of its own"
)]

use gaiola_core::balance::{Ask, Balancer, WHOLE};
use gaiola_model::proxy::{Algorithm, Backend, HashKey, Server};
use std::collections::VecDeque;
use std::time::Instant;

const CHOICES: u32 = 300_000;
const IN_FLIGHT: usize = 64;

fn main() {
    let hash = Algorithm::Hash {
        key: HashKey::Source,
        bound: Some(Algorithm::USUAL_BOUND),
    };
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::LeastConn,
        Algorithm::Random,
        Algorithm::First,
        hash,
    ] {
        let [few, many] = [2, 2000].map(|count| nanos(&algorithm, count));
        println!("{algorithm:?}: {few} ns a choice among 2, {many} ns among 2000");
    }
}

fn nanos(algorithm: &Algorithm, count: u16) -> u128 {
    let server = |number: u16| Server {
        weight: 1 + number % 3,
        ..Server::new(format!("s{number}"), ([127, 0, 0, 1], 80))
    };
    let mut balancer = Balancer::new(&Backend {
        algorithm: algorithm.clone(),
        ..Backend::new("app", (0..count).map(server).collect())
    });
    balancer.set_shares(&vec![WHOLE; count.into()]);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut in_flight = vec![0u32; count.into()];
    let mut open = VecDeque::new();
    let began = Instant::now();
    for _ in 0..CHOICES {
        let ask = Ask {
            key: Some(rng.u64(..)),
            tried: &[],
            in_flight: open.len() as u64,
        };
        let index = balancer
            .pick(&ask, |index| in_flight[index], &mut rng)
            .expect("all are up");
        in_flight[index] += 1;
        open.push_back(index);
        if open.len() > IN_FLIGHT
            && let Some(done) = open.pop_front()
        {
            in_flight[done] -= 1;
            balancer.lighten(done, || in_flight[done]);
        }
    }
    began.elapsed().as_nanos() / u128::from(CHOICES)
}
