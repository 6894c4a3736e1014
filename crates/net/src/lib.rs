//! HTTP and mutual TLS between the site's own processes: the client, and certificates.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod client;
pub mod pki;
pub mod server;
