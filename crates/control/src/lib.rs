//! What an operator can do with a site; and the lab, which provides servers on one machine.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod api;
mod archive;
pub mod certificates;
pub mod change;
pub mod drill;
pub mod monitor;
pub mod process;
pub mod provider;
pub mod release;
pub mod site;
pub mod socket;
pub mod ssh;
pub mod traffic;
