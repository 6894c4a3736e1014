//! A command that an operator runs once, as the site's own processes run: in the release that serves, with an instance's environment, as their user.

use crate::database;
use crate::environment::{EnvironmentError, Environments};
use crate::limits;
use crate::plan::{self, Given};
use crate::state::{Boot, Order, read_document, read_json};
use gaiola_model::placement::ReleaseNumber;
use gaiola_os::cgroup::Base;
use gaiola_os::process;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

/// What of the operator's terminal a command needs to know.
const OF_TERMINAL: [&str; 3] = ["TERM", "COLUMNS", "LINES"];
/// Shells that are run without a command, the first that exists.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// Why a command is not run.
#[derive(Debug, thiserror::Error)]
pub enum OneOffError {
    /// What the server was switched on with, or its order.
    #[error("cannot read what this server was told last")]
    State(#[source] io::Error),
    /// No release has come up.
    #[error("no release has come up on this site yet")]
    NoRelease,
    /// It is not on this server's disk.
    #[error("release {0} is not on this server")]
    NotHere(ReleaseNumber),
    /// A secret.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// What it may use.
    #[error("cannot limit what the command may use, as [app] of the site's file says: {0}")]
    Limits(String),
    /// The system.
    #[error("cannot run {}", program.to_string_lossy())]
    Run {
        /// What was to run.
        program: OsString,
        /// Why not.
        source: io::Error,
    },
}

/// Becomes a command on the application server with this directory; without words a shell. The terminal, or what else standard input and output
/// are, stays the command's.
///
/// # Errors
/// Where it does not: it returns for no other reason.
pub fn run(folder: &Path, words: &[OsString]) -> Result<Infallible, OneOffError> {
    let boot = Boot::load(folder).map_err(OneOffError::State)?;
    let order: Order = read_document(&boot.order_file()).map_err(OneOffError::State)?;
    let good = (order.placement.good.as_ref()).ok_or(OneOffError::NoRelease)?;
    let cwd = boot.release(good.release);
    if !cwd.is_dir() {
        return Err(OneOffError::NotHere(good.release));
    }
    let environments = Environments::open(&boot, &order.placement);
    if let Some(error) = environments.why_closed(good.env) {
        return Err(error.clone().into());
    }
    let urls = database::urls(&boot);
    let given = Given {
        boot: &boot,
        urls: urls.as_ref(),
        environments: &environments,
    };
    let mut env = plan::one_off_env(given, good);
    let of_terminal = OF_TERMINAL.map(|name| Some((name.into(), std::env::var_os(name)?)));
    env.extend(of_terminal.into_iter().flatten());
    let shell = SHELLS.iter().find(|shell| Path::new(shell).exists());
    let (program, args) = match words.split_first() {
        Some((program, args)) => (program.as_os_str(), args),
        None => (OsStr::new(shell.unwrap_or(&SHELLS[1])), words),
    };
    limit(&boot, &order)?;
    let source = process::replace_by(program, args, &env, &cwd, boot.site_user);
    let program = program.to_os_string();
    Err(OneOffError::Run { program, source })
}

/// Puts this process into a group of its own with the limits of `[app]`. Where its server's instances have none, for want of control groups,
/// it has none.
fn limit(boot: &Boot, order: &Order) -> Result<(), OneOffError> {
    let limits = order.placement.config.app.limits;
    if limits.is_none() {
        return Ok(());
    }
    let Ok(base) = read_json::<Base>(&limits::note(boot.run())) else {
        return Ok(());
    };
    let pid = std::process::id();
    let name = format!("{}{pid}", limits::ONE_OFF);
    let entered = || {
        let group = base.group(&name)?;
        group.set(&limits::of_system(limits));
        group.admit(&[pid])
    };
    // The agent removes groups that nobody is in: this one too, if it comes between the two.
    let entered = entered().or_else(|_| entered());
    entered.map_err(|error| OneOffError::Limits(error.to_string()))
}
