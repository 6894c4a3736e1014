//! The data plane: the process `gaiola proxy`.
//!
//! One thread supervises: control socket, admin port, health checks, signals. One worker thread per CPU accepts
//! connections and serves them to the end. The workers receive their orders as one immutable value (`Orders`); they
//! publish counters and reports.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod accept;
mod admin;
mod auth;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod broadcast;
mod check;
mod client;
mod clock;
mod compress;
mod control;
mod counters;
mod exchange;
mod files;
mod free_list;
mod hand_over;
mod handshake;
#[cfg(any(test, feature = "bench"))]
#[cfg_attr(not(test), expect(dead_code, reason = "tests use all of it"))]
mod harness;
mod heartbeat;
mod io;
mod limits;
mod listen;
mod log;
mod metrics;
mod orders;
mod peers;
mod process;
mod program;
mod reload;
mod reports;
mod rules;
mod serving;
mod session;
mod sessions;
mod standalone;
mod supervisor;
mod take_over;
mod tcp;
mod thread;
mod tls;
mod tunnel;
mod worker;

pub use process::{ProxyArgs, ProxyError, run};
pub use reload::{END_LIMIT, FileError, Parts, Reload, TAKE_OVER_LIMIT, read_file};
pub use rules::RulesError;
pub use standalone::serve_file;
pub use supervisor::{BackendError, ConfigError, FilterError, Twice, WorkerError};
pub use take_over::{TakeOver, TakeOverError};
pub use tls::beside;
pub use tls::{BadStaple, TlsError, TlsFileError, check_certificates, trusting};
