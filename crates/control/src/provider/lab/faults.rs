//! Faults that leave a server running: the network is cut, one way of it is, its processes stand still, or its disk is full.
//!
//! Each is undone on request, and by the lab itself once its span has passed, since the client may have died.

use super::Lab;
use super::disk::{self, DiskError};
use super::hardware::{HardwareError, Island};
use crate::provider::freeze::{FreezeError, freeze, thaw};
use crate::provider::processes;
use gaiola_core::drill::Target;
use gaiola_model::ServerName;
use gaiola_os::process::{Identity, identify};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;

/// A fault in force.
pub struct ActiveFault {
    target: Target,
    number: u64,
    done: Done,
}

/// What was done, so that it can be undone.
enum Done {
    Cut(Island),
    Muted(Identity),
    Deafened(ServerName),
    Frozen(Vec<Identity>),
    Filled(disk::Filler),
}

/// Why a fault was not begun, or not undone.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The same fault has not ended yet.
    #[error("{0} is in force already")]
    InForce(Target),
    /// A harm that is done at once, and has no end.
    #[error("{0} is not a fault that is held")]
    NotHeld(Target),
    /// The server's processes.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// The server's power or cable.
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// The server's disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The faults in force.
pub fn in_force(lab: &Lab) -> Vec<Target> {
    let held = lab.faults.borrow();
    held.iter().map(|held| held.target.clone()).collect()
}

/// Does the fault. It ends with [`end`], and after `span` by itself.
///
/// # Errors
/// If it could not be done, in whole: nothing of it is in force then.
pub async fn begin(lab: &Rc<Lab>, target: Target, span: Duration) -> Result<(), FaultError> {
    if in_force(lab).contains(&target) {
        return Err(FaultError::InForce(target));
    }
    let done = harm(lab, &target).await?;
    let number = lab.next_fault.get();
    lab.next_fault.set(number + 1);
    tracing::info!(fault = %target, ?span, "a fault begins");
    lab.faults.borrow_mut().push(ActiveFault {
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
/// If it could not be undone.
pub fn end(lab: &Lab, target: &Target) -> Result<(), FaultError> {
    end_those(lab, |held| held.target == *target)
}

/// Undoes every fault, as far as that goes, and waits until there is room on the disks again.
pub async fn end_all(lab: &Lab) {
    try_to_end(lab, |_| true);
    if !lab.room.is_given_back().await {
        tracing::warn!("a disk that was filled is still full");
    }
}

/// Lets go of the disk of a server that has died: as long as a file is open on it, the kernel keeps it.
pub fn let_go_of_disk(lab: &Lab, server: ServerName) {
    try_to_end(lab, |held| held.target == Target::Fill(server));
}

fn try_to_end(lab: &Lab, which: impl FnMut(&ActiveFault) -> bool) {
    if let Err(error) = end_those(lab, which) {
        tracing::error!(error = %gaiola_os::chain(&error), "cannot undo a fault");
    }
}

fn end_those(lab: &Lab, mut which: impl FnMut(&ActiveFault) -> bool) -> Result<(), FaultError> {
    let ended: Vec<ActiveFault> = lab
        .faults
        .borrow_mut()
        .extract_if(.., |held| which(held))
        .collect();
    let mut result = Ok(());
    for held in ended {
        tracing::info!(fault = %held.target, "a fault ends");
        result = undo(lab, held.done).and(result);
    }
    result
}

async fn harm(lab: &Lab, target: &Target) -> Result<Done, FaultError> {
    let hardware = || lab.hardware.borrow_mut();
    Ok(match target {
        Target::Cut(servers) => Done::Cut(hardware().cut_off(servers)?),
        Target::Mute(server) => {
            let first = identity(lab, *server)?;
            hardware()
                .set_mute(first, true)
                .map_err(HardwareError::from)?;
            Done::Muted(first)
        }
        Target::Deaf(server) => {
            identity(lab, *server)?;
            hardware()
                .set_deaf(*server, true)
                .map_err(HardwareError::from)?;
            Done::Deafened(*server)
        }
        Target::Freeze { server, process } => {
            let first = identity(lab, *server)?;
            Done::Frozen(freeze(|| processes::below(first.pid), *process).await?)
        }
        Target::Fill(server) => {
            let first = identity(lab, *server)?;
            Done::Filled(disk::fill(lab, *server, first).await?)
        }
        Target::Kill { .. } | Target::Power(_) | Target::Stop(_) => {
            return Err(FaultError::NotHeld(target.clone()));
        }
    })
}

fn identity(lab: &Lab, server: ServerName) -> Result<Identity, HardwareError> {
    let identity = lab.hardware.borrow().identity(server);
    identity.ok_or(HardwareError::Off(server))
}

/// What has died meanwhile took its fault with it.
fn undo(lab: &Lab, done: Done) -> Result<(), FaultError> {
    let hardware = || lab.hardware.borrow_mut();
    let undone = match done {
        Done::Cut(island) => hardware().rejoin(island),
        Done::Muted(first) if lives(first) => hardware().set_mute(first, false),
        Done::Muted(_) => Ok(()),
        Done::Deafened(server) => match identity(lab, server) {
            Ok(_) => hardware().set_deaf(server, false),
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
    };
    Ok(undone.map_err(HardwareError::from)?)
}

fn lives(identity: Identity) -> bool {
    identify(identity.pid).is_ok_and(|now| now == identity)
}
