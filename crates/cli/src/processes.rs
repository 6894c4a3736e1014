//! The processes that Gaiola is made of. People type `gaiola proxy -f FILE` alone.

use crate::args::{Booted, Init, Keeper, KeeperKind, Lab, Proxy};
use crate::hands::Invalid;
use crate::output::Exit;
use gaiola_model::proxy_file::ProxyFile;
use gaiola_node::worker::FileError;
use gaiola_node::{agent, init, keeper, lab, worker};

/// Logs to standard error, which is the process's log file.
fn log() {
    let level = std::env::var("GAIOLA_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
}

/// `gaiola lab`.
pub(crate) fn lab(args: Lab) -> anyhow::Result<Exit> {
    log();
    lab::run(lab::LabArgs {
        site: args.name,
        front_door: args.front_door,
        page: args.page,
    })?;
    Ok(Exit::Ok)
}

/// `gaiola init`.
pub(crate) fn init(args: &Init) -> anyhow::Result<Exit> {
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
    match args.kind {
        KeeperKind::Vip => keeper::vip::run(keeper::vip::VipArgs::default())?,
        KeeperKind::Database => keeper::database::run(&keeper::database::DatabaseArgs::default())?,
    }
    Ok(Exit::Ok)
}

/// `gaiola proxy`.
pub(crate) fn proxy(args: Proxy) -> anyhow::Result<Exit> {
    if let Some(path) = &args.file {
        let file = worker::read_file(path).map_err(invalid)?;
        if args.check {
            println!("{}: valid; {}", path.display(), summary(&file));
            return Ok(Exit::Ok);
        }
        log();
        worker::serve_file(path, file)?;
        return Ok(Exit::Ok);
    }
    log();
    let args = worker::ProxyArgs {
        control: args.control,
        admin: args.admin,
        keeper: args.keeper,
        config: None,
        access_log: args.access_log.map(Into::into),
        workers: None,
        reload: None,
    };
    worker::run(args)?;
    Ok(Exit::Ok)
}

fn invalid(error: FileError) -> anyhow::Error {
    match error {
        FileError::Mistakes(told) => Invalid(told).into(),
        other => other.into(),
    }
}

fn summary(file: &ProxyFile) -> String {
    let servers = file
        .config
        .backends
        .iter()
        .map(|backend| backend.servers.len());
    format!(
        "{} frontends, {} backends, {} servers",
        file.config.frontends.len(),
        file.config.backends.len(),
        servers.sum::<usize>()
    )
}
