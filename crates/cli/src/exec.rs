//! `gaiola exec`: runs a command on a server, on this terminal.

use crate::args::{Exec, Global};
use crate::connect::SiteClient;
use crate::machines::Machines;
use crate::output::Exit;
use anyhow::{Context as _, bail};
use gaiola_control::api::{Access, Enter};
use gaiola_control::ssh::quote;
use gaiola_model::inventory::Host;
use gaiola_os::namespace;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

/// Runs the command and returns its exit code (128 plus the signal's number if a signal ended it).
pub(crate) fn exec(global: &Global, exec: &Exec) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &exec.of.file)?;
    let access: Access = client.get(&format!("/servers/{}", exec.server))?;
    let (program, args) = exec.command.split_first().context("no command given")?;
    let mut command = match access.enter {
        None => bail!("{} is off; switch it on with: gaiola up", exec.server),
        Some(Enter::Namespaces { pid, user }) => {
            namespace::join(pid, user).with_context(|| format!("cannot enter {}", exec.server))?;
            // The child, not this process, is in the server's PID namespace.
            let mut command = Command::new(program);
            command.args(args);
            command
        }
        Some(Enter::Ssh { host }) => over_ssh(&client, host, &exec.command)?,
    };
    let status = command
        .current_dir("/")
        .status()
        .with_context(|| format!("cannot run {program} on {}", exec.server))?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    Ok(Exit::from(u8::try_from(code).unwrap_or(1)))
}

/// `ssh` with this terminal, which ends with the command's exit code.
fn over_ssh(client: &SiteClient, host: Host, words: &[String]) -> anyhow::Result<Command> {
    let machines = Machines::new([host])?;
    let ssh = machines.iter().next().context("no machine")?;
    let arguments = client
        .runtime
        .block_on(ssh.with_terminal(&command_line(words)))?;
    let (program, arguments) = arguments.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// A machine's command line of these words, in the root directory, as in the lab.
pub(crate) fn command_line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    let script = format!("cd / && exec {}", words.join(" "));
    format!("sh -c {}", quote(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_were_given() {
        let words = ["printf", "%s|", "it's", "$HOME", "a  b", ""].map(String::from);
        let ran = Command::new("sh")
            .args(["-c", &command_line(&words)])
            .output();
        assert_eq!(ran.unwrap().stdout, b"it's|$HOME|a  b||");
    }
}
