//! The status for people: one line a server, then what is missing and what may still fail.

use super::{crons, database_in_words};
use gaiola_model::inventory::{Host, Location};
use gaiola_model::placement::InstanceState;
use gaiola_model::status::{
    InstanceStatus, ServerState, ServerStatus, Status, VipStatus, WorkerStatus,
};
use std::fmt::Write;

/// The status as text, each line terminated. With `color` the states are coloured too; colour alone carries no meaning.
pub fn render(status: &Status, color: bool) -> String {
    let mut out = String::new();
    headline(&mut out, status, color);
    servers(&mut out, status, color);
    for vip in status.vips.iter().filter(|vip| vip.owners.len() != 1) {
        let _ = writeln!(out, "{}", fault_of(vip));
    }
    list(&mut out, "cron", status.crons.iter().map(crons::in_words));
    list(&mut out, "failed", status.failed.iter());
    list(&mut out, "missing", status.missing.iter());
    list(&mut out, "waiting", status.waiting.iter());
    list(&mut out, "warnings", status.warnings.iter());
    list(
        &mut out,
        "may fail",
        status.may_fail.iter().map(|part| &part.words),
    );
    if status.may_fail.is_empty() {
        let on_machines = status
            .servers
            .iter()
            .any(|server| is_named(&server.location));
        let what = if on_machines { "machine" } else { "server" };
        let _ = writeln!(out, "\nsurvives the loss of any one {what}");
    }
    list(&mut out, "events", status.events.iter().rev().take(8).rev());
    out
}

fn headline(out: &mut String, status: &Status, color: bool) {
    let word = if status.healthy {
        "healthy"
    } else {
        "not healthy"
    };
    let paint = if status.healthy { GREEN } else { RED };
    let word = painted(word, paint, color);
    let _ = write!(
        out,
        "{}  {word}  release {}",
        status.site, status.release.desired
    );
    if status.release.running != [status.release.desired] {
        let running = joined(status.release.running.iter(), ", ");
        let running = if running.is_empty() {
            "none".into()
        } else {
            running
        };
        let _ = write!(out, " (running: {running})");
    }
    if status.generation.desired != status.generation.placed {
        out.push_str("  change in progress");
    }
    out.push_str("\n\n");
}

fn servers(out: &mut String, status: &Status, color: bool) {
    let rows = status.servers.iter();
    let rows: Vec<[String; 4]> = rows.map(|server| row(server, status)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for (server, [name, address, state, rest]) in status.servers.iter().zip(&rows) {
        let state = format!("{state:<0$}", widths[2]);
        let state = painted(&state, paint_of(server), color);
        let line = format!(
            "  {name:<0$}  {address:<1$}  {state}  {rest}",
            widths[0], widths[1]
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// Whether the server stands on a machine with a name: all of the lab's stand on this one.
fn is_named(location: &Location) -> bool {
    location.host != Host::default()
}

/// The machine and its address; in the lab the address.
fn place(location: &Location) -> String {
    let Location { host, address, .. } = location;
    // A machine may be called by its address.
    if is_named(location) && host.0 != address.to_string() {
        format!("{host} {address}")
    } else {
        address.to_string()
    }
}

fn row(server: &ServerStatus, status: &Status) -> [String; 4] {
    let mut parts = Vec::new();
    if !server.vips.is_empty() {
        parts.push(format!("VIP {}", joined(server.vips.iter(), ", ")));
    }
    if let Some(database) = &server.database {
        parts.push(database_in_words(database));
    }
    if !server.instances.is_empty() {
        parts.push(instances_in_words(&server.instances, status));
    }
    if !server.workers.is_empty() {
        parts.push(workers_in_words(&server.workers));
    }
    if server.store_member {
        parts.push("store".into());
    }
    // Where a server does not serve well, its reason names an instance already.
    if server.state == ServerState::Serving {
        let doubted = server.instances.iter().filter(|one| one.doubted);
        parts.extend(doubted.map(|one| format!("{} is in doubt: {}", one.name, one.reason)));
    }
    if matches!(server.state, ServerState::Busy | ServerState::Degraded)
        && !server.reason.is_empty()
    {
        parts.push(server.reason.clone());
    }
    parts.extend(server.troubles.iter().cloned());
    [
        server.name.to_string(),
        place(&server.location),
        server.state.in_words().into(),
        parts.join("; "),
    ]
}

/// `2/2 ready`, with those of another release or state by name. An instance that its own agent finds ready but its
/// proxies do not does not count. With busy ones `2/2 serve, 1 of them busy`.
fn instances_in_words(instances: &[InstanceStatus], status: &Status) -> String {
    let is_ready = |instance: &&InstanceStatus| {
        instance.state == Some(InstanceState::Ready) && !instance.doubted && !instance.busy
    };
    let all = instances.len();
    let ready = instances.iter().filter(is_ready).count();
    let busy = instances.iter().filter(|instance| instance.busy).count();
    let mut words = match busy {
        0 => format!("{ready}/{all} ready"),
        busy => format!("{}/{all} serve, {busy} of them busy", ready + busy),
    };
    let old = |instance: &&InstanceStatus| instance.release != status.release.desired;
    for instance in instances.iter().filter(old) {
        let _ = write!(words, ", {} of release {}", instance.name, instance.release);
    }
    words
}

/// `2/2 workers`, with the reason of each that does not run.
pub fn workers_in_words(workers: &[WorkerStatus]) -> String {
    let (all, down) = (
        workers.len(),
        workers.iter().filter(|worker| !worker.reason.is_empty()),
    );
    let down: Vec<String> = down
        .map(|worker| format!("{} {}", worker.name, worker.reason))
        .collect();
    let mut words = format!("{}/{all} workers", all - down.len());
    for why in down {
        let _ = write!(words, ", {why}");
    }
    words
}

fn fault_of(vip: &VipStatus) -> String {
    if vip.owners.is_empty() {
        format!("\nVIP {} is held by nobody", vip.address)
    } else {
        format!(
            "\nVIP {} is held by {}",
            vip.address,
            joined(vip.owners.iter(), " and ")
        )
    }
}

fn list(out: &mut String, title: &str, lines: impl Iterator<Item = impl std::fmt::Display>) {
    for (number, line) in lines.enumerate() {
        if number == 0 {
            let _ = writeln!(out, "\n{title}:");
        }
        let _ = writeln!(out, "  {line}");
    }
}

fn joined(items: impl Iterator<Item = impl ToString>, separator: &str) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    items.join(separator)
}

const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;

fn paint_of(server: &ServerStatus) -> u8 {
    match server.state {
        ServerState::Serving if server.instances.iter().any(|one| one.doubted) => YELLOW,
        ServerState::Serving => GREEN,
        ServerState::Lost => RED,
        ServerState::Starting
        | ServerState::Busy
        | ServerState::Degraded
        | ServerState::Draining
        | ServerState::Drained => YELLOW,
    }
}

fn painted(text: &str, paint: u8, color: bool) -> String {
    if color {
        format!("\x1b[{paint}m{text}\x1b[0m")
    } else {
        text.into()
    }
}
