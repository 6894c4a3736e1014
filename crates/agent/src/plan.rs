//! What should run on this server, derived from the placement. Pure: the same placement gives the same processes.

use super::environment::Environments;
use super::limits;
use super::logs::HEADING;
use super::supervisor::WantedProcess;
use crate::state::{Boot, Order};
use gaiola_core::topology;
use gaiola_model::config::BalancerLog;
use gaiola_model::cron::BEGIN_WITHIN;
use gaiola_model::placement::{
    CronRun, PlacedInstance, PlacedWorker, ReleaseNumber, ReleaseRun, Template,
};
use gaiola_model::proxy_file::{AccessLog, LogTarget};
use gaiola_model::{CronName, InstanceName, Placement, Revision, Tier, UnixTime, WorkerName};
use gaiola_os::cgroup::Limits;
use gaiola_os::process::{Launch, OWN_PROGRAM};
use gaiola_store::etcd::{self, EtcdMember, Join};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Environment variable that names the run in every process it starts.
pub(super) const RUN: &str = "GAIOLA_RELEASE_RUN";

/// Between SIGTERM and SIGKILL for a run.
const RUN_GRACE: Duration = Duration::from_secs(10);

/// Environment variable that identifies the program of a process of our own.
const PROGRAM: &str = "GAIOLA_PROGRAM";

/// Grace of the proxy, which drains for up to 10 s after SIGTERM.
const PROXY_GRACE: Duration = Duration::from_secs(12);

/// The database URLs that instances get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DatabaseUrls {
    /// Leads to the primary.
    pub primary: String,
    /// Leads to the standbys.
    pub standbys: String,
}

/// What the site's processes get from their server.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// What it was switched on with.
    pub boot: &'a Boot,
    /// `None`: the site has no database.
    pub urls: Option<&'a DatabaseUrls>,
    /// Those of the order.
    pub environments: &'a Environments,
}

/// Every process that the agent runs on its server, except the store's member. `program` identifies the agent's own program.
pub(super) fn wanted(
    given: Given<'_>,
    placement: &Placement,
    program: &str,
) -> BTreeMap<String, WantedProcess> {
    let boot = given.boot;
    let mut all = BTreeMap::new();
    if topology::has_proxy(placement, boot.server) {
        let section = placement.config.balancer.as_ref();
        let log = section.and_then(|balancer| balancer.proxy.access_log.as_ref());
        let log = log.filter(|_| boot.server.tier == Tier::Balancer);
        all.insert("proxy".to_string(), proxy(boot, log, program));
    }
    for (name, instance) in placement
        .instances
        .iter()
        .filter(|(name, _)| name.server == boot.server)
    {
        all.insert(
            name.to_string(),
            self::instance(given, placement, *name, instance),
        );
    }
    let workers = placement.workers.iter();
    for (name, placed) in workers.filter(|(name, _)| name.server == boot.server) {
        all.insert(name.to_string(), worker(given, placement, name, placed));
    }
    all
}

/// The limits of the processes on a server that have any. They hold for all processes of a name at once, whatever release or command they
/// are of.
pub(super) fn limits(boot: &Boot, placement: &Placement) -> BTreeMap<String, Limits> {
    let (config, server) = (&placement.config, boot.server);
    let instances = placement.instances.keys();
    let instances = instances.filter(|name| name.server == server);
    let instances = instances.map(|name| (name.to_string(), config.app.limits));
    let workers = placement.workers.keys();
    let workers = workers.filter(|name| name.server == server);
    let workers = workers.filter_map(|name| {
        let worker = config.workers.get(&name.kind)?;
        Some((name.to_string(), worker.limits))
    });
    let runs = cron_runs(boot, placement).into_iter();
    let runs = runs.map(|(name, _, run)| (run.name, placement.crons[name].settings.limits));
    let all = instances.chain(workers).chain(runs);
    let limited = all.filter(|(_, limits)| !limits.is_none());
    limited
        .map(|(name, limits)| (name, limits::of_system(limits)))
        .collect()
}

/// The store's member on this server. An order that no store holds yet founds the store.
pub(super) fn store_member(boot: &Boot, order: &Order, program: &etcd::Program) -> WantedProcess {
    let servers = order.placement.store.iter();
    let own = (!order.placement.store.contains(&boot.server)).then_some(&boot.server);
    let members = servers
        .chain(own)
        .filter_map(|server| EtcdMember::on(&order.placement, *server))
        .collect();
    let launch = etcd::Launch {
        member: EtcdMember::at(boot.server, &boot.location),
        data: boot.etcd(),
        pki: boot.pki(),
        token: boot.store_token.clone(),
        join: match order.revision {
            Revision(0) => Join::Bootstrap(members),
            _ => Join::Existing(members),
        },
    };
    let command = etcd::command(program, &launch);
    let launch = Launch {
        program: command.program,
        args: command.args,
        env: command.env,
        cwd: "/".into(),
        log: boot.logs().join("etcd.log"),
        user: boot.database_user,
        privileged: false,
    };
    WantedProcess {
        launch,
        grace: Duration::from_secs(5),
        restart: true,
        takes_over: false,
    }
}

/// How a member joined matters to etcd only until it has data, and is no reason to restart one that runs.
pub(super) fn keep_join(launch: &mut Launch, running: &Launch) {
    let flag = |arg: &OsString| {
        let flag = arg.to_str()?.split('=').next()?.to_string();
        flag.starts_with("--initial-cluster").then_some(flag)
    };
    for arg in &mut launch.args {
        let Some(name) = flag(arg) else { continue };
        let mut held = running.args.iter();
        if let Some(held) = held.find(|held| flag(held).as_ref() == Some(&name)) {
            arg.clone_from(held);
        }
    }
}

/// An access log of the site's file, for the proxy's arguments.
fn set_log(log: &BalancerLog, own: &Path) -> Option<String> {
    let to = log.to.clone();
    let log = AccessLog {
        to: to.unwrap_or_else(|| LogTarget::File(own.into())),
        format: log.format,
    };
    serde_json::to_string(&log).ok()
}

fn proxy(boot: &Boot, log: Option<&BalancerLog>, program: &str) -> WantedProcess {
    let admin = boot.location.socket(boot.location.ports.proxy).to_string();
    let mut args: Vec<OsString> = vec![
        "proxy".into(),
        "--control".into(),
        super::proxy::socket(boot.run()).into(),
    ];
    args.extend(["--take-over".into(), "--admin".into(), admin.into()]);
    let own_log = boot.logs().join("access.log");
    match log.and_then(|log| set_log(log, &own_log)) {
        Some(set) => args.extend(["--access-log-as".into(), set.into()]),
        None => args.extend(["--access-log".into(), own_log.into()]),
    }
    if boot.server.tier == Tier::Balancer {
        args.extend(["--keeper".into(), boot.run().join("keeper.sock").into()]);
    }
    WantedProcess {
        launch: own(boot, "proxy", args, program),
        grace: PROXY_GRACE,
        restart: true,
        takes_over: true,
    }
}

/// A process of this same binary. The environment says which that is, so that one of another binary is replaced.
fn own(boot: &Boot, name: &str, args: Vec<OsString>, program: &str) -> Launch {
    Launch {
        program: OWN_PROGRAM.into(),
        args,
        env: vec![
            ("PATH".into(), boot.path.clone().into()),
            (PROGRAM.into(), program.into()),
        ],
        cwd: "/".into(),
        log: boot.logs().join(format!("{name}.log")),
        user: None,
        privileged: true,
    }
}

fn instance(
    given: Given<'_>,
    placement: &Placement,
    name: InstanceName,
    instance: &PlacedInstance,
) -> WantedProcess {
    let boot = given.boot;
    let release = boot.release(instance.release);
    let urls = given.urls.filter(|_| instance.database);
    let mut env = site_env(boot, &instance.release.to_string(), urls);
    // They may replace `PATH` and `LANG`; the names of the others are refused in the file.
    env.extend(given.environments.variables(instance.env));
    let host = match instance.encrypted {
        true => Ipv4Addr::LOCALHOST.into(),
        false => boot.location.address,
    };
    env.push(("HOST".into(), host.to_string().into()));
    let port = boot.location.ports.instance(name.number);
    env.push(("PORT".into(), port.to_string().into()));
    env.push(("INSTANCE".into(), name.to_string().into()));
    let launch = shell(
        boot,
        &name.to_string(),
        &in_place_of_the_shell(&instance.run),
        release,
        env,
    );
    WantedProcess {
        launch,
        grace: placement.config.app.grace,
        restart: true,
        takes_over: false,
    }
}

fn worker(
    given: Given<'_>,
    placement: &Placement,
    name: &WorkerName,
    placed: &PlacedWorker,
) -> WantedProcess {
    let boot = given.boot;
    let urls = given.urls.filter(|_| placed.database);
    let mut env = site_env(boot, &placed.release.to_string(), urls);
    env.extend(given.environments.variables(placed.env));
    env.push(("INSTANCE".into(), name.to_string().into()));
    let config = placement.config.workers.get(&name.kind);
    let grace = config.and_then(|worker| worker.grace);
    WantedProcess {
        launch: shell(
            boot,
            &name.to_string(),
            &in_place_of_the_shell(&placed.run),
            boot.release(placed.release),
            env,
        ),
        grace: grace.unwrap_or(placement.config.app.grace),
        restart: true,
        takes_over: false,
    }
}

/// A single program replaces its shell, so that signals and limits reach the program itself.
fn in_place_of_the_shell(run: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" -_./:=,@%+$".contains(&byte);
    let first = run.split_ascii_whitespace().next().unwrap_or_default();
    let is_program = !first.is_empty() && !first.contains('=') && !first.contains('$');
    const BUILTIN: [&str; 8] = ["exec", "cd", "exit", "export", "set", "source", ".", "eval"];
    if is_program && run.bytes().all(is_plain) && !BUILTIN.contains(&first) {
        format!("exec {run}")
    } else {
        run.into()
    }
}

/// A command that is ordered to run once on this server, within its current boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Identifies it: it begins once.
    pub name: String,
    /// The log that its output is in, without `.log`.
    pub log: String,
    /// The line that it begins with in a log that it shares with others.
    pub heading: Option<String>,
    /// The command.
    pub command: String,
    /// The release whose directory it runs in.
    pub release: ReleaseNumber,
    /// The number of its environment.
    pub env: u64,
    /// Whether its environment has the database's URLs, if the site has one.
    pub database: bool,
    /// It should be stopped.
    pub stop: bool,
    /// It is ended if it takes longer.
    pub timeout: Option<Duration>,
    /// It begins by then or not at all.
    pub begin_by: Option<UnixTime>,
}

impl Run {
    fn of_release(run: &ReleaseRun) -> Self {
        let name = format!("release-{}-{}", run.release, run.generation);
        Self {
            log: name.clone(),
            heading: None,
            name,
            command: run.command.clone(),
            release: run.release,
            env: run.env,
            database: true,
            stop: run.stop,
            timeout: None,
            begin_by: None,
        }
    }

    fn of_cron(name: &CronName, run: &CronRun) -> Self {
        Self {
            name: format!("cron-{name}-{}", run.due.0),
            log: format!("cron-{name}"),
            heading: Some(format!("{HEADING}{name}, due {}", run.due)),
            command: run.run.clone(),
            release: run.release,
            env: run.env,
            database: run.database,
            stop: false,
            timeout: Some(run.timeout),
            begin_by: Some(run.ordered + BEGIN_WITHIN),
        }
    }

    /// Where its exit status is written, so that an agent that starts meanwhile finds it.
    pub(super) fn status_file(&self, boot: &Boot) -> PathBuf {
        boot.run()
            .join("releases")
            .join(format!("{}.exit", self.name))
    }

    /// Exists as soon as it has begun.
    pub(super) fn begun(&self, boot: &Boot) -> PathBuf {
        self.status_file(boot).with_extension("exit.begun")
    }
}

/// The `release` command that is ordered for this server's current boot; a run of an earlier boot is over.
pub(super) fn release_run<'a>(
    boot: &Boot,
    placement: &'a Placement,
) -> Option<(&'a ReleaseRun, Run)> {
    let run = placement.release_run.as_ref();
    let run = run.filter(|run| run.server == boot.server && run.boot == boot.number)?;
    Some((run, Run::of_release(run)))
}

/// The runs of crons that are ordered for it.
pub(super) fn cron_runs<'a>(
    boot: &Boot,
    placement: &'a Placement,
) -> Vec<(&'a CronName, &'a CronRun, Run)> {
    let crons = placement.crons.iter();
    let runs = crons.flat_map(|(name, cron)| cron.runs.iter().map(move |run| (name, run)));
    let here = runs.filter(|(_, run)| run.server == boot.server && run.boot == boot.number);
    here.map(|(name, run)| (name, run, Run::of_cron(name, run)))
        .collect()
}

pub(super) fn run(given: Given<'_>, run: &Run) -> WantedProcess {
    let boot = given.boot;
    let release = boot.release(run.release);
    let urls = given.urls.filter(|_| run.database);
    let mut env = site_env(boot, &run.release.to_string(), urls);
    let of_file = given.environments.variables(run.env);
    let (path, of_file): (Vec<_>, Vec<_>) = of_file.partition(|(name, _)| name == "PATH");
    env.extend(of_file);
    env.push((RUN.into(), run.name.clone().into()));
    // The command is passed as an argument: nothing in it can end the wrapper early.
    // A run that has begun never begins again, even if no process was left to report its end. The wrapper has a `PATH` of its own: the file's may
    // lead to the site's programs alone.
    let script = r#"if [ ! -e "$2" ] && mkdir "$2.begun"; then [ -z "$5" ] || echo "$5"; PATH="$3" $4 /bin/sh -c "$1"; echo $? >"$2.new" && mv "$2.new" "$2"; fi"#;
    let mut launch = shell(boot, &run.log, script, release, env);
    // Not the agent ends it in time, which may not be there.
    let limit = run.timeout.map(|timeout| {
        let (grace, seconds) = (RUN_GRACE.as_secs(), timeout.as_secs());
        format!("/usr/bin/timeout -k {grace} {seconds}")
    });
    launch.args.extend([
        "release".into(),
        run.command.clone().into(),
        run.status_file(boot).into(),
        path.into_iter()
            .next()
            .map_or_else(|| boot.path.clone().into(), |(_, path)| path),
        limit.unwrap_or_default().into(),
        run.heading.clone().unwrap_or_default().into(),
    ]);
    WantedProcess {
        launch,
        grace: RUN_GRACE,
        restart: false,
        takes_over: false,
    }
}

/// The environment of a one-off command beside instances of this template. It has no port: nobody sends to it.
pub(super) fn one_off_env(given: Given<'_>, like: &Template) -> Vec<(OsString, OsString)> {
    let urls = given.urls.filter(|_| like.database);
    let mut env = site_env(given.boot, &like.release.to_string(), urls);
    env.extend(given.environments.variables(like.env));
    env.push(("INSTANCE".into(), "run".into()));
    env
}

fn site_env(boot: &Boot, release: &str, urls: Option<&DatabaseUrls>) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), boot.path.clone().into()),
        ("LANG".into(), "C.UTF-8".into()),
        ("RELEASE".into(), release.into()),
        ("SITE".into(), boot.site.as_str().into()),
    ];
    if let Some(urls) = urls {
        env.push(("DATABASE_URL".into(), urls.primary.clone().into()));
        env.push(("DATABASE_REPLICA_URL".into(), urls.standbys.clone().into()));
    }
    env
}

fn shell(
    boot: &Boot,
    name: &str,
    script: &str,
    cwd: PathBuf,
    env: Vec<(OsString, OsString)>,
) -> Launch {
    Launch {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env,
        cwd,
        log: boot.logs().join(format!("{name}.log")),
        user: boot.site_user,
        privileged: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_runs_keeps_how_it_came_in_and_nothing_else() {
        let launch = |args: [&str; 3]| Launch {
            program: "etcd".into(),
            args: args.map(Into::into).into(),
            env: Vec::new(),
            cwd: "/".into(),
            log: "etcd.log".into(),
            user: None,
            privileged: false,
        };
        let running = launch([
            "--initial-cluster=a",
            "--initial-cluster-state=new",
            "--x=1",
        ]);
        let [cluster, state] = ["--initial-cluster=a,b", "--initial-cluster-state=existing"];
        let mut wanted = launch([cluster, state, "--x=2"]);
        keep_join(&mut wanted, &running);
        let kept = [
            "--initial-cluster=a",
            "--initial-cluster-state=new",
            "--x=2",
        ];
        assert_eq!(wanted, launch(kept));
    }

    #[test]
    fn only_a_command_of_one_program_takes_its_shells_place() {
        for plain in [
            "bin/guestbook",
            "bin/app --port=$PORT",
            "python3 -m http.server",
        ] {
            assert_eq!(in_place_of_the_shell(plain), format!("exec {plain}"));
        }
        for shell in [
            "cd x && bin/app",
            "A=1 bin/app",
            "exec bin/app",
            "bin/a | bin/b",
            "bin/app; bin/b",
            "$APP",
            "bin/a 'x y'",
        ] {
            assert_eq!(in_place_of_the_shell(shell), shell);
        }
    }
}
