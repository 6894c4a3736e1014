//! Keeps the wanted processes of a server running: when each is started, restarted after a back-off, stopped and killed.
//!
//! A process is known by its name and its identity. Of one name at most one process is alive: the next one is started
//! only once the last one and all its descendants have ended, however it ended: a worker whose parent crashed may still
//! hold the port. So the descendants of a process that ended by itself are sent SIGTERM, and SIGKILL after the grace,
//! while its back-off runs. What an earlier agent has left running is adopted and treated as if this one had started it.
//!
//! Those that [take over](WantedProcess::takes_over) are the exception: the next one is started while the last one runs.
//! That one is *old* from then on: it ends by itself once the next one serves. Neither it nor what it leaves holds back the
//! next one; its descendants are ended like those of any other.

mod end;
mod process;

use end::End;
use gaiola_model::Time;
use process::{Old, State, Supervised};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

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
    /// Whether it takes over from the process of its name that runs, which is then not stopped.
    #[serde(default)]
    pub takes_over: bool,
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
        /// Whether another one was started to take over from it.
        is_old: bool,
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
                is_old,
            } => {
                self.adopt(now, (name, id), wanted, is_old);
                if !is_led {
                    let how = "ended while no agent watched it".into();
                    self.ended(now, (name, id), how, out);
                }
            }
            Input::Want(wanted) => {
                self.want(now, wanted, out);
                self.attend_all(now, out);
            }
            Input::Started { name, id } => self.started(now, name, id, out),
            Input::NotStarted { name, why } => self.not_started(now, name, why),
            Input::Ended { name, id, how } => self.ended(now, (name, id), how, out),
            Input::Group { name, id, is_empty } => self.see_group(now, (name, id), is_empty, out),
            Input::Deadline => self.attend_all(now, out),
        }
    }

    /// When [`Input::Deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.processes.values().filter_map(Supervised::due).min()
    }

    /// Since when a process runs; `None`: it does not, or is being stopped.
    pub fn runs_since(&self, name: &str) -> Option<Time> {
        match self.processes.get(name)?.state {
            State::Running { since, .. } => Some(since),
            _ => None,
        }
    }

    /// The processes that were asked to stop and have not ended, those of which only descendants are left among them.
    pub fn being_stopped(&self) -> impl Iterator<Item = &str> {
        let all = self.processes.iter();
        let stopping =
            all.filter(|(_, process)| matches!(process.state, State::Stopping(_) | State::Stopped));
        stopping.map(|(name, _)| name.as_str())
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
            State::Stopping(_) | State::Stopped => Condition::Stopping,
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

    /// The processes that run, those of which only descendants are left among them, each with how it was started. Without
    /// the [old](Self::old) ones.
    pub fn running(&self) -> impl Iterator<Item = (&str, I, &WantedProcess<L>)> {
        let all = self.processes.iter();
        all.filter_map(|(name, process)| match &process.state {
            State::Running { id, .. }
            | State::Stopping(End { id, .. })
            | State::Leftover {
                end: End { id, .. },
                ..
            } => Some((name.as_str(), *id, &process.wanted)),
            State::Waiting { .. } | State::Starting { .. } | State::Stopped => None,
        })
    }

    /// The processes from which another one takes over, or has, those of which only descendants are left among them; each
    /// with how that other one is started.
    pub fn old(&self) -> impl Iterator<Item = (&str, I, &WantedProcess<L>)> {
        self.processes.iter().flat_map(|(name, process)| {
            let old = process.old.iter();
            old.map(|old| (name.as_str(), old.id(), &process.wanted))
        })
    }

    fn adopt(&mut self, now: Time, (name, id): (&str, I), wanted: WantedProcess<L>, is_old: bool) {
        let entry = self.processes.entry(name.into());
        let process = entry.or_insert_with(|| Supervised::waiting(now, wanted.clone()));
        if is_old {
            process.old.push(Old::Finishing(id));
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
        self.processes
            .retain(|name, process| process.want(now, name, wanted.get(name), out));
        for (name, wanted) in wanted {
            let entry = self.processes.entry(name.clone());
            entry.or_insert_with(|| Supervised::waiting(now, wanted.clone()));
        }
    }

    fn attend_all(&mut self, now: Time, out: &mut Vec<Action<I>>) {
        for (name, process) in &mut self.processes {
            process.attend(now, name, out);
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
        if let State::Starting { unwanted: true } = process.state {
            process.state = State::Stopped;
            if process.is_over() {
                self.processes.remove(name);
            }
            return;
        }
        let start_at = process.wanted.restart.then_some(now + TRY_AGAIN);
        process.state = State::Waiting { start_at, why };
    }

    fn ended(&mut self, now: Time, (name, id): (&str, I), how: String, out: &mut Vec<Action<I>>) {
        let Some(process) = self.processes.get_mut(name) else {
            return;
        };
        let grace = process.wanted.grace;
        if let Some(old) = process.old.iter_mut().find(|old| old.id() == id) {
            return old.ended(now, name, grace, out);
        }
        match &mut process.state {
            State::Running { id: held, since } if *held == id => {
                let lived = now - *since;
                let end = End::of_descendants(now, (name, id), grace, out);
                process.ended_by_itself(now, end, lived, how);
            }
            State::Stopping(end) if end.id == id => end.process_ended(now, name, out),
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
        let Some(end) = process.end_of(id) else {
            return;
        };
        if end.see_group(now, name, is_empty, out) {
            process.all_ended(id);
            if process.is_over() {
                self.processes.remove(name);
            } else {
                process.attend(now, name, out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
