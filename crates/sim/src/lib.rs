//! Many servers in one thread from one seed: a virtual clock, a faulty network, crashes and checkers.
//!
//! Every run is decided by its seed alone. `SEED=17 cargo test -p gaiola-sim vrrp` replays one run, `SEEDS=5000` tries
//! that many; a seed that failed joins `seeds/`, and is run every time.

pub mod rollout;
pub mod vrrp;
pub mod world;
