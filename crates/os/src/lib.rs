//! The operating system, and what every process needs of it: its error output, and a server for status requests. The only
//! crate where `unsafe` is allowed, each block with its reason.
#![allow(unsafe_code)]

pub mod cgroup;
pub mod connection_limit;
pub mod descriptors;
pub mod namespace;
pub mod netlink;
pub mod notify;
pub mod packet;
pub mod pidns;
pub mod process;
pub mod realtime;
pub mod resources;
pub mod serve;
pub mod signal;
pub mod skip;
pub mod slow_disk;
pub mod socket;
pub mod stderr;
pub mod tcp;
pub mod thread;
pub mod ticks;

/// An error and its causes, on one line.
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
