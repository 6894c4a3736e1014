//! Which member of a backend takes the next request.
//!
//! Spare members take part only while no other member does, except on the last attempt of a request that all others have
//! failed. A choice costs at most the logarithm of the number of members, as long as a suitable member is found soon.

mod hash;
mod key;
mod least_conn;
mod random;
mod round_robin;
mod slow_start;
mod tournament;

pub use key::key;
pub use slow_start::{WHOLE, slow_start};

use gaiola_model::proxy;
use hash::{Hash, Ring};
use least_conn::LeastConn;
use random::Random;
use round_robin::RoundRobin;
use std::collections::HashMap;
use std::sync::Arc;

/// A member's share is counted in sixteenths of its weight.
const SHARES: u32 = WHOLE as u32;

/// Why no member was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPicked {
    /// All remaining members are at their maxconn: the session waits in the queue.
    #[error("every server is at its maxconn")]
    Full,
    /// This request has tried every member that takes traffic.
    #[error("every server that is up was tried")]
    AllTried,
    /// No member takes traffic.
    #[error("no server is up")]
    NoneUp,
}

/// The properties of a request that a choice depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Hash key, if the algorithm hashes and the request has one; see [`key()`].
    pub key: Option<u64>,
    /// Members this request has tried.
    pub tried: &'a [usize],
    /// Requests in flight to all members; needed only if [`Balancer::counts_all`] says so.
    pub in_flight: u64,
}

/// Chooses members by an algorithm and its state. Each worker has one for each backend.
///
/// ```
/// use gaiola_core::balance::{Ask, Balancer, WHOLE};
/// use gaiola_model::proxy::{Backend, Server};
///
/// let server = |name: &str| Server::new(name, ([127, 0, 0, 1], 80));
/// let mut balancer = Balancer::new(&Backend::new("app", vec![server("a"), server("b")]));
/// balancer.set_shares(&[WHOLE, WHOLE]);
/// let mut rng = fastrand::Rng::with_seed(1);
/// let mut pick = || balancer.pick(&Ask::default(), |_| 0, &mut rng).unwrap();
/// assert_eq!([pick(), pick(), pick()], [0, 1, 0]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer {
    members: Vec<MemberConfig>,
    all_spares: bool,
    /// Spares that could take part but do not, because other members do.
    waiting: Vec<usize>,
    /// Each member's current weight in sixteenths; 0 while it takes no traffic.
    weights: Vec<u32>,
    algorithm: Algorithm,
}

/// A member's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MemberConfig {
    /// Derived from its name.
    id: u64,
    weight: u16,
    maxconn: Option<u32>,
    spare: bool,
}

/// A balancing algorithm with its state.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Algorithm {
    RoundRobin(RoundRobin),
    LeastConn(LeastConn),
    Random(Random),
    First,
    Hash(Hash),
}

/// A member's load.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// Requests in flight.
    in_flight: u32,
    /// Whether `in_flight` has reached its maxconn.
    full: bool,
}

impl Load {
    /// Its load per weight after one more request, for comparison with members of other weights: a fixed-point number,
    /// exact enough that different loads never become equal.
    fn for_weight(self, weight: u32) -> u64 {
        ((u64::from(self.in_flight) + 1) << 28) / u64::from(weight)
    }
}

impl Balancer {
    /// A fresh balancer, whose members take no traffic until [`Self::set_shares`].
    pub fn new(backend: &proxy::Backend) -> Self {
        let members = members(backend);
        let ring = || Arc::new(Ring::new(&members));
        Self::of(backend, &members, ring)
    }

    /// As [`Self::new`], for the configuration that replaces that of `before`: members that stay keep their turns.
    pub fn after(before: &Self, backend: &proxy::Backend) -> Self {
        let members = members(backend);
        let ring = || match &before.algorithm {
            Algorithm::Hash(state) if same_points(&before.members, &members) => state.ring(),
            _ => Arc::new(Ring::new(&members)),
        };
        let mut balancer = Self::of(backend, &members, ring);
        let ids = before.members.iter().map(|member| member.id);
        let places: HashMap<_, _> = ids.zip(0..).collect();
        let old = |index: usize| places.get(&members[index].id).copied();
        match (&mut balancer.algorithm, &before.algorithm) {
            (Algorithm::RoundRobin(new), Algorithm::RoundRobin(before)) => {
                new.take_over(before, old);
            }
            (Algorithm::Hash(new), Algorithm::Hash(before)) => new.take_over(before, old),
            _ => {}
        }
        balancer
    }

    fn of(
        backend: &proxy::Backend,
        members: &[MemberConfig],
        ring: impl FnOnce() -> Arc<Ring>,
    ) -> Self {
        let round_robin = || RoundRobin::new(members.iter().map(|member| member.weight));
        let algorithm = match &backend.algorithm {
            proxy::Algorithm::RoundRobin => Algorithm::RoundRobin(round_robin()),
            proxy::Algorithm::LeastConn => Algorithm::LeastConn(LeastConn::new(members.len())),
            proxy::Algorithm::Random => Algorithm::Random(Random::new(members.len())),
            proxy::Algorithm::First => Algorithm::First,
            proxy::Algorithm::Hash { bound, .. } => {
                Algorithm::Hash(Hash::new(ring(), *bound, round_robin()))
            }
        };
        Self {
            members: members.to_vec(),
            all_spares: backend.all_spares,
            waiting: Vec::new(),
            weights: vec![0; members.len()],
            algorithm,
        }
    }

    /// Sets the part of its weight that each member takes, in sixteenths; 0 is none.
    pub fn set_shares(&mut self, shares: &[u8]) {
        let takes = |index: &usize| shares[*index] > 0 && self.members[*index].weight > 0;
        let mut takers = (0..self.members.len()).filter(takes);
        let spare = |index: &usize| self.members[*index].spare;
        let only_spares = takers.clone().all(|index| spare(&index));
        let first_taker = takers.next();
        for (index, (member, &share)) in self.members.iter().zip(shares).enumerate() {
            let has_part = match (only_spares, self.all_spares) {
                (false, _) => takes(&index) && !spare(&index),
                (true, true) => takes(&index),
                (true, false) => first_taker == Some(index),
            };
            let weight = u32::from(member.weight) * u32::from(share);
            self.weights[index] = if has_part { weight } else { 0 };
        }
        let waits = |index: &usize| takes(index) && self.weights[*index] == 0;
        self.waiting = (0..self.members.len()).filter(waits).collect();
        for (index, &weight) in self.weights.iter().enumerate() {
            match &mut self.algorithm {
                Algorithm::RoundRobin(state) => state.set_weight(index, weight),
                Algorithm::LeastConn(state) => state.set_weight(index, weight),
                Algorithm::Random(state) => state.set_weight(index, weight),
                Algorithm::First => {}
                Algorithm::Hash(state) => state.set_weight(index, &self.members[index], weight),
            }
        }
    }

    /// Whether a member takes traffic.
    pub fn takes_traffic(&self, index: usize) -> bool {
        self.weights[index] > 0
    }

    /// Whether a choice depends on how many requests all members together have in flight.
    pub fn counts_all(&self) -> bool {
        matches!(&self.algorithm, Algorithm::Hash(state) if state.is_bounded())
    }

    /// Records that a member has fewer requests in flight; calls `in_flight` only if the algorithm uses it.
    pub fn lighten(&mut self, index: usize, in_flight: impl FnOnce() -> u32) {
        if let Algorithm::LeastConn(state) = &mut self.algorithm {
            state.record(index, self.members[index].load(in_flight()));
        }
    }

    /// Chooses the index of a member that takes traffic, has room, and was not tried by this request. `in_flight`
    /// returns how many requests to a member are in flight.
    ///
    /// # Errors
    /// Why there is none. After [`NotPicked::AllTried`] call it again with `tried` empty.
    pub fn pick(
        &mut self,
        ask: &Ask<'_>,
        in_flight: impl Fn(usize) -> u32,
        rng: &mut fastrand::Rng,
    ) -> Result<usize, NotPicked> {
        let (members, weights) = (&self.members, &self.weights);
        let load = |index: usize| members[index].load(in_flight(index));
        let fits = |index: usize| {
            weights[index] > 0
                && !ask.tried.contains(&index)
                && (members[index].maxconn.is_none() || !load(index).full)
        };
        let picked = match &mut self.algorithm {
            Algorithm::RoundRobin(state) => state.pick(fits),
            Algorithm::LeastConn(state) => state.pick(ask.tried, load),
            Algorithm::Random(state) => state.pick(fits, load, rng),
            Algorithm::First => (0..members.len()).find(|&index| fits(index)),
            Algorithm::Hash(state) => state.pick(ask, fits, load),
        };
        picked.ok_or_else(|| self.why_none(ask.tried))
    }

    /// A waiting spare that has room and was not tried by this request, for requests that failed on all other members.
    /// `in_flight` as for [`Self::pick`].
    pub fn waiting_spare(
        &self,
        tried: &[usize],
        in_flight: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let full = |index: usize| self.members[index].load(in_flight(index)).full;
        let mut waiting = self.waiting.iter().copied();
        waiting.find(|index| !tried.contains(index) && !full(*index))
    }

    fn why_none(&self, tried: &[usize]) -> NotPicked {
        let mut takers = (0..self.weights.len())
            .filter(|&index| self.weights[index] > 0)
            .peekable();
        if takers.peek().is_none() {
            NotPicked::NoneUp
        } else if takers.all(|index| tried.contains(&index)) {
            NotPicked::AllTried
        } else {
            NotPicked::Full
        }
    }
}

fn members(backend: &proxy::Backend) -> Vec<MemberConfig> {
    let member = |server: &proxy::Server| MemberConfig {
        id: number_of(&server.name),
        weight: server.weight,
        maxconn: server.maxconn,
        spare: server.spare,
    };
    backend.servers.iter().map(member).collect()
}

/// Whether both sets of members have the same points on a ring.
fn same_points(some: &[MemberConfig], others: &[MemberConfig]) -> bool {
    let points = |member: &MemberConfig| (member.id, member.weight);
    some.iter().map(points).eq(others.iter().map(points))
}

/// A number for a server's name, the same in every process.
pub(crate) fn number_of(name: &str) -> u64 {
    hash::of(&[name.as_bytes()])
}

impl MemberConfig {
    fn load(&self, in_flight: u32) -> Load {
        Load {
            in_flight,
            full: self.maxconn.is_some_and(|most| in_flight >= most),
        }
    }
}

#[cfg(test)]
mod tests;
