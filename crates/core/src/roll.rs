//! Commands that roll over the machines of a site, one at a time: `gaiola roll` and `gaiola upgrade`.
//!
//! [`turns`] says which machines have a turn, in which order, and what is drained for each; [`missing`] and [`members_missing`] what is
//! waited for before the next one; [`keeps_quorum`] whether the store can do without a machine. Since only one machine is not whole at any time, two members of the store, or two balancers, never are.

mod ended;
mod store;
mod turns;
mod whole;

pub use ended::{Ended, Failed};
pub use store::{NoQuorum, keeps_quorum, members_missing};
pub use turns::{NoTurn, Purpose, Turn, turns};
pub use whole::{Before, Stage, Whole, missing};

/// Whether the program before can still read the site's documents, written in the schema `documents`, where it reads `schema` at most.
pub const fn may_go_back(schema: u64, documents: u64) -> bool {
    documents <= schema
}

#[cfg(test)]
mod tests;
