//! Keeps the wanted processes of a server running. [`core::supervise`](gaiola_core::supervise) decides; this starts, signals
//! and watches processes, and records them on disk for the next agent.

use crate::limits::{Groups, Loss};
use crate::state::{Boot, read_message, write_message};
use gaiola_core::supervise::{self, Action, Input};
use gaiola_model::Time;
use gaiola_model::schema::SCHEMA;
use gaiola_os::cgroup::Limits;
use gaiola_os::process::{self, Exit, Identity, Launch, OWN_PROGRAM, Process};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
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
    /// The newest schema that it reads, if it is one of Gaiola's own. Earlier programs did not write it: at least the schema of
    /// the records, in which it got its orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reads: Option<u64>,
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
    /// The newest schema that each process reads that is one of Gaiola's own. While one takes over from another, they may
    /// differ.
    reads: BTreeMap<Identity, u64>,
    ended: mpsc::UnboundedSender<Ended>,
    records: PathBuf,
    /// Of processes that are limited.
    groups: Groups,
    /// The schema of the site's documents, in which the records are written.
    schema: u64,
}

impl Supervisor {
    /// Adopts the processes that an earlier agent on this server has left running, and what is left of those that have
    /// ended since.
    pub(super) fn adopt(boot: &Boot, ended: mpsc::UnboundedSender<Ended>) -> Self {
        let groups = Groups::new(&boot.site, boot.server, boot.run());
        Self::adopt_from(boot.run().join("processes.json"), groups, ended)
    }

    /// Writes records in this schema from now on.
    pub(super) fn set_schema(&mut self, schema: u64) {
        self.schema = schema;
    }

    fn adopt_from(records: PathBuf, groups: Groups, ended: mpsc::UnboundedSender<Ended>) -> Self {
        let (left, schema) = read_records(&records);
        let mut supervisor = Self {
            decided: supervise::Supervisor::default(),
            began: Instant::now(),
            reads: BTreeMap::new(),
            ended,
            records,
            groups,
            schema: SCHEMA,
        };
        for (name, record) in left {
            supervisor.adopt_one(&name, record, schema);
        }
        supervisor
    }

    /// Adopts a process of records in this schema.
    fn adopt_one(&mut self, name: &str, record: Record, schema: u64) {
        let Record {
            identity,
            wanted,
            reads,
            old,
        } = record;
        let (pid, is_old) = (identity.pid, old.is_some());
        let name = old.as_deref().unwrap_or(name);
        let process = Process::open(identity);
        match &process {
            Ok(_) => tracing::info!(process = name, pid, "adopted a process"),
            Err(_) if identity.session_is_empty() => return,
            Err(_) => tracing::warn!(process = name, pid, "ending what a process has left"),
        }
        let is_led = process.is_ok();
        if let Ok(process) = process {
            self.keep_reads(identity, &wanted.launch, reads.unwrap_or(schema));
            self.watch(name, process);
        }
        self.step(Input::Adopt {
            name,
            wanted,
            id: identity,
            is_led,
            is_old,
        });
    }

    /// Limits processes by their names from now on, those among them that run, and returns what was killed for want of memory though the
    /// process goes on.
    pub(super) fn limit(&mut self, limits: BTreeMap<String, Limits>) -> Vec<Loss> {
        self.groups.want(limits);
        let running = self.decided.running();
        let running = running.map(|(name, id, _)| (name.to_string(), id));
        self.groups.tick(&running.collect())
    }

    /// Which limits do not hold and why, in words.
    pub(super) fn unlimited(&self) -> Vec<String> {
        self.groups.missing()
    }

    /// Nothing runs any more.
    pub(super) fn end(&mut self) {
        self.groups.end();
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
        let death = self.groups.death(&ended.name);
        self.step(Input::Ended {
            name: &ended.name,
            id: ended.identity,
            how: death.unwrap_or_else(|| ended.exit.to_string()),
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

    /// Whether a process has run for so long, and is not being stopped.
    pub(super) fn has_run_for(&self, name: &str, span: Duration) -> bool {
        let since = self.decided.runs_since(name);
        let now = Time::from_start(self.began.elapsed());
        since.is_some_and(|since| now - since >= span)
    }

    /// The processes that were asked to stop and have not ended, descendants among them.
    pub(super) fn being_stopped(&self) -> impl Iterator<Item = &str> {
        self.decided.being_stopped()
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

    /// Names and pids of the running processes, old ones among them, from which another one takes over.
    pub(super) fn running(&self) -> impl Iterator<Item = (&str, u32)> {
        let running = self.decided.running().chain(self.decided.old());
        running.map(|(name, identity, _)| (name, identity.pid))
    }

    /// Whether anything of a process runs: itself, or what it has left.
    pub(super) fn is_running(&self, name: &str) -> bool {
        self.running().any(|(running, _)| running == name)
    }

    /// The newest schema that all of Gaiola's own processes read that were started here or by an earlier agent, perhaps of an older
    /// program; `None`: there are none.
    pub(super) fn reads(&self) -> Option<u64> {
        let running = self.decided.running().chain(self.decided.old());
        let reads = running.filter_map(|(_, id, _)| self.reads.get(&id));
        reads.min().copied()
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
                Action::Terminate(_, id) => id.signal_session(Signal::TERM),
                Action::Kill(_, id) => id.signal_session(Signal::KILL),
                Action::CheckGroup(name, id) => {
                    let (name, is_empty) = (&name, id.session_is_empty());
                    self.step(Input::Group { name, id, is_empty });
                    if is_empty {
                        self.record();
                    }
                }
            }
        }
    }

    fn start(&mut self, name: &str) {
        let Some(launch) = self.decided.launch_of(name) else {
            return;
        };
        let entrances = self.groups.entrances(name);
        match process::launch_into(launch, entrances).and_then(Process::open) {
            Ok(process) => {
                let id = process.identity();
                tracing::info!(process = name, pid = id.pid, "started a process");
                let launch = launch.clone();
                self.keep_reads(id, &launch, SCHEMA);
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

    /// Records what a process reads, if it is one of Gaiola's own.
    fn keep_reads(&mut self, id: Identity, launch: &Launch, reads: u64) {
        if is_own(launch) {
            self.reads.insert(id, reads);
        }
    }

    fn watch(&self, name: &str, process: Process) {
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
    fn record(&mut self) {
        let record = |identity, wanted: &WantedProcess, old| Record {
            identity,
            wanted: wanted.clone(),
            reads: self.reads.get(&identity).copied(),
            old,
        };
        let running = self.decided.running();
        let running = running.map(|(name, id, wanted)| (name.into(), record(id, wanted, None)));
        let old = self.decided.old().map(|(name, id, wanted)| {
            // An agent that does not know `old` takes it for another process, and stops it.
            let key = format!("{name}@{}", id.pid);
            (key, record(id, wanted, Some(name.into())))
        });
        let records: BTreeMap<String, Record> = running.chain(old).collect();
        let is_recorded = |id| records.values().any(|record| record.identity == id);
        self.reads.retain(|id, _| is_recorded(*id));
        if let Err(error) = write_message(&self.records, &records, self.schema) {
            let path = self.records.display();
            tracing::error!(%path, %error, "cannot write the list of running processes");
        }
    }
}

/// Whether it is a process of this same program: one that gets orders with the number of a schema.
fn is_own(launch: &Launch) -> bool {
    launch.program == Path::new(OWN_PROGRAM)
}

/// What an earlier agent has left running, and the schema of its records; nothing where it has recorded nothing yet.
fn read_records(path: &Path) -> (BTreeMap<String, Record>, u64) {
    let records = read_message(path);
    records.unwrap_or_else(|error: std::io::Error| {
        if error.kind() != std::io::ErrorKind::NotFound {
            let path = path.display();
            tracing::error!(%path, %error, "cannot read the list of running processes: none is adopted");
        }
        (BTreeMap::new(), SCHEMA)
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

    fn groups(folder: &Path) -> Groups {
        // A name of its own: other tests limit processes too.
        let name = folder.file_name().unwrap().to_string_lossy();
        let site = format!("t{}", name.trim_start_matches('.').to_lowercase());
        Groups::new(&site.parse().unwrap(), "app1".parse().unwrap(), folder)
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
            let mut first = Supervisor::adopt_from(records.clone(), groups(folder.path()), sender);
            first.reconcile(&wanted);
            first_pid.set(first.running().next().unwrap().1);
        });
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut second = Supervisor::adopt_from(records.clone(), groups(folder.path()), sender);
            second.reconcile(&wanted);
            assert_eq!(second.running().next(), Some(("a", first_pid.get())));
            second.reconcile(&BTreeMap::new());
            assert_eq!(second.condition("a"), Some(Condition::Stopping));
            second.ended(receiver.recv().await.unwrap());
            all_ended(&mut second).await;
            assert_eq!(second.condition("a"), None);
        });
    }

    /// A process that crashes once it has left a worker running, which ignores SIGTERM and says so.
    const CRASHES: &str = "
        [ -e again ] && exec sleep 60
        touch again
        /bin/sh -c 'trap \"echo asked\" TERM; echo up; while :; do sleep 0.01; done' &
        while ! grep -q up log; do sleep 0.01; done";

    #[test]
    fn what_a_crashed_process_has_left_is_ended_before_it_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut supervisor = Supervisor::adopt_from(
                folder.path().join("processes.json"),
                groups(folder.path()),
                sender,
            );
            let wanted = BTreeMap::from([("a".to_string(), shell(folder.path(), CRASHES))]);
            supervisor.reconcile(&wanted);
            let ended = receiver.recv().await.unwrap();
            let first = ended.identity;
            supervisor.ended(ended);
            assert!(!first.session_is_empty());
            running_again(&mut supervisor, first).await;
            assert_eq!(supervisor.restarts("a"), 1);
            supervisor.reconcile(&BTreeMap::new());
            supervisor.ended(receiver.recv().await.unwrap());
            all_ended(&mut supervisor).await;
        });
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(log.contains("asked\n"), "{log}");
    }

    #[test]
    fn what_a_process_has_left_that_ended_between_two_agents_is_ended_first() {
        let folder = tempfile::tempdir().unwrap();
        let records = folder.path().join("processes.json");
        let wanted = BTreeMap::from([("a".to_string(), shell(folder.path(), CRASHES))]);
        let first = std::cell::Cell::new(None);
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut agent = Supervisor::adopt_from(records.clone(), groups(folder.path()), sender);
            agent.reconcile(&wanted);
            // This agent ends before it takes note.
            first.set(Some(receiver.recv().await.unwrap().identity));
        });
        let first = first.get().unwrap();
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut agent = Supervisor::adopt_from(records.clone(), groups(folder.path()), sender);
            agent.reconcile(&wanted);
            assert!(matches!(agent.condition("a"), Some(Condition::Down(_))));
            running_again(&mut agent, first).await;
            agent.reconcile(&BTreeMap::new());
            agent.ended(receiver.recv().await.unwrap());
            all_ended(&mut agent).await;
        });
    }

    /// Waits until the process runs again; by then nothing is left of the `first` one.
    async fn running_again(supervisor: &mut Supervisor, first: Identity) {
        while supervisor.condition("a") != Some(Condition::Running) {
            tokio::time::sleep_until(supervisor.next_deadline().unwrap()).await;
            supervisor.tick();
        }
        assert!(first.session_is_empty());
    }

    #[test]
    fn what_an_adopted_process_reads_is_what_its_program_read_when_it_was_started() {
        let folder = tempfile::tempdir().unwrap();
        let records = folder.path().join("processes.json");
        let sleeping = shell(folder.path(), "exec sleep 60");
        let own = WantedProcess {
            launch: Launch {
                program: OWN_PROGRAM.into(),
                ..sleeping.launch.clone()
            },
            ..sleeping.clone()
        };
        in_runtime(async || {
            let (sender, _receiver) = mpsc::unbounded_channel();
            let mut first = Supervisor::adopt_from(records.clone(), groups(folder.path()), sender);
            first.reconcile(&BTreeMap::from([("proxy".to_string(), sleeping.clone())]));
            assert_eq!(first.reads(), None, "a shell gets no orders");
            let identity = process::identify(first.running().next().unwrap().1).unwrap();
            for (reads, schema, known) in [(Some(7), 2, 7), (None, 2, 2), (None, 1, 1)] {
                let wanted = own.clone();
                let record = Record {
                    identity,
                    wanted,
                    reads,
                    old: None,
                };
                write_message(&records, &BTreeMap::from([("proxy", record)]), schema).unwrap();
                let (sender, _receiver) = mpsc::unbounded_channel();
                let mut next =
                    Supervisor::adopt_from(records.clone(), groups(folder.path()), sender);
                assert_eq!(next.reads(), Some(known));
                next.record();
                let (kept, _) = read_records(&records);
                assert_eq!(kept["proxy"].reads, Some(known));
            }
            first.reconcile(&BTreeMap::new());
        });
    }

    #[test]
    fn records_of_every_schema_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents");
        for schema in 1..=SCHEMA {
            let path = folder.join(format!("{schema}/processes.json"));
            let (records, read) = read_records(&path);
            let reads = (schema > 1).then_some(schema);
            assert_eq!(
                (records["proxy"].reads, read),
                (reads, schema),
                "{}",
                path.display()
            );
        }
    }

    fn takes_over(folder: &Path, script: &str) -> BTreeMap<String, WantedProcess> {
        let heir = WantedProcess {
            takes_over: true,
            ..shell(folder, script)
        };
        BTreeMap::from([("a".to_string(), heir)])
    }

    fn pids(supervisor: &Supervisor) -> Vec<(String, u32)> {
        let running = supervisor.running();
        running.map(|(name, pid)| (name.into(), pid)).collect()
    }

    #[test]
    fn the_next_agent_adopts_a_take_over_that_is_under_way() {
        let folder = tempfile::tempdir().unwrap();
        let records = folder.path().join("processes.json");
        let wanted = |script| takes_over(folder.path(), script);
        let before = std::cell::RefCell::new(Vec::new());
        in_runtime(async || {
            let (sender, _receiver) = mpsc::unbounded_channel();
            let mut first = Supervisor::adopt_from(records.clone(), groups(folder.path()), sender);
            first.reconcile(&wanted("exec sleep 60"));
            first.reconcile(&wanted("exec sleep 61"));
            before.replace(pids(&first));
            assert_eq!(before.borrow().len(), 2);
        });
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut second = Supervisor::adopt_from(records.clone(), groups(folder.path()), sender);
            second.reconcile(&wanted("exec sleep 61"));
            assert_eq!(pids(&second), *before.borrow());
            second.reconcile(&BTreeMap::new());
            for _ in 0..2 {
                second.ended(receiver.recv().await.unwrap());
            }
            all_ended(&mut second).await;
        });
    }

    /// Uses as much memory as it is asked to, once.
    const HOG: &str = "
        while [ ! -e go ]; do sleep 0.01; done
        x=$(head -c 60000000 /dev/zero | tr '\\0' x); touch held; sleep 60";

    #[test]
    fn a_process_that_runs_is_limited_and_says_so_when_it_is_killed_for_memory() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            memory: Some(32 << 20),
            ..Limits::default()
        };
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let records = folder.path().join("processes.json");
            let mut supervisor = Supervisor::adopt_from(records, groups(folder.path()), sender);
            let wanted = BTreeMap::from([("a".to_string(), shell(folder.path(), HOG))]);
            supervisor.reconcile(&wanted);
            // It started without a limit, and gets one without a restart.
            let limited = BTreeMap::from([("a".to_string(), limits)]);
            assert_eq!(supervisor.limit(limited.clone()), []);
            if !supervisor.unlimited().is_empty() {
                gaiola_os::skip::skipped("limits", &supervisor.unlimited().join(", "));
            } else {
                std::fs::write(folder.path().join("go"), "").unwrap();
                let ended = receiver.recv().await.unwrap();
                let first = ended.identity;
                supervisor.ended(ended);
                let why = "was killed: it used more than its 32 MiB";
                assert_eq!(supervisor.condition("a"), Some(Condition::Down(why.into())));
                // The next one has the limit from its start on.
                running_again(&mut supervisor, first).await;
                supervisor.ended(receiver.recv().await.unwrap());
                assert_eq!(supervisor.condition("a"), Some(Condition::Down(why.into())));
                assert!(!folder.path().join("held").exists());
            }
            supervisor.reconcile(&BTreeMap::new());
            while !supervisor.is_empty() {
                let due = supervisor.next_deadline();
                let due = due.unwrap_or_else(|| Instant::now() + Duration::from_millis(20));
                tokio::select! {
                    Some(ended) = receiver.recv() => supervisor.ended(ended),
                    () = tokio::time::sleep_until(due) => supervisor.tick(),
                }
            }
            supervisor.end();
        });
    }

    #[test]
    fn what_an_old_process_has_left_is_ended_beside_the_one_that_took_over() {
        let folder = tempfile::tempdir().unwrap();
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let records = folder.path().join("processes.json");
            let mut supervisor = Supervisor::adopt_from(records, groups(folder.path()), sender);
            let leaves = "/bin/sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.01; done' &
                while [ ! -e crash ]; do sleep 0.01; done";
            supervisor.reconcile(&takes_over(folder.path(), leaves));
            while std::fs::read_to_string(folder.path().join("log")).unwrap() != "up\n" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            supervisor.reconcile(&takes_over(folder.path(), "exec sleep 60"));
            std::fs::write(folder.path().join("crash"), "").unwrap();
            let ended = receiver.recv().await.unwrap();
            let old = ended.identity;
            supervisor.ended(ended);
            let both = pids(&supervisor);
            assert!(both.len() == 2 && both[1].1 == old.pid, "{both:?}");
            while pids(&supervisor).len() == 2 {
                assert_eq!(supervisor.condition("a"), Some(Condition::Running));
                tokio::time::sleep_until(supervisor.next_deadline().unwrap()).await;
                supervisor.tick();
            }
            assert!(old.session_is_empty());
            assert_eq!(
                (pids(&supervisor), supervisor.restarts("a")),
                (both[..1].to_vec(), 0)
            );
            supervisor.reconcile(&BTreeMap::new());
            supervisor.ended(receiver.recv().await.unwrap());
            all_ended(&mut supervisor).await;
        });
    }

    #[test]
    fn the_schema_of_the_site_waits_for_an_old_process_of_an_older_program() {
        let folder = tempfile::tempdir().unwrap();
        let records = folder.path().join("processes.json");
        let sleeping = shell(folder.path(), "exec sleep 60");
        let wanted = WantedProcess {
            launch: Launch {
                program: OWN_PROGRAM.into(),
                ..sleeping.launch.clone()
            },
            takes_over: true,
            ..sleeping.clone()
        };
        in_runtime(async || {
            let (sender, _receiver) = mpsc::unbounded_channel();
            let mut first = Supervisor::adopt_from(records.clone(), groups(folder.path()), sender);
            let two = ["b", "c"].map(|name| (name.to_string(), sleeping.clone()));
            first.reconcile(&BTreeMap::from(two));
            let ids = pids(&first).into_iter();
            let ids: Vec<Identity> = ids
                .map(|(_, pid)| process::identify(pid).unwrap())
                .collect();
            let record = |id: usize, reads, old: Option<&str>| Record {
                identity: ids[id],
                wanted: wanted.clone(),
                reads: Some(reads),
                old: old.map(String::from),
            };
            let two = [("a", record(0, 3, None)), ("a@1", record(1, 2, Some("a")))];
            write_message(&records, &BTreeMap::from(two), 2).unwrap();
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut next = Supervisor::adopt_from(records.clone(), groups(folder.path()), sender);
            assert_eq!(next.reads(), Some(2));
            ids[1].signal_session(Signal::KILL);
            next.ended(receiver.recv().await.unwrap());
            while next.reads() != Some(3) {
                tokio::time::sleep_until(next.next_deadline().unwrap()).await;
                next.tick();
            }
            first.reconcile(&BTreeMap::new());
        });
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed_after_its_grace() {
        let folder = tempfile::tempdir().unwrap();
        in_runtime(async || {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let mut supervisor = Supervisor::adopt_from(
                folder.path().join("processes.json"),
                groups(folder.path()),
                sender,
            );
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
            let mut supervisor = Supervisor::adopt_from(
                folder.path().join("processes.json"),
                groups(folder.path()),
                sender,
            );
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
            let mut supervisor = Supervisor::adopt_from(
                folder.path().join("processes.json"),
                groups(folder.path()),
                sender,
            );
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
            let mut supervisor = Supervisor::adopt_from(
                folder.path().join("processes.json"),
                groups(folder.path()),
                sender,
            );
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
}
