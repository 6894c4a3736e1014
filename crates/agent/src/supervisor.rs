//! Keeps the wanted processes of a server running: starts, adopts, restarts with back-off, stops.

use crate::state::{read_json, write_json};
use gaiola_os::process::{self, Exit, Identity, Launch, Process};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Longest wait before a process that keeps exiting is restarted.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A process that ran this long is restarted at once.
const SETTLED: Duration = Duration::from_secs(5);
const SHORTEST_BACKOFF: Duration = Duration::from_millis(200);
/// Poll interval for the end of a stopped process's descendants.
const GROUP_LOOK: Duration = Duration::from_millis(20);

/// A process that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// How it is started.
    pub launch: Launch,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Whether it is restarted when it exits by itself.
    pub restart: bool,
}

/// A process that ended; sent to the agent's loop, which passes it to [`Supervisor::ended`].
#[derive(Debug)]
pub(super) struct Ended {
    name: String,
    identity: Identity,
    exit: Exit,
}

impl Ended {
    /// Which process.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How it ended.
    pub(super) fn exit(&self) -> Exit {
        self.exit
    }
}

/// The state of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// It runs.
    Running,
    /// It exited by itself, in this way; it may be restarted.
    Down(String),
    /// It was sent SIGTERM and has not ended.
    Stopping,
}

struct Supervised {
    wanted: Wanted,
    state: State,
    /// How often it exited by itself since it was first wanted,
    restarts: u32,
    /// and how often in a row after a short run.
    quick: u32,
}

enum State {
    Running {
        process: Rc<Process>,
        since: Instant,
    },
    Waiting {
        start_at: Option<Instant>,
        why: String,
    },
    /// `leads`: the process itself is still alive, not only its descendants.
    Stopping {
        process: Rc<Process>,
        kill_at: Instant,
        leads: bool,
    },
}

/// What is written to disk, so that the next agent can adopt the processes.
#[derive(Serialize, Deserialize)]
struct Record {
    identity: Identity,
    wanted: Wanted,
}

/// The processes of one server.
pub(super) struct Supervisor {
    processes: BTreeMap<String, Supervised>,
    ended: mpsc::UnboundedSender<Ended>,
    records: PathBuf,
}

impl Supervisor {
    /// Adopts the processes that an earlier agent on this server has left running.
    /// `run`: the server's run directory.
    pub(super) fn adopt(run: &Path, ended: mpsc::UnboundedSender<Ended>) -> Self {
        Self::adopt_from(run.join("processes.json"), ended)
    }

    fn adopt_from(records: PathBuf, ended: mpsc::UnboundedSender<Ended>) -> Self {
        let left: BTreeMap<String, Record> = read_json(&records).unwrap_or_default();
        let mut supervisor = Self {
            processes: BTreeMap::new(),
            ended,
            records,
        };
        for (name, record) in left {
            if let Ok(process) = Process::open(record.identity) {
                tracing::info!("adopted {name} (pid {})", record.identity.pid);
                let state = supervisor.watch(&name, process);
                supervisor.processes.insert(
                    name,
                    Supervised {
                        wanted: record.wanted,
                        state,
                        restarts: 0,
                        quick: 0,
                    },
                );
            }
        }
        supervisor
    }

    /// Moves the processes towards `wanted`: starts the missing, stops the rest. Repeating it does no harm.
    pub(super) fn reconcile(&mut self, wanted: &BTreeMap<String, Wanted>) {
        let now = Instant::now();
        let names: Vec<String> = self.processes.keys().cloned().collect();
        for name in names {
            match wanted.get(&name) {
                Some(wanted) if self.processes[&name].wanted.launch == wanted.launch => {
                    self.take_over(&name, wanted)
                }
                _ => self.stop(&name, now),
            }
        }
        for (name, wanted) in wanted {
            if !self.processes.contains_key(name) {
                let state = State::Waiting {
                    start_at: Some(now),
                    why: String::new(),
                };
                self.processes.insert(
                    name.clone(),
                    Supervised {
                        wanted: wanted.clone(),
                        state,
                        restarts: 0,
                        quick: 0,
                    },
                );
            }
        }
        self.tick();
    }

    /// The handling of a process may change while it runs; its launch may not.
    fn take_over(&mut self, name: &str, wanted: &Wanted) {
        if let Some(supervised) = self.processes.get_mut(name) {
            supervised.wanted = wanted.clone();
        }
    }

    /// Does what is due: starts after a back-off, kills after the grace.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        let names: Vec<String> = self.processes.keys().cloned().collect();
        for name in names {
            match &self.processes[&name].state {
                State::Waiting {
                    start_at: Some(at), ..
                } if *at <= now => self.start(&name, now),
                State::Stopping {
                    process,
                    leads: false,
                    ..
                } if process.group_is_empty() => drop(self.processes.remove(&name)),
                State::Stopping {
                    process, kill_at, ..
                } if *kill_at <= now => process.signal_group(Signal::KILL),
                _ => {}
            }
        }
    }

    /// When [`tick`](Self::tick) is due next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.processes
            .values()
            .filter_map(|supervised| match &supervised.state {
                State::Waiting { start_at, .. } => *start_at,
                State::Stopping { leads: false, .. } => Some(Instant::now() + GROUP_LOOK),
                State::Stopping { kill_at, .. } => Some(*kill_at),
                State::Running { .. } => None,
            })
            .min()
    }

    /// Whether a process exited without having been stopped.
    pub(super) fn is_unexpected(&self, ended: &Ended) -> bool {
        let supervised = self.processes.get(&ended.name);
        supervised.is_some_and(|supervised| matches!(&supervised.state, State::Running { process, .. } if process.identity() == ended.identity))
    }

    /// Records that a process has ended.
    pub(super) fn ended(&mut self, ended: Ended) {
        let Some(supervised) = self.processes.get_mut(&ended.name) else {
            return;
        };
        let now = Instant::now();
        match &supervised.state {
            State::Running { process, since } if process.identity() == ended.identity => {
                process.signal_group(Signal::KILL);
                let lived = now - *since;
                supervised.restarts += 1;
                supervised.quick = if lived >= SETTLED {
                    0
                } else {
                    supervised.quick + 1
                };
                let backoff = backoff(supervised.quick);
                let start_at = supervised.wanted.restart.then_some(now + backoff);
                tracing::warn!("{} {}", ended.name, ended.exit);
                supervised.state = State::Waiting {
                    start_at,
                    why: ended.exit.to_string(),
                };
            }
            // A shell ends at once on SIGTERM; its children may still have requests in flight.
            State::Stopping {
                process, kill_at, ..
            } if process.identity() == ended.identity => {
                supervised.state = State::Stopping {
                    process: Rc::clone(process),
                    kill_at: *kill_at,
                    leads: false,
                };
                self.tick();
            }
            _ => {}
        }
        self.record();
    }

    /// The state of a process; `None` where it is neither wanted nor running.
    pub(super) fn condition(&self, name: &str) -> Option<Condition> {
        Some(match &self.processes.get(name)?.state {
            State::Running { .. } => Condition::Running,
            State::Waiting { why, .. } => Condition::Down(why.clone()),
            State::Stopping { .. } => Condition::Stopping,
        })
    }

    /// How a running process was started, unless it is being stopped.
    pub(super) fn running_as(&self, name: &str) -> Option<&Launch> {
        let supervised = self.processes.get(name)?;
        let runs = matches!(supervised.state, State::Running { .. });
        runs.then_some(&supervised.wanted.launch)
    }

    /// How often a process exited by itself since it was first wanted.
    pub(super) fn restarts(&self, name: &str) -> u32 {
        self.processes
            .get(name)
            .map_or(0, |supervised| supervised.restarts)
    }

    /// How often each process exited by itself.
    pub(super) fn all_restarts(&self) -> Vec<(String, u32)> {
        self.processes
            .iter()
            .map(|(name, supervised)| (name.clone(), supervised.restarts))
            .collect()
    }

    /// Names and pids of the running processes.
    pub(super) fn running(&self) -> impl Iterator<Item = (&str, u32)> {
        self.processes
            .iter()
            .filter_map(|(name, supervised)| match &supervised.state {
                State::Running { process, .. } | State::Stopping { process, .. } => {
                    Some((name.as_str(), process.identity().pid))
                }
                State::Waiting { .. } => None,
            })
    }

    /// Whether no process runs any more.
    pub(super) fn is_empty(&self) -> bool {
        self.running().next().is_none()
    }

    fn start(&mut self, name: &str, now: Instant) {
        let wanted = self.processes[name].wanted.clone();
        let started = process::launch(&wanted.launch).and_then(Process::open);
        let state = match started {
            Ok(process) => self.watch(name, process),
            Err(error) => {
                let why = format!("cannot start {}: {error}", wanted.launch.program.display());
                tracing::error!("{name}: {why}");
                State::Waiting {
                    start_at: wanted.restart.then_some(now + LONGEST_BACKOFF / 10),
                    why,
                }
            }
        };
        if let Some(supervised) = self.processes.get_mut(name) {
            supervised.state = state;
        }
        self.record();
    }

    fn watch(&self, name: &str, process: Process) -> State {
        let process = Rc::new(process);
        let (ended, watched, name) = (self.ended.clone(), Rc::clone(&process), name.to_string());
        tokio::task::spawn_local(async move {
            let exit = watched.ended().await.unwrap_or(Exit::Unknown);
            // The receiver, the agent's loop, is gone only when the agent ends.
            let _ = ended.send(Ended {
                name,
                identity: watched.identity(),
                exit,
            });
        });
        State::Running {
            process,
            since: Instant::now(),
        }
    }

    fn stop(&mut self, name: &str, now: Instant) {
        let Some(supervised) = self.processes.get_mut(name) else {
            return;
        };
        match &supervised.state {
            State::Running { process, .. } => {
                process.signal_group(Signal::TERM);
                let kill_at = now + supervised.wanted.grace;
                supervised.state = State::Stopping {
                    process: Rc::clone(process),
                    kill_at,
                    leads: true,
                };
            }
            State::Waiting { .. } => {
                self.processes.remove(name);
            }
            State::Stopping { .. } => {}
        }
    }

    /// Writes the running processes to disk. On a failure the next agent starts what it cannot adopt, and reports it.
    fn record(&self) {
        let records: BTreeMap<&str, Record> = self
            .processes
            .iter()
            .filter_map(|(name, supervised)| match &supervised.state {
                State::Running { process, .. } | State::Stopping { process, .. } => Some((
                    name.as_str(),
                    Record {
                        identity: process.identity(),
                        wanted: supervised.wanted.clone(),
                    },
                )),
                State::Waiting { .. } => None,
            })
            .collect();
        if let Err(error) = write_json(&self.records, &records) {
            tracing::error!("cannot write {}: {error}", self.records.display());
        }
    }
}

/// `quick`: how often in a row a process exited after a short run.
fn backoff(quick: u32) -> Duration {
    match quick {
        0 => Duration::ZERO,
        _ => (SHORTEST_BACKOFF * 2_u32.saturating_pow(quick.min(10) - 1)).min(LONGEST_BACKOFF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> Wanted {
        Wanted {
            launch: Launch {
                program: "/bin/sh".into(),
                args: vec!["-c".into(), script.into()],
                env: vec![("PATH".into(), "/usr/bin:/bin".into())],
                cwd: folder.into(),
                log: folder.join("log"),
                user: None,
                privileged: false,
            },
            grace: Duration::from_millis(300),
            restart: true,
        }
    }

    fn in_runtime(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test());
    }

    async fn all_ended(supervisor: &mut Supervisor) {
        while !supervisor.is_empty() {
            tokio::time::sleep_until(supervisor.next_deadline().unwrap()).await;
            supervisor.tick();
        }
    }

    #[test]
    fn the_next_agent_adopts_what_runs_and_stops_what_is_no_longer_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let records = folder.path().join("processes.json");
        let wanted = BTreeMap::from([("a".to_string(), shell(folder.path(), "exec sleep 60"))]);
        let first_pid = std::cell::Cell::new(0);
        in_runtime(async || {
            let (sender, _receiver) = mpsc::unbounded_channel();
            let mut first = Supervisor::adopt_from(records.clone(), sender);
            first.reconcile(&wanted);
            first_pid.set(first.running().next().unwrap().1);
        });
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut second = Supervisor::adopt_from(records.clone(), sender);
            second.reconcile(&wanted);
            assert_eq!(second.running().next(), Some(("a", first_pid.get())));
            second.reconcile(&BTreeMap::new());
            assert_eq!(second.condition("a"), Some(Condition::Stopping));
            second.ended(receiver.recv().await.unwrap());
            all_ended(&mut second).await;
            assert_eq!(second.condition("a"), None);
        });
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed_after_its_grace() {
        let folder = tempfile::tempdir().unwrap();
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut supervisor =
                Supervisor::adopt_from(folder.path().join("processes.json"), sender);
            let script = "trap '' TERM; echo up; while :; do sleep 0.05; done";
            supervisor.reconcile(&BTreeMap::from([(
                "a".to_string(),
                shell(folder.path(), script),
            )]));
            while std::fs::read_to_string(folder.path().join("log")).unwrap() != "up\n" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            supervisor.reconcile(&BTreeMap::new());
            tokio::time::sleep_until(supervisor.next_deadline().unwrap()).await;
            supervisor.tick();
            supervisor.ended(receiver.recv().await.unwrap());
            all_ended(&mut supervisor).await;
        });
    }

    #[test]
    fn what_a_shell_runs_has_its_grace_too() {
        let folder = tempfile::tempdir().unwrap();
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut supervisor =
                Supervisor::adopt_from(folder.path().join("processes.json"), sender);
            let child =
                "trap 'sleep 0.2; echo graceful; exit' TERM; echo up; while :; do sleep 0.01; done";
            let script = format!("/bin/sh -c \"{child}\"; exit 0");
            supervisor.reconcile(&BTreeMap::from([(
                "a".to_string(),
                Wanted {
                    grace: Duration::from_secs(20),
                    ..shell(folder.path(), &script)
                },
            )]));
            let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();
            while log() != "up\n" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            supervisor.reconcile(&BTreeMap::new());
            supervisor.ended(receiver.recv().await.unwrap());
            all_ended(&mut supervisor).await;
            assert!(log().ends_with("graceful\n"), "{}", log());
        });
    }

    #[test]
    fn another_grace_does_not_start_a_process_again() {
        let folder = tempfile::tempdir().unwrap();
        in_runtime(async || {
            let (sender, _receiver) = mpsc::unbounded_channel();
            let mut supervisor =
                Supervisor::adopt_from(folder.path().join("processes.json"), sender);
            let wanted = shell(folder.path(), "exec sleep 60");
            supervisor.reconcile(&BTreeMap::from([("a".to_string(), wanted.clone())]));
            supervisor.reconcile(&BTreeMap::from([(
                "a".to_string(),
                Wanted {
                    grace: Duration::from_secs(1),
                    ..wanted
                },
            )]));
            assert_eq!(supervisor.condition("a"), Some(Condition::Running));
            supervisor.reconcile(&BTreeMap::new());
        });
    }

    #[test]
    fn a_process_that_is_started_later_reads_what_its_file_holds_then() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, log) = (folder.path().join("shop.env"), folder.path().join("log"));
        let script = format!(". {}; echo $KEY; exec sleep 60", secret.display());
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut supervisor =
                Supervisor::adopt_from(folder.path().join("processes.json"), sender);
            let says = async |words: &str| {
                let said = async {
                    while std::fs::read_to_string(&log).unwrap_or_default() != words {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(60), said).await
            };
            let process = || shell(folder.path(), &script);
            let old = ("app1.1".to_string(), process());
            let new = ("app1.2".to_string(), process());
            std::fs::write(&secret, "KEY=old\n").unwrap();
            supervisor.reconcile(&BTreeMap::from([old.clone()]));
            says("old\n").await.unwrap();
            std::fs::write(&secret, "KEY=new\n").unwrap();
            supervisor.reconcile(&BTreeMap::from([old, new]));
            says("old\nnew\n").await.unwrap();
            supervisor.reconcile(&BTreeMap::new());
            supervisor.ended(receiver.recv().await.unwrap());
            supervisor.ended(receiver.recv().await.unwrap());
            all_ended(&mut supervisor).await;
        });
    }

    #[test]
    fn a_process_that_keeps_ending_is_started_less_and_less_often() {
        let waits: Vec<u128> = (0..=8).map(|n| backoff(n).as_millis()).collect();
        assert_eq!(waits, [0, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }
}
