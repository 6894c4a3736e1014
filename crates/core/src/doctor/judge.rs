//! The findings.

use super::facts::{self, is_own};
use super::ports::taken;
use super::{Examined, Expected, ExpectedMachine, Facts, Finding, Severity};
use gaiola_model::Tier;
use gaiola_model::inventory::Host;
use std::collections::BTreeMap;

/// The oldest glibc that the program runs with.
const GLIBC: facts::Version = (2, 34);
/// Clocks of a site's machines may differ by this much.
const CLOCKS_MS: i64 = 1_000;
const MIB: u64 = 1024;
const GIB: u64 = 1024 * MIB;

/// What was found on the machines, in their order; a machine without any finding has one that is [`Severity::Fine`].
pub fn judge(expected: &Expected, examined: &BTreeMap<Host, Examined>) -> Vec<Finding> {
    let all = Judged { expected, examined };
    let machines = expected.machines.iter();
    machines.flat_map(|machine| all.machine(machine)).collect()
}

struct Judged<'a> {
    expected: &'a Expected,
    examined: &'a BTreeMap<Host, Examined>,
}

/// Findings of one machine, as they are collected.
struct Findings<'a> {
    machine: &'a ExpectedMachine,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, severity: Severity, finding: impl Into<String>, remedy: impl Into<String>) {
        self.found.push(Finding {
            machine: self.machine.host.clone(),
            severity,
            finding: finding.into(),
            remedy: remedy.into(),
        });
    }

    fn refuse(&mut self, finding: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Refused, finding, remedy);
    }

    fn warn(&mut self, finding: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Warning, finding, remedy);
    }
}

impl Judged<'_> {
    fn machine(&self, machine: &ExpectedMachine) -> Vec<Finding> {
        let found = Vec::new();
        let mut out = Findings { machine, found };
        match self.examined.get(&machine.host) {
            None => out.refuse("it was not examined", "run the command again"),
            Some(Examined::NotAsked {
                why,
                remedy,
                is_away,
            }) if machine.is_known && *is_away => {
                let why = format!("{why}; the site goes on without it");
                out.warn(why, remedy);
            }
            Some(Examined::NotAsked { why, remedy, .. }) => out.refuse(why, remedy),
            Some(Examined::Facts(facts)) => {
                self.system(facts, &mut out);
                self.others(facts, &mut out);
                self.network(facts, &mut out);
                room(self.expected.site.as_str(), facts, &mut out);
                self.clock(facts, &mut out);
                if out.found.is_empty() {
                    out.add(Severity::Fine, fine(facts), "");
                }
            }
        }
        out.found
    }

    fn system(&self, facts: &Facts, out: &mut Findings<'_>) {
        if !facts.systemd {
            out.refuse("systemd does not run there", "use a machine with systemd");
        }
        if !facts.apt {
            let has = format!("{} has no apt-get", named(facts));
            out.refuse(has, "use Debian 12 or Ubuntu 22.04, or a later one");
        } else if !is_tried(facts) {
            let has = format!("{} is not among the systems that are tried", named(facts));
            out.warn(has, "Debian 12 and later and Ubuntu 22.04 and later are");
        }
        let ours = &self.expected.architecture;
        if facts.architecture != *ours {
            let has = format!(
                "its architecture is {}, this program's {ours}",
                facts.architecture
            );
            out.refuse(
                has,
                format!("run a gaiola that was built for {}", facts.architecture),
            );
        }
        if facts.glibc.is_none_or(|version| version < GLIBC) {
            let has = facts.glibc.map_or("no glibc".into(), |(major, minor)| {
                format!("glibc {major}.{minor}")
            });
            let (major, minor) = GLIBC;
            let needs = format!("use a system with glibc {major}.{minor} or newer");
            out.refuse(format!("it has {has}"), needs);
        }
    }

    /// What else runs there.
    fn others(&self, facts: &Facts, out: &mut Findings<'_>) {
        for site in facts
            .sites
            .iter()
            .filter(|site| *site != self.expected.site.as_str())
        {
            let has = format!("it is part of another site, {site}");
            out.refuse(
                has,
                format!("use another machine, or remove it from {site}"),
            );
        }
        self.services(facts, out);
        if !facts.ports_known {
            let missing = "ss is not there: it is not known which ports are free";
            out.warn(missing, "install the package iproute2");
        }
        for port in taken(self.expected, out.machine, facts) {
            let (number, process) = (port.port, &port.process);
            let has = format!("port {number}, which the site needs, is in use by {process}");
            let unit = if port.unit == "-" {
                process
            } else {
                &port.unit
            };
            out.refuse(has, format!("stop {unit}, or use another machine"));
        }
        if facts.cloud_init_runs {
            let wait = "wait for it: cloud-init status --wait";
            out.refuse("cloud-init is still at work", wait);
        }
        if let Some(process) = &facts.apt_lock {
            let has = format!("{process} holds the lock of apt");
            out.warn(has, "up waits for it, for five minutes at most");
        }
    }

    /// PostgreSQL, Patroni and etcd that are not the site's are never touched.
    fn services(&self, facts: &Facts, out: &mut Findings<'_>) {
        let of_database = out.machine.has(Tier::Database) || out.machine.is_spare();
        let mut named = Vec::new();
        for service in facts
            .services
            .iter()
            .filter(|service| !is_own(&service.unit))
        {
            let matters = service.process == "etcd" || of_database && self.expected.database;
            if matters && !named.contains(&service) {
                named.push(service);
                let process = &service.process;
                let has = format!("{process} runs there already, and may hold data");
                let stop = match service.unit.as_str() {
                    "-" => format!("stop {process}"),
                    unit => format!("move its data, then: systemctl disable --now {unit}"),
                };
                out.refuse(has, format!("use another machine; or {stop}"));
            }
        }
    }

    fn network(&self, facts: &Facts, out: &mut Findings<'_>) {
        let (address, wanted) = (out.machine.address, out.machine.interface.clone());
        let mut at = facts.addresses.iter().filter(|(own, _)| *own == address);
        match (at.next(), wanted) {
            (None, _) => {
                let own = facts.addresses.iter().map(|(own, _)| own);
                let own = own.filter(|own| !own.is_loopback());
                let own = own.map(ToString::to_string).collect::<Vec<_>>().join(", ");
                out.refuse(
                    format!("it does not have the address {address}, but {own}"),
                    "name the right one in the file: { ssh = \"...\", address = \"...\" }",
                );
            }
            (Some((_, has)), Some(named)) if *has != named => out.refuse(
                format!("{address} is on {has}, not on {named}"),
                format!("name the interface {has} in the file, or leave it out"),
            ),
            (Some(_), _) if address.is_loopback() => out.refuse(
                format!("its name leads to {address}, which no other machine reaches"),
                "name its address in the file: { ssh = \"...\", address = \"...\" }",
            ),
            (Some(_), _) => {}
        }
        for (peer, _) in facts.reaches.iter().filter(|(_, reached)| !reached) {
            self.cut(*peer, out);
        }
        self.twins(facts, out);
    }

    /// A machine that is away is reported by itself, not by all the others too.
    fn cut(&self, peer: std::net::IpAddr, out: &mut Findings<'_>) {
        let mut machines = self.expected.machines.iter();
        let other = machines.find(|machine| machine.address == peer);
        let Some(other) = other.filter(|other| self.facts(&other.host).is_some()) else {
            return;
        };
        out.refuse(
            format!("it does not reach {} at {peer}", other.host),
            "open the network between the machines for TCP and VRRP",
        );
    }

    fn facts(&self, host: &Host) -> Option<&Facts> {
        match self.examined.get(host)? {
            Examined::Facts(facts) => Some(facts),
            Examined::NotAsked { .. } => None,
        }
    }

    /// Reported once for each pair, by the later one.
    fn twins(&self, facts: &Facts, out: &mut Findings<'_>) {
        let own = out.machine.host.clone();
        let before = self.expected.machines.iter().map(|machine| &machine.host);
        for host in before.take_while(|host| **host != own) {
            let Some(other) = self.facts(host) else {
                continue;
            };
            if other.machine_id == facts.machine_id && !facts.machine_id.is_empty() {
                out.refuse(
                    format!("its machine id is that of {host}: one was cloned, or both names lead to one machine"),
                    "on one of them: rm -f /etc/machine-id /var/lib/dbus/machine-id && systemd-machine-id-setup, then restart it",
                );
            } else if other.host_name == facts.host_name {
                let name = &facts.host_name;
                let set = "give it another one: hostnamectl set-hostname NAME";
                out.warn(format!("its host name, {name}, is that of {host}"), set);
            }
        }
    }

    /// Against the middle of all clocks: the operator's own may be wrong.
    fn clock(&self, facts: &Facts, out: &mut Findings<'_>) {
        let machines = self.expected.machines.iter();
        let clocks = machines.filter_map(|machine| self.facts(&machine.host)?.clock);
        let mut offsets: Vec<i64> = clocks.map(|clock| clock.offset_ms).collect();
        offsets.sort_unstable();
        let (Some(own), Some(middle)) = (facts.clock, offsets.get(offsets.len() / 2)) else {
            return;
        };
        // Of two clocks nobody knows which one is wrong; the operator's is the third.
        let reference = if offsets.len() < 3 { 0 } else { *middle };
        let apart = own.offset_ms - reference;
        if apart.abs() - own.within_ms > CLOCKS_MS {
            let way = if apart < 0 { "behind" } else { "ahead" };
            out.refuse(
                format!("its clock is {} {way}", seconds(apart)),
                "let it follow a time server: timedatectl set-ntp true",
            );
        } else if own.offset_ms.abs() - own.within_ms > CLOCKS_MS && is_first(self, out.machine) {
            let by = seconds(own.offset_ms);
            out.warn(
                format!("all clocks differ from this computer's by {by}"),
                "set this computer's clock",
            );
        }
    }
}

fn seconds(ms: i64) -> String {
    let tenths = ms.unsigned_abs() / 100;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

fn is_first(all: &Judged<'_>, machine: &ExpectedMachine) -> bool {
    let mut asked = all.expected.machines.iter();
    let first = asked.find(|machine| all.facts(&machine.host).is_some());
    first.is_some_and(|first| first.host == machine.host)
}

/// How little room there may be. A machine that has its part of the site already needs some for the next release only: a disk that
/// fills up must not keep the operator from the change that mends it.
fn room(site: &str, facts: &Facts, out: &mut Findings<'_>) {
    let is_part = facts.sites.iter().any(|part| part == site);
    let least = if is_part { 128 * MIB } else { GIB };
    let disk = facts.disk_kib.unwrap_or(u64::MAX);
    let has = format!("{} MiB are free below /var/lib/gaiola", disk / MIB);
    if disk < least {
        let needs = format!(
            "make room: releases and data need {} MiB at least",
            least / MIB
        );
        out.refuse(has, needs);
    } else if disk < 4 * GIB {
        out.warn(has, "make room: 4 GiB suit a small site");
    }
    room_for_program(facts, out);
    memory(facts, out);
}

/// Where one is in use already, the next one may never come.
fn room_for_program(facts: &Facts, out: &mut Findings<'_>) {
    let program = facts.program_kib.unwrap_or(u64::MAX);
    if program < 256 * MIB {
        let has = format!("{} MiB are free below /opt/gaiola", program / MIB);
        let needs = "make room: the program and Patroni need 256 MiB";
        let severity = if facts.program.is_some() {
            Severity::Warning
        } else {
            Severity::Refused
        };
        out.add(severity, has, needs);
    }
}

fn memory(facts: &Facts, out: &mut Findings<'_>) {
    let memory = facts.memory_kib.unwrap_or(u64::MAX);
    let has = format!("it has {} MiB of memory", memory / MIB);
    if memory < 200 * MIB {
        out.refuse(has, "use a machine with 512 MiB at least");
    } else if memory < 450 * MIB {
        out.warn(has, "a machine of a site should have 512 MiB at least");
    }
}

fn named(facts: &Facts) -> String {
    match facts.distribution.as_str() {
        "" => "the system".into(),
        id => format!("{id} {}", facts.version).trim().into(),
    }
}

fn is_tried(facts: &Facts) -> bool {
    let version = facts::version(&facts.version);
    match facts.distribution.as_str() {
        "debian" => version.is_some_and(|version| version >= (12, 0)),
        "ubuntu" => version.is_some_and(|version| version >= (22, 4)),
        _ => false,
    }
}

fn fine(facts: &Facts) -> String {
    let mut words = vec![named(facts), facts.architecture.clone()];
    let room = [(facts.memory_kib, "memory"), (facts.disk_kib, "free disk")];
    for (kib, what) in room {
        words.extend(kib.map(|kib| format!("{} GiB {what}", tenths(kib))));
    }
    words.join(", ")
}

fn tenths(kib: u64) -> String {
    let tenths = kib * 10 / GIB;
    format!("{}.{}", tenths / 10, tenths % 10)
}
