//! When the operator's `vip_command` is run, which moves a VIP where a network moves no addresses by itself.
//!
//! The command of the VIP's holder must be the last one that takes effect. So the former holder's is killed when it loses the VIP,
//! and each claim of a holder leads to two calls, one at once and one after any other's must have ended, and to one every minute from then on.

use gaiola_model::Time;
use std::time::Duration;

/// The command is killed after this time, and has failed.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// How long after a claim the command is run once more: another balancer that held the VIP until then has been killed or
/// has timed out, and what it asked for has happened.
pub const CONFIRM_AFTER: Duration = Duration::from_secs(40);

/// Interval of calls from then on: another balancer may have called, and have died before it was heard.
pub const REPEAT_EVERY: Duration = Duration::from_secs(60);

/// Shortest time between two calls where another balancer keeps claiming the VIP.
const CONTEST_INTERVAL: Duration = Duration::from_secs(5);

/// Longest wait after a failure; it doubles from one second on.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// What the keeper reports: its [claims](super::Router::claims) while it holds the VIP, else `None`.
    Held(Option<u64>),
    /// The command has ended, by itself or killed.
    Ended {
        /// It succeeded.
        ok: bool,
    },
    /// [`VipCommand::next_deadline`] has passed.
    Deadline,
}

/// What to do with the command of one VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Start it.
    Run,
    /// Kill it; [`Input::Ended`] follows.
    Kill,
}

/// The command of one VIP on one balancer. It is never run twice at once.
///
/// ```
/// use gaiola_core::vrrp::command::{Input, Output, VipCommand};
/// use gaiola_model::Time;
///
/// let mut command = VipCommand::default();
/// let mut out = Vec::new();
/// command.step(Time::ZERO, Input::Held(Some(1)), &mut out);
/// command.step(Time::ZERO, Input::Held(None), &mut out);
/// assert_eq!(out, [Output::Run, Output::Kill]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct VipCommand {
    /// The claims that were seen last; `None`: the VIP is not held here.
    held: Option<u64>,
    stage: Stage,
    /// When to run it, as soon as it does not run.
    due: Option<Time>,
    confirm_at: Option<Time>,
    begun: Option<Time>,
    failures: u32,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Idle,
    Running {
        until: Time,
    },
    /// It was killed.
    Dying {
        /// Because it took too long.
        late: bool,
    },
}

impl VipCommand {
    /// Takes one event; the shell carries out what was appended to `out`.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Held(None) => self.lost(out),
            Input::Held(Some(claims)) if self.held != Some(claims) => self.claimed(now, claims),
            Input::Held(Some(_)) => {}
            Input::Ended { ok } => self.ended(now, ok),
            Input::Deadline => {
                if let Stage::Running { until } = self.stage
                    && now >= until
                {
                    self.kill(true, out);
                }
            }
        }
        self.run_if_due(now, out);
    }

    /// When to call [`step`](Self::step) with [`Input::Deadline`] if nothing else happens first.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.stage {
            Stage::Running { until } => Some(until),
            Stage::Dying { .. } => None,
            Stage::Idle => self.due.into_iter().chain(self.confirm_at).min(),
        }
    }

    /// How often in a row it has failed while the VIP was held here.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn lost(&mut self, out: &mut Vec<Output>) {
        (self.held, self.due, self.confirm_at, self.failures) = (None, None, None, 0);
        if matches!(self.stage, Stage::Running { .. }) {
            self.kill(false, out);
        }
    }

    fn claimed(&mut self, now: Time, claims: u64) {
        let is_contested = self.held.replace(claims).is_some();
        let earliest = self.begun.filter(|_| is_contested);
        let at = earliest.map_or(now, |begun| now.max(begun + CONTEST_INTERVAL));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
        self.confirm_at = Some(now + CONFIRM_AFTER);
    }

    fn ended(&mut self, now: Time, ok: bool) {
        let failed = match std::mem::take(&mut self.stage) {
            Stage::Idle | Stage::Dying { late: false } => return,
            Stage::Dying { late: true } => true,
            Stage::Running { .. } => !ok,
        };
        if !failed {
            self.failures = 0;
        } else if self.held.is_some() {
            let wait = Duration::from_secs(1) * 2u32.pow(self.failures.min(5));
            self.failures = self.failures.saturating_add(1);
            self.due = Some(now + wait.min(LONGEST_WAIT));
        }
    }

    fn kill(&mut self, late: bool, out: &mut Vec<Output>) {
        self.stage = Stage::Dying { late };
        out.push(Output::Kill);
    }

    fn run_if_due(&mut self, now: Time, out: &mut Vec<Output>) {
        let is_over = |at: Option<Time>| at.is_some_and(|at| now >= at);
        let (due, confirms) = (is_over(self.due), is_over(self.confirm_at));
        if !matches!(self.stage, Stage::Idle) || !(due || confirms) {
            return;
        }
        self.due = None;
        if confirms {
            self.confirm_at = Some(now + REPEAT_EVERY);
        }
        self.begun = Some(now);
        self.stage = Stage::Running {
            until: now + COMMAND_LIMIT,
        };
        out.push(Output::Run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Output::{Kill, Run};

    const OK: Input = Input::Ended { ok: true };
    const FAILED: Input = Input::Ended { ok: false };

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    #[derive(Default)]
    struct Bench {
        command: VipCommand,
        out: Vec<Output>,
    }

    impl Bench {
        fn step(&mut self, seconds: u64, input: Input) -> Vec<Output> {
            self.out.clear();
            self.command.step(at(seconds), input, &mut self.out);
            self.out.clone()
        }

        fn due(&self) -> Option<u64> {
            let due = self.command.next_deadline()?;
            Some(due.since_start().as_secs())
        }
    }

    #[test]
    fn a_claim_leads_to_a_call_and_a_later_one() {
        let mut bench = Bench::default();
        assert_eq!(bench.step(0, Input::Held(None)), []);
        assert_eq!(bench.due(), None);
        assert_eq!(bench.step(1, Input::Held(Some(1))), [Run]);
        assert_eq!(bench.step(2, Input::Held(Some(1))), []);
        assert_eq!(bench.step(3, OK), []);
        assert_eq!(bench.due(), Some(41));
        assert_eq!(bench.step(41, Input::Deadline), [Run]);
        bench.step(42, OK);
        assert_eq!(bench.due(), Some(101));
        assert_eq!(bench.step(101, Input::Deadline), [Run]);
    }

    #[test]
    fn a_failure_is_repeated_later_and_later_while_the_vip_is_held() {
        let mut bench = Bench::default();
        bench.step(0, Input::Held(Some(1)));
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(bench.step(now, FAILED), []);
            let due = bench.command.due.unwrap().since_start().as_secs();
            waits.push(due - now);
            now = due;
            assert_eq!(bench.step(now, Input::Deadline), [Run]);
            bench.command.confirm_at = None;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(bench.command.failures(), 7);
        bench.step(now, Input::Held(None));
        assert_eq!(bench.command.failures(), 0);
        assert_eq!(bench.step(now + 1, FAILED), []);
        assert_eq!(bench.due(), None);
    }

    #[test]
    fn one_that_hangs_is_killed_and_has_failed() {
        let mut bench = Bench::default();
        bench.step(0, Input::Held(Some(1)));
        assert_eq!(bench.due(), Some(30));
        assert_eq!(bench.step(30, Input::Deadline), [Kill]);
        assert_eq!(bench.due(), None);
        // Even one that succeeds as it is killed: nobody knows.
        assert_eq!(bench.step(31, OK), []);
        assert_eq!(bench.due(), Some(32));
        assert_eq!(bench.step(32, Input::Deadline), [Run]);
    }

    #[test]
    fn one_that_lost_the_vip_is_killed_and_a_new_claim_waits_for_its_end() {
        let mut bench = Bench::default();
        bench.step(0, Input::Held(Some(1)));
        assert_eq!(bench.step(1, Input::Held(None)), [Kill]);
        assert_eq!(bench.step(1, Input::Held(Some(2))), []);
        assert_eq!(bench.step(2, FAILED), [Run]);
        assert_eq!(bench.command.failures(), 0);
    }

    #[test]
    fn a_holder_that_was_contested_calls_again_and_not_too_often() {
        let mut bench = Bench::default();
        bench.step(0, Input::Held(Some(1)));
        bench.step(1, OK);
        bench.step(100, Input::Deadline);
        bench.step(101, OK);
        assert_eq!(bench.step(200, Input::Held(Some(2))), [Run]);
        assert_eq!(bench.step(201, Input::Held(Some(3))), []);
        assert_eq!(bench.step(202, OK), []);
        assert_eq!(bench.due(), Some(205));
        assert_eq!(bench.step(205, Input::Deadline), [Run]);
        bench.step(206, OK);
        assert_eq!(bench.due(), Some(241), "after the last claim");
    }
}
