//! Finds the processes of a server from outside of it, as drills need them.

use gaiola_core::drill::Process;
use gaiola_os::process::{Identity, identify};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// One process as `/proc` reports it.
struct Seen {
    parent: u32,
    args: Vec<String>,
}

/// Every process of a server but its pid 1.
pub fn everything(pid_1: u32) -> Vec<Identity> {
    let found = descendants(&read_all(), pid_1).into_iter();
    found.filter_map(|pid| identify(pid).ok()).collect()
}

/// The processes of a kind that a drill harms: only one of the site's instances, so that the others continue.
pub fn victims(pid_1: u32, kind: Process) -> Vec<Identity> {
    let mut found = find(pid_1, kind);
    if kind == Process::App {
        found.truncate(1);
    }
    found
}

/// The letter that `/proc` has for what a process does: `R`, `S`, `T` (stopped), `Z` (a zombie) and others.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].trim_start().chars().next()
}

/// Every process of this kind among the descendants of a server's pid 1, by pids of this process's PID namespace.
///
/// Of the site's processes and of PostgreSQL's it is the first of each that is found, not their children.
pub fn find(pid_1: u32, kind: Process) -> Vec<Identity> {
    let all = read_all();
    let server = descendants(&all, pid_1);
    let is_kind = |pid: &u32| all.get(pid).is_some_and(|seen| is_kind(&all, seen, kind));
    server
        .into_iter()
        .filter(is_kind)
        .filter_map(|pid| identify(pid).ok())
        .collect()
}

fn read_all() -> BTreeMap<u32, Seen> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, see(pid)?))).collect()
}

fn see(pid: u32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat[stat.rfind(')')? + 1..]
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let args = line
        .split(|byte| *byte == 0)
        .map(|arg| String::from_utf8_lossy(arg).into_owned());
    Some(Seen {
        parent,
        args: args.collect(),
    })
}

fn descendants(all: &BTreeMap<u32, Seen>, root: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (pid, _) in all.iter().filter(|(_, seen)| seen.parent == parent) {
            if found.insert(*pid) {
                parents.push(*pid);
            }
        }
    }
    found
}

fn is_kind(all: &BTreeMap<u32, Seen>, seen: &Seen, kind: Process) -> bool {
    let parent = all.get(&seen.parent);
    match kind {
        Process::Proxy | Process::Keeper | Process::Agent => is_own(seen, kind),
        Process::Etcd => program(seen) == "etcd",
        Process::Patroni => {
            program(seen).starts_with("python")
                && seen
                    .args
                    .get(1)
                    .is_some_and(|arg| arg.ends_with("/patroni"))
        }
        Process::Postgres => program(seen) == "postgres" && !parent.is_some_and(is_postgres),
        Process::App => is_instance(seen, parent),
    }
}

/// Whether it is Gaiola's process of this kind: pid 1 starts them by the server's link, the agent as its own program.
fn is_own(seen: &Seen, kind: Process) -> bool {
    let is_gaiola = matches!(program(seen), "exe" | "gaiola");
    is_gaiola && seen.args.get(1).is_some_and(|arg| arg == kind.name())
}

fn program(seen: &Seen) -> &str {
    seen.args
        .first()
        .and_then(|program| program.rsplit('/').next())
        .unwrap_or_default()
}

/// PostgreSQL's children call themselves `postgres: what they do`.
fn is_postgres(seen: &Seen) -> bool {
    program(seen) == "postgres"
        || seen
            .args
            .first()
            .is_some_and(|name| name.starts_with("postgres:"))
}

/// Instances are started by the agent, and belong to pid 1 after another agent adopted them; so do Gaiola's own and
/// etcd, which their names distinguish.
fn is_instance(seen: &Seen, parent: Option<&Seen>) -> bool {
    let started_by =
        |word: &str| parent.is_some_and(|parent| parent.args.get(1).is_some_and(|arg| arg == word));
    let mut own = [Process::Proxy, Process::Keeper, Process::Agent].into_iter();
    !own.any(|kind| is_own(seen, kind))
        && program(seen) != "etcd"
        && (started_by("agent") || started_by("pid1"))
        && !seen.args.is_empty()
}
