//! Control groups: limits of a process and its descendants on memory, processors and tasks, by version 2, and by version 1 where the
//! controllers are there.
//!
//! The groups stand beside our own group, not below it: a group whose children have limits may hold no process itself, and
//! systemd puts a service's next main process into the service's own group while processes of the last one still run.

mod place;

pub use place::{Base, BaseError};

use place::{Folder, Version};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The length of the periods in which processor time is counted, in microseconds.
const PERIOD: u64 = 100_000;

/// What a process and its descendants may use together; `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processors, in thousandths.
    pub cpu: Option<u32>,
    /// Processes and threads.
    pub tasks: Option<u32>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How often the kernel killed processes of a group for want of memory. The server may have had none left, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kills {
    /// Processes that were killed.
    pub killed: u64,
    /// How often the group was at its limit.
    pub at_limit: u64,
}

/// Why a limit does not hold.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The kernel has no such controller for us.
    #[error("there is no control group of {0} here")]
    NoController(&'static str),
    /// It would end processes that were within their limit so far.
    #[error("{used} bytes of memory are in use, more than the new limit")]
    InUse {
        /// Bytes, without file caches that can be dropped.
        used: u64,
    },
    /// The kernel refuses.
    #[error("cannot set {file}")]
    Set {
        /// The setting.
        file: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// The group of one process and its descendants.
#[derive(Debug)]
pub struct Group {
    memory: Option<Folder>,
    cpu: Option<Folder>,
    tasks: Option<Folder>,
}

impl Group {
    /// Sets the limits. Each one is tried: those that do not hold are returned.
    pub fn set(&self, limits: &Limits) -> Vec<LimitError> {
        let set = [
            self.set_memory(limits.memory),
            self.set_cpu(limits.cpu),
            self.set_tasks(limits.tasks),
        ];
        set.into_iter().filter_map(Result::err).collect()
    }

    fn set_memory(&self, limit: Option<u64>) -> Result<(), LimitError> {
        let main = ["memory.max", "memory.limit_in_bytes"];
        let Some(folder) = held(&self.memory, "memory", main, limit.is_some())? else {
            return Ok(());
        };
        let used = self.memory_in_use().unwrap_or(0);
        if limit.is_some_and(|limit| used > limit) {
            return Err(LimitError::InUse { used });
        }
        let bytes = |none: &str| limit.map_or(none.to_owned(), |limit| limit.to_string());
        match folder.version {
            Version::Two => {
                folder.set("memory.max", &bytes("max"))?;
                // Memory that is swapped out is used too. Without swap there is no such file.
                let swap = if limit.is_some() { "0" } else { "max" };
                folder.set_if_there("memory.swap.max", swap)?;
                // A process that lost a child would be in an unknown state: all of them go, and it starts again.
                let whole = if limit.is_some() { "1" } else { "0" };
                folder.set_if_there("memory.oom.group", whole)
            }
            Version::One => {
                let (memory, with_swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
                // The second is never below the first: which one is set first depends on whether they grow.
                let first = folder.set(memory, &bytes("-1"));
                folder.set_if_there(with_swap, &bytes("-1"))?;
                first.or_else(|_| folder.set(memory, &bytes("-1")))
            }
        }
    }

    fn set_cpu(&self, limit: Option<u32>) -> Result<(), LimitError> {
        let main = ["cpu.max", "cpu.cfs_quota_us"];
        let Some(folder) = held(&self.cpu, "processors", main, limit.is_some())? else {
            return Ok(());
        };
        let quota = limit.map(|thousandths| u64::from(thousandths) * PERIOD / 1000);
        match folder.version {
            Version::Two => {
                let quota = quota.map_or("max".into(), |quota| quota.to_string());
                folder.set("cpu.max", &format!("{quota} {PERIOD}"))
            }
            Version::One => {
                folder.set("cpu.cfs_period_us", &PERIOD.to_string())?;
                let quota = quota.map_or("-1".into(), |quota| quota.to_string());
                folder.set("cpu.cfs_quota_us", &quota)
            }
        }
    }

    fn set_tasks(&self, limit: Option<u32>) -> Result<(), LimitError> {
        let main = ["pids.max"; 2];
        let Some(folder) = held(&self.tasks, "tasks", main, limit.is_some())? else {
            return Ok(());
        };
        let most = limit.map_or("max".into(), |limit| limit.to_string());
        folder.set("pids.max", &most)
    }

    /// Where a process enters by writing `0`: files that another user's process may use too, once they are open.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn entrances(&self) -> io::Result<Vec<OwnedFd>> {
        let open = |path: &Path| OpenOptions::new().write(true).open(path).map(OwnedFd::from);
        let folders = self.folders().into_iter();
        folders
            .map(|folder| open(&folder.join("cgroup.procs")))
            .collect()
    }

    /// Takes processes in. One that has ended is none.
    ///
    /// # Errors
    /// If the kernel refuses another one.
    pub fn admit(&self, pids: &[u32]) -> io::Result<()> {
        for folder in self.folders() {
            for pid in pids {
                match write(&folder.join("cgroup.procs"), &pid.to_string()) {
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    written => written?,
                }
            }
        }
        Ok(())
    }

    /// Whether a process is in it.
    pub fn has(&self, pid: u32) -> bool {
        let lists = self.folders().into_iter();
        let mut lists = lists.map(|folder| fs::read_to_string(folder.join("cgroup.procs")));
        let pid = pid.to_string();
        lists.all(|list| list.is_ok_and(|list| list.lines().any(|line| line == pid)))
    }

    /// What was killed for want of memory so far.
    pub fn kills(&self) -> Kills {
        let Some(folder) = &self.memory else {
            return Kills::default();
        };
        let killed = |file| folder.number_in(file, "oom_kill").unwrap_or(0);
        match folder.version {
            Version::Two => Kills {
                killed: killed("memory.events"),
                at_limit: folder.number_in("memory.events", "oom").unwrap_or(0),
            },
            // It does not say whose memory was exhausted; the group's own is by far the likelier.
            Version::One => {
                let killed = killed("memory.oom_control");
                let at_limit = killed;
                Kills { killed, at_limit }
            }
        }
    }

    /// Memory in use in bytes, without file caches that can be dropped.
    fn memory_in_use(&self) -> Option<u64> {
        let folder = self.memory.as_ref()?;
        let (used, files) = match folder.version {
            Version::Two => ("memory.current", "inactive_file"),
            Version::One => ("memory.usage_in_bytes", "total_inactive_file"),
        };
        let used = folder.number(used)?;
        let files = folder.number_in("memory.stat", files)?;
        Some(used.saturating_sub(files))
    }

    /// Each folder once: in version 2 all controllers share it.
    fn folders(&self) -> Vec<&Path> {
        let all = [&self.memory, &self.cpu, &self.tasks].into_iter().flatten();
        let mut folders: Vec<&Path> = all.map(|folder| folder.path.as_path()).collect();
        folders.dedup();
        folders
    }

    /// Removes it, unless processes are in it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove(&self) -> io::Result<()> {
        self.folders().into_iter().try_for_each(place::remove)
    }
}

/// The folder of a controller, if it has one of these files; `None`: it has not, and nothing is limited.
fn held<'a>(
    folder: &'a Option<Folder>,
    what: &'static str,
    files: [&str; 2],
    is_limited: bool,
) -> Result<Option<&'a Folder>, LimitError> {
    let has = |folder: &&Folder| files.iter().any(|file| folder.path.join(file).exists());
    match folder.as_ref().filter(has) {
        None if is_limited => Err(LimitError::NoController(what)),
        folder => Ok(folder),
    }
}

impl Folder {
    fn set(&self, file: &'static str, value: &str) -> Result<(), LimitError> {
        write(&self.path.join(file), value).map_err(|source| LimitError::Set { file, source })
    }

    fn set_if_there(&self, file: &'static str, value: &str) -> Result<(), LimitError> {
        match self.path.join(file).exists() {
            true => self.set(file, value),
            false => Ok(()),
        }
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path.join(file)).ok()
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.read(file)?.trim().parse().ok()
    }

    /// The number behind a name, in a file of such lines.
    fn number_in(&self, file: &str, name: &str) -> Option<u64> {
        let text = self.read(file)?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, number) = lines.find(|(found, _)| *found == name)?;
        number.trim().parse().ok()
    }
}

/// Writes to a file of the kernel's, which is there.
fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests;
