//! `[worker.NAME]`: processes that no request is sent to.

use super::{limits, value};
use crate::file::value::duration;
use crate::file::{At, Mistakes, Section, shown, text};
use gaiola_model::WorkerKind;
use gaiola_model::config::{MAX_INSTANCES, MAX_SERVERS, Worker};
use std::collections::BTreeMap;

/// A section of this kind.
pub(super) const WORKER: &str = "worker.NAME";
/// The most kinds of workers.
const MOST: usize = 50;

pub(super) fn of(root: &Section<'_>, mistakes: &mut Mistakes<'_>) -> BTreeMap<WorkerKind, Worker> {
    let mut workers = BTreeMap::new();
    let Some(table) = root.table("worker", "worker", mistakes) else {
        return workers;
    };
    for At { value: name, span } in table.entries() {
        let kind: Option<WorkerKind> = name.parse().ok();
        if kind.is_none() {
            let what = format!("{} is not the name of a worker", shown(name));
            mistakes.add(
                &span,
                what,
                "use 1 to 32 of a-z, 0-9 and -, beginning with a letter",
            );
        }
        let section = table.table(name, WORKER, mistakes);
        let worker = section.map(|section| worker(&section, mistakes));
        if let (Some(kind), Some(worker)) = (kind, worker) {
            workers.insert(kind, worker);
        }
    }
    if workers.len() > MOST {
        let span = root.key_span("worker").unwrap_or(0..0);
        let what = format!("there are {} workers", workers.len());
        mistakes.add(&span, what, format!("have {MOST} at most"));
    }
    workers
}

fn worker(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Worker {
    section.need("run", "\"COMMAND\", the command that starts it", mistakes);
    let run = text(section, "run", value::command, mistakes);
    let default = Worker::new(run.unwrap_or_default());
    Worker {
        servers: section.number("servers", 1..=MAX_SERVERS, mistakes),
        instances: section
            .number("instances", 1..=MAX_INSTANCES, mistakes)
            .unwrap_or(default.instances),
        grace: text(section, "grace", duration, mistakes),
        limits: limits::of(section, mistakes),
        ..default
    }
}
