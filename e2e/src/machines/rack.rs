//! One rack: a network, and the machines that are plugged into it. Its directory holds their disks and logs, and the operator's
//! keys.

use super::programs::Tried as _;
use crate::processes::{Process, processes};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Where images, cached packages and racks are kept, unless `GAIOLA_MACHINES` names another directory.
const STATE: &str = "/var/lib/gaiola-machines";
/// Names the directory in which everything is kept.
pub(crate) const STATE_VARIABLE: &str = "GAIOLA_MACHINES";
/// The rack of `machines up`. Its disks are kept when it goes down; those of all other racks are not.
pub const BY_HAND: &str = "by-hand";

/// The directory in which everything is kept.
pub(crate) fn state() -> PathBuf {
    let named = std::env::var_os(STATE_VARIABLE).map(PathBuf::from);
    let named = named.and_then(|path| std::path::absolute(path).ok());
    named.unwrap_or_else(|| STATE.into())
}

/// A rack, whether it is up or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rack {
    folder: PathBuf,
}

/// The right to hold a rack: nobody else does until this is dropped or its process ends.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: File,
}

impl Rack {
    /// The rack of that name.
    pub fn named(name: &str) -> Self {
        Self::at(state().join("racks").join(name))
    }

    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Its directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its name.
    pub fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The home directory of the operator, whose `.ssh` leads to the machines.
    pub fn operator(&self) -> PathBuf {
        self.folder.join("operator")
    }

    pub(crate) fn disk(&self, machine: &str) -> PathBuf {
        self.folder.join("disks").join(machine)
    }

    /// What a machine has written on its disk, as the files of its root directory. To be changed only while it is off.
    pub fn written(&self, machine: &str) -> PathBuf {
        self.disk(machine).join("upper")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.folder.join("log").join(format!("{name}.log"))
    }

    /// The names of its machines that have a disk, in order.
    pub fn machines(&self) -> Vec<String> {
        let disks = fs::read_dir(self.folder.join("disks"))
            .into_iter()
            .flatten();
        let names = disks
            .flatten()
            .filter_map(|disk| disk.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort_by_key(|name| super::network::number(name));
        names
    }

    /// Pid 1 of the rack, as this host sees it.
    ///
    /// # Errors
    /// Where the rack is not up.
    pub fn pid_1(&self) -> io::Result<u32> {
        let pid_1 = self.process("pid-1", None);
        let pid_1 = pid_1.map(|process| process.pid);
        pid_1.ok_or_else(|| io::Error::other(format!("the rack {} is not up", self.name())))
    }

    /// The process of this rack that runs that internal command, with that argument if one is given.
    pub(crate) fn process(&self, command: &str, argument: Option<&str>) -> Option<Process> {
        let folder = self.folder.to_string_lossy();
        let is_it = |process: &Process| match &*process.args {
            [program, runs, rack, rest @ ..] => {
                let is_ours = program.ends_with("machines") && runs == command && *rack == folder;
                is_ours && argument.is_none_or(|argument| rest == [argument])
            }
            _ => false,
        };
        processes().into_iter().find(is_it)
    }

    /// Takes the rack for this process, and removes what killed runs have left of this one and of others.
    pub(crate) fn claim(&self) -> io::Result<Claim> {
        let racks = self.folder.parent().unwrap_or(&self.folder);
        fs::create_dir_all(racks).tried(format!("create {}", racks.display()))?;
        let all = racks.join(".lock");
        let all = File::create(&all).tried(format!("open {}", all.display()))?;
        all.lock().tried("lock the racks")?;
        sweep(racks)?;
        for folder in ["disks", "log", "etc", "operator/.ssh"] {
            fs::create_dir_all(self.folder.join(folder)).tried("create the rack's directories")?;
        }
        let lock = lock(&self.folder)?;
        let lock = lock.ok_or_else(|| {
            io::Error::other(format!("another process holds the rack {}", self.name()))
        })?;
        Ok(Claim { _lock: lock })
    }

    /// Removes what a rack leaves whose processes have ended: control groups, and its disks unless they are kept.
    pub(crate) fn clear(&self) -> io::Result<()> {
        super::cgroup::remove(&self.folder.join("groups"))?;
        if self.name() == BY_HAND {
            return Ok(());
        }
        fs::remove_dir_all(&self.folder).tried(format!("remove {}", self.folder.display()))
    }
}

/// Clears every rack that nobody holds. Whoever calls this holds the lock of all racks.
fn sweep(racks: &Path) -> io::Result<()> {
    for entry in fs::read_dir(racks)?.flatten() {
        if !entry.path().is_dir() {
            continue;
        }
        if let Some(_lock) = lock(&entry.path())? {
            Rack::at(entry.path()).clear()?;
        }
    }
    Ok(())
}

/// The lock of a rack; `None` where another process has it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let path = folder.join("lock");
    let tried = || format!("lock {}", path.display());
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.tried(tried())?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).tried(tried()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rack_has_one_holder_and_what_a_killed_one_left_is_removed() {
        let racks = tempfile::tempdir().unwrap();
        let rack = Rack::at(racks.path().join("one"));
        let claim = rack.claim().unwrap();
        let refused = rack.claim().unwrap_err().to_string();
        assert!(
            refused.contains("another process holds the rack one"),
            "{refused}"
        );
        fs::write(rack.folder().join("log/m1.log"), "").unwrap();
        drop(claim);
        let other = Rack::at(racks.path().join("two"));
        let _claim = other.claim().unwrap();
        assert!(!rack.folder().exists() && other.folder().exists());
    }

    #[test]
    fn the_rack_made_by_hand_keeps_its_disks() {
        let racks = tempfile::tempdir().unwrap();
        let rack = Rack::at(racks.path().join(BY_HAND));
        drop(rack.claim().unwrap());
        fs::create_dir(rack.disk("m10")).unwrap();
        fs::create_dir(rack.disk("m2")).unwrap();
        let _claim = Rack::at(racks.path().join("two")).claim().unwrap();
        assert_eq!(rack.machines(), ["m2", "m10"]);
        assert!(rack.pid_1().is_err());
    }
}
