//! What one choice of a server costs. Each is followed by the end of an earlier one, so that 64 requests are always in
//! flight.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gaiola_core::balance::{Ask, Balancer, WHOLE};
use gaiola_model::proxy::{Algorithm, Backend, HashKey, Server};
use std::collections::VecDeque;

const IN_FLIGHT: usize = 64;

/// A backend's balancer with its requests in flight.
struct Load {
    balancer: Balancer,
    rng: fastrand::Rng,
    in_flight: Vec<u32>,
    open: VecDeque<usize>,
}

impl Load {
    fn new(algorithm: &Algorithm, servers: u16) -> Self {
        let server = |number: u16| Server {
            weight: 1 + number % 3,
            ..Server::new(format!("s{number}"), ([127, 0, 0, 1], 80))
        };
        let mut balancer = Balancer::new(&Backend {
            algorithm: algorithm.clone(),
            ..Backend::new("app", (0..servers).map(server).collect())
        });
        balancer.set_shares(&vec![WHOLE; servers.into()]);
        Self {
            balancer,
            rng: fastrand::Rng::with_seed(1),
            in_flight: vec![0; servers.into()],
            open: VecDeque::new(),
        }
    }

    fn choose(&mut self) {
        let ask = Ask {
            key: Some(self.rng.u64(..)),
            tried: &[],
            in_flight: self.open.len() as u64,
        };
        let in_flight = &self.in_flight;
        let index = self
            .balancer
            .pick(&ask, |index| in_flight[index], &mut self.rng)
            .expect("all are up");
        self.in_flight[index] += 1;
        self.open.push_back(index);
        if self.open.len() > IN_FLIGHT
            && let Some(done) = self.open.pop_front()
        {
            self.in_flight[done] -= 1;
            let left = self.in_flight[done];
            self.balancer.lighten(done, || left);
        }
    }
}

fn pick(criterion: &mut Criterion) {
    let hash = Algorithm::Hash {
        key: HashKey::Source,
        bound: Some(Algorithm::USUAL_BOUND),
    };
    for (name, algorithm) in [
        ("round_robin", Algorithm::RoundRobin),
        ("least_conn", Algorithm::LeastConn),
        ("random", Algorithm::Random),
        ("first", Algorithm::First),
        ("hash", hash),
    ] {
        let mut group = criterion.benchmark_group(name);
        for servers in [2, 100, 2000] {
            let mut load = Load::new(&algorithm, servers);
            group.bench_function(BenchmarkId::from_parameter(servers), |bencher| {
                bencher.iter(|| load.choose());
            });
        }
    }
}

criterion_group!(benches, pick);
criterion_main!(benches);
