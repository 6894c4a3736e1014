//! The decisions. Time and chance are arguments; nothing here opens a socket, a file or a clock.

pub mod admission;
pub mod backoff;
pub mod balance;
pub mod cause;
pub mod conduct;
pub mod cookie;
pub mod database;
pub mod drill;
pub mod follow;
pub mod forward;
pub mod health;
pub mod limit;
pub mod members;
pub mod merge;
pub mod private;
pub mod resources;
pub mod retry;
pub mod rollout;
pub mod route;
pub mod rule;
pub mod status;
pub mod sticky;
pub mod supervise;
pub mod tickets;
pub mod topology;
pub mod vrrp;
