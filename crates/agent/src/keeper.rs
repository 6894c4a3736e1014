//! The keepers: small processes that hold what must be let go when something dies.

pub mod database;
pub mod vip;
