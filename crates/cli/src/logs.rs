//! `gaiola logs`: the output of the servers' processes.

mod of_machines;

use crate::args::{Global, Logs};
use crate::connect::place;
use crate::output::{self, Exit};
use anyhow::{Context as _, bail};
use gaiola_agent::state::State;
use gaiola_model::{InstanceName, ServerName, WorkerName};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much of the end of a log is searched for its last lines.
const TAIL: u64 = 256 * 1024;
/// Poll interval.
const POLL: Duration = Duration::from_millis(300);

/// Prints the last lines of the logs, and follows them.
pub(crate) fn logs(global: &Global, logs: &Logs) -> anyhow::Result<Exit> {
    let place = place(global, &logs.file)?;
    if place.machines.is_some() {
        return of_machines::logs(global, logs, &place);
    }
    let servers = State::of(&place.site).servers();
    if let Some(server) = logs.server {
        is_there(&servers, server)?;
    }
    let mut read_to: BTreeMap<PathBuf, u64> = BTreeMap::new();
    loop {
        let found = find(&servers, logs)
            .with_context(|| format!("cannot read the logs in {}", servers.display()))?;
        if found.is_empty() && !logs.follow {
            bail!(
                "no such logs; `gaiola status` lists the servers, --all includes the logs of all processes"
            );
        }
        for (server, path) in found {
            let from = read_to.get(&path).copied();
            let end = print(&server, &path, from, logs.last)?;
            read_to.insert(path, end);
        }
        if !logs.follow || output::is_closed() {
            return Ok(Exit::Ok);
        }
        std::thread::sleep(POLL);
    }
}

/// A server's directory exists from when it was first switched on.
fn is_there(servers: &Path, server: ServerName) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(servers).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: BTreeSet<ServerName> = named.collect();
    if all.is_empty() || all.contains(&server) {
        return Ok(());
    }
    let names: Vec<String> = all.iter().map(ToString::to_string).collect();
    bail!("there is no {server}; there are {}", names.join(", "))
}

fn find(servers: &Path, logs: &Logs) -> std::io::Result<Vec<(ServerName, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(servers)? {
        let entry = entry?;
        let Some(server) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<ServerName>().ok())
        else {
            continue;
        };
        let chosen = logs.tier.is_none_or(|tier| tier == server.tier)
            && logs.server.is_none_or(|name| name == server);
        if !chosen {
            continue;
        }
        for log in std::fs::read_dir(entry.path().join("log"))
            .into_iter()
            .flatten()
        {
            let path = log?.path();
            if is_wanted(&path, logs.all) {
                found.push((server, path));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The site's own output and the access logs are shown; Gaiola's own logs only with `--all`.
fn is_wanted(path: &Path, all: bool) -> bool {
    let Some(name) = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(".log"))
    else {
        return false;
    };
    all || name.parse::<InstanceName>().is_ok()
        || name.parse::<WorkerName>().is_ok()
        || name.starts_with("release-")
        || name.starts_with("cron-")
        || name == "access"
}

/// Prints what was added since `from` (the last lines if it is `None`), and returns the new end.
fn print(server: &ServerName, path: &Path, from: Option<u64>, last: usize) -> anyhow::Result<u64> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        opened => opened.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let length = file.metadata()?.len();
    // A log that became shorter was rotated: read from its start.
    let start = match from {
        Some(from) if from <= length => from,
        Some(_) => 0,
        None => length.saturating_sub(TAIL),
    };
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length - start).read_to_end(&mut bytes)?;
    // An incomplete line is left for the next poll.
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let text = String::from_utf8_lossy(&bytes[..whole]);
    let lines: Vec<&str> = text.lines().collect();
    let skipped = if from.is_some() {
        0
    } else {
        lines.len().saturating_sub(last)
    };
    let process = path
        .file_stem()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let name = if process.starts_with(&server.to_string()) {
        process.to_string()
    } else {
        format!("{server}/{process}")
    };
    let added = lines[skipped..].iter();
    let added: String = added.map(|line| format!("{name:<14} {line}\n")).collect();
    output::print(&added);
    Ok(start + whole as u64)
}
