//! A command on a machine; its lines are printed with the machine's name in front.

use crate::exec::command_line;
use crate::output;
use anyhow::{Context as _, bail};
use gaiola_control::ssh::Ssh;
use gaiola_model::SiteName;
use gaiola_model::inventory::Host;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// The longest that a command may take: an upgrade of all packages from a slow mirror.
const LIMIT: Duration = Duration::from_secs(3600);

/// Why it is not known whether a command still runs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct MayGoOn(String);

/// Whether a command that failed like this may still run.
pub(super) fn may_be_under_way(error: &anyhow::Error) -> bool {
    error.downcast_ref::<MayGoOn>().is_some()
}

/// As root on a machine. Nobody is there to answer debconf's questions.
pub(super) async fn over_ssh(ssh: &Ssh, words: &[String]) -> anyhow::Result<Command> {
    let set = ["env", "DEBIAN_FRONTEND=noninteractive"].map(String::from);
    let words: Vec<String> = set.iter().chain(words).cloned().collect();
    let arguments = ssh.arguments_as_root(&command_line(&words)).await?;
    let (program, arguments) = arguments.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// On a server of the lab.
pub(super) fn in_lab(site: &SiteName, server: &Host, words: &[String]) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("cannot find this program's path")?;
    let mut command = Command::new(own);
    command.args(["--site", site.as_str(), "exec", &server.0, "--"]);
    command.args(words);
    Ok(command)
}

/// Runs it to its end, which must be good. `apart`: standard output is for something else.
pub(super) async fn run(mut command: Command, host: &Host, apart: bool) -> anyhow::Result<()> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().context("cannot run the command")?;
    let out = child.stdout.take().context("it has no output")?;
    let errors = child.stderr.take().context("it has no error output")?;
    let whole = async {
        let printed = tokio::join!(copy(out, host, apart), copy(errors, host, true));
        (printed.0.and(printed.1), child.wait().await)
    };
    let Ok((printed, status)) = timeout(LIMIT, whole).await else {
        let why = format!("the command has not ended within {} s", LIMIT.as_secs());
        return Err(MayGoOn(why).into());
    };
    let status = status.context("cannot wait for the command")?;
    match (status.code(), status.signal()) {
        (Some(0), _) => printed.context("cannot read the command's output"),
        (Some(255), _) => {
            let why = format!("the command ended with 255, or the connection to {host} broke");
            Err(MayGoOn(why).into())
        }
        (Some(code), _) => bail!("the command ended with {code}"),
        (None, signal) => {
            let why = format!("signal {} ended the command", signal.unwrap_or(0));
            Err(MayGoOn(why).into())
        }
    }
}

async fn copy(from: impl AsyncRead + Unpin, host: &Host, errors: bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(from).split(b'\n');
    while let Some(line) = lines.next_segment().await? {
        let line = String::from_utf8_lossy(&line);
        let line = format!("{host}: {}\n", line.trim_end_matches('\r'));
        if errors {
            output::eprint(&line);
        } else {
            output::print(&line);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(script: &str) -> anyhow::Result<()> {
        let runtime = crate::runtime::runtime().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        runtime.block_on(run(command, &Host("m1".into()), false))
    }

    #[test]
    fn a_command_must_end_well() {
        ended("echo one; echo two >&2").unwrap();
        let why = |script| ended(script).unwrap_err().to_string();
        assert_eq!(why("exit 3"), "the command ended with 3");
        assert_eq!(why("kill -9 $$"), "signal 9 ended the command");
        assert!(why("exit 255").contains("the connection to m1 broke"));
    }
}
