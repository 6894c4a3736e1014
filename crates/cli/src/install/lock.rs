//! One `up`, `roll` or `upgrade` at a time on every machine of a site.
//!
//! The lock is one of the kernel's, held by a process on the machine for as long as the operator's command sends it a sign of life:
//! nothing is left behind by a laptop that is closed, a connection that breaks, or a machine that restarts.

use crate::deploy::Busy;
use crate::machines::Machines;
use anyhow::{Context as _, bail};
use gaiola_control::ssh::quote;
use gaiola_model::inventory::Host;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two signs of life. The lock is free after half a minute without one.
const BEAT: Duration = Duration::from_secs(5);
/// Takes the lock, prints `held` or `taken OWNER`, and holds it until its input is silent or ends.
const SCRIPT: &str = "\
mkdir -p \"$folder\"
exec 9>>\"$folder/lock\"
if ! flock -n 9; then echo \"taken $(cat \"$folder/lock.owner\" 2>/dev/null)\"; exit 0; fi
echo \"$owner since $(date '+%F %T %Z')\" >\"$folder/lock.owner\"
echo held
while [ -n \"$(timeout 30 head -c 1)\" ]; do :; done
rm -f \"$folder/lock.owner\"";

/// The lock of every machine; dropping it lets go.
pub(crate) struct Lock {
    stop: Option<Sender<()>>,
    beats: Option<JoinHandle<()>>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(beats) = self.beats.take() {
            let _ = beats.join();
        }
    }
}

/// Takes the lock of every machine. `doing`: the command, for whoever finds the lock taken.
///
/// # Errors
/// Where another operator holds one: those that were taken are let go.
pub(crate) async fn take(machines: &Machines, doing: &str) -> anyhow::Result<Lock> {
    let script = script("/run/gaiola", doing);
    let arguments = machines.all_succeed(|ssh| {
        let remote = format!("sh -c {}", quote(&script));
        async move { ssh.arguments_as_root(&remote).await }
    });
    let holders = hold_all(arguments.await?)?;
    let (stop, stopped) = channel();
    Ok(Lock {
        stop: Some(stop),
        beats: Some(std::thread::spawn(move || beat(holders, &stopped))),
    })
}

/// Starts a holder on every machine, by the command line that it is given for each.
///
/// The first machine comes before all others, and is the same one for everybody: of two operators at once one gets every lock. Were
/// all asked for together, each might get some, and both would be refused.
fn hold_all(mut arguments: Vec<(Host, Vec<OsString>)>) -> anyhow::Result<Vec<Holder>> {
    arguments.sort_by(|(one, _), (other, _)| one.cmp(other));
    let (first, others) = arguments.split_at(arguments.len().min(1));
    let mut held = hold(first)?;
    held.append(&mut hold(others)?);
    Ok(held)
}

/// Takes these locks at the same time.
fn hold(arguments: &[(Host, Vec<OsString>)]) -> anyhow::Result<Vec<Holder>> {
    let started = arguments.iter();
    let started = started.map(|(_, arguments)| Holder::start(arguments));
    let mut holders = started.collect::<anyhow::Result<Vec<Holder>>>()?;
    for ((host, _), holder) in arguments.iter().zip(&mut holders) {
        holder.confirm(host)?;
    }
    Ok(holders)
}

/// A command, and whose it is: `gaiola roll of root@laptop`.
pub(crate) fn owner(doing: &str) -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".into());
    let host = rustix::system::uname();
    format!("{doing} of {user}@{}", host.nodename().to_string_lossy())
}

/// Another command changes the machines.
fn busy(host: &Host, owner: &str) -> anyhow::Error {
    Busy(format!("{host}: {owner}, is under way; wait for its end")).into()
}

fn script(folder: &str, doing: &str) -> String {
    let owner = owner(doing);
    format!(
        "folder={}; owner={}\n{SCRIPT}",
        quote(folder),
        quote(&owner)
    )
}

fn beat(mut holders: Vec<Holder>, stopped: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(BEAT) {
        for holder in &mut holders {
            // A machine that is gone has let go.
            let _ = holder.input.as_mut().map(|input| input.write_all(b"."));
        }
    }
}

/// The process that holds one machine's lock, and ends with its input.
struct Holder {
    child: Child,
    /// `None`: closed.
    input: Option<ChildStdin>,
}

impl Holder {
    fn start(arguments: &[OsString]) -> anyhow::Result<Self> {
        let (program, arguments) = arguments.split_first().context("no program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for this program, which lets go when it is done.
            .process_group(0)
            .spawn()
            .context("cannot run ssh")?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }

    fn confirm(&mut self, host: &Host) -> anyhow::Result<()> {
        let mut line = String::new();
        let output = self.child.stdout.take().context("ssh has no output")?;
        BufReader::new(output).read_line(&mut line)?;
        match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("held", _) => Ok(()),
            ("taken", owner) => Err(busy(host, owner)),
            _ => {
                let mut said = String::new();
                let errors = self.child.stderr.take();
                errors
                    .context("ssh has no errors")?
                    .read_to_string(&mut said)?;
                bail!("{host}: cannot take the lock of {host}: {}", said.trim())
            }
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::Busy;

    fn holding(folder: &str) -> [OsString; 3] {
        ["sh", "-c", &script(folder, "gaiola up")].map(OsString::from)
    }

    fn hold(folder: &str) -> (Holder, anyhow::Result<()>) {
        let arguments = holding(folder);
        let mut holder = Holder::start(&arguments).unwrap();
        let confirmed = holder.confirm(&Host("m1".into()));
        (holder, confirmed)
    }

    #[test]
    fn one_holds_it_until_its_input_ends() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("run");
        let folder = folder.to_str().unwrap();
        let (mut first, confirmed) = hold(folder);
        confirmed.unwrap();
        let refused = hold(folder).1.unwrap_err();
        assert!(refused.downcast_ref::<Busy>().is_some());
        let words = refused.to_string();
        assert!(
            words.starts_with("m1: gaiola up of ") && words.contains(" since "),
            "{words}"
        );
        // As where the connection ends.
        first.input = None;
        assert!(first.child.wait().unwrap().success());
        hold(folder).1.unwrap();
    }

    #[test]
    fn of_two_operators_at_once_one_gets_every_machine() {
        let names = ["m1", "m2", "m3"];
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| {
            let folder = folder.path().join(name);
            let arguments = holding(folder.to_str().unwrap()).to_vec();
            (Host(name.into()), arguments)
        };
        // Their files name the machines in another order.
        let one = names.map(of).to_vec();
        let other: Vec<_> = names.iter().rev().map(|name| of(name)).collect();
        for _ in 0..20 {
            let (one, other) = (one.clone(), other.clone());
            let [one, other] = [one, other].map(|all| std::thread::spawn(|| hold_all(all)));
            let ended = [one.join().unwrap(), other.join().unwrap()];
            let held = ended.iter().flatten().count();
            assert_eq!(held, 1, "{:?}", ended.map(|it| it.err()));
        }
    }
}
