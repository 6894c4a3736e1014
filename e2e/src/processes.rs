//! The processes of this machine, as `/proc` shows them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its pid on this machine.
    pub pid: u32,
    /// Its parent's; 0 if that is not visible.
    pub parent: u32,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Its working directory, if it can be read.
    pub cwd: PathBuf,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
        let is_dead = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        let args = fs::read(folder.join("cmdline")).ok()?;
        let args = args.split(|byte| *byte == 0).filter(|arg| !arg.is_empty());
        let args = args
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect();
        let cwd = fs::read_link(folder.join("cwd")).unwrap_or_default();
        (!is_dead).then_some(Self {
            pid,
            parent,
            args,
            cwd,
        })
    }

    /// Whether this directory is its working directory or in its arguments.
    pub fn is_about(&self, folder: &Path) -> bool {
        let name = folder.to_string_lossy();
        self.cwd.starts_with(folder) || self.args.iter().any(|arg| arg.contains(&*name))
    }

    /// A variable of its environment, if it can be read.
    pub fn env(&self, name: &str) -> Option<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        let texts = environment
            .split(|byte| *byte == 0)
            .map(String::from_utf8_lossy);
        texts
            .filter_map(|text| Some(text.strip_prefix(name)?.strip_prefix('=')?.to_string()))
            .next()
    }

    /// Sends SIGSTOP.
    pub fn stop(&self) {
        gaiola_os::process::signal(self.pid, rustix::process::Signal::STOP);
    }

    /// Sends SIGCONT.
    pub fn go_on(&self) {
        gaiola_os::process::signal(self.pid, rustix::process::Signal::CONT);
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        gaiola_os::process::signal(self.pid, rustix::process::Signal::KILL);
    }

    /// Whether this process still exists.
    pub fn lives(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.args == self.args)
    }
}

/// All visible processes that have not exited.
pub fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("there is a /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

/// A process and all its descendants.
pub(crate) fn family(all: &[Process], pid: u32) -> Vec<Process> {
    let mut members = BTreeSet::from([pid]);
    loop {
        let before = members.len();
        let children = all
            .iter()
            .filter(|process| members.contains(&process.parent))
            .map(|process| process.pid);
        members.extend(children.collect::<Vec<_>>());
        if members.len() == before {
            return all
                .iter()
                .filter(|process| members.contains(&process.pid))
                .cloned()
                .collect();
        }
    }
}

/// The namespaces that these processes are in, such as `net:[4026532008]`.
pub fn namespaces_of(processes: &[Process]) -> BTreeSet<String> {
    let kinds = ["net", "mnt", "pid", "uts", "ipc", "user"];
    let links = processes
        .iter()
        .flat_map(|process| kinds.map(|kind| format!("/proc/{}/ns/{kind}", process.pid)));
    links
        .filter_map(|link| Some(fs::read_link(link).ok()?.to_str()?.to_string()))
        .collect()
}
