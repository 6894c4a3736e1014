//! The one IO shell: it asks `core` what to do, speaks with `wire`, and touches the world.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod agent;
pub mod api;
pub mod certificates;
pub mod client;
pub mod database;
pub mod drill;
pub mod events;
pub mod init;
pub mod keeper;
pub mod lab;
pub mod os;
pub mod page;
pub mod pki;
pub mod release;
pub(crate) mod room;
pub(crate) mod serve;
#[cfg(test)]
mod slow_disk;
pub mod state;
pub mod stderr;
pub mod store;
pub mod view;
pub mod worker;

/// An error and all that caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
