//! Keeps the wanted processes of a server running. [`core::supervise`](gaiola_core::supervise) decides; this starts, signals
//! and watches processes, and records them on disk for the next agent.

use crate::state::{read_message, write_message};
use gaiola_core::supervise::{self, Action, Input};
use gaiola_model::Time;
use gaiola_model::schema::SCHEMA;
use gaiola_os::process::{self, Exit, Identity, Launch, Process};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(super) use gaiola_core::supervise::Condition;

/// A process that is wanted.
pub(super) type WantedProcess = supervise::WantedProcess<Launch>;

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

/// What is written to disk, so that the next agent can adopt the processes.
#[derive(Serialize, Deserialize)]
struct Record {
    identity: Identity,
    wanted: WantedProcess,
    /// The process's name, if another one of that name takes over from it. Otherwise the record has the name itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old: Option<String>,
}

/// The processes of one server.
pub(super) struct Supervisor {
    /// What is decided of each process.
    decided: supervise::Supervisor<Launch, Identity>,
    /// The start of the clock that decisions use.
    began: Instant,
    /// The processes that were started or adopted and may be alive, by their pids.
    open: BTreeMap<u32, Rc<Process>>,
    ended: mpsc::UnboundedSender<Ended>,
    records: PathBuf,
    /// The schema of the site's documents, in which the records are written.
    schema: u64,
}

impl Supervisor {
    /// Adopts the processes that an earlier agent on this server has left running.
    /// `run`: the server's run directory.
    pub(super) fn adopt(run: &Path, ended: mpsc::UnboundedSender<Ended>) -> Self {
        Self::adopt_from(run.join("processes.json"), ended)
    }

    /// Writes records in this schema from now on.
    pub(super) fn set_schema(&mut self, schema: u64) {
        self.schema = schema;
    }

    fn adopt_from(records: PathBuf, ended: mpsc::UnboundedSender<Ended>) -> Self {
        let left = read_records(&records);
        let mut supervisor = Self {
            decided: supervise::Supervisor::default(),
            began: Instant::now(),
            open: BTreeMap::new(),
            ended,
            records,
            schema: SCHEMA,
        };
        for (name, record) in left {
            if let Ok(process) = Process::open(record.identity) {
                let id = record.identity;
                tracing::info!(process = name, pid = id.pid, "adopted a process");
                let old = record.old.is_some();
                let name = &record.old.unwrap_or(name);
                supervisor.watch(name, process);
                supervisor.step(Input::Adopt {
                    name,
                    wanted: record.wanted,
                    id,
                    old,
                });
            }
        }
        supervisor
    }

    /// Moves the processes towards `wanted`: starts the missing, stops the rest. Repeating it does no harm.
    pub(super) fn reconcile(&mut self, wanted: &BTreeMap<String, WantedProcess>) {
        self.step(Input::Want(wanted));
    }

    /// Does what is due: starts after a back-off, kills after the grace.
    pub(super) fn tick(&mut self) {
        self.step(Input::Deadline);
    }

    /// When [`tick`](Self::tick) is due next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let due = self.decided.next_deadline()?;
        Some(self.began + due.since_start())
    }

    /// Whether a process exited without having been stopped.
    pub(super) fn is_unexpected(&self, ended: &Ended) -> bool {
        self.decided.is_expected_to_run(&ended.name, ended.identity)
    }

    /// Records that a process has ended.
    pub(super) fn ended(&mut self, ended: Ended) {
        if self.is_unexpected(&ended) {
            let (pid, exit) = (ended.identity.pid, ended.exit);
            tracing::warn!(process = ended.name, pid, %exit, "a process ended by itself");
        }
        self.step(Input::Ended {
            name: &ended.name,
            id: ended.identity,
            how: ended.exit.to_string(),
        });
        self.record();
    }

    /// The state of a process; `None` where it is neither wanted nor running.
    pub(super) fn condition(&self, name: &str) -> Option<Condition> {
        self.decided.condition(name)
    }

    /// How a running process was started, unless it is being stopped.
    pub(super) fn running_as(&self, name: &str) -> Option<&Launch> {
        self.decided.running_as(name)
    }

    /// How often a process exited by itself since it was first wanted.
    pub(super) fn restarts(&self, name: &str) -> u32 {
        let mut all = self.decided.restarts();
        let found = all.find(|(other, _)| *other == name);
        found.map_or(0, |(_, restarts)| restarts)
    }

    /// How often each process exited by itself.
    pub(super) fn all_restarts(&self) -> Vec<(String, u32)> {
        let all = self.decided.restarts();
        all.map(|(name, restarts)| (name.to_string(), restarts))
            .collect()
    }

    /// Names and pids of the running processes, those among them from which another one takes over.
    pub(super) fn running(&self) -> impl Iterator<Item = (&str, u32)> {
        let running = self.decided.running().chain(self.decided.old());
        running.map(|(name, identity, _)| (name, identity.pid))
    }

    /// Whether no process runs any more.
    pub(super) fn is_empty(&self) -> bool {
        self.running().next().is_none()
    }

    /// Passes an input to the decisions and carries out what they ask for; the answers are inputs again.
    fn step(&mut self, input: Input<'_, Launch, Identity>) {
        let now = Time::from_start(self.began.elapsed());
        let mut actions = Vec::new();
        self.decided.step(now, input, &mut actions);
        for action in actions {
            match action {
                Action::Launch(name) => self.start(&name),
                Action::Terminate(_, id) => self.signal(id, Signal::TERM),
                Action::Kill(_, id) => self.signal(id, Signal::KILL),
                Action::CheckGroup(name, id) => {
                    let process = self.find(id);
                    let is_empty = process.is_none_or(|process| process.group_is_empty());
                    let name = &name;
                    self.step(Input::Group { name, id, is_empty });
                }
            }
        }
        let decided = &self.decided;
        let running = decided.running().chain(decided.old());
        let running: Vec<Identity> = running.map(|(_, id, _)| id).collect();
        self.open
            .retain(|_, process| running.contains(&process.identity()));
    }

    fn find(&self, id: Identity) -> Option<&Process> {
        let process = self.open.get(&id.pid)?;
        (process.identity() == id).then_some(process)
    }

    fn signal(&self, id: Identity, signal: Signal) {
        if let Some(process) = self.find(id) {
            process.signal_group(signal);
        }
    }

    fn start(&mut self, name: &str) {
        let Some(launch) = self.decided.launch_of(name) else {
            return;
        };
        match process::launch(launch).and_then(Process::open) {
            Ok(process) => {
                let id = process.identity();
                tracing::info!(process = name, pid = id.pid, "started a process");
                self.watch(name, process);
                self.step(Input::Started { name, id });
            }
            Err(error) => {
                let program = launch.program.display();
                tracing::error!(process = name, %program, %error, "cannot start a process");
                let why = format!("cannot start {program}: {error}");
                self.step(Input::NotStarted { name, why });
            }
        }
        self.record();
    }

    fn watch(&mut self, name: &str, process: Process) {
        let process = Rc::new(process);
        self.open
            .insert(process.identity().pid, Rc::clone(&process));
        let (ended, name) = (self.ended.clone(), name.to_string());
        tokio::task::spawn_local(async move {
            let exit = process.ended().await.unwrap_or(Exit::Unknown);
            // The receiver, the agent's loop, is gone only when the agent ends.
            let _ = ended.send(Ended {
                name,
                identity: process.identity(),
                exit,
            });
        });
    }

    /// Writes the running processes to disk. On a failure the next agent starts what it cannot adopt, and reports it.
    fn record(&self) {
        let record = |identity, wanted: &WantedProcess, old| Record {
            identity,
            wanted: wanted.clone(),
            old,
        };
        let running = self.decided.running();
        let running = running.map(|(name, id, wanted)| (name.into(), record(id, wanted, None)));
        let old = self.decided.old().map(|(name, id, wanted)| {
            // An agent that knows nothing of it takes it for another process, and stops it.
            let key = format!("{name}@{}", id.pid);
            (key, record(id, wanted, Some(name.into())))
        });
        let records: BTreeMap<String, Record> = running.chain(old).collect();
        if let Err(error) = write_message(&self.records, &records, self.schema) {
            let path = self.records.display();
            tracing::error!(%path, %error, "cannot write the list of running processes");
        }
    }
}

/// What an earlier agent has left running; nothing where it has recorded nothing yet.
fn read_records(path: &Path) -> BTreeMap<String, Record> {
    let records = read_message(path);
    records.unwrap_or_else(|error: std::io::Error| {
        if error.kind() != std::io::ErrorKind::NotFound {
            let path = path.display();
            tracing::error!(%path, %error, "cannot read the list of running processes: none is adopted");
        }
        BTreeMap::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn shell(folder: &Path, script: &str) -> WantedProcess {
        WantedProcess {
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
            takes_over: false,
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
                WantedProcess {
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
                WantedProcess {
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
    fn the_next_agent_adopts_a_take_over_that_is_under_way() {
        let folder = tempfile::tempdir().unwrap();
        let records = folder.path().join("processes.json");
        let heir = |script| WantedProcess {
            takes_over: true,
            ..shell(folder.path(), script)
        };
        let wanted = |script| BTreeMap::from([("a".to_string(), heir(script))]);
        let pids = |supervisor: &Supervisor| {
            let running = supervisor.running();
            running
                .map(|(name, pid)| (name.to_string(), pid))
                .collect::<Vec<_>>()
        };
        let before = std::cell::RefCell::new(Vec::new());
        in_runtime(async || {
            let (sender, _receiver) = mpsc::unbounded_channel();
            let mut first = Supervisor::adopt_from(records.clone(), sender);
            first.reconcile(&wanted("exec sleep 60"));
            first.reconcile(&wanted("exec sleep 61"));
            before.replace(pids(&first));
            assert_eq!(before.borrow().len(), 2);
        });
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut second = Supervisor::adopt_from(records.clone(), sender);
            second.reconcile(&wanted("exec sleep 61"));
            assert_eq!(pids(&second), *before.borrow());
            second.reconcile(&BTreeMap::new());
            for _ in 0..2 {
                second.ended(receiver.recv().await.unwrap());
            }
            all_ended(&mut second).await;
        });
    }
}
