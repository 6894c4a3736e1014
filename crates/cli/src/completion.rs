//! `gaiola completion`: shells query this program for completions.

use crate::args::Args;
use crate::output::{self, Exit};
use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

/// A shell sets this variable to request completions.
const VARIABLE: &str = "COMPLETE";
/// Prints completions and exits if a shell requests them.
pub(crate) fn answer() {
    CompleteEnv::with_factory(Args::command)
        .var(VARIABLE)
        .complete();
}

/// `gaiola completion`: prints the script that a shell sources.
pub(crate) fn completion(shell: Shell) -> anyhow::Result<Exit> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let asks = shells
        .completer(&name)
        .context("this shell is not supported")?;
    let mut script = Vec::new();
    asks.write_registration(VARIABLE, "gaiola", "gaiola", "gaiola", &mut script)?;
    output::print(&String::from_utf8_lossy(&script));
    Ok(Exit::Ok)
}
