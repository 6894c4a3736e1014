//! A new process takes over from the one that serves.
//!
//! They speak over a Unix socket: the control socket, or one that the old process has given to a new one that it started
//! itself. The new process asks, and gets the listening sockets and what is known (`Offer`). It applies its configuration,
//! connects to the VIP keeper, and says that it is ready. Only then does the old one stop accepting, and only when it has, the
//! new one begins: connections that arrive in between wait in the backlog of the sockets, which both hold. If the new
//! process fails before that, the old one has noticed nothing. From then on the old process finishes what is open, and the
//! socket is its control connection: the new process tells it the configurations that it gets, and adds its requests in
//! flight to its own reports (`Finishing`). This module has what the new process does and what both need; `hand_over` is the old
//! one's side, and `process::successor` starts a new process.

mod finishing;
mod late;
mod offer;

pub(super) use finishing::Finishing;
pub(super) use late::Handed;
pub use offer::TakeOver;
pub(super) use offer::{Inherited, Offer, meet, write_counts};

use gaiola_wire::document::DocumentError;
use std::io;
use std::time::Duration;

/// The schema of the messages between the two: the first one that has them, since the old process may be of an older version,
/// which rejects a newer schema and would be stopped instead.
const MESSAGES: u64 = 2;

/// How long the old process waits for the new one to be ready.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(30);

/// How long each waits for the other's answer.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The most processes that finish what is open; for a further one the oldest is ended.
pub(super) const MOST_OLD: u32 = 4;

/// Why a process does not take over, or is not taken over from.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The socket failed.
    #[error("the other process cannot be reached")]
    Io(#[from] io::Error),
    /// It sent something else.
    #[error("the other process sent something else")]
    Malformed(#[from] DocumentError),
    /// A message cannot be written.
    #[error("the message has no form in JSON")]
    Json(#[from] serde_json::Error),
    /// It said no.
    #[error("the other process refused: {0}")]
    Refused(String),
    /// It said something that was not asked for.
    #[error("the other process sent {0} where something else was due")]
    Unexpected(String),
    /// It closed the connection.
    #[error("the other process has closed the connection")]
    Closed,
    /// Nothing came in time.
    #[error("the other process did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It ended before it served.
    #[error("the new process {0}; its own messages say why")]
    Ended(String),
    /// What was handed over cannot be used.
    #[error("the other process's ticket keys cannot be used: {0}")]
    Tickets(String),
}
