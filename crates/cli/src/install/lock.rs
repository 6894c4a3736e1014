//! One `up`, `roll` or `upgrade` at a time on every machine of a site.
//!
//! The lock is one of the kernel's, held by a process on the machine for as long as the operator's command sends it a sign of life:
//! nothing is left behind by a laptop that is closed, a connection that breaks, or a machine that restarts.

use crate::deploy::Busy;
use crate::machines::Machines;
use crate::operator;
use anyhow::{Context as _, bail};
use gaiola_control::ssh::quote;
use gaiola_model::inventory::Host;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(5);
/// Seconds without one after which the lock is free.
const SILENCE: u32 = 30;
/// Takes the lock, prints `held` or `taken OWNER`, and holds it until its input is silent or ends. Each sign of life is answered with itself.
const SCRIPT: &str = "\
mkdir -p \"$folder\"
exec 9>>\"$folder/lock\"
if ! flock -n 9; then echo \"taken $(cat \"$folder/lock.owner\" 2>/dev/null)\"; exit 0; fi
echo \"$owner since $(date '+%F %T %Z')\" >\"$folder/lock.owner\"
echo held
while sign=$(timeout \"$silence\" head -c 1) && [ -n \"$sign\" ]; do echo \"$sign\"; done
rm -f \"$folder/lock.owner\"";

/// How long the machines have to say that they still hold it.
const ANSWER: Duration = Duration::from_secs(10);
/// Answers of one machine that nobody has read yet.
const ANSWERS: usize = 64;
const BEAT_SIGN: u8 = b'.';

/// No machine holds the lock any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "the lock of the site's machines is lost: they heard nothing from this computer for half a minute, because it slept or its network was gone. \
     Another operator may have changed the site meanwhile: see `gaiola status`, then run the same command again"
)]
pub(crate) struct Lost;

/// The lock of every machine; dropping it lets go.
pub(crate) struct Lock {
    /// Questions whether any machine still holds it; where there is nobody to ask, it is let go.
    asking: Option<SyncSender<SyncSender<bool>>>,
    beats: Option<JoinHandle<()>>,
}

impl Lock {
    fn of(holders: Vec<Holder>) -> Self {
        let (asking, asked) = sync_channel(1);
        Self {
            asking: Some(asking),
            beats: Some(std::thread::spawn(move || beat(holders, &asked))),
        }
    }

    /// # Errors
    /// As [`still_held`].
    pub(crate) fn still_held(&mut self) -> anyhow::Result<()> {
        still_held(std::slice::from_mut(self))
    }

    fn is_held(&mut self) -> bool {
        let (answer, answered) = sync_channel(1);
        let asked = self.asking.as_ref().map(|asking| asking.send(answer));
        matches!(asked, Some(Ok(()))) && answered.recv_timeout(ANSWER * 2).unwrap_or(false)
    }
}

/// Whether this command has held the lock without a pause: to be asked before each step. One machine that holds it is enough, since
/// another command needs the lock of all of them; one that restarts lets go of it. Where there are no machines there is no lock.
///
/// # Errors
/// Where no machine holds it any more: another command may have begun.
pub(crate) fn still_held(locks: &mut [Lock]) -> anyhow::Result<()> {
    if locks.is_empty() || locks.iter_mut().any(Lock::is_held) {
        return Ok(());
    }
    Err(Lost.into())
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.asking = None;
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
    let script = script("/run/gaiola", doing, SILENCE);
    let arguments = machines.all_succeed(|ssh| {
        let remote = format!("sh -c {}", quote(&script));
        async move { ssh.arguments_as_root(&remote).await }
    });
    Ok(Lock::of(hold_all(arguments.await?)?))
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
    format!("{doing} of {}", operator::name())
}

/// Another command changes the machines.
fn busy(host: &Host, owner: &str) -> anyhow::Error {
    Busy(format!("{host}: {owner}, is under way; wait for its end")).into()
}

fn script(folder: &str, doing: &str, silence: u32) -> String {
    let owner = owner(doing);
    format!(
        "folder={}; owner={}; silence={silence}\n{SCRIPT}",
        quote(folder),
        quote(&owner)
    )
}

/// Sends signs of life, and answers whether any machine answers them, until nobody asks any more.
fn beat(mut holders: Vec<Holder>, asked: &Receiver<SyncSender<bool>>) {
    let mut signs = (b'a'..=b'z').cycle();
    loop {
        match asked.recv_timeout(BEAT) {
            Ok(answer) => {
                let sign = signs.next().unwrap_or(b'a');
                // Whoever asked may have given up.
                let _ = answer.send(any_answers(&mut holders, sign));
            }
            Err(RecvTimeoutError::Timeout) => holders.iter_mut().for_each(|it| it.send(BEAT_SIGN)),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Whether a machine answers this sign: one that has let go answers nothing any more.
fn any_answers(holders: &mut [Holder], sign: u8) -> bool {
    for holder in holders.iter_mut() {
        holder.forget_answers();
        holder.send(sign);
    }
    let deadline = Instant::now() + ANSWER;
    holders
        .iter_mut()
        .any(|holder| holder.answers(sign, deadline))
}

/// The process that holds one machine's lock, and ends with its input.
struct Holder {
    child: Child,
    /// `None`: closed.
    input: Option<ChildStdin>,
    /// The last signs that it answered, but no beats. `None`: it has not said yet that it holds the lock.
    answers: Option<Receiver<u8>>,
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
        Ok(Self {
            child,
            input,
            answers: None,
        })
    }

    fn confirm(&mut self, host: &Host) -> anyhow::Result<()> {
        let mut line = String::new();
        let output = self.child.stdout.take().context("ssh has no output")?;
        let mut output = BufReader::new(output);
        output.read_line(&mut line)?;
        match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("held", _) => {
                let (answered, answers) = sync_channel(ANSWERS);
                self.answers = Some(answers);
                std::thread::spawn(move || read_answers(output, &answered));
                Ok(())
            }
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

impl Holder {
    fn send(&mut self, sign: u8) {
        // A machine that is gone has let go.
        let _ = self.input.as_mut().map(|input| input.write_all(&[sign]));
    }

    /// What answered an earlier question.
    fn forget_answers(&self) {
        let answers = self.answers.iter();
        answers.for_each(|answers| answers.try_iter().for_each(drop));
    }

    fn answers(&self, sign: u8, deadline: Instant) -> bool {
        let Some(answers) = &self.answers else {
            return false;
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match answers.recv_timeout(left) {
                Ok(answer) if answer == sign => return true,
                // One that came too late for an earlier question.
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Passes on what is answered until the output ends.
fn read_answers(output: impl BufRead, answered: &SyncSender<u8>) {
    for sign in output.bytes() {
        let Ok(sign) = sign else { return };
        if sign != BEAT_SIGN && !sign.is_ascii_whitespace() && answered.send(sign).is_err() {
            return;
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

    fn hold(folder: &str) -> (Holder, anyhow::Result<()>) {
        let arguments = ["sh", "-c", &script(folder, "gaiola up", SILENCE)].map(OsString::from);
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
    fn a_command_whose_lock_no_machine_holds_any_more_stops() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let hold = |path: &std::path::Path| hold(path.to_str().unwrap()).0;
        let mut holders = vec![hold(&one), hold(&two)];
        assert!(any_answers(&mut holders, b'a'));
        assert!(any_answers(&mut holders, b'b'));
        // A machine that restarts.
        holders[0].input = None;
        holders[0].child.wait().unwrap();
        assert!(any_answers(&mut holders, b'c'));
        holders[1].input = None;
        holders[1].child.wait().unwrap();
        assert!(!any_answers(&mut holders, b'd'));

        let mut locks = [Lock::of(holders), Lock::of(vec![hold(&one)])];
        still_held(&mut locks).unwrap();
        let why = locks[0].still_held().unwrap_err();
        assert!(why.downcast_ref::<Lost>().is_some());
        still_held(&mut []).unwrap();
    }

    #[test]
    fn a_computer_that_is_silent_loses_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("run");
        let script = script(folder.to_str().unwrap(), "gaiola up", 1);
        let mut holder = Holder::start(&["sh", "-c", &script].map(OsString::from)).unwrap();
        holder.confirm(&Host("m1".into())).unwrap();
        // Its input is open, and nothing comes.
        holder.child.wait().unwrap();
        assert!(!any_answers(&mut [holder], b'a'));
        assert!(hold(folder.to_str().unwrap()).1.is_ok());
    }

    #[test]
    fn of_two_operators_at_once_one_gets_every_machine() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let of = |name: &str| {
                let folder = folder.path().join(name);
                let script = script(folder.to_str().unwrap(), "gaiola up", SILENCE);
                let arguments = ["sh", "-c", &script].map(OsString::from);
                (Host(name.into()), arguments.to_vec())
            };
            // Their files name the machines in another order.
            let [one, other] = [["m1", "m2", "m3"], ["m3", "m2", "m1"]].map(|all| all.map(of));
            let [one, other] =
                [one, other].map(|all| std::thread::spawn(move || hold_all(all.to_vec())));
            let ended = [one.join().unwrap(), other.join().unwrap()];
            let held = ended.iter().flatten().count();
            assert_eq!(held, 1, "{:?}", ended.map(Result::err));
        }
    }
}
