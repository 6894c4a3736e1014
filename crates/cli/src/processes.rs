//! Gaiola's processes. Users start only `gaiola proxy -f FILE` themselves.

use crate::args::{Booted, Global, Keeper, KeeperKind, Lab, OneOff, Pid1, Proxy, Visit};
use crate::file::{Invalid, described};
use crate::output::Exit;
use anyhow::{Context as _, bail};
use gaiola_agent::state::{Boot, State};
use gaiola_agent::{self as agent, init, keeper};
use gaiola_control::drill::witness;
use gaiola_control::process;
use gaiola_model::Tier;
use gaiola_model::proxy_file::ProxyFile;
use gaiola_os::namespace;
use gaiola_os::signal::outlive_stray_signals;
use gaiola_os::stderr;
use gaiola_proxy::{FileError, TakeOver};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Logs to standard error, which is the process's log file.
pub(crate) fn log() {
    log_later();
    stderr::start();
}

/// Starts the log once the process has entered its namespaces: until then it must have a single thread.
fn log_later() {
    outlive_stray_signals();
    let level = std::env::var("GAIOLA_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false)
        .with_writer(|| stderr::Writer)
        .init();
}

/// `gaiola lab`.
pub(crate) fn lab(args: Lab) -> anyhow::Result<Exit> {
    log_later();
    process::run(process::LabArgs {
        site: args.name,
        front_door: args.front_door,
        page: args.page,
    })?;
    Ok(Exit::Ok)
}

/// `gaiola visit`: runs a command, or a task of a drill, in the network of a process.
pub(crate) fn visit(visit: &Visit) -> anyhow::Result<Exit> {
    if let Some(pid) = visit.pid {
        namespace::join_network(pid, visit.rootless)
            .with_context(|| format!("cannot enter the network of process {pid}"))?;
    }
    if let Some((program, args)) = visit.command.split_first() {
        let error = Command::new(program).args(args).exec();
        return Err(error).with_context(|| format!("cannot run {program}"));
    }
    let runtime = crate::runtime::runtime()?;
    runtime.block_on(witness::carry_out())?;
    Ok(Exit::Ok)
}

/// `gaiola one-off`.
pub(crate) fn one_off(args: &OneOff) -> anyhow::Result<Exit> {
    let folder = State::of(&args.site).server(args.server);
    match agent::one_off::run(&folder, &args.command)? {}
}

/// `gaiola pid1`.
pub(crate) fn pid1(args: &Pid1) -> anyhow::Result<Exit> {
    log();
    init::run(&args.folder)?;
    Ok(Exit::Ok)
}

/// `gaiola agent`.
pub(crate) fn agent(args: &Booted) -> anyhow::Result<Exit> {
    log();
    agent::run(&args.boot)?;
    Ok(Exit::Ok)
}

/// `gaiola keeper`.
pub(crate) fn keeper(args: &Keeper) -> anyhow::Result<Exit> {
    log();
    let boot = Boot::load(&args.boot)
        .with_context(|| format!("cannot read what {} was started with", args.boot.display()))?;
    let directory = boot.directories.run;
    match (args.kind, boot.server.tier) {
        (KeeperKind::Vip, _) | (KeeperKind::Tier, Tier::Balancer) => {
            keeper::vip::run(keeper::vip::VipArgs {
                directory,
                realtime: true,
            })?;
        }
        (KeeperKind::Database, _) | (KeeperKind::Tier, Tier::Database) => {
            keeper::database::run(&keeper::database::DatabaseArgs { directory })?;
        }
        (KeeperKind::Tier, Tier::Web | Tier::App) => {
            bail!("{} needs no keeper", boot.server);
        }
    }
    Ok(Exit::Ok)
}

/// `gaiola proxy`.
pub(crate) fn proxy(global: &Global, args: Proxy) -> anyhow::Result<Exit> {
    if let Some(path) = &args.file {
        let file = gaiola_proxy::read_file(path).map_err(invalid)?;
        if args.check {
            say_valid(global, path, &file);
            return Ok(Exit::Ok);
        }
        log();
        gaiola_proxy::serve_file(path, file)?;
        return Ok(Exit::Ok);
    }
    log();
    let args = gaiola_proxy::ProxyArgs {
        control: args.control,
        admin: args.admin,
        keeper: args.keeper,
        config: None,
        access_log: args.access_log_as.or(args.access_log.map(Into::into)),
        workers: None,
        reload: None,
        hard_stop_after: gaiola_proxy::END_LIMIT,
        take_over_limit: gaiola_proxy::TAKE_OVER_LIMIT,
        take_over: if args.take_over {
            TakeOver::Control
        } else {
            TakeOver::Nobody
        },
    };
    gaiola_proxy::run(args)?;
    Ok(Exit::Ok)
}

fn invalid(error: FileError) -> anyhow::Error {
    match error {
        FileError::Mistakes { path, errors } => Invalid { path, errors }.into(),
        other => other.into(),
    }
}

/// The file's contents are not printed: they may be secret.
fn say_valid(global: &Global, path: &Path, file: &ProxyFile) {
    let frontends = file.config.frontends.len();
    let backends = &file.config.backends;
    let servers: usize = backends.iter().map(|backend| backend.servers.len()).sum();
    let backends = backends.len();
    if global.json {
        let mut valid = described(path, &[]);
        valid["frontends"] = frontends.into();
        valid["backends"] = backends.into();
        valid["servers"] = servers.into();
        print_line!("{valid:#}");
    } else if !global.quiet {
        let path = path.display();
        print_line!("{path}: valid; {frontends} frontends, {backends} backends, {servers} servers");
    }
}
