//! The operating system: the only room where `unsafe` is allowed, each block with its reason.
#![allow(unsafe_code)]

pub mod namespace;
pub mod netlink;
pub mod packet;
pub mod pidns;
pub mod process;
pub mod realtime;
pub mod resources;
pub mod signal;
pub mod socket;
