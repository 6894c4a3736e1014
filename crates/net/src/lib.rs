//! HTTP and mutual TLS between the site's own processes: the client, certificates, and the sealing of secrets.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod client;
pub mod pki;
pub mod seal;
pub mod server;
