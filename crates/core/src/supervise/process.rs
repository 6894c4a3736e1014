//! The processes of one name: the one that is wanted, and the old ones that it takes over from.

use super::end::End;
use super::{Action, SETTLED, WantedProcess};
use crate::backoff::Backoff;
use gaiola_model::Time;
use std::time::Duration;

/// Waits before a process that keeps exiting is restarted.
pub(super) const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(10),
};

/// What is known of the processes of one name.
pub(super) struct Supervised<L, I> {
    pub(super) wanted: WantedProcess<L>,
    pub(super) state: State<I>,
    /// How often it exited by itself since it was first wanted,
    pub(super) restarts: u32,
    /// and how often in a row after a short run.
    pub(super) quick: u32,
    /// The earlier processes, from which it takes over or has.
    pub(super) old: Vec<Old<I>>,
}

/// A process from which the next one of its name takes over, or has.
pub(super) enum Old<I> {
    /// It ends by itself once the next one serves.
    Finishing(I),
    /// It is being stopped, or its descendants are.
    Ending(End<I>),
}

pub(super) enum State<I> {
    /// `start_at`: `None` if it is not started again.
    Waiting {
        start_at: Option<Time>,
        why: String,
    },
    /// [`Action::Launch`] is not answered yet. `unwanted`: it is stopped as soon as it is.
    Starting {
        unwanted: bool,
    },
    Running {
        id: I,
        since: Time,
    },
    /// It is not wanted any more.
    Stopping(End<I>),
    /// It is not wanted any more and has ended; old ones have not.
    Stopped,
    /// It ended by itself, and its descendants are being stopped. It is started again once they have ended, and not
    /// before `start_at`.
    Leftover {
        end: End<I>,
        start_at: Option<Time>,
        why: String,
    },
}

impl<L, I: Copy> Supervised<L, I> {
    pub(super) fn new(wanted: WantedProcess<L>, state: State<I>) -> Self {
        Self {
            wanted,
            state,
            restarts: 0,
            quick: 0,
            old: Vec::new(),
        }
    }

    /// One that is to be started now.
    pub(super) fn waiting(now: Time, wanted: WantedProcess<L>) -> Self {
        Self::new(wanted, State::start_at(now))
    }

    /// Whether it may be started although old ones, or their descendants, are left.
    pub(super) fn may_start(&self) -> bool {
        self.wanted.takes_over || self.old.is_empty()
    }

    /// When [`attend`](Self::attend) is due.
    pub(super) fn due(&self) -> Option<Time> {
        let own = match &self.state {
            State::Waiting { start_at, .. } => start_at.filter(|_| self.may_start()),
            State::Stopping(end) | State::Leftover { end, .. } => Some(end.due()),
            State::Starting { .. } | State::Running { .. } | State::Stopped => None,
        };
        let old = self.old.iter().filter_map(Old::due);
        own.into_iter().chain(old).min()
    }

    /// Does what is due: starts after a back-off, checks for descendants, kills after the grace.
    pub(super) fn attend(&mut self, now: Time, name: &str, out: &mut Vec<Action<I>>) {
        for old in &mut self.old {
            if let Old::Ending(end) = old {
                end.attend(now, name, out);
            }
        }
        let may_start = self.may_start();
        match &mut self.state {
            State::Waiting {
                start_at: Some(at), ..
            } if *at <= now && may_start => {
                self.state = State::Starting { unwanted: false };
                out.push(Action::Launch(name.into()));
            }
            State::Stopping(end) | State::Leftover { end, .. } => end.attend(now, name, out),
            _ => {}
        }
    }

    pub(super) fn ended_by_itself(&mut self, now: Time, end: End<I>, lived: Duration, why: String) {
        self.restarts += 1;
        self.quick = if lived >= SETTLED { 0 } else { self.quick + 1 };
        self.state = State::Leftover {
            end,
            start_at: self.wanted.restart.then_some(now + backoff(self.quick)),
            why,
        };
    }

    /// Stops it, and the old ones with it.
    pub(super) fn terminate(&mut self, now: Time, name: &str, id: I, out: &mut Vec<Action<I>>) {
        let end = End::stop(now, (name, id), self.wanted.grace, out);
        self.state = State::Stopping(end);
        self.terminate_old(now, name, out);
    }

    pub(super) fn terminate_old(&mut self, now: Time, name: &str, out: &mut Vec<Action<I>>) {
        let grace = self.wanted.grace;
        for old in &mut self.old {
            if let Old::Finishing(id) = *old {
                *old = Old::Ending(End::stop(now, (name, id), grace, out));
            }
        }
    }

    /// Whether it is not wanted any more, and nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Stopped) && self.old.is_empty()
    }
}

impl<L: Clone + PartialEq, I: Copy + PartialEq> Supervised<L, I> {
    /// What is wanted of this name from now on. Returns whether there is anything left to keep.
    pub(super) fn want(
        &mut self,
        now: Time,
        name: &str,
        wanted: Option<&WantedProcess<L>>,
        out: &mut Vec<Action<I>>,
    ) -> bool {
        let same = wanted.filter(|wanted| wanted.launch == self.wanted.launch);
        let next = wanted.filter(|wanted| same.is_none() && wanted.takes_over);
        if let Some(same) = same {
            // The handling of a process may change while it runs; its launch may not.
            self.wanted = same.clone();
            if let State::Starting { unwanted } = &mut self.state {
                *unwanted = false;
            }
        } else if let Some(next) = next {
            self.replace(now, next);
        } else {
            self.leave(now, name, out);
        }
        if !self.wanted.takes_over {
            self.terminate_old(now, name, out);
        }
        !self.is_over()
    }

    /// Another one is wanted, which takes over.
    pub(super) fn replace(&mut self, now: Time, next: &WantedProcess<L>) {
        match &mut self.state {
            State::Running { id, .. } => {
                self.old.push(Old::Finishing(*id));
                self.state = State::start_at(now);
            }
            State::Waiting { .. } => self.state = State::start_at(now),
            // It has crashed: there is nothing to take over, and what it left may hold the port.
            State::Leftover { start_at, .. } => *start_at = Some(now),
            // Once it runs, it is replaced when this is wanted again.
            State::Starting { unwanted } => {
                *unwanted = false;
                return;
            }
            State::Stopping(_) | State::Stopped => return,
        }
        self.wanted = next.clone();
    }

    /// It is not wanted any more, nor another one that takes over.
    pub(super) fn leave(&mut self, now: Time, name: &str, out: &mut Vec<Action<I>>) {
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Starting { .. } => self.state = State::Starting { unwanted: true },
            State::Running { id, .. } => self.terminate(now, name, id, out),
            State::Leftover { end, .. } | State::Stopping(end) => self.state = State::Stopping(end),
            State::Waiting { .. } | State::Stopped => {}
        }
        self.terminate_old(now, name, out);
    }

    /// The process of this identity that is being stopped, or what is left of it.
    pub(super) fn end_of(&mut self, id: I) -> Option<&mut End<I>> {
        let own = match &mut self.state {
            State::Stopping(end) | State::Leftover { end, .. } => Some(end),
            _ => None,
        };
        let old = self.old.iter_mut().filter_map(|old| match old {
            Old::Ending(end) => Some(end),
            Old::Finishing(_) => None,
        });
        own.into_iter().chain(old).find(|end| end.id == id)
    }

    /// Nothing is left of this process: it is forgotten, or waits until it is started again.
    pub(super) fn all_ended(&mut self, id: I) {
        let before = self.old.len();
        self.old.retain(|old| old.id() != id);
        if self.old.len() < before {
            return;
        }
        self.state = match std::mem::replace(&mut self.state, State::Stopped) {
            State::Leftover { start_at, why, .. } => State::Waiting { start_at, why },
            _ => State::Stopped,
        };
    }
}

impl<I: Copy> Old<I> {
    pub(super) const fn id(&self) -> I {
        match self {
            Self::Finishing(id) | Self::Ending(End { id, .. }) => *id,
        }
    }

    pub(super) const fn due(&self) -> Option<Time> {
        match self {
            Self::Finishing(_) => None,
            Self::Ending(end) => Some(end.due()),
        }
    }

    pub(super) fn ended(
        &mut self,
        now: Time,
        name: &str,
        grace: Duration,
        out: &mut Vec<Action<I>>,
    ) {
        match self {
            Self::Finishing(id) => {
                let end = End::of_descendants(now, (name, *id), grace, out);
                *self = Self::Ending(end);
            }
            Self::Ending(end) => end.process_ended(now, name, out),
        }
    }
}

impl<I> State<I> {
    /// It is started at this time.
    pub(super) const fn start_at(at: Time) -> Self {
        Self::Waiting {
            start_at: Some(at),
            why: String::new(),
        }
    }
}

/// The wait before a restart. `quick`: how often in a row the process exited after a short run.
pub(super) fn backoff(quick: u32) -> Duration {
    let attempt = quick.checked_sub(1);
    attempt.map_or(Duration::ZERO, |attempt| BACKOFF.longest_delay(attempt))
}
