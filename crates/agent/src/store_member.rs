//! This server's member of the store: whether it runs, and the removal of what it leaves behind.

use super::Agent;
use super::supervisor::Condition;
use crate::state::Order;
use gaiola_core::members::{self, Fate};
use gaiola_model::Revision;
use gaiola_store::view::View;
use std::io;
use std::path::{Path, PathBuf};
use tokio::task::JoinHandle;

impl Agent {
    /// What becomes of this server's member of the store.
    pub(super) fn store_member(&self, order: &Order) -> Fate {
        let (server, placement) = (self.boot.server, &order.placement);
        members::fate(members::Own {
            named: placement.store.contains(&server),
            joining: placement.store_joining == Some(server)
                && placement.store_begun != Some(server),
            founding: order.revision == Revision(0),
            confirmed: is_confirmed(order, &self.view.borrow()),
            runs: self.supervisor.condition("etcd") == Some(Condition::Running),
            has_log: self.boot.store_log().exists(),
        })
    }

    /// Removes the data of a member that has left, once it does not run.
    pub(super) fn forget_store_member(&mut self, order: &Order) {
        let [data, gone] = [self.boot.store_data(), self.boot.store_data_gone()];
        let left = data.exists() || gone.exists();
        let forget = self.store_member(order) == Fate::Forget;
        let rests = self.supervisor.condition("etcd").is_none();
        if forget && left && rests && !self.is_removing() {
            tracing::info!("removing the data of a store member that has left");
            self.removing = Some(remove_in_background(data, gone));
        }
    }

    /// Whether the data of a former member of the store is being removed. No member is started meanwhile: it would write there.
    pub(super) fn is_removing(&self) -> bool {
        let removing = self.removing.as_ref();
        removing.is_some_and(|removing| !removing.is_finished())
    }
}

/// Removes a directory on a thread of its own: many files take long, and the agent's thread has a lease to renew.
fn remove_in_background(folder: PathBuf, gone: PathBuf) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = remove_whole(&folder, &gone) {
            tracing::error!(folder = %folder.display(), %error, "cannot remove the data of a store member");
        }
    })
}

/// Renames a directory and then removes it: a crash leaves all of it or nothing under its own name.
fn remove_whole(folder: &Path, gone: &Path) -> io::Result<()> {
    let unless_missing = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    unless_missing(std::fs::remove_dir_all(gone))?;
    unless_missing(std::fs::rename(folder, gone))?;
    unless_missing(std::fs::remove_dir_all(gone))
}

/// Whether the store delivered this very order, naming members, since this agent started.
fn is_confirmed(order: &Order, view: &View) -> bool {
    view.placement.as_ref().is_some_and(|(revision, stored)| {
        *revision == order.revision
            && stored.incarnation == order.placement.incarnation
            && !stored.store.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_a_store_member_is_removed_while_the_agent_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let [data, gone] = ["member", "member.gone"].map(|name| folder.path().join(name));
        for file in [data.join("wal/1"), gone.join("snap/1")] {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "votes").unwrap();
        }
        let paths = (data.clone(), gone.clone());
        let removed = async { remove_in_background(paths.0, paths.1).await.is_ok() };
        let meanwhile = || assert!(data.join("wal/1").exists() && gone.join("snap/1").exists());
        assert!(gaiola_os::slow_disk::carry_out(removed, meanwhile));
        assert!(!data.exists() && !gone.exists());
    }
}
