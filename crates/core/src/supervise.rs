//! Keeps the wanted processes of a server running: when each is started, restarted after a back-off, stopped and killed.
//!
//! A process is known by its name and its identity. Of one name at most one process is alive: the next one is started
//! only once the last one and all its descendants have ended, however it ended: a worker whose parent crashed may still
//! hold the port. So the descendants of a process that ended by itself are sent SIGTERM, and SIGKILL after the grace,
//! while its back-off runs. What an earlier agent has left running is adopted and treated as if this one had started it.

use crate::backoff::Backoff;
use gaiola_model::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Waits before a process that keeps exiting is restarted.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(10),
};
/// A process that ran this long is restarted at once.
pub const SETTLED: Duration = Duration::from_secs(5);
/// Wait before another attempt to start what could not be started.
pub const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Interval between two checks for the descendants of a process that has ended.
pub const GROUP_POLL: Duration = Duration::from_millis(20);
/// Interval between two SIGKILLs: a process that waits for its disk ends only once that answers.
pub const KILL_AGAIN: Duration = Duration::from_secs(1);

/// A process that is wanted; `L` is how it is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedProcess<L> {
    /// How it is started.
    pub launch: L,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Whether it is restarted when it exits by itself.
    pub restart: bool,
}

/// An event for the supervisor; `I` identifies one process, and no later one has the same identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a, L, I> {
    /// A process that an earlier agent has started still runs, or descendants of it do. Given before all other inputs.
    Adopt {
        /// Its name.
        name: &'a str,
        /// How it was started.
        wanted: WantedProcess<L>,
        /// Which process.
        id: I,
        /// Whether the process itself still runs.
        is_led: bool,
    },
    /// The processes that should run from now on. Repeating it does no harm.
    Want(&'a BTreeMap<String, WantedProcess<L>>),
    /// [`Action::Launch`] was carried out.
    Started {
        /// Its name.
        name: &'a str,
        /// Which process.
        id: I,
    },
    /// [`Action::Launch`] failed.
    NotStarted {
        /// Its name.
        name: &'a str,
        /// In words.
        why: String,
    },
    /// A process has ended; its descendants may still run.
    Ended {
        /// Its name.
        name: &'a str,
        /// Which process.
        id: I,
        /// How, in words.
        how: String,
    },
    /// The answer to [`Action::CheckGroup`].
    Group {
        /// Its name.
        name: &'a str,
        /// Which process.
        id: I,
        /// Whether it has no descendant left.
        is_empty: bool,
    },
    /// [`Supervisor::next_deadline`] has passed.
    Deadline,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<I> {
    /// Start the process of this name, as [`Supervisor::launch_of`] says; answer [`Input::Started`] or
    /// [`Input::NotStarted`].
    Launch(String),
    /// Send SIGTERM to the process and its descendants.
    Terminate(String, I),
    /// Send them SIGKILL.
    Kill(String, I),
    /// Find out whether a process that has ended has descendants; answer [`Input::Group`].
    CheckGroup(String, I),
}

/// The state of one process, as reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Running,
    /// It has not been started yet.
    Starting,
    /// It exited by itself, in this way, and may be restarted.
    Down(String),
    /// It was sent SIGTERM and has not ended.
    Stopping,
}

struct Supervised<L, I> {
    wanted: WantedProcess<L>,
    state: State<I>,
    /// How often it exited by itself since it was first wanted,
    restarts: u32,
    /// and how often in a row after a short run.
    quick: u32,
}

enum State<I> {
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
    Stopping {
        id: I,
        kill_at: Time,
        left: Left,
    },
    /// It ended by itself, and its descendants are being stopped. It is started again once they have ended, and not
    /// before `start_at`.
    Leftover {
        id: I,
        kill_at: Time,
        check_at: Time,
        start_at: Option<Time>,
        why: String,
    },
}

/// What is left of a process that is being stopped.
enum Left {
    /// The process itself.
    Process,
    /// At most its descendants, which are checked at this time.
    Descendants { check_at: Time },
}

/// The processes of one server.
pub struct Supervisor<L, I> {
    processes: BTreeMap<String, Supervised<L, I>>,
}

impl<L, I> Default for Supervisor<L, I> {
    fn default() -> Self {
        Self {
            processes: BTreeMap::new(),
        }
    }
}

impl<L: Clone + PartialEq, I: Copy + PartialEq> Supervisor<L, I> {
    /// Takes one input, and appends what should be done.
    pub fn step(&mut self, now: Time, input: Input<'_, L, I>, out: &mut Vec<Action<I>>) {
        match input {
            Input::Adopt {
                name,
                wanted,
                id,
                is_led,
            } => {
                let state = State::Running { id, since: now };
                let adopted = Supervised::new(wanted, state);
                self.processes.insert(name.into(), adopted);
                if !is_led {
                    let how = "ended while no agent watched it".into();
                    self.ended(now, (name, id), how, out);
                }
            }
            Input::Want(wanted) => {
                self.want(now, wanted, out);
                self.attend(now, out);
            }
            Input::Started { name, id } => self.started(now, name, id, out),
            Input::NotStarted { name, why } => self.not_started(now, name, why),
            Input::Ended { name, id, how } => self.ended(now, (name, id), how, out),
            Input::Group { name, id, is_empty } => self.see_group(now, (name, id), is_empty, out),
            Input::Deadline => self.attend(now, out),
        }
    }

    /// When [`Input::Deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let due = |one: &Supervised<L, I>| match one.state {
            State::Waiting { start_at, .. } => start_at,
            State::Stopping {
                left: Left::Descendants { check_at },
                ..
            }
            | State::Leftover { check_at, .. } => Some(check_at),
            State::Stopping { kill_at, .. } => Some(kill_at),
            State::Starting { .. } | State::Running { .. } => None,
        };
        self.processes.values().filter_map(due).min()
    }

    /// How to start the process of this name.
    pub fn launch_of(&self, name: &str) -> Option<&L> {
        Some(&self.processes.get(name)?.wanted.launch)
    }

    /// How a running process was started, unless it is being stopped.
    pub fn running_as(&self, name: &str) -> Option<&L> {
        let runs = matches!(self.processes.get(name)?.state, State::Running { .. });
        runs.then(|| self.launch_of(name))?
    }

    /// The state of a process; `None` where it is neither wanted nor running.
    pub fn condition(&self, name: &str) -> Option<Condition> {
        Some(match &self.processes.get(name)?.state {
            State::Running { .. } => Condition::Running,
            State::Waiting { why, .. } | State::Leftover { why, .. } => {
                Condition::Down(why.clone())
            }
            State::Starting { .. } => Condition::Starting,
            State::Stopping { .. } => Condition::Stopping,
        })
    }

    /// Whether this process runs and was not asked to stop, so that its end would be unexpected.
    pub fn is_expected_to_run(&self, name: &str, id: I) -> bool {
        let process = self.processes.get(name);
        process.is_some_and(
            |process| matches!(process.state, State::Running { id: held, .. } if held == id),
        )
    }

    /// How often each process exited by itself since it was first wanted.
    pub fn restarts(&self) -> impl Iterator<Item = (&str, u32)> {
        let all = self.processes.iter();
        all.map(|(name, process)| (name.as_str(), process.restarts))
    }

    /// The processes that run, those of which only descendants are left among them, each with how it was started.
    pub fn running(&self) -> impl Iterator<Item = (&str, I, &WantedProcess<L>)> {
        let all = self.processes.iter();
        all.filter_map(|(name, process)| match process.state {
            State::Running { id, .. } | State::Stopping { id, .. } | State::Leftover { id, .. } => {
                Some((name.as_str(), id, &process.wanted))
            }
            State::Waiting { .. } | State::Starting { .. } => None,
        })
    }

    fn want(
        &mut self,
        now: Time,
        wanted: &BTreeMap<String, WantedProcess<L>>,
        out: &mut Vec<Action<I>>,
    ) {
        self.processes.retain(|name, process| {
            let same = wanted.get(name);
            let same = same.filter(|wanted| wanted.launch == process.wanted.launch);
            if let Some(wanted) = same {
                // The handling of a process may change while it runs; its launch may not.
                process.wanted = wanted.clone();
            }
            match &mut process.state {
                State::Starting { unwanted } => *unwanted = same.is_none(),
                State::Waiting { .. } => return same.is_some(),
                State::Running { id, .. } if same.is_none() => {
                    let id = *id;
                    process.terminate(now, name, id, out);
                }
                State::Leftover {
                    id,
                    kill_at,
                    check_at,
                    ..
                } if same.is_none() => {
                    process.state = State::Stopping {
                        id: *id,
                        kill_at: *kill_at,
                        left: Left::Descendants {
                            check_at: *check_at,
                        },
                    };
                }
                State::Running { .. } | State::Stopping { .. } | State::Leftover { .. } => {}
            }
            true
        });
        for (name, wanted) in wanted {
            self.processes.entry(name.clone()).or_insert_with(|| {
                let (start_at, why) = (Some(now), String::new());
                Supervised::new(wanted.clone(), State::Waiting { start_at, why })
            });
        }
    }

    /// Does what is due: starts after a back-off, checks for descendants, kills after the grace.
    fn attend(&mut self, now: Time, out: &mut Vec<Action<I>>) {
        for (name, process) in &mut self.processes {
            match &mut process.state {
                State::Waiting {
                    start_at: Some(at), ..
                } if *at <= now => {
                    process.state = State::Starting { unwanted: false };
                    out.push(Action::Launch(name.clone()));
                }
                State::Stopping {
                    id,
                    left: Left::Descendants { check_at },
                    ..
                }
                | State::Leftover { id, check_at, .. }
                    if *check_at <= now =>
                {
                    *check_at = now + GROUP_POLL;
                    out.push(Action::CheckGroup(name.clone(), *id));
                }
                State::Stopping {
                    id,
                    kill_at,
                    left: Left::Process,
                } if *kill_at <= now => {
                    *kill_at = now + KILL_AGAIN;
                    out.push(Action::Kill(name.clone(), *id));
                }
                _ => {}
            }
        }
    }

    fn started(&mut self, now: Time, name: &str, id: I, out: &mut Vec<Action<I>>) {
        let Some(process) = self.processes.get_mut(name) else {
            return;
        };
        match process.state {
            State::Starting { unwanted: true } => process.terminate(now, name, id, out),
            _ => process.state = State::Running { id, since: now },
        }
    }

    fn not_started(&mut self, now: Time, name: &str, why: String) {
        let Some(process) = self.processes.get_mut(name) else {
            return;
        };
        if matches!(process.state, State::Starting { unwanted: true }) {
            self.processes.remove(name);
            return;
        }
        let start_at = process.wanted.restart.then_some(now + TRY_AGAIN);
        process.state = State::Waiting { start_at, why };
    }

    fn ended(&mut self, now: Time, (name, id): (&str, I), how: String, out: &mut Vec<Action<I>>) {
        let Some(process) = self.processes.get_mut(name) else {
            return;
        };
        match &mut process.state {
            State::Running { id: held, since } if *held == id => {
                let lived = now - *since;
                process.end_by_itself(now, id, lived, how);
                out.push(Action::Terminate(name.into(), id));
                out.push(Action::CheckGroup(name.into(), id));
            }
            // A shell ends at once on SIGTERM; its children may still have requests in flight.
            State::Stopping { id: held, left, .. } if *held == id => {
                let check_at = now + GROUP_POLL;
                *left = Left::Descendants { check_at };
                out.push(Action::CheckGroup(name.into(), id));
            }
            _ => {}
        }
    }

    fn see_group(
        &mut self,
        now: Time,
        (name, id): (&str, I),
        is_empty: bool,
        out: &mut Vec<Action<I>>,
    ) {
        let Some(process) = self.processes.get_mut(name) else {
            return;
        };
        match &mut process.state {
            State::Stopping {
                id: held,
                kill_at,
                left: Left::Descendants { .. },
            }
            | State::Leftover {
                id: held, kill_at, ..
            } if *held == id => {
                if is_empty {
                    self.all_ended(now, name, out);
                } else if *kill_at <= now {
                    *kill_at = now + KILL_AGAIN;
                    out.push(Action::Kill(name.into(), id));
                }
            }
            _ => {}
        }
    }

    /// Nothing is left of a process: it is forgotten, or waits until it is started again.
    fn all_ended(&mut self, now: Time, name: &str, out: &mut Vec<Action<I>>) {
        let process = self.processes.get_mut(name);
        match process.map(|process| &mut process.state) {
            Some(state @ State::Leftover { .. }) => {
                state.wait();
                self.attend(now, out);
            }
            _ => drop(self.processes.remove(name)),
        }
    }
}

impl<L, I: Copy> Supervised<L, I> {
    fn new(wanted: WantedProcess<L>, state: State<I>) -> Self {
        Self {
            wanted,
            state,
            restarts: 0,
            quick: 0,
        }
    }

    fn end_by_itself(&mut self, now: Time, id: I, lived: Duration, why: String) {
        self.restarts += 1;
        self.quick = if lived >= SETTLED { 0 } else { self.quick + 1 };
        self.state = State::Leftover {
            id,
            kill_at: now + self.wanted.grace,
            check_at: now + GROUP_POLL,
            start_at: self.wanted.restart.then_some(now + backoff(self.quick)),
            why,
        };
    }

    fn terminate(&mut self, now: Time, name: &str, id: I, out: &mut Vec<Action<I>>) {
        let kill_at = now + self.wanted.grace;
        let left = Left::Process;
        self.state = State::Stopping { id, kill_at, left };
        out.push(Action::Terminate(name.into(), id));
    }
}

impl<I> State<I> {
    /// The descendants of a process that ended by itself have ended too.
    fn wait(&mut self) {
        if let Self::Leftover { start_at, why, .. } = self {
            let (start_at, why) = (*start_at, std::mem::take(why));
            *self = Self::Waiting { start_at, why };
        }
    }
}

/// The wait before a restart. `quick`: how often in a row the process exited after a short run.
fn backoff(quick: u32) -> Duration {
    let attempt = quick.checked_sub(1);
    attempt.map_or(Duration::ZERO, |attempt| BACKOFF.longest_delay(attempt))
}

#[cfg(test)]
mod tests;
