//! Keeps the wanted processes of a server running: when each is started, restarted after a back-off, stopped and killed.
//!
//! A process is known by its name and its identity. Of one name at most one process is alive: the next one is started
//! only once the last one and all its descendants have ended. Those that [take over](WantedProcess::takes_over) are the
//! exception: the next one is started while the last one runs, which ends by itself once the next one serves. A process that an
//! earlier agent has left running is adopted and treated as if this one had started it.

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
/// Interval between two checks for the descendants of a stopped process that has ended.
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
    /// Whether it takes over from the process of its name that runs: that one is not stopped.
    #[serde(default)]
    pub takes_over: bool,
}

/// An event for the supervisor; `I` identifies one process, and no later one has the same identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a, L, I> {
    /// A process that an earlier agent has started still runs. Given before all other inputs.
    Adopt {
        /// Its name.
        name: &'a str,
        /// How it was started.
        wanted: WantedProcess<L>,
        /// Which process.
        id: I,
        /// Whether another one was started to take over from it.
        old: bool,
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
    /// Processes from which another one takes over, or has.
    old: Vec<Old<I>>,
}

/// A process that ends by itself once the next one of its name serves.
struct Old<I> {
    id: I,
    /// `None`: it was not asked to stop.
    kill_at: Option<Time>,
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
    Stopping {
        id: I,
        kill_at: Time,
        left: Left,
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
                old,
            } => self.adopt(now, (name, id), wanted, old),
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
        let due = |one: &Supervised<L, I>| {
            let own = match one.state {
                State::Waiting { start_at, .. } => start_at,
                State::Stopping {
                    left: Left::Descendants { check_at },
                    ..
                } => Some(check_at),
                State::Stopping { kill_at, .. } => Some(kill_at),
                State::Starting { .. } | State::Running { .. } => None,
            };
            let old = one.old.iter().filter_map(|old| old.kill_at);
            own.into_iter().chain(old).min()
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
            State::Waiting { why, .. } => Condition::Down(why.clone()),
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

    /// The processes from which another one takes over, or has; each with how that one is started.
    pub fn old(&self) -> impl Iterator<Item = (&str, I, &WantedProcess<L>)> {
        self.processes.iter().flat_map(|(name, process)| {
            let old = process.old.iter();
            old.map(|old| (name.as_str(), old.id, &process.wanted))
        })
    }

    /// The processes that run, those that are being stopped among them, each with how it was started. Without the
    /// [old](Self::old) ones.
    pub fn running(&self) -> impl Iterator<Item = (&str, I, &WantedProcess<L>)> {
        let all = self.processes.iter();
        all.filter_map(|(name, process)| match process.state {
            State::Running { id, .. } | State::Stopping { id, .. } => {
                Some((name.as_str(), id, &process.wanted))
            }
            State::Waiting { .. } | State::Starting { .. } => None,
        })
    }

    fn adopt(&mut self, now: Time, (name, id): (&str, I), wanted: WantedProcess<L>, old: bool) {
        let (start_at, why) = (Some(now), String::new());
        let waiting = State::Waiting { start_at, why };
        let entry = self.processes.entry(name.into());
        let process = entry.or_insert_with(|| Supervised::new(wanted.clone(), waiting));
        if old {
            process.old.push(Old { id, kill_at: None });
        } else {
            process.wanted = wanted;
            process.state = State::Running { id, since: now };
        }
    }

    fn want(
        &mut self,
        now: Time,
        wanted: &BTreeMap<String, WantedProcess<L>>,
        out: &mut Vec<Action<I>>,
    ) {
        self.processes.retain(|name, process| {
            let wanted = wanted.get(name);
            let same = wanted.filter(|wanted| wanted.launch == process.wanted.launch);
            if let Some(wanted) = same {
                // The handling of a process may change while it runs; its launch may not.
                process.wanted = wanted.clone();
            }
            let next = wanted.filter(|wanted| same.is_none() && wanted.takes_over);
            match (&mut process.state, next) {
                (State::Starting { unwanted }, _) => *unwanted = same.is_none(),
                (State::Running { id, .. }, Some(next)) => {
                    let id = *id;
                    process.old.push(Old { id, kill_at: None });
                    process.start(now, next);
                }
                (State::Waiting { .. }, Some(next)) => process.start(now, next),
                (State::Waiting { .. }, None) if same.is_none() => {
                    // What runs of it yet is old.
                    let Some(old) = process.old.pop() else {
                        return false;
                    };
                    process.terminate(now, name, old.id, out);
                }
                (State::Running { id, .. }, None) if same.is_none() => {
                    let id = *id;
                    process.terminate(now, name, id, out);
                }
                (State::Waiting { .. } | State::Running { .. } | State::Stopping { .. }, _) => {}
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
            for old in &mut process.old {
                if let Some(at) = old.kill_at.as_mut().filter(|at| **at <= now) {
                    *at = now + KILL_AGAIN;
                    out.push(Action::Kill(name.clone(), old.id));
                }
            }
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
                } if *check_at <= now => {
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
        if let Some(index) = process.old.iter().position(|old| old.id == id) {
            process.old.remove(index);
            return out.push(Action::Kill(name.into(), id));
        }
        match &mut process.state {
            State::Running { id: held, since } if *held == id => {
                out.push(Action::Kill(name.into(), id));
                let lived = now - *since;
                process.restarts += 1;
                process.quick = if lived >= SETTLED {
                    0
                } else {
                    process.quick + 1
                };
                let restart = process.wanted.restart;
                process.state = State::Waiting {
                    start_at: restart.then_some(now + backoff(process.quick)),
                    why: how,
                };
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
            } if *held == id => {
                if is_empty {
                    let Some(old) = process.old.pop() else {
                        self.processes.remove(name);
                        return;
                    };
                    process.state = State::Stopping {
                        id: old.id,
                        kill_at: old.kill_at.unwrap_or(now),
                        left: Left::Process,
                    };
                } else if *kill_at <= now {
                    *kill_at = now + KILL_AGAIN;
                    out.push(Action::Kill(name.into(), id));
                }
            }
            _ => {}
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
            old: Vec::new(),
        }
    }

    /// Starts it now, in this way.
    fn start(&mut self, now: Time, wanted: &WantedProcess<L>)
    where
        L: Clone,
    {
        self.wanted = wanted.clone();
        let (start_at, why) = (Some(now), String::new());
        self.state = State::Waiting { start_at, why };
    }

    /// Stops it, and the old ones with it.
    fn terminate(&mut self, now: Time, name: &str, id: I, out: &mut Vec<Action<I>>) {
        let kill_at = now + self.wanted.grace;
        let left = Left::Process;
        self.state = State::Stopping { id, kill_at, left };
        out.push(Action::Terminate(name.into(), id));
        for old in self.old.iter_mut().filter(|old| old.kill_at.is_none()) {
            old.kill_at = Some(kill_at);
            out.push(Action::Terminate(name.into(), old.id));
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
