//! Whether a member of a backend takes traffic, by its checks and by its traffic.
//!
//! **Active**: probes, as [`Check`] describes them: `fall` failures in a row take a member down, `rise` successes bring it
//! up; the first result decides alone. **Passive**: [`Ejection::error_limit`] failed attempts in a row eject it for a time
//! that doubles with each ejection, whatever its checks say meanwhile; a probe that begins after the ejection and succeeds
//! ends it early. A passive error is an attempt that the server did not answer: no connection, a connection that ended, or
//! a response that did not begin in time. A status of 500 is an answer. A member that answers much later than the others is
//! ejected too (see [`slow_members`]), but for the full time: a probe may still be quick.
//!
//! Down is not dead: a busy member accepts connections and answers late. Its requests in flight continue; only a member
//! that accepts no connections is [`Output::Lost`]: it is dead, or so busy that its listen queue is full. Which members
//! that are down or ejected still serve is decided for the whole backend, by [`who_serves`].

mod known;
mod serve;
mod slow_ejection;

pub use gaiola_model::proxy::{Ejected, Symptom};
pub use serve::{LastResort, ServingMembers, Standing, who_serves};
pub use slow_ejection::{LatencyTotals, MemberPoll, Pace, slow_members};

use crate::backoff::Backoff;
use gaiola_model::Time;
use gaiola_model::proxy::{Check, CheckKind, Ejection, Observe};

/// State of a member before the result of its first probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// Up, so that a restarted proxy serves at once; a failed attempt is repeated on another member.
    Up,
    /// Down: for backends where a wrong member would do harm, such as a standby taken for the primary.
    Down,
}

/// A member's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It takes traffic.
    Up,
    /// Its checks let it take traffic; its traffic ejected it at this time.
    Ejected(Ejected, Time),
    /// Its checks took it down because it accepted connections but did not answer.
    Silent,
    /// Its checks took it down.
    Down,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// [`Health::next_deadline`] has come.
    Deadline,
    /// The last requested probe succeeded: `HTTP 200 in 2 ms`.
    ProbePassed(String),
    /// The last requested probe failed: `connection refused`.
    ProbeFailed(Symptom, String),
    /// An attempt failed, with the reason.
    Errored(Symptom, String),
    /// It answers much later than the others, with the reason.
    TooSlow(String),
    /// An attempt was answered. Only the first one after an error need be reported.
    Served,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Start a probe and report its result in time; until then no other is requested.
    Probe,
    /// It takes traffic from now on, for this reason.
    Up(String),
    /// It takes none from now on, for this reason.
    Down(String),
    /// It accepts no connections and may be dead: close its idle connections, and check for requests in flight whether
    /// its kernel still acknowledges.
    Lost,
}

/// One member's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    check: Option<Check>,
    ejection: Ejection,
    checked: Checked,
    probe: Probe,
    /// Probes in a row without any reply.
    lost: u32,
    traffic: Traffic,
    reason: String,
}

/// State by the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    Unproven(Unproven),
    Up { failures: u32 },
    Down { successes: u32, symptom: Symptom },
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

/// State by the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    /// Traffic is sent to it. `lately` is the last ejection, which lengthens the next one.
    Sent {
        errors: Errors,
        lately: Option<Returned>,
    },
    /// No traffic until the given time. `times` counts the ejections in a row, from 0.
    Ejected {
        since: Time,
        until: Time,
        times: u32,
        why: Ejected,
        /// Whether none of the attempts that ejected it had any reply.
        lost: bool,
    },
}

/// Failed attempts in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Errors {
    all: u32,
    /// Those without a connection.
    unreachable: u32,
    /// Those of them without any reply.
    lost: u32,
}

impl Errors {
    fn add(&mut self, symptom: Symptom) {
        self.all += 1;
        match symptom {
            Symptom::Lost => (self.unreachable, self.lost) = (self.unreachable + 1, self.lost + 1),
            Symptom::Refused => self.unreachable += 1,
            Symptom::Silent | Symptom::Bad => {}
        }
    }
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
            lost: 0,
            traffic: Traffic::Sent {
                errors: Errors::default(),
                lately: None,
            },
            reason: reason.into(),
        }
    }

    /// Sets the check of a new configuration; it is probed at once, or at the end of the current probe. The member's
    /// state stays, so that a change loses no traffic.
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

    /// Takes one event and appends what to do, in order, to `out`.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        let (was_up, was_lost) = (self.is_up(), self.is_lost());
        match input {
            Input::Deadline => self.reach(now, out),
            Input::ProbePassed(reason) => self.conclude(now, None, reason),
            Input::ProbeFailed(symptom, reason) => self.conclude(now, Some(symptom), reason),
            Input::Errored(symptom, reason) => self.note_error(now, symptom, reason),
            Input::TooSlow(reason) => self.eject(now, reason, Ejected::Slow),
            Input::Served => {
                if let Traffic::Sent { errors, .. } = &mut self.traffic {
                    *errors = Errors::default();
                }
            }
        }
        match (was_up, self.is_up()) {
            (false, true) => out.push(Output::Up(self.reason.clone())),
            (true, false) => out.push(Output::Down(self.reason.clone())),
            (true, true) | (false, false) => {}
        }
        if !was_lost && self.is_lost() {
            out.push(Output::Lost);
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

    /// Whether its checks let it take traffic. If no member [`Self::is_up`], members that are only ejected are better
    /// than none.
    pub fn is_checked_up(&self) -> bool {
        match self.checked {
            Checked::Unproven(unproven) => unproven == Unproven::Up,
            Checked::Up { .. } => true,
            Checked::Down { .. } => false,
        }
    }

    /// Whether its traffic ejected it.
    pub fn is_ejected(&self) -> bool {
        matches!(self.traffic, Traffic::Ejected { .. })
    }

    /// Its condition.
    pub fn condition(&self) -> Condition {
        match (self.checked, self.traffic) {
            (Checked::Down { symptom, .. }, _) if self.may_be_busy(symptom) => Condition::Silent,
            (Checked::Down { .. } | Checked::Unproven(Unproven::Down), _) => Condition::Down,
            (_, Traffic::Ejected { why, since, .. }) => Condition::Ejected(why, since),
            (_, Traffic::Sent { .. }) => Condition::Up,
        }
    }

    /// Whether it may still serve. A check for a role decides who may be written to, and is always believed.
    fn may_be_busy(&self, symptom: Symptom) -> bool {
        let kind = self.check.as_ref().map(|check| &check.kind);
        symptom == Symptom::Silent && matches!(kind, Some(CheckKind::Http { .. } | CheckKind::Tls))
    }

    /// Whether it gives no reply at all: on enough probes in a row, or on all attempts that ejected it.
    fn is_lost(&self) -> bool {
        let fall = self.check.as_ref().map_or(1, |check| check.fall.max(1));
        self.lost >= fall || matches!(self.traffic, Traffic::Ejected { lost: true, .. })
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

    /// Takes a probe's result; ignores one that was not requested.
    fn conclude(&mut self, now: Time, failed: Option<Symptom>, reason: String) {
        let (Some(check), Probe::UnderWay { begun }) = (&self.check, self.probe) else {
            return;
        };
        self.lost = match failed {
            Some(Symptom::Lost) => self.lost.saturating_add(1),
            Some(_) | None => 0,
        };
        self.checked = self.checked.after(failed, check.rise, check.fall);
        let wait = match self.checked {
            Checked::Up { failures: 0 } | Checked::Down { successes: 0, .. } => check.interval,
            Checked::Unproven(_) | Checked::Up { .. } | Checked::Down { .. } => check.fast_interval,
        };
        self.probe = Probe::Due((begun + wait).max(now));
        self.reason = reason;
        if let Traffic::Ejected {
            since,
            times,
            why: Ejected::Unreachable | Ejected::Errors,
            ..
        } = self.traffic
            && failed.is_none()
            && begun > since
        {
            self.traffic = back(now, times);
        }
    }

    /// Counts a failed attempt; enough of them in a row eject the member, and have it probed soon.
    fn note_error(&mut self, now: Time, symptom: Symptom, reason: String) {
        let counts = match self.ejection.observe {
            Observe::None => false,
            Observe::Layer4 => matches!(symptom, Symptom::Lost | Symptom::Refused),
            Observe::Layer7 => true,
        };
        let Traffic::Sent { errors, .. } = &mut self.traffic else {
            return;
        };
        if !counts {
            return;
        }
        errors.add(symptom);
        let errors = *errors;
        if errors.all < self.ejection.error_limit {
            return;
        }
        let why = if errors.unreachable == errors.all {
            Ejected::Unreachable
        } else {
            Ejected::Errors
        };
        let reason = format!("{} errors in a row, the last: {reason}", errors.all);
        self.eject(now, reason, why);
        if let (Some(check), Probe::Due(at)) = (&self.check, self.probe) {
            self.probe = Probe::Due(at.min(now + check.fast_interval));
        }
    }

    /// Ejects it, for longer than the last time unless that is long ago.
    fn eject(&mut self, now: Time, reason: String, why: Ejected) {
        let Traffic::Sent { lately, errors } = self.traffic else {
            return;
        };
        let length = Backoff {
            first: self.ejection.time,
            longest: self.ejection.max_time,
        };
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
            why,
            lost: why == Ejected::Unreachable && errors.lost == errors.all,
        };
    }
}

/// Resumes traffic.
fn back(now: Time, times: u32) -> Traffic {
    Traffic::Sent {
        errors: Errors::default(),
        lately: Some(Returned { at: now, times }),
    }
}

impl Checked {
    /// The state after one more result.
    fn after(self, failed: Option<Symptom>, rise: u32, fall: u32) -> Self {
        match (self, failed) {
            (Self::Unproven(_) | Self::Up { .. }, None) => Self::Up { failures: 0 },
            (Self::Up { failures }, Some(_)) if failures + 1 < fall => Self::Up {
                failures: failures + 1,
            },
            (_, Some(symptom)) => Self::Down {
                successes: 0,
                symptom,
            },
            (Self::Down { successes, symptom }, None) if successes + 1 < rise => Self::Down {
                successes: successes + 1,
                symptom,
            },
            (Self::Down { .. }, None) => Self::Up { failures: 0 },
        }
    }
}

#[cfg(test)]
mod tests;
