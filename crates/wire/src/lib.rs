//! Bytes to model values and back. No sockets, no files, no clock.

pub mod arp;
mod checksum;
pub mod client_hello;
mod compress;
pub mod config;
pub mod document;
mod file;
mod file_options;
pub use file::closest;
pub mod hex;
pub mod http1;
pub mod metrics;

pub mod ndp;
pub mod peers;
pub mod proxy_file;
pub mod proxy_protocol;
pub mod tcp;
pub mod vrrp;
pub mod x509;
