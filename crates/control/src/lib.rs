//! What an operator may ask of a site, and the lab in which one may stand.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod api;
pub mod certificates;
pub mod drill;
pub mod lab;
pub mod page;
pub mod release;
#[cfg(test)]
#[path = "../../agent/src/slow_disk.rs"]
mod slow_disk;
