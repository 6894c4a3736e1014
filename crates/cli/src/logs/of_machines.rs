//! The logs of servers on machines: `gaiola logs` there, by SSH.

use crate::args::{Global, Logs};
use crate::connect::{Place, SiteClient};
use crate::exec::command_line;
use crate::machines::{Machines, PROGRAM};
use crate::output::{self, Exit};
use anyhow::{Context as _, bail};
use gaiola_control::ssh::Ssh;
use gaiola_model::inventory::Host;
use gaiola_model::status::Status;
use gaiola_model::{ServerName, SiteName};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

/// Until a machine that went away is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Prints the last lines of the logs, machine by machine, or all that is added to them as it comes.
pub(super) fn logs(global: &Global, logs: &Logs, place: &Place) -> anyhow::Result<Exit> {
    let machines = Machines::new(hosts(logs, place)?)?;
    let runtime = crate::runtime::runtime()?;
    if logs.follow {
        let remote = command_line(&remote(logs, &place.site, logs.last));
        let later = command_line(&self::remote(logs, &place.site, 0));
        let quiet = global.quiet;
        runtime.block_on(machines.at_once(|ssh| follow(ssh, remote.clone(), later.clone(), quiet)));
        return Ok(Exit::Ok);
    }
    let remote = command_line(&remote(logs, &place.site, logs.last));
    let read = machines.at_once(|ssh| {
        let remote = remote.clone();
        async move { print(&ssh, &remote).await }
    });
    let mut exit = Exit::Ok;
    for (host, printed) in runtime.block_on(read) {
        match printed {
            Ok(text) => output::print(&text),
            Err(error) => {
                eprint_line!("gaiola: {host}: cannot read its logs: {error:#}");
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}

/// The machines of the servers that are meant: as the running site has them, or else all of the file's.
fn hosts(logs: &Logs, place: &Place) -> anyhow::Result<Vec<Host>> {
    let Some(client) = SiteClient::at(place)? else {
        return Ok(place.machines.clone().unwrap_or_default());
    };
    let status: Status = client.get("/status")?;
    let is_meant = |name: &ServerName| {
        logs.server.is_none_or(|server| server == *name)
            && logs.tier.is_none_or(|tier| tier == name.tier)
    };
    let mut hosts: Vec<Host> = Vec::new();
    for server in status.servers.iter().filter(|it| is_meant(&it.name)) {
        if !hosts.contains(&server.location.host) {
            hosts.push(server.location.host.clone());
        }
    }
    if hosts.is_empty() {
        let names = status.servers.iter().map(|it| it.name.to_string());
        let names = names.collect::<Vec<_>>().join(", ");
        bail!("there is no such server; there are {names}");
    }
    Ok(hosts)
}

/// The words of the command on a machine.
fn remote(logs: &Logs, site: &SiteName, last: usize) -> Vec<String> {
    let mut words = format!("{PROGRAM} logs --site {site} --last {last}");
    if logs.follow {
        words.push_str(" --follow");
    }
    if logs.all {
        words.push_str(" --all");
    }
    if let Some(tier) = logs.tier {
        words.push_str(&format!(" --tier {tier}"));
    }
    if let Some(server) = logs.server {
        words.push_str(&format!(" --server {server}"));
    }
    words.split(' ').map(Into::into).collect()
}

async fn start(ssh: &Ssh, remote: &str) -> anyhow::Result<tokio::process::Child> {
    let arguments = ssh.arguments_as_root(remote).await?;
    let (program, arguments) = arguments.split_first().context("no program")?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    child.context("cannot run ssh")
}

async fn print(ssh: &Ssh, remote: &str) -> anyhow::Result<String> {
    let ended = start(ssh, remote).await?.wait_with_output().await?;
    if !ended.status.success() {
        bail!("{}", String::from_utf8_lossy(&ended.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// Goes on when the machine comes back; what was written while the connection was broken is not shown.
async fn follow(ssh: Ssh, remote: String, later: String, quiet: bool) {
    let mut remote = remote;
    while !output::is_closed() {
        let ended = copy_lines(&ssh, &remote).await;
        if output::is_closed() {
            return;
        }
        if let (Err(error), false) = (ended, quiet) {
            eprint_line!("gaiola: {}: {error:#}; trying again", ssh.host());
        }
        remote.clone_from(&later);
        tokio::time::sleep(AGAIN).await;
    }
}

async fn copy_lines(ssh: &Ssh, remote: &str) -> anyhow::Result<()> {
    let mut child = start(ssh, remote).await?;
    let stdout = child.stdout.take().context("ssh has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        output::print(&format!("{line}\n"));
        if output::is_closed() {
            return Ok(());
        }
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).await?;
    }
    bail!("its logs ended {}", said.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser as _;

    #[test]
    fn the_machine_is_asked_for_the_same_logs() {
        let words = ["gaiola", "logs", "-f", "--all", "-t", "app", "-n", "app2"];
        let Command::Logs(logs) = Args::parse_from(words).command else {
            panic!("not logs");
        };
        let words = remote(&logs, &"shop".parse().unwrap(), 0);
        let Command::Logs(there) = Args::parse_from(words).command else {
            panic!("not logs");
        };
        assert!(there.follow && there.all);
        assert_eq!(
            (there.tier, there.server, there.last),
            (logs.tier, logs.server, 0)
        );
    }
}
