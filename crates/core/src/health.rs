//! Whether a member of a backend takes traffic: what its checks say, and what its traffic shows.
//!
//! **Active**: probes, as [`Check`] describes them: `fall` failures in a row take a member down, `rise` successes bring
//! it up; the first result decides alone. **Passive**: [`Ejection::errors`] attempts in a row that failed put it out
//! for a while that doubles each time, whatever its checks say meanwhile; a probe begun after that and answered well
//! brings it back early. A passive error is an attempt that the server did not answer: no connection, a connection
//! that ended or a response that did not begin in time. A status of 500 is an answer. A member that answers much later
//! than the others is put out alike (see [`slow_members`]), but for the whole of its time: a probe may still be quick.

mod slow;

pub use slow::{Answers, Pace, Seen, slow_members};

use crate::backoff::Backoff;
use gaiola_model::Time;
use gaiola_model::proxy::Check;
use std::time::Duration;

/// When a member is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Attempts in a row that fail before it is.
    pub errors: u32,
    /// For how long: the first time, and at most.
    pub length: Backoff,
}

impl Default for Ejection {
    /// Three errors; 1 s, doubling up to 30 s.
    fn default() -> Self {
        Self {
            errors: 3,
            length: Backoff {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(30),
            },
        }
    }
}

/// What a member counts as before its first probe was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// Up, so that a restarted proxy serves at once; an attempt that fails is repeated elsewhere.
    Up,
    /// Down: where a wrong member would do harm, such as a standby taken for the primary.
    Down,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// [`Health::next_deadline`] has come.
    Deadline,
    /// The probe last asked for was answered well: `HTTP 200 in 2 ms`.
    ProbePassed(String),
    /// The probe last asked for failed: `connection refused`.
    ProbeFailed(String),
    /// An attempt failed, in words.
    Errored(String),
    /// It answers much later than the others, in words.
    TooSlow(String),
    /// An attempt was answered. Only the first one after an error need be told.
    Served,
}

/// What should be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Begin a probe, and tell its result in time; until then no other is asked for.
    Probe,
    /// It takes traffic from now on, because of this.
    Up(String),
    /// It takes none from now on, because of this.
    Down(String),
}

/// One member's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    check: Option<Check>,
    ejection: Ejection,
    checked: Checked,
    probe: Probe,
    traffic: Traffic,
    reason: String,
}

/// What the checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    Unproven(Unproven),
    Up { failures: u32 },
    Down { successes: u32 },
}

/// The next or present probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// There is no check.
    Never,
    Due(Time),
    UnderWay {
        begun: Time,
    },
}

/// What the traffic shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    /// It is sent there. `lately` is the last ejection, which lengthens the next one.
    Sent {
        errors: u32,
        lately: Option<Returned>,
    },
    /// None is sent until the given time. `times` counts the ejections in a row, from 0.
    Ejected {
        since: Time,
        until: Time,
        times: u32,
        /// Whether a probe may bring it back before.
        early: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Returned {
    at: Time,
    times: u32,
}

impl Health {
    /// A member whose first probe is due now. Without a check it counts as up, unless it is ejected.
    pub fn new(check: Option<Check>, ejection: Ejection, unproven: Unproven, now: Time) -> Self {
        let (checked, probe, reason) = match check {
            Some(_) => (
                Checked::Unproven(unproven),
                Probe::Due(now),
                "not checked yet",
            ),
            None => (Checked::Up { failures: 0 }, Probe::Never, "no check"),
        };
        Self {
            check,
            ejection,
            checked,
            probe,
            traffic: Traffic::Sent {
                errors: 0,
                lately: None,
            },
            reason: reason.into(),
        }
    }

    /// Takes another check, of a new configuration; it is probed at once, or at the end of the probe that is under way.
    /// What is known of the member stays, so that no traffic is lost to a change.
    pub fn set_check(&mut self, check: Option<Check>, now: Time) {
        if self.check == check {
            return;
        }
        match (&check, self.probe) {
            (None, _) => {
                self.checked = Checked::Up { failures: 0 };
                self.probe = Probe::Never;
            }
            (Some(_), Probe::UnderWay { .. }) => {}
            (Some(_), Probe::Never | Probe::Due(_)) => self.probe = Probe::Due(now),
        }
        self.check = check;
    }

    /// Takes one event; what should be done, in order, is appended to `out`.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        let was_up = self.is_up();
        match input {
            Input::Deadline => self.reach(now, out),
            Input::ProbePassed(reason) => self.conclude(now, true, reason),
            Input::ProbeFailed(reason) => self.conclude(now, false, reason),
            Input::Errored(reason) => self.note_error(now, reason),
            Input::TooSlow(reason) => self.eject(now, reason, false),
            Input::Served => {
                if let Traffic::Sent { errors, .. } = &mut self.traffic {
                    *errors = 0;
                }
            }
        }
        match (was_up, self.is_up()) {
            (false, true) => out.push(Output::Up(self.reason.clone())),
            (true, false) => out.push(Output::Down(self.reason.clone())),
            (true, true) | (false, false) => {}
        }
    }

    /// When to call [`Self::step`] with [`Input::Deadline`] if nothing else happens first.
    pub fn next_deadline(&self) -> Option<Time> {
        let probe = match self.probe {
            Probe::Due(at) => Some(at),
            Probe::Never | Probe::UnderWay { .. } => None,
        };
        let back = match self.traffic {
            Traffic::Ejected { until, .. } => Some(until),
            Traffic::Sent { .. } => None,
        };
        probe.into_iter().chain(back).min()
    }

    /// Whether it takes traffic.
    pub fn is_up(&self) -> bool {
        self.is_checked_up() && !self.is_ejected()
    }

    /// Whether its checks let it take traffic. Where no member [`Self::is_up`], those that only were ejected are better
    /// than none.
    pub fn is_checked_up(&self) -> bool {
        match self.checked {
            Checked::Unproven(unproven) => unproven == Unproven::Up,
            Checked::Up { .. } => true,
            Checked::Down { .. } => false,
        }
    }

    /// Whether its traffic put it out.
    pub fn is_ejected(&self) -> bool {
        matches!(self.traffic, Traffic::Ejected { .. })
    }

    /// The last result in words.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Carries out what is due.
    fn reach(&mut self, now: Time, out: &mut Vec<Output>) {
        if let Traffic::Ejected { until, times, .. } = self.traffic
            && until <= now
        {
            self.traffic = back(now, times);
            self.reason = "its ejection is over".into();
        }
        if let Probe::Due(at) = self.probe
            && at <= now
        {
            self.probe = Probe::UnderWay { begun: now };
            out.push(Output::Probe);
        }
    }

    /// Takes a probe's result. One that was not asked for is passed over.
    fn conclude(&mut self, now: Time, passed: bool, reason: String) {
        let (Some(check), Probe::UnderWay { begun }) = (&self.check, self.probe) else {
            return;
        };
        self.checked = self.checked.after(passed, check.rise, check.fall);
        let wait = match self.checked {
            Checked::Up { failures: 0 } | Checked::Down { successes: 0 } => check.interval,
            Checked::Unproven(_) | Checked::Up { .. } | Checked::Down { .. } => check.fast_interval,
        };
        self.probe = Probe::Due((begun + wait).max(now));
        self.reason = reason;
        if let Traffic::Ejected {
            since,
            times,
            early: true,
            ..
        } = self.traffic
            && passed
            && begun > since
        {
            self.traffic = back(now, times);
        }
    }

    /// Counts an attempt that failed; enough of them in a row eject the member, and have it probed soon.
    fn note_error(&mut self, now: Time, reason: String) {
        let Traffic::Sent { errors, .. } = &mut self.traffic else {
            return;
        };
        *errors += 1;
        if *errors < self.ejection.errors {
            return;
        }
        let reason = format!("{errors} errors in a row, the last: {reason}");
        self.eject(now, reason, true);
        if let (Some(check), Probe::Due(at)) = (&self.check, self.probe) {
            self.probe = Probe::Due(at.min(now + check.fast_interval));
        }
    }

    /// Puts it out, for longer than the last time unless that is long ago.
    fn eject(&mut self, now: Time, reason: String, early: bool) {
        let Traffic::Sent { lately, .. } = self.traffic else {
            return;
        };
        let length = self.ejection.length;
        let times = match lately {
            Some(last) if now.saturating_since(last.at) < length.longest => {
                last.times.saturating_add(1)
            }
            Some(_) | None => 0,
        };
        self.reason = reason;
        self.traffic = Traffic::Ejected {
            since: now,
            until: now + length.longest_delay(times),
            times,
            early,
        };
    }
}

/// Traffic is sent again.
fn back(now: Time, times: u32) -> Traffic {
    Traffic::Sent {
        errors: 0,
        lately: Some(Returned { at: now, times }),
    }
}

impl Checked {
    /// The state after one more result.
    fn after(self, passed: bool, rise: u32, fall: u32) -> Self {
        match (self, passed) {
            (Self::Unproven(_), true) => Self::Up { failures: 0 },
            (Self::Unproven(_), false) => Self::Down { successes: 0 },
            (Self::Up { .. }, true) => Self::Up { failures: 0 },
            (Self::Up { failures }, false) if failures + 1 < fall => Self::Up {
                failures: failures + 1,
            },
            (Self::Up { .. }, false) => Self::Down { successes: 0 },
            (Self::Down { .. }, false) => Self::Down { successes: 0 },
            (Self::Down { successes }, true) if successes + 1 < rise => Self::Down {
                successes: successes + 1,
            },
            (Self::Down { .. }, true) => Self::Up { failures: 0 },
        }
    }
}

#[cfg(test)]
mod tests;
