//! `gaiola exec`: runs a command on a server, on this terminal.

use crate::args::{Exec, Global};
use crate::connect::SiteClient;
use crate::output::Exit;
use anyhow::{Context as _, bail};
use gaiola_control::api::{Access, Enter};
use gaiola_os::namespace;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

/// Runs the command and returns its exit code (128 plus the signal's number if a signal ended it).
pub(crate) fn exec(global: &Global, exec: &Exec) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &exec.of.file)?;
    let access: Access = client.get(&format!("/servers/{}", exec.server))?;
    let Some(Enter::Namespaces { pid, user }) = access.enter else {
        bail!("{} is off; switch it on with: gaiola up", exec.server)
    };
    namespace::join(pid, user).with_context(|| format!("cannot enter {}", exec.server))?;
    let (program, args) = exec.command.split_first().context("no command given")?;
    // The child, not this process, is in the server's PID namespace.
    let status = Command::new(program)
        .args(args)
        .current_dir("/")
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    Ok(Exit::from(u8::try_from(code).unwrap_or(1)))
}
