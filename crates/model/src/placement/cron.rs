//! What is known of the commands that run at set times: what was due, what runs, and how runs ended.

use super::{BootNumber, ReleaseNumber};
use crate::config::Cron;
use crate::cron::{BEGIN_WITHIN, LATE};
use crate::id::{CronName, ServerName};
use crate::time::UnixTime;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What the placement has of one `[cron.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedCron {
    /// Its section, as it was when the release that serves had come up.
    pub settings: Cron,
    /// Whatever was due up to here has run, runs, waits, or is known not to run.
    pub handled: UnixTime,
    /// The runs that are ordered and not known to have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<CronRun>,
    /// When those were due that wait for the one that runs, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<UnixTime>,
    /// What became of the last ones, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<CronEnd>,
}

/// A run that is ordered. Its cron's name and when it was due identify it: it begins once, on one boot of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronRun {
    /// When it was due.
    pub due: UnixTime,
    /// When it was ordered; it begins within [`BEGIN_WITHIN`] of that or not at all.
    pub ordered: UnixTime,
    /// The application server it runs on,
    pub server: ServerName,
    /// and its boot.
    pub boot: BootNumber,
    /// The release whose directory it runs in.
    pub release: ReleaseNumber,
    /// The command.
    pub run: String,
    /// It is ended if it takes longer.
    pub timeout: Duration,
    /// Whether its environment has `DATABASE_URL` and `DATABASE_REPLICA_URL`.
    pub database: bool,
    /// The number of its environment in [`Placement::environments`](super::Placement::environments); 0: it has none of the file's variables.
    #[serde(default)]
    pub env: u64,
}

impl CronRun {
    /// When it is over at the latest, whatever became of its server.
    pub fn over_by(&self) -> UnixTime {
        self.ordered + BEGIN_WITHIN + self.timeout + LATE
    }
}

/// How a run ended, as its agent reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedCron {
    /// Its cron.
    pub name: CronName,
    /// When it was due.
    pub due: UnixTime,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Whether it began.
    pub began: bool,
    /// The exit status of its command; `None`: it has none, because it was killed or did not begin.
    pub status: Option<u8>,
    /// `None`: it succeeded. Otherwise why it failed, with the end of its output, at most [`MAX_REASON`](crate::cron::MAX_REASON) bytes.
    pub error: Option<String>,
}

/// What became of one due time, or of several that were missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronEnd {
    /// When it was due; of several the first.
    pub due: UnixTime,
    /// The server it ran on, or should have; `None`: it was not ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub took_ms: u64,
    /// The exit status of its command, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// How it ended.
    pub outcome: CronOutcome,
    /// Why it failed, with the end of its output, or why it did not run; empty if it succeeded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// How a due time ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CronOutcome {
    /// The command exited with 0.
    Succeeded,
    /// It did not.
    Failed,
    /// Its server was lost: how it ended is not known.
    Lost,
    /// Nobody was there to run it in time.
    Missed,
    /// The run before was still under way.
    Skipped,
}
