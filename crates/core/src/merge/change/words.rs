//! The differences in words, one line each.

use super::{Change, CronChange, MachineChange, WorkerChange};
use crate::words::Long;
use gaiola_model::{ServerName, Tier};
use std::fmt;
use std::net::IpAddr;

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TierAdded {
                tier,
                servers,
                above,
            } => write_added(f, *tier, servers, *above),
            Self::TierRemoved {
                tier,
                servers,
                above,
            } => write_removed(f, *tier, servers, *above),
            Self::Servers { tier, from, to } => write_servers(f, *tier, *from, *to),
            Self::ServerAdded { server, on } => {
                write!(f, "{}: {server} is added on {on}", server.tier)
            }
            Self::ServerLeaves { server, from, left } => write_leaving(f, *server, from, *left),
            Self::Machine { ssh, change } => write_machine(f, ssh, change),
            Self::AutoReplace(None) => f.write_str(
                "machines: replace: one that is gone is replaced by an operator only",
            ),
            Self::AutoReplace(Some(after)) => write!(
                f,
                "machines: replace: a spare one takes the place of one that is gone for {}",
                Long(*after)
            ),
            Self::VipPrefix { vip, from, to } => {
                let whole = if vip.is_ipv4() { 32 } else { 128 };
                let [from, to] = [from, to].map(|length| format!("/{}", length.unwrap_or(whole)));
                write!(f, "balancer: vips: the prefix of {vip} changes: {from} -> {to}")
            }
            Self::VipCommand => f.write_str(
                "balancer: vip_command: run when a balancer takes a VIP, or holds one for which none has run",
            ),
            Self::BalancerProxy(keys) => write!(
                f,
                "balancer: {} changed: the proxies take it over; no connection is lost",
                list(keys)
            ),
            Self::BalancerDrain => {
                f.write_str("balancer: drain changes: it holds from the next drain on")
            }
            Self::Instances { from, to } => {
                let effect = if to > from {
                    "are added"
                } else {
                    "are drained, then removed"
                };
                let servers = "on each server";
                write!(f, "app: instances {from} -> {to} {servers}: they {effect}")
            }
            Self::Vips { added, removed } => write_vips(f, added, removed),
            Self::Release { from, to } => write!(
                f,
                "app: the site's directory has changed: release {from} -> {to}: instances are replaced one at a time"
            ),
            Self::Env {
                added,
                changed,
                removed,
            } => {
                let parts = [("added", added), ("changed", changed), ("removed", removed)];
                let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
                let parts: Vec<String> = parts
                    .map(|(what, names)| format!("{} {what}", names.join(", ")))
                    .collect();
                write!(
                    f,
                    "app: the environment changes ({}): instances are replaced one at a time",
                    parts.join("; ")
                )
            }
            Self::Run => f.write_str("app: run changes: instances are replaced one at a time"),
            Self::Worker { kind, change } => {
                let words = match change {
                    WorkerChange::Added => "is started once the instances are up",
                    WorkerChange::Run => "has another command: it is replaced, one process at a time",
                    WorkerChange::Size => "runs on other servers, or another number of times",
                    WorkerChange::Grace => "has another grace: it holds from the next stop on",
                    WorkerChange::Limits => "may use more or less: it holds at once, without a restart",
                    WorkerChange::Removed => "is stopped",
                };
                write!(f, "worker {kind}: {words}")
            }
            Self::Cron { name, change } => {
                let words = match change {
                    CronChange::Added => "is run on its schedule",
                    CronChange::Schedule => "has another schedule, which holds from now on",
                    CronChange::Settings => "has other settings: they hold from its next run on",
                    CronChange::Removed => "is not run any more; a run under way is seen to its end",
                };
                write!(f, "cron {name}: {words}")
            }
            Self::ReleaseCommand => f.write_str(
                "app: release changes: it runs before the instances of the next release",
            ),
            Self::Proxies {
                tier,
                key,
                from,
                to,
            } => write!(
                f,
                "{tier}: {key} {from} -> {to}: the proxies take it over; no connection is lost"
            ),
            Self::Tls { from: true, to: true } => f.write_str(
                "balancer: tls or its certificates change: the proxies take them over; no connection is lost",
            ),
            Self::Tls { to: true, .. } => {
                f.write_str("balancer: tls is set: HTTPS is served on port 443")
            }
            Self::Tls { .. } => f.write_str("balancer: tls is unset: port 443 is closed"),
            Self::Grace => f.write_str("app: grace changes: it holds from the next stop on"),
            Self::Limits { from, to } => write!(
                f,
                "app: {from} -> {to} for an instance: that holds at once, without a restart"
            ),
            Self::DeployRules => {
                f.write_str("deploy: changes: the next release is compared with the old one so")
            }
            Self::Strict(true) => f.write_str(
                "database: strict is set: writes stop when no synchronous standby is left",
            ),
            Self::Strict(false) => f.write_str(
                "database: strict is unset: writes go on unreplicated when no standby is left",
            ),
            Self::Encrypt(true) => f.write_str(
                "machines: encrypt is set: the tiers speak TLS with each other; instances are replaced one at a time",
            ),
            Self::Encrypt(false) => f.write_str(
                "machines: encrypt is unset: the tiers speak plain text with each other; instances are replaced one at a time",
            ),
            Self::Drill => f.write_str("drill: changes: the next drill loads the site so"),
            Self::Disk => f.write_str(
                "drill: disk changes: it holds for database servers that have no data yet",
            ),
        }
    }
}

fn write_added(
    f: &mut fmt::Formatter<'_>,
    tier: Tier,
    servers: &[ServerName],
    above: Option<Tier>,
) -> fmt::Result {
    let (names, _) = names(servers);
    write!(f, "{tier}: added with {names}: ")?;
    match (tier, above) {
        (Tier::Database, _) => {
            f.write_str("instances are replaced one at a time and get a DATABASE_URL")
        }
        (_, Some(above)) => write!(f, "{above} leads to it"),
        (_, None) => f.write_str("clients come to it"),
    }
}

fn write_removed(
    f: &mut fmt::Formatter<'_>,
    tier: Tier,
    servers: &[ServerName],
    above: Option<Tier>,
) -> fmt::Result {
    let (names, _) = names(servers);
    write!(f, "{tier}: removed with {names}: ")?;
    match (tier, above) {
        (Tier::Database, _) => {
            f.write_str("instances are replaced one at a time and get no DATABASE_URL")
        }
        (_, Some(above)) => write!(f, "{above} leads past it"),
        (_, None) => f.write_str("clients come to the tier below"),
    }
}

fn write_servers(f: &mut fmt::Formatter<'_>, tier: Tier, from: u16, to: u16) -> fmt::Result {
    write!(f, "{tier}: servers {from} -> {to}: ")?;
    if to > from {
        let (names, are) = names(&numbered(tier, from + 1..=to));
        return write!(f, "{names} {are} added");
    }
    let (names, are) = names(&numbered(tier, to + 1..=from));
    match tier {
        Tier::Database => write!(f, "{names} {are} removed{}", after_switchover(to)),
        _ => write!(f, "{names} {are} drained, then removed"),
    }
}

const fn after_switchover(left: u16) -> &'static str {
    match left {
        1 => ", after a switchover where it is the primary; no standby is left",
        _ => ", after a switchover where it is the primary",
    }
}

fn write_leaving(
    f: &mut fmt::Formatter<'_>,
    server: ServerName,
    from: &str,
    left: u16,
) -> fmt::Result {
    write!(f, "{}: {server} leaves {from}", server.tier)?;
    match (server.tier, left) {
        (Tier::Database, 1..) => f.write_str(after_switchover(left)),
        _ => Ok(()),
    }
}

fn write_machine(f: &mut fmt::Formatter<'_>, ssh: &str, change: &MachineChange) -> fmt::Result {
    let words = match change {
        MachineChange::Spare => "is spare",
        MachineChange::Leaves => "leaves the site",
        MachineChange::Interface => "interface changes: VIPs are added to the new one",
        MachineChange::Address => "address changes: its servers are replaced one by one",
    };
    write!(f, "machines: {ssh} {words}")
}

fn numbered(tier: Tier, numbers: std::ops::RangeInclusive<u16>) -> Vec<ServerName> {
    numbers
        .map(|number| ServerName::new(tier, number))
        .collect()
}

fn write_vips(f: &mut fmt::Formatter<'_>, added: &[IpAddr], removed: &[IpAddr]) -> fmt::Result {
    let is = |vips: &[IpAddr]| if vips.len() == 1 { "is" } else { "are" };
    f.write_str("balancer: vips: ")?;
    if !added.is_empty() {
        write!(f, "{} {} added and announced", list(added), is(added))?;
    }
    if !added.is_empty() && !removed.is_empty() {
        f.write_str(", then ")?;
    }
    if !removed.is_empty() {
        write!(f, "{} {} removed", list(removed), is(removed))?;
    }
    Ok(())
}

/// The names of a tier's servers, and the verb that agrees with their number.
pub(super) fn names(servers: &[ServerName]) -> (String, &'static str) {
    let is_run = servers.is_sorted_by(|a, b| a.number + 1 == b.number);
    let words = match servers {
        [first, _, .., last] if is_run => format!("{first} to {last}"),
        [first, last] => format!("{first} and {last}"),
        _ => list(servers),
    };
    (words, if servers.len() == 1 { "is" } else { "are" })
}

pub(super) fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}
