//! The keepers: small processes that hold resources which must be released when something dies.

pub mod database;
pub mod vip;
