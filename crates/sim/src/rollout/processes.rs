//! The instances' processes on one server: its agent keeps them running by the real `core::supervise`, and each ends in its
//! own time, with its descendants or before them. Processes outlive the agent; the next one adopts what it finds.

use super::machine::Machine;
use super::{Sabotage, World};
use crate::violation::{Rule, Violation};
use gaiola_core::supervise::{Action, Condition, Input, Supervisor, WantedProcess};
use gaiola_model::placement::{InstanceState, ObservedInstance, ReleaseNumber};
use gaiola_model::{InstanceName, Placement, ServerName, Time, WorkerName};
use std::collections::BTreeMap;
use std::time::Duration;

/// A process must have ended this long after its grace: SIGKILL takes effect, and an agent may have been away.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// How an instance is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    release: ReleaseNumber,
    run: String,
}

type Wanted = BTreeMap<String, WantedProcess<Launch>>;

/// What runs on a server, and what its agent believes.
#[derive(Default)]
pub(super) struct Processes {
    supervisor: Supervisor<Launch, u64>,
    /// What the agent wants by its order.
    wanted: Wanted,
    alive: BTreeMap<u64, Process>,
    /// The last process that was started.
    last: u64,
    /// Ends of processes that the agent has not noticed yet.
    ended: Vec<u64>,
    /// The agent has ended, and no other has adopted yet.
    is_alone: bool,
}

/// A process, or what is left of one.
struct Process {
    name: String,
    release: ReleaseNumber,
    state: InstanceState,
    since: Time,
    /// Whether the process itself runs, and not only descendants.
    leads: bool,
    /// Since when the agent asks it to stop.
    asked_at: Option<Time>,
    /// When it ends, as it was asked to or killed.
    ends_at: Option<Time>,
}

impl Processes {
    /// Whether an instance answers.
    pub(super) fn is_ready(&self, name: InstanceName) -> bool {
        let (mut all, name) = (self.alive.values(), name.to_string());
        all.any(|it| it.name == name && it.leads && it.state == InstanceState::Ready)
    }

    /// Power loss, which takes the records in `/run` too.
    pub(super) fn clear(&mut self) {
        let last = self.last;
        *self = Self::default();
        self.last = last;
    }

    /// Makes the first instance crash.
    pub(super) fn crash_first(&mut self, leaves_something: bool) {
        let mut leaders = self.alive.iter().filter(|(_, process)| process.leads);
        if let Some(id) = leaders.next().map(|(id, _)| *id) {
            self.end(id, leaves_something);
        }
    }

    /// A process ends, and its descendants with it or not.
    fn end(&mut self, id: u64, leaves_something: bool) {
        let Some(process) = self.alive.get_mut(&id) else {
            return;
        };
        let led = std::mem::replace(&mut process.leads, false);
        if led {
            self.ended.push(id);
        }
        if !led || !leaves_something {
            self.alive.remove(&id);
        }
    }

    /// The instances of the agent's order, as it reports them.
    pub(super) fn observed(&self) -> BTreeMap<InstanceName, ObservedInstance> {
        let wanted = self.wanted.iter();
        let instances = wanted.filter_map(|(name, wanted)| {
            let instance: InstanceName = name.parse().ok()?;
            Some((instance, self.seen(name, wanted)?))
        });
        instances.collect()
    }

    /// The workers of the agent's order, and those that are being stopped.
    pub(super) fn observed_workers(&self) -> BTreeMap<WorkerName, ObservedInstance> {
        let stopping = self.supervisor.being_stopped();
        let stopping = stopping
            .filter_map(|name| Some((name.parse().ok()?, ObservedInstance::being_stopped())));
        let mut all: BTreeMap<WorkerName, ObservedInstance> = stopping.collect();
        all.extend(self.wanted.iter().filter_map(|(name, wanted)| {
            let worker: WorkerName = name.parse().ok()?;
            Some((worker, self.seen(name, wanted)?))
        }));
        all
    }

    fn seen(&self, name: &str, wanted: &WantedProcess<Launch>) -> Option<ObservedInstance> {
        let state = match self.supervisor.condition(name)? {
            Condition::Running => self.state_of(name),
            Condition::Starting => InstanceState::Starting,
            Condition::Down(_) => InstanceState::Crashed,
            Condition::Stopping => InstanceState::Stopping,
        };
        let mut restarts = self.supervisor.restarts();
        let restarts = restarts.find(|(other, _)| *other == name);
        Some(ObservedInstance {
            release: wanted.launch.release,
            run: wanted.launch.run.clone(),
            state,
            restarts: restarts.map_or(0, |(_, restarts)| restarts),
            reason: String::new(),
        })
    }

    /// What a running process answers; one that ended a moment ago answers nothing.
    fn state_of(&self, name: &str) -> InstanceState {
        let mut all = self.alive.values();
        let found = all.find(|process| process.name == name && process.leads);
        found.map_or(InstanceState::Unhealthy, |process| process.state)
    }

    /// The workers that run here, those among them that are being stopped.
    pub(super) fn running_workers(&self) -> impl Iterator<Item = WorkerName> {
        let led = self.alive.values().filter(|process| process.leads);
        led.filter_map(|process| process.name.parse().ok())
    }

    fn name_of(&self, id: u64) -> Option<String> {
        let mut running = self.supervisor.running();
        let found = running.find(|(_, held, _)| *held == id);
        found.map(|(name, _, _)| name.to_string())
    }

    /// The processes that an earlier agent has recorded and that are still there.
    fn recorded(&self) -> Vec<(String, WantedProcess<Launch>, u64, bool)> {
        let recorded = self.supervisor.running();
        let found = recorded.filter_map(|(name, id, wanted)| {
            let process = self.alive.get(&id)?;
            Some((name.to_string(), wanted.clone(), id, process.leads))
        });
        found.collect()
    }
}

/// The instances and workers of a server in an order.
fn wanted(placement: &Placement, server: ServerName) -> Wanted {
    let wanted = |release: ReleaseNumber, run: &str| WantedProcess {
        launch: Launch {
            release,
            run: run.into(),
        },
        grace: placement.config.app.grace,
        restart: true,
        takes_over: false,
    };
    let instances = placement.instances.iter();
    let instances = instances.filter(|(name, _)| name.server == server);
    let instances = instances.map(|(name, it)| (name.to_string(), wanted(it.release, &it.run)));
    let workers = placement.workers.iter();
    let workers = workers.filter(|(name, _)| name.server == server);
    let workers = workers.map(|(name, it)| (name.to_string(), wanted(it.release, &it.run)));
    instances.chain(workers).collect()
}

impl World {
    /// The agent has a new order.
    pub(super) fn order_processes(
        &mut self,
        server: ServerName,
        placement: &Placement,
    ) -> Result<(), Violation> {
        self.adopt(server)?;
        let wanted = wanted(placement, server);
        self.processes(server).wanted = wanted.clone();
        self.supervise(server, Input::Want(&wanted))
    }

    fn processes(&mut self, server: ServerName) -> &mut Processes {
        let machine = self.machines.get_mut(&server);
        &mut machine.expect("it is there").processes
    }

    /// One turn of the kernel and of the agent's supervisor.
    pub(super) fn move_processes(&mut self, server: ServerName) -> Result<(), Violation> {
        let now = self.now;
        if !self.machines[&server].is_on(now) {
            return Ok(());
        }
        self.move_kernel(server);
        let machine = &self.machines[&server];
        let (runs, frozen) = (machine.has_agent(now), machine.frozen_with.is_some());
        if !runs {
            self.processes(server).is_alone = true;
        } else if !frozen {
            self.move_supervisor(server)?;
        }
        self.check_processes(server)
    }

    /// Processes get ready, crash and end.
    fn move_kernel(&mut self, server: ServerName) {
        let now = self.now;
        let ids: Vec<u64> = self.machines[&server]
            .processes
            .alive
            .keys()
            .copied()
            .collect();
        for id in ids {
            let (is_ready_soon, leaves_something) = (self.rng.u8(..4) == 0, self.rng.u8(..3) == 0);
            let dies = self.rng.u8(..64) == 0;
            let Some(process) = self.machines[&server].processes.alive.get(&id) else {
                continue;
            };
            let age = now - process.since;
            let (release, is_starting) =
                (process.release, process.state == InstanceState::Starting);
            let is_over = process.ends_at.is_some_and(|at| now >= at);
            let is_sick = self.sick.contains(&release);
            let crashes = is_starting && is_sick && release.0 % 2 == 0 && process.leads;
            let is_left = !process.leads && dies;
            let gets_ready = is_starting && !is_sick && age > Duration::from_secs(1);
            let processes = self.processes(server);
            if is_over || crashes || is_left {
                processes.end(id, leaves_something && !is_left);
            } else if gets_ready
                && is_ready_soon
                && let Some(process) = processes.alive.get_mut(&id)
            {
                process.state = InstanceState::Ready;
            }
        }
    }

    /// The agent adopts if it has just started, notices what has ended, and keeps its deadlines.
    fn move_supervisor(&mut self, server: ServerName) -> Result<(), Violation> {
        self.adopt(server)?;
        for id in std::mem::take(&mut self.processes(server).ended) {
            let Some(name) = self.processes(server).name_of(id) else {
                continue;
            };
            let (name, how) = (name.as_str(), String::new());
            self.supervise(server, Input::Ended { name, id, how })?;
        }
        let wanted = self.processes(server).wanted.clone();
        self.supervise(server, Input::Want(&wanted))
    }

    /// An agent that has just started adopts what an earlier one has left.
    fn adopt(&mut self, server: ServerName) -> Result<(), Violation> {
        let ignores_leftovers = self.sabotaged(Sabotage::AdoptsNoLeftovers);
        let processes = self.processes(server);
        if !std::mem::take(&mut processes.is_alone) {
            return Ok(());
        }
        let recorded = processes.recorded();
        processes.supervisor = Supervisor::default();
        processes.ended.clear();
        for process in processes.alive.values_mut() {
            process.asked_at = None;
        }
        for (name, wanted, id, is_led) in recorded {
            if is_led || !ignores_leftovers {
                let name = name.as_str();
                self.supervise(
                    server,
                    Input::Adopt {
                        name,
                        wanted,
                        id,
                        is_led,
                        is_old: false,
                    },
                )?;
            }
        }
        Ok(())
    }

    fn sabotaged(&self, by: Sabotage) -> bool {
        let site = self.site.as_ref();
        site.is_some_and(|site| site.sabotage == Some(by))
    }

    /// Gives the supervisor an input, and carries out what it decides.
    fn supervise(
        &mut self,
        server: ServerName,
        input: Input<'_, Launch, u64>,
    ) -> Result<(), Violation> {
        let (now, mut out) = (self.now, Vec::new());
        self.processes(server).supervisor.step(now, input, &mut out);
        out.into_iter()
            .try_for_each(|action| self.take_action(server, action))
    }

    fn take_action(&mut self, server: ServerName, action: Action<u64>) -> Result<(), Violation> {
        match action {
            Action::Launch(name) => self.launch(server, &name),
            Action::Terminate(_, id) => self.terminate(server, id),
            Action::Kill(_, id) => {
                let now = self.now;
                let process = self.processes(server).alive.get_mut(&id);
                process.into_iter().for_each(|it| it.ends_at = Some(now));
                Ok(())
            }
            Action::CheckGroup(name, id) => {
                let blind = self.sabotaged(Sabotage::IgnoresLeftovers);
                let is_empty = blind || !self.processes(server).alive.contains_key(&id);
                let name = name.as_str();
                self.supervise(server, Input::Group { name, id, is_empty })
            }
        }
    }

    fn launch(&mut self, server: ServerName, name: &str) -> Result<(), Violation> {
        let now = self.now;
        let processes = self.processes(server);
        if processes.alive.values().any(|it| it.name == name) {
            let how =
                format!("{name} is started while an earlier process of it, or a descendant, runs");
            return Err(Rule::OneProcess.broken(how));
        }
        let launch = processes.supervisor.launch_of(name).expect("it is wanted");
        let release = launch.release;
        let mut restarts = processes.supervisor.restarts();
        let is_first = restarts.any(|(other, restarts)| other == name && restarts == 0);
        drop(restarts);
        if let (true, Ok(worker)) = (is_first, name.parse::<WorkerName>())
            && self.machines[&server].knows(self.store.at)
        {
            self.check_worker_start(&worker)?;
        }
        let processes = self.processes(server);
        processes.last += 1;
        let id = processes.last;
        processes.alive.insert(
            id,
            Process {
                name: name.to_string(),
                release,
                state: InstanceState::Starting,
                since: now,
                leads: true,
                asked_at: None,
                ends_at: None,
            },
        );
        self.supervise(server, Input::Started { name, id })
    }

    /// Most end within seconds; some ignore it.
    fn terminate(&mut self, server: ServerName, id: u64) -> Result<(), Violation> {
        let (now, ignores) = (self.now, self.rng.u8(..8) == 0);
        let takes = Duration::from_millis(self.rng.u64(0..3000));
        let Some(process) = self.processes(server).alive.get(&id) else {
            return Ok(());
        };
        let instance = process.name.parse::<InstanceName>().ok();
        if let Some(name) = instance.filter(|_| process.leads) {
            self.check_stop(name)?;
        }
        if let Some(process) = self.processes(server).alive.get_mut(&id) {
            process.state = InstanceState::Stopping;
            process.asked_at.get_or_insert(now);
            process.ends_at = process.ends_at.or((!ignores).then_some(now + takes));
        }
        Ok(())
    }

    /// What was asked to stop ends in time, unless its agent is away.
    fn check_processes(&self, server: ServerName) -> Result<(), Violation> {
        let machine: &Machine = &self.machines[&server];
        if !machine.has_agent(self.now) || machine.frozen_with.is_some() {
            return Ok(());
        }
        let awake_for = self.now - machine.awake_since;
        let mut alive = machine.processes.alive.values();
        let grace = self.store.placement.config.app.grace;
        let late = alive.find(|process| {
            let asked = process.asked_at.map(|asked| self.now - asked);
            asked.is_some_and(|span| span.min(awake_for) > grace + ENDS_WITHIN)
        });
        match late {
            Some(process) => {
                let how = format!("{} runs long after it was asked to stop", process.name);
                Err(Rule::OneProcess.broken(how))
            }
            None => Ok(()),
        }
    }
}
