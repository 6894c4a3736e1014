//! `gaiola exec` and `gaiola run`: a command on a server, on this terminal.

use crate::args::{Exec, Global, Run};
use crate::connect::SiteClient;
use crate::machines::{Machines, PROGRAM};
use crate::output::Exit;
use anyhow::{Context as _, bail};
use gaiola_control::api::{Access, Enter};
use gaiola_control::ssh::quote;
use gaiola_model::inventory::Host;
use gaiola_model::status::{ServerState, ServerStatus, Status};
use gaiola_model::{ServerName, Tier};
use gaiola_os::namespace;
use gaiola_os::process::OWN_PROGRAM;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

/// Runs the command and returns its exit code (128 plus the signal's number if a signal ended it).
pub(crate) fn exec(global: &Global, exec: &Exec) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &exec.of.file)?;
    on_server(&client, exec.server, |_| exec.command.clone())
}

/// `gaiola run`: the same on an application server, as the site's own processes run.
pub(crate) fn run(global: &Global, run: &Run) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &run.of.file)?;
    let status: Status = client.get("/status")?;
    let server = match run.server {
        Some(server) if server.tier != Tier::App => {
            bail!(
                "{server} has none of the site's processes: name an application server, such as app1"
            )
        }
        Some(server) => server,
        None => first_that_serves(&status).with_context(|| {
            format!(
                "no application server of {} serves; name one with --server",
                client.site
            )
        })?,
    };
    let site = client.site.to_string();
    on_server(&client, server, |program| {
        let one_off = [program, "one-off", &site, &server.to_string(), "--"].map(String::from);
        one_off
            .into_iter()
            .chain(run.command.iter().cloned())
            .collect()
    })
}

fn first_that_serves(status: &Status) -> Option<ServerName> {
    let apps = status.servers.iter();
    let mut apps = apps.filter(|server| server.tier == Tier::App);
    let serves =
        |server: &&ServerStatus| matches!(server.state, ServerState::Serving | ServerState::Busy);
    apps.find(serves).map(|server| server.name)
}

/// Runs the words of a command on a server, which may need the path of Gaiola's program there.
fn on_server(
    client: &SiteClient,
    server: ServerName,
    words: impl FnOnce(&str) -> Vec<String>,
) -> anyhow::Result<Exit> {
    let access: Access = client.get(&format!("/servers/{server}"))?;
    let (words, mut command) = match access.enter {
        None => bail!("{server} is off; switch it on with: gaiola up"),
        Some(Enter::Namespaces { pid, user }) => {
            let words = words(OWN_PROGRAM);
            namespace::join(pid, user).with_context(|| format!("cannot enter {server}"))?;
            // The child, not this process, is in the server's PID namespace.
            let (program, args) = words.split_first().context("no command given")?;
            let mut command = Command::new(program);
            command.args(args);
            (words, command)
        }
        Some(Enter::Ssh { host }) => {
            let words = words(PROGRAM);
            let command = over_ssh(client, host, &words)?;
            (words, command)
        }
    };
    let program = words.first().map_or("", String::as_str);
    let status = command
        .current_dir("/")
        .status()
        .with_context(|| format!("cannot run {program} on {server}"))?;
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
