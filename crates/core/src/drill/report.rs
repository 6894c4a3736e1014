//! A drill's findings as data; `render` makes a table of them for people.

mod conclude;

use super::contents::Contents;
use super::ledger::Kind;
use super::target::Target;
use gaiola_model::{Exit, Time};
use serde::{Deserialize, Serialize};

/// Schema version: raised when programs that read reports would have to change.
pub const SCHEMA: u32 = 2;

/// What one drill found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The site's name.
    pub site: String,
    /// What was rehearsed.
    pub target: Target,
    /// How the harm was done, and what else it hit, where the target does not say so. Only on machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The result.
    pub verdict: Verdict,
    /// Why it is not `passed`, in words; empty if it is.
    pub reason: String,
    /// From the harm until the status showed it. `None`: it never did, for example because the harm was over too soon.
    pub detected_ms: Option<u64>,
    /// From the harm until requests of all kinds succeeded for good; 0: they never stopped.
    pub recovered_ms: Option<u64>,
    /// From the harm until restoring what was taken away began. `None`: nothing had to be restored.
    pub put_back_ms: Option<u64>,
    /// From the harm until the site was healthy with nothing missing.
    pub whole_ms: Option<u64>,
    /// The longest time without a success, of the kind of request that fared worst.
    pub outage_ms: u64,
    /// That kind.
    pub outage_of: Kind,
    /// The longest time between the starts of two probes: normally about 10. A long one means that the measuring
    /// machine itself stalled, and the outage may be overstated by it.
    pub longest_pause_ms: u64,
    /// The requests of each kind.
    pub kinds: Vec<KindReport>,
    /// Idle connections that the site closed and that were reopened before a request was written: no failure.
    pub reopened: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Acknowledged writes that were not found afterwards.
    pub lost: u64,
    /// Some of them, each with the reason.
    pub lost_examples: Vec<String>,
    /// Acknowledged writes that could not be checked, because the site did not answer.
    pub unknown: u64,
    /// Whether all members of the database hold the same rows.
    pub contents: Contents,
}

/// The requests of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// Their kind.
    pub kind: Kind,
    /// Requests that were sent.
    pub sent: u64,
    /// Those without a 2xx within their limit; also writes answered with `"acknowledged":false`.
    pub failed: u64,
    /// Those that ended on a second connection because the first, a reused one, was closed before the first byte of a
    /// response. Browsers resend such a request; so does the load, unless it is a write.
    pub resent: u64,
    /// The longest time between two successes.
    pub longest_gap_ms: u64,
    /// Median duration of the successful ones.
    pub p50_ms: u64,
    /// 99th percentile of the successful ones.
    pub p99_ms: u64,
    /// Reasons for failures with their counts, the most frequent first.
    pub failures: Vec<(String, u64)>,
}

/// The result of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The harm was done, nothing is lost, the site is whole again, and it stayed within `[drill]`'s limits.
    Passed,
    /// More acknowledged writes were not found than `[drill]` allows.
    Lost,
    /// The members of the database do not hold the same rows.
    Different,
    /// Requests of some kind did not recover for good.
    NotRecovered,
    /// The outage was longer, or more requests failed, than `[drill]` allows.
    OverLimit,
    /// The site did not recover, or did not become whole, in time.
    NotHealthy,
    /// The site was not healthy, or did not answer cleanly, before the harm: nothing was harmed.
    NotReady,
    /// The harm could not be done, or could not be confirmed: the drill proves nothing.
    NotDone,
    /// The operator interrupted it; the harm was undone.
    Interrupted,
}

impl Verdict {
    /// Exit code of `gaiola drill`.
    pub const fn exit(self) -> Exit {
        match self {
            Self::Passed => Exit::Ok,
            Self::NotDone | Self::NotRecovered | Self::OverLimit => Exit::Failed,
            Self::Lost | Self::Different | Self::NotHealthy | Self::NotReady => Exit::Degraded,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// Exit code for several drills; precedence: interrupted, degraded, failed, passed.
    pub fn exit_of_all(verdicts: impl IntoIterator<Item = Self>) -> Exit {
        let exits = verdicts.into_iter().map(Self::exit);
        exits.max_by_key(|exit| exit.code()).unwrap_or(Exit::Ok)
    }

    /// In words, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Lost => "LOST WRITES",
            Self::Different => "DIFFERENT",
            Self::NotRecovered => "NOT RECOVERED",
            Self::OverLimit => "OVER LIMIT",
            Self::NotHealthy => "NOT HEALTHY",
            Self::NotReady => "not started",
            Self::NotDone => "not done",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The timeline of a drill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The calm before the harm began; counting starts here.
    pub begun: Time,
    /// The harm began.
    pub harm: Option<Time>,
    /// The status showed it.
    pub detected: Option<Time>,
    /// Requests of all kinds succeeded for good: see [`Ledger::recovered`](super::Ledger::recovered).
    pub recovered: Option<Time>,
    /// Restoring what was taken away began.
    pub put_back: Option<Time>,
    /// The site became healthy for the last time.
    pub whole: Option<Time>,
    /// The load ended.
    pub ended: Time,
}

/// What was found after the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What became of the writes.
    pub writes: Writes,
    /// What the members of the database hold.
    pub contents: Contents,
    /// How the harm was done, and what else it hit.
    pub notes: Vec<String>,
}

/// What became of the writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Those of them that are missing, each with what was found instead.
    pub lost: Vec<String>,
    /// Those of them that could not be checked, each with the reason.
    pub unknown: Vec<String>,
}

impl Writes {
    /// Adds `others` to these.
    pub fn add(&mut self, others: Self) {
        self.acknowledged += others.acknowledged;
        self.lost.extend(others.lost);
        self.unknown.extend(others.unknown);
    }
}

#[cfg(test)]
pub(super) mod tests;
