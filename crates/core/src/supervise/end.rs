//! The end of one process: SIGTERM was sent, and SIGKILL is after the grace, until its descendants have ended too.

use super::{Action, GROUP_POLL, KILL_AGAIN};
use gaiola_model::Time;
use std::time::Duration;

/// A process that was sent SIGTERM, with its descendants, or what is left of it.
pub(super) struct End<I> {
    pub(super) id: I,
    kill_at: Time,
    left: Left,
}

/// What is left of it.
enum Left {
    /// The process itself.
    Process,
    /// At most its descendants, which are checked at this time.
    Descendants { check_at: Time },
}

impl<I: Copy> End<I> {
    /// Stops a process that runs.
    pub(super) fn stop(
        now: Time,
        (name, id): (&str, I),
        grace: Duration,
        out: &mut Vec<Action<I>>,
    ) -> Self {
        out.push(Action::Terminate(name.into(), id));
        Self {
            id,
            kill_at: now + grace,
            left: Left::Process,
        }
    }

    /// Stops the descendants of a process that has ended by itself.
    pub(super) fn of_descendants(
        now: Time,
        (name, id): (&str, I),
        grace: Duration,
        out: &mut Vec<Action<I>>,
    ) -> Self {
        let mut end = Self::stop(now, (name, id), grace, out);
        end.process_ended(now, name, out);
        end
    }

    /// The process itself has ended. A shell ends at once on SIGTERM; its children may still have requests in flight.
    pub(super) fn process_ended(&mut self, now: Time, name: &str, out: &mut Vec<Action<I>>) {
        let check_at = now + GROUP_POLL;
        self.left = Left::Descendants { check_at };
        out.push(Action::CheckGroup(name.into(), self.id));
    }

    /// When [`attend`](Self::attend) is due.
    pub(super) const fn due(&self) -> Time {
        match self.left {
            Left::Process => self.kill_at,
            Left::Descendants { check_at } => check_at,
        }
    }

    /// Does what is due: kills the process, or checks for descendants.
    pub(super) fn attend(&mut self, now: Time, name: &str, out: &mut Vec<Action<I>>) {
        match &mut self.left {
            Left::Process if self.kill_at <= now => self.kill(now, name, out),
            Left::Descendants { check_at } if *check_at <= now => {
                *check_at = now + GROUP_POLL;
                out.push(Action::CheckGroup(name.into(), self.id));
            }
            Left::Process | Left::Descendants { .. } => {}
        }
    }

    /// The answer to a check. Returns whether nothing is left.
    pub(super) fn see_group(
        &mut self,
        now: Time,
        name: &str,
        is_empty: bool,
        out: &mut Vec<Action<I>>,
    ) -> bool {
        let process_ended = matches!(self.left, Left::Descendants { .. });
        if process_ended && !is_empty && self.kill_at <= now {
            self.kill(now, name, out);
        }
        process_ended && is_empty
    }

    fn kill(&mut self, now: Time, name: &str, out: &mut Vec<Action<I>>) {
        self.kill_at = now + KILL_AGAIN;
        out.push(Action::Kill(name.into(), self.id));
    }
}
