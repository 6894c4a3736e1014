//! `gaiola drill`: rehearses failures and measures the result.

mod clients;
mod lab;
mod machines;
mod power;

use crate::args::{Drill, Global};
use crate::connect::SiteClient;
use crate::file;
use crate::output::{self, Exit};
use anyhow::bail;
use gaiola_control::api::{Access, Disk, SiteInfo};
use gaiola_control::drill::witness::Witness;
use gaiola_control::drill::{
    Acknowledged, Course, DrillError, Harm, HarmFuture, Limits, Plan, Record, Sight, run,
};
use gaiola_core::drill::{
    Contents, DrillReport, RequestedTarget, Roles, Selection, Target, Verdict, Writes, on_machines,
    render, render_all,
};
use gaiola_core::topology;
use gaiola_model::config::{Machine, Machines};
use gaiola_model::event::Subject;
use gaiola_model::status::{ServerStatus, Status};
use gaiola_model::{Config, ServerName, Tier};
use gaiola_net::client::Request;
use lab::Lab;
use machines::OnMachines;
use power::Power;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal as on_signal};

/// Timeout of a request to the site: a server's orderly stop takes time.
const ORDER_LIMIT: Duration = Duration::from_secs(60);

/// Runs the selected drills and returns the exit code of the worst verdict.
pub(crate) fn drill(global: &Global, drill: &Drill) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &drill.of.file)?;
    let mut selection = selection(drill)?;
    let config = file::read(&drill.of.file)?;
    let info: SiteInfo = client.get("/ping")?;
    let status: Status = client.get("/status")?;
    if let Selection::Faults { disks } = &mut selection {
        *disks = client.machine().is_none() && disks_can_be_filled(&client, &status)?;
    }
    let targets = selection.targets(&as_it_is(&config, &status), &status.store);
    let site = Site {
        client: &client,
        info: &info,
        config: &config,
    };
    let mut reports = Vec::new();
    for (number, target) in targets.iter().enumerate() {
        if targets.len() > 1 && !global.quiet {
            eprint_line!("\n[{}/{}] {target}", number + 1, targets.len());
        }
        let report = site.one(global, drill, target)?;
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

/// The site of all drills of a command.
struct Site<'a> {
    client: &'a SiteClient,
    info: &'a SiteInfo,
    config: &'a Config,
}

impl Site<'_> {
    /// The status by whichever machine answers now: the last drill may have ended the connection to the one before.
    fn status(&self, global: &Global, drill: &Drill) -> anyhow::Result<Status> {
        match self.client.machine() {
            Some(_) => SiteClient::find(global, &drill.of.file)?.get("/status"),
            None => self.client.get("/status"),
        }
    }

    /// Runs one drill.
    fn one(
        &self,
        global: &Global,
        drill: &Drill,
        target: &RequestedTarget,
    ) -> anyhow::Result<DrillReport> {
        // The previous drill may have changed the primary.
        let now = self.status(global, drill)?;
        let mut course = course(self.info, self.config, &now)?;
        let target = target.named(Roles::of(&now))?;
        let plan = |target, course| Plan {
            site: self.client.site.clone(),
            target,
            hold: drill.hold,
            course,
            limits: Limits::default(),
        };
        if self.client.machine().is_none() {
            if let Target::Fill(server) = target
                && let Some(why) = unfillable(self.client, server)?
            {
                bail!(why);
            }
            let ground = Ground::Lab(Lab::new(drill.hold));
            return rehearse(global, self.client, ground, &plan(target, course));
        }
        let servers = machines::locations(&now);
        let power = self.config.machines.as_ref();
        let power = power.and_then(|machines| machines.power.as_deref());
        let power = power.map(|command| Power::of(command, &drill.of.file));
        let harms = on_machines(&target, &servers, drill.hold, power.is_some())?;
        let encrypted = self.config.encrypts();
        let ground = OnMachines::new(&self.client.site, &servers, harms, power, encrypted)?;
        course.door = ground.door(self.info.entry, &now, &servers);
        let watcher = ground.watcher()?;
        watcher.runtime.block_on(machines::reach(course.door))?;
        let ground = Ground::Machines(ground);
        rehearse(global, &watcher, ground, &plan(target, course))
    }
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
    let mut course = Course::new(info.entry, config.drill.clone())
        .probing(probed, by_proxies)
        .named(config.host());
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
            ..Machines::default()
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

fn rehearse(
    global: &Global,
    client: &SiteClient,
    ground: Ground,
    plan: &Plan,
) -> anyhow::Result<DrillReport> {
    let injector = FaultInjector {
        client,
        ground,
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

/// What the site's servers are, and how they are harmed.
enum Ground {
    Lab(Lab),
    Machines(OnMachines),
}

/// Injects and observes a drill's faults.
struct FaultInjector<'a> {
    client: &'a SiteClient,
    ground: Ground,
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

/// Asks the site, which may take the time of a server's orderly stop.
async fn ask<T: DeserializeOwned>(client: &SiteClient, request: Request) -> anyhow::Result<T> {
    let response = client.send(&request, ORDER_LIMIT).await?;
    if response.status != 200 {
        bail!("{}", response.text().trim());
    }
    Ok(serde_json::from_slice(&response.body)?)
}

impl FaultInjector<'_> {
    async fn ask<T: DeserializeOwned>(&self, request: Request) -> anyhow::Result<T> {
        ask(self.client, request).await
    }

    async fn do_harm(&self, target: &Target) -> anyhow::Result<()> {
        let servers = target.servers();
        let status: Status = self.ask(Request::get("/status")).await?;
        let before = Harmed::events(&servers, &status);
        *self.harmed.borrow_mut() = Some(Harmed { servers, before });
        match &self.ground {
            Ground::Lab(lab) => lab.harm(self.client, target).await,
            Ground::Machines(machines) => machines.harm(self.client, target).await,
        }
    }

    async fn is_done(&self, target: &Target) -> anyhow::Result<()> {
        match &self.ground {
            Ground::Lab(lab) => lab.is_done(self.client, target).await,
            Ground::Machines(machines) => machines.is_done(self.client, target).await,
        }
    }

    async fn give_back(&self, target: &Target) -> anyhow::Result<()> {
        match &self.ground {
            Ground::Lab(lab) => lab.give_back(self.client, target).await,
            Ground::Machines(machines) => machines.give_back(self.client, target).await,
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

    fn notes(&self) -> Vec<String> {
        match &self.ground {
            Ground::Lab(_) => Vec::new(),
            Ground::Machines(machines) => machines.notes(),
        }
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
