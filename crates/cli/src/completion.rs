//! `gaiola completion`: a shell asks this program what to offer while its user types.

use crate::args::Args;
use crate::output::{self, Exit};
use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

/// By this variable a shell asks.
const VARIABLE: &str = "COMPLETE";
/// Answers where a shell asks, and ends this process then.
pub(crate) fn answer() {
    CompleteEnv::with_factory(Args::command)
        .var(VARIABLE)
        .complete();
}

/// `gaiola completion`: the script by which a shell asks.
pub(crate) fn completion(shell: Shell) -> anyhow::Result<Exit> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let asks = shells.completer(&name).context("no such shell is known")?;
    let mut script = Vec::new();
    asks.write_registration(VARIABLE, "gaiola", "gaiola", "gaiola", &mut script)?;
    output::print(&String::from_utf8_lossy(&script));
    Ok(Exit::Ok)
}
