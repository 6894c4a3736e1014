//! Simulates many servers in one thread from one seed: a virtual clock, a faulty network, crashes and checkers.
//!
//! The seed alone determines a run. `SEED=17 cargo test -p gaiola-sim vrrp` replays one run, `SEEDS=5000` tries that many;
//! a seed that failed is added to `seeds/` and runs every time.

pub mod rollout;
pub mod store;
pub mod violation;
pub mod vip_command;
pub mod vrrp;
pub mod world;
