//! `gaiola drill`: rehearses failures and measures the result.

mod clients;

use crate::args::{Drill, Global};
use crate::connect::SiteClient;
use crate::file;
use crate::output::{self, Exit};
use anyhow::{Context as _, bail};
use gaiola_control::api::{Access, Disk, Enter, Harm as HarmRequest, SiteInfo};
use gaiola_control::drill::witness::Witness;
use gaiola_control::drill::{
    Acknowledged, Course, DrillError, Harm, HarmFuture, Limits, Plan, Record, Sight, run,
};
use gaiola_control::provider::processes;
use gaiola_core::drill::{
    Contents, DrillReport, Process, Roles, Selection, Target, Verdict, Writes, render, render_all,
};
use gaiola_core::topology;
use gaiola_model::config::{Machine, Machines};
use gaiola_model::event::Subject;
use gaiola_model::status::{ServerStatus, Status};
use gaiola_model::{Config, ServerName, Tier};
use gaiola_net::client::Request;
use gaiola_os::process::{Identity, identify, signal};
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal as on_signal};

/// Timeout of a request to the site: a server's orderly stop takes time.
const ORDER_LIMIT: Duration = Duration::from_secs(60);

/// Runs the selected drills and returns the exit code of the worst verdict.
pub(crate) fn drill(global: &Global, drill: &Drill) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &drill.of.file)?;
    if client.machine().is_some() {
        bail!("{IN_THE_LAB}");
    }
    let mut selection = selection(drill)?;
    let config = file::read(&drill.of.file)?;
    let info: SiteInfo = client.get("/ping")?;
    let status: Status = client.get("/status")?;
    if let Selection::Faults { disks } = &mut selection {
        *disks = disks_can_be_filled(&client, &status)?;
    }
    let targets = selection.targets(&as_it_is(&config, &status), &status.store);
    let mut reports = Vec::new();
    for (number, target) in targets.iter().enumerate() {
        if targets.len() > 1 && !global.quiet {
            eprint_line!("\n[{}/{}] {target}", number + 1, targets.len());
        }
        // The previous drill may have changed the primary.
        let now: Status = client.get("/status")?;
        let course = course(&info, &config, &now)?;
        let target = target.named(Roles::of(&now))?;
        if let Target::Fill(server) = target
            && let Some(why) = unfillable(&client, server)?
        {
            bail!(why);
        }
        let plan = Plan {
            site: client.site.clone(),
            target,
            hold: drill.hold,
            course,
            limits: Limits::default(),
        };
        let report = rehearse(global, &client, &plan)?;
        print_one(global, &report)?;
        let interrupted = report.verdict == Verdict::Interrupted;
        reports.push(report);
        if interrupted {
            break;
        }
    }
    if targets.len() > 1 && !global.json {
        output::print(&format!("\n{}", render_all(&reports)));
    }
    let verdicts = reports.iter().map(|report| report.verdict);
    Ok(Verdict::exit_of_all(verdicts))
}

fn selection(drill: &Drill) -> anyhow::Result<Selection> {
    let selection: Selection = drill.what.join(" ").parse()?;
    match (selection, drill.faults) {
        (Selection::All, true) => Ok(Selection::Faults { disks: false }),
        (_, true) => bail!("--faults is only for `drill all`"),
        (selection, false) => Ok(selection),
    }
}

/// Whether the disk of each database server can be filled; if not, prints why.
fn disks_can_be_filled(client: &SiteClient, status: &Status) -> anyhow::Result<bool> {
    let servers = status.servers.iter().map(|server| server.name);
    let databases: Vec<ServerName> = servers
        .filter(|server| server.tier == Tier::Database)
        .collect();
    for server in &databases {
        if let Some(why) = unfillable(client, *server)? {
            eprint_line!("skipping fill: {why}");
            return Ok(false);
        }
    }
    Ok(!databases.is_empty())
}

fn unfillable(client: &SiteClient, server: ServerName) -> anyhow::Result<Option<String>> {
    let access: Access = client.get(&format!("/servers/{server}"))?;
    Ok(match access.disk {
        Disk::Fillable => None,
        Disk::NotFillable(why) => Some(why),
        Disk::Unknown => Some(
            "the site was brought up by an older version, which cannot fill disks: run `gaiola down`, then `gaiola up`".into(),
        ),
    })
}

/// The drill's requests: through the front door, and to each VIP separately.
fn course(info: &SiteInfo, config: &Config, status: &Status) -> anyhow::Result<Course> {
    let by_proxies = config.balancer.is_some() || config.web.is_some();
    let probed = if by_proxies {
        topology::PROBE_PATH
    } else {
        &config.app.health
    };
    let mut course = Course::new(info.entry, config.drill.clone()).probing(probed, by_proxies);
    let doors = clients::doors_of_vips(status).into_iter();
    course.vips = doors.map(|door| door.ip()).collect();
    if config.speaks_tls() {
        Ok(course.over_tls()?)
    } else {
        Ok(course)
    }
}

/// The file's tiers with the servers that they have now.
fn as_it_is(config: &Config, status: &Status) -> Config {
    let mut config = config.clone();
    if config.machines.is_some() {
        let servers = status.servers.iter();
        let on = |server: &ServerStatus| (server.name, Machine::new(&server.location.host.0));
        config.set_machines(Machines {
            servers: servers.map(on).collect(),
            spare: Vec::new(),
            power: None,
        });
        return config;
    }
    for tier in Tier::ALL {
        let count = status
            .servers
            .iter()
            .filter(|server| server.tier == tier)
            .count();
        config.set_servers(tier, u16::try_from(count).unwrap_or(u16::MAX));
    }
    config
}

fn print_one(global: &Global, report: &DrillReport) -> anyhow::Result<()> {
    if global.json {
        print_line!("{}", serde_json::to_string(report)?);
    } else {
        output::print(&render(report));
    }
    Ok(())
}

fn rehearse(global: &Global, client: &SiteClient, plan: &Plan) -> anyhow::Result<DrillReport> {
    let injector = FaultInjector {
        client,
        hold: plan.hold,
        killed: RefCell::default(),
        harmed: RefCell::new(None),
    };
    let started = Instant::now();
    client.runtime.block_on(async {
        let mut interrupt = on_signal(SignalKind::interrupt())?;
        let mut terminate = on_signal(SignalKind::terminate())?;
        let mut hang_up = on_signal(SignalKind::hangup())?;
        let interrupted = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        };
        let mut progress = |text: &str| {
            if !global.quiet {
                eprint_line!("{:>6.1} s  {text}", started.elapsed().as_secs_f32());
            }
        };
        let tasks = tokio::task::LocalSet::new();
        Ok(tasks
            .run_until(run(plan, &injector, interrupted, &mut progress))
            .await)
    })
}

/// Injects and observes a drill's faults, over the site's control socket and through its processes.
struct FaultInjector<'a> {
    client: &'a SiteClient,
    hold: Duration,
    killed: RefCell<Vec<Identity>>,
    harmed: RefCell<Option<Harmed>>,
}

/// The harm that was done, and the event log before it.
#[derive(Clone)]
struct Harmed {
    servers: Vec<ServerName>,
    before: Vec<String>,
}

impl Harmed {
    /// The last events of these servers.
    fn events(servers: &[ServerName], status: &Status) -> Vec<String> {
        let of_servers = status.events.iter().filter(
            |event| matches!(event.subject, Subject::Server(server) if servers.contains(&server)),
        );
        of_servers.map(ToString::to_string).collect()
    }
}

/// Said of a site that stands on machines.
const IN_THE_LAB: &str =
    "drills run in the lab only: name numbers of servers in a copy of the file, and rehearse there";
/// How long after its span the site undoes a fault that is not undone yet.
const GRACE: Duration = Duration::from_secs(5);

impl FaultInjector<'_> {
    async fn ask<T: DeserializeOwned>(&self, request: Request) -> anyhow::Result<T> {
        let response = self.client.send(&request, ORDER_LIMIT).await?;
        if response.status != 200 {
            bail!("{}", response.text().trim());
        }
        Ok(serde_json::from_slice(&response.body)?)
    }

    async fn request(&self, request: &HarmRequest) -> anyhow::Result<()> {
        let body = serde_json::to_vec(request)?;
        self.ask::<bool>(Request::post("/harm", body))
            .await
            .map(drop)
    }

    async fn pid_1(&self, server: ServerName) -> anyhow::Result<Option<u32>> {
        let access: Access = self.ask(Request::get(format!("/servers/{server}"))).await?;
        match access.enter {
            None => Ok(None),
            Some(Enter::Namespaces { pid, .. }) => Ok(Some(pid)),
            Some(Enter::Ssh { .. }) => bail!("{IN_THE_LAB}"),
        }
    }

    async fn kill(&self, server: ServerName, process: Option<Process>) -> anyhow::Result<()> {
        let pid_1 = self
            .pid_1(server)
            .await?
            .with_context(|| format!("{server} is off already"))?;
        let victims = match process {
            None => vec![identify(pid_1)?],
            Some(process) => processes::victims(&processes::below(pid_1), process),
        };
        if victims.is_empty() {
            bail!("no such process runs on {server}");
        }
        for victim in &victims {
            signal(victim.pid, rustix::process::Signal::KILL);
        }
        *self.killed.borrow_mut() = victims;
        Ok(())
    }

    async fn do_harm(&self, target: &Target) -> anyhow::Result<()> {
        let servers = target.servers();
        let status: Status = self.ask(Request::get("/status")).await?;
        let before = Harmed::events(&servers, &status);
        *self.harmed.borrow_mut() = Some(Harmed { servers, before });
        match target {
            Target::Kill { server, process } => self.kill(*server, *process).await,
            Target::Power(server) => self.request(&HarmRequest::CutPower(*server)).await,
            Target::Stop(server) => self.request(&HarmRequest::ShutDown(*server)).await,
            held => {
                let for_ms = (self.hold + GRACE).as_millis();
                let begin = HarmRequest::Begin {
                    target: held.clone(),
                    for_ms: u64::try_from(for_ms).unwrap_or(u64::MAX),
                };
                self.request(&begin).await
            }
        }
    }

    async fn is_done(&self, target: &Target) -> anyhow::Result<()> {
        match target {
            Target::Kill {
                process: Some(_), ..
            } => self.are_dead(),
            Target::Kill { server, .. } | Target::Power(server) | Target::Stop(server) => {
                match self.pid_1(*server).await? {
                    None => Ok(()),
                    Some(pid) => bail!("pid 1 of {server} still runs ({pid})"),
                }
            }
            held => {
                let faults: Vec<Target> = self.ask(Request::get("/faults")).await?;
                if faults.contains(held) {
                    Ok(())
                } else {
                    bail!("the fault is not in force")
                }
            }
        }
    }

    fn are_dead(&self) -> anyhow::Result<()> {
        let killed = self.killed.borrow();
        match killed
            .iter()
            .filter(|victim| processes::is_alive(**victim))
            .count()
        {
            0 => Ok(()),
            alive => bail!("{alive} of the processes still run"),
        }
    }

    async fn give_back(&self, target: &Target) -> anyhow::Result<()> {
        match target {
            target if target.is_held() => self.request(&HarmRequest::End(target.clone())).await,
            target if target.heals_itself() => Ok(()),
            target => {
                for server in target.servers() {
                    self.request(&HarmRequest::PowerOn(server)).await?;
                }
                Ok(())
            }
        }
    }

    async fn poll(&self) -> anyhow::Result<Sight> {
        let status: Status = self.ask(Request::get("/status")).await?;
        let harmed = self.harmed.borrow();
        let logged = harmed.as_ref().is_some_and(|harmed| {
            let events = Harmed::events(&harmed.servers, &status);
            events.iter().any(|event| !harmed.before.contains(event))
        });
        Ok(Sight {
            healthy: status.healthy,
            noticed: !status.healthy || logged,
            missing: status.missing.join("; "),
        })
    }
}

/// Converts a result for the drill's report.
fn answer<'a, T>(work: impl Future<Output = anyhow::Result<T>> + 'a) -> HarmFuture<'a, T> {
    Box::pin(async { work.await.map_err(DrillError::harm) })
}

impl Harm for FaultInjector<'_> {
    fn harm<'a>(&'a self, target: &'a Target) -> HarmFuture<'a, ()> {
        answer(self.do_harm(target))
    }

    fn confirm<'a>(&'a self, target: &'a Target) -> HarmFuture<'a, ()> {
        answer(self.is_done(target))
    }

    fn put_back<'a>(&'a self, target: &'a Target) -> HarmFuture<'a, ()> {
        answer(self.give_back(target))
    }

    fn status(&self) -> HarmFuture<'_, Sight> {
        answer(self.poll())
    }

    fn witnesses<'a>(
        &'a self,
        target: &'a Target,
        course: &'a Course,
        record: &'a Record,
    ) -> HarmFuture<'a, Vec<Witness>> {
        answer(self.send_witnesses(target, course, record))
    }

    fn look_up<'a>(&'a self, writes: &'a [Acknowledged]) -> HarmFuture<'a, Writes> {
        answer(self.look_up_in_the_database(writes))
    }

    fn contents(&self) -> HarmFuture<'_, Contents> {
        answer(self.compare_members())
    }
}
