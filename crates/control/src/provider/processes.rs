//! Finds the processes of a server from outside of it, as drills need them.

use gaiola_agent::limits::GROUPS;
use gaiola_core::drill::Process;
use gaiola_os::process::{Identity, identify};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// One process as `/proc` reports it.
struct Seen {
    parent: u32,
    args: Vec<String>,
}

/// Every process below a server's pid 1, by pids of this process's PID namespace: all of a lab's server but its pid 1.
pub fn below(pid_1: u32) -> BTreeSet<u32> {
    descendants(&read_all(), pid_1)
}

/// Every process of these systemd units: all of a machine's server. Whatever the version of control groups, `/proc` says which a
/// process is in.
pub fn of_units(units: &[String]) -> BTreeSet<u32> {
    let groups = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    pids().filter(|pid| is_in(&groups(pid), units)).collect()
}

/// Whether one of the control groups, as `/proc/PID/cgroup` has them, is that of one of these units, or below it, or that of the processes
/// that an agent limits, which stands beside its unit's.
fn is_in(groups: &str, units: &[String]) -> bool {
    let is_beside = |part: &str, unit: &str| {
        let server = part.strip_prefix(GROUPS);
        let agents = unit.strip_prefix("gaiola-agent@");
        server.is_some() && server == agents.and_then(|unit| unit.strip_suffix(".service"))
    };
    let mut parts = groups.lines().flat_map(|line| line.split('/'));
    parts.any(|part| {
        units
            .iter()
            .any(|unit| unit == part || is_beside(part, unit))
    })
}

/// The identities of these processes, without those that have ended.
pub fn identities(server: &BTreeSet<u32>) -> Vec<Identity> {
    let found = server.iter();
    found.filter_map(|pid| identify(*pid).ok()).collect()
}

/// The processes of a kind that a drill harms: only one of the site's instances, so that the others continue.
pub fn victims(server: &BTreeSet<u32>, kind: Process) -> Vec<Identity> {
    let mut found = find(server, kind);
    if kind == Process::App {
        found.truncate(1);
    }
    found
}

/// Whether it is the same process still, and no zombie: that is dead, its parent has just not waited for it yet.
pub fn is_alive(victim: Identity) -> bool {
    is_there(victim) && !matches!(state(victim.pid), Some('Z' | 'X') | None)
}

fn is_there(victim: Identity) -> bool {
    identify(victim.pid).is_ok_and(|now| now == victim)
}

/// The letter that `/proc` has for what a process does: `R`, `S`, `T` (stopped), `Z` (a zombie) and others.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].trim_start().chars().next()
}

/// Every process of this kind among the processes of a server.
///
/// Of the site's processes and of PostgreSQL's it is the first of each that is found, not their children.
pub fn find(server: &BTreeSet<u32>, kind: Process) -> Vec<Identity> {
    let all = read_all();
    let is_kind = |pid: &&u32| {
        let seen = all.get(*pid);
        seen.is_some_and(|seen| is_kind(&all, server, seen, kind))
    };
    let found = server.iter().filter(is_kind);
    found.filter_map(|pid| identify(*pid).ok()).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn read_all() -> BTreeMap<u32, Seen> {
    pids().filter_map(|pid| Some((pid, see(pid)?))).collect()
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

fn is_kind(all: &BTreeMap<u32, Seen>, server: &BTreeSet<u32>, seen: &Seen, kind: Process) -> bool {
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
        Process::App => {
            let parent = parent.filter(|_| server.contains(&seen.parent));
            is_instance(seen, parent)
        }
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

/// Instances are started by the agent, and belong to no process of their server (but its pid 1) after another agent adopted
/// them; so do Gaiola's own and etcd, which their names distinguish.
fn is_instance(seen: &Seen, parent: Option<&Seen>) -> bool {
    let of_agent = parent.is_none_or(|parent| is_own(parent, Process::Agent));
    let mut own = [Process::Proxy, Process::Keeper, Process::Agent].into_iter();
    !own.any(|kind| is_own(seen, kind))
        && program(seen) != "etcd"
        && of_agent
        && !program(seen).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_the_group_of_its_unit_or_below_it() {
        let unit = ["gaiola-agent@web1.service".to_string()];
        let is_in = |groups: &str| is_in(groups, &unit);
        let slice = r"/system.slice/system-gaiola\x2dagent.slice";
        assert!(is_in(&format!("0::{slice}/gaiola-agent@web1.service\n")));
        assert!(is_in(
            "1:name=systemd:/gaiola-agent@web1.service/below\n0::/\n"
        ));
        assert!(!is_in(&format!("0::{slice}/gaiola-agent@web10.service\n")));
        assert!(!is_in("0::/system.slice/gaiola-machine.service\n"));
    }

    fn seen(parent: u32, args: &[&str]) -> Seen {
        let args = args.iter().map(ToString::to_string).collect();
        Seen { parent, args }
    }

    #[test]
    fn an_instance_is_of_the_agent_or_was_adopted_by_another_one() {
        let all: BTreeMap<u32, Seen> = [
            (1, seen(0, &["/sbin/init"])),
            (10, seen(1, &["/opt/gaiola/current/gaiola", "agent"])),
            (11, seen(10, &["bin/shop"])),
            (12, seen(1, &["bin/shop"])),
            (13, seen(11, &["bin/shop-worker"])),
            (14, seen(10, &["/proc/self/exe", "proxy"])),
            (15, seen(10, &["/usr/bin/etcd"])),
        ]
        .into();
        let server = all.keys().copied().filter(|pid| *pid > 1).collect();
        let is = |kind| {
            let found = all.iter().filter(|(pid, _)| **pid > 1);
            let found = found.filter(|(_, seen)| is_kind(&all, &server, seen, kind));
            found.map(|(pid, _)| *pid).collect::<Vec<_>>()
        };
        assert_eq!(is(Process::App), [11, 12]);
        assert_eq!(is(Process::Agent), [10]);
        assert_eq!(is(Process::Proxy), [14]);
        assert_eq!(is(Process::Etcd), [15]);
    }
}
