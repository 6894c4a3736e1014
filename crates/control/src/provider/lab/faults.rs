//! Faults that leave a server running: the network is cut, one way of it is, its processes stand still, or its disk is full.
//!
//! Each is undone when that is asked for, and by the lab itself once its span has passed: whoever ordered it may have died.

use super::Lab;
use super::disk;
use super::hardware::Island;
use super::processes;
use gaiola_core::drill::{Process, Target};
use gaiola_model::ServerName;
use gaiola_os::process::{Identity, identify, signal};
use rustix::process::Signal;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Until every process that was sent a SIGSTOP has stopped.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(10);

/// A fault in force.
pub struct Held {
    target: Target,
    number: u64,
    done: Done,
}

/// What was done, and so what is to be undone.
enum Done {
    Cut(Island),
    Muted(Identity),
    Deafened(ServerName),
    Frozen(Vec<Identity>),
    Filled(disk::Filler),
}

/// The faults in force.
pub fn in_force(lab: &Lab) -> Vec<Target> {
    let held = lab.faults.borrow();
    held.iter().map(|held| held.target.clone()).collect()
}

/// Does the fault. It ends with [`end`], and after `span` by itself.
///
/// # Errors
/// Where it could not be done, in whole: nothing of it is in force then.
pub async fn begin(lab: &Rc<Lab>, target: Target, span: Duration) -> io::Result<()> {
    if in_force(lab).contains(&target) {
        return Err(io::Error::other(format!("{target} is in force already")));
    }
    let done = harm(lab, &target).await?;
    let number = lab.next_fault.get();
    lab.next_fault.set(number + 1);
    tracing::info!("{target} begins, for {} ms", span.as_millis());
    lab.faults.borrow_mut().push(Held {
        target,
        number,
        done,
    });
    let lab = Rc::clone(lab);
    tokio::task::spawn_local(async move {
        sleep(span).await;
        try_to_end(&lab, |held| held.number == number);
    });
    Ok(())
}

/// Undoes a fault; no error where it is not in force.
///
/// # Errors
/// Where it could not be undone.
pub fn end(lab: &Lab, target: &Target) -> io::Result<()> {
    end_those(lab, |held| held.target == *target)
}

/// Undoes every fault, as far as that goes, and waits until there is room on the disks again.
pub async fn end_all(lab: &Lab) {
    try_to_end(lab, |_| true);
    if !lab.room.is_given_back().await {
        tracing::warn!("a disk that was filled is still full");
    }
}

/// Lets go of the disk of a server that has died: as long as we have a file open on it, the kernel keeps it.
pub fn let_go_of_disk(lab: &Lab, server: ServerName) {
    try_to_end(lab, |held| held.target == Target::Fill(server));
}

fn try_to_end(lab: &Lab, which: impl FnMut(&Held) -> bool) {
    if let Err(error) = end_those(lab, which) {
        tracing::error!("a fault could not be undone: {error}");
    }
}

fn end_those(lab: &Lab, mut which: impl FnMut(&Held) -> bool) -> io::Result<()> {
    let ended: Vec<Held> = lab
        .faults
        .borrow_mut()
        .extract_if(.., |held| which(held))
        .collect();
    let mut result = Ok(());
    for held in ended {
        tracing::info!("{} ends", held.target);
        result = undo(lab, held.done).and(result);
    }
    result
}

async fn harm(lab: &Lab, target: &Target) -> io::Result<Done> {
    let hardware = || lab.hardware.borrow_mut();
    match target {
        Target::Cut(servers) => hardware().cut_off(servers).map(Done::Cut),
        Target::Mute(server) => {
            let first = identity(lab, *server)?;
            hardware()
                .set_mute(first, true)
                .map(|()| Done::Muted(first))
        }
        Target::Deaf(server) => {
            identity(lab, *server)?;
            hardware()
                .set_deaf(*server, true)
                .map(|()| Done::Deafened(*server))
        }
        Target::Freeze { server, process } => {
            let first = identity(lab, *server)?;
            freeze(first.pid, *process).await.map(Done::Frozen)
        }
        Target::Fill(server) => {
            let first = identity(lab, *server)?;
            disk::fill(lab, *server, first).await.map(Done::Filled)
        }
        Target::Kill { .. } | Target::Power(_) | Target::Stop(_) => Err(io::Error::other(format!(
            "{target} is not a fault that is held"
        ))),
    }
}

fn identity(lab: &Lab, server: ServerName) -> io::Result<Identity> {
    let identity = lab.hardware.borrow().identity(server);
    identity.ok_or_else(|| io::Error::other(format!("{server} is off")))
}

/// What has died meanwhile took its fault with it.
fn undo(lab: &Lab, done: Done) -> io::Result<()> {
    match done {
        Done::Cut(island) => lab.hardware.borrow_mut().rejoin(island),
        Done::Muted(first) if lives(first) => lab.hardware.borrow_mut().set_mute(first, false),
        Done::Muted(_) => Ok(()),
        Done::Deafened(server) => match identity(lab, server) {
            Ok(_) => lab.hardware.borrow_mut().set_deaf(server, false),
            Err(_) => Ok(()),
        },
        Done::Frozen(victims) => {
            thaw(&victims);
            Ok(())
        }
        Done::Filled(filler) => {
            disk::free(filler);
            Ok(())
        }
    }
}

fn lives(identity: Identity) -> bool {
    identify(identity.pid).is_ok_and(|now| now == identity)
}

/// Stops one process, or all that run on a server but its pid 1, and waits until all of them have stopped.
async fn freeze(pid_1: u32, process: Option<Process>) -> io::Result<Vec<Identity>> {
    let ends = Instant::now() + STOP_LIMIT;
    let mut stopped: Vec<Identity> = Vec::new();
    loop {
        let victims = match process {
            // One that is born while others are stopped belongs to one that is not stopped yet, and is found the next time.
            None => processes::everything(pid_1),
            Some(_) if !stopped.is_empty() => stopped.clone(),
            Some(process) => processes::victims(pid_1, process),
        };
        let running: Vec<Identity> = victims.into_iter().filter(|v| runs(*v)).collect();
        if running.is_empty() && !stopped.is_empty() {
            return Ok(stopped);
        }
        if running.is_empty() || Instant::now() > ends {
            thaw(&stopped);
            let why = match stopped.len() {
                0 => "no such process runs there".into(),
                _ => format!("{} processes do not stop", running.len()),
            };
            return Err(io::Error::other(why));
        }
        for victim in running {
            signal(victim.pid, Signal::STOP);
            if !stopped.contains(&victim) {
                stopped.push(victim);
            }
        }
        sleep(LOOK).await;
    }
}

/// A zombie, and one that is stopped, runs no more.
fn runs(victim: Identity) -> bool {
    lives(victim)
        && !matches!(
            processes::state(victim.pid),
            Some('T' | 't' | 'Z' | 'X') | None
        )
}

fn thaw(victims: &[Identity]) {
    for victim in victims.iter().filter(|victim| lives(**victim)) {
        signal(victim.pid, Signal::CONT);
    }
}
