//! `[worker.NAME]`: processes that no request is sent to.

use super::{limits, named, value};
use crate::file::value::duration;
use crate::file::{Mistakes, Section, text};
use gaiola_model::WorkerKind;
use gaiola_model::config::{MAX_INSTANCES, MAX_SERVERS, Worker};
use std::collections::BTreeMap;

/// A section of this kind.
pub(super) const WORKER: &str = "worker.NAME";

pub(super) fn of(root: &Section<'_>, mistakes: &mut Mistakes<'_>) -> BTreeMap<WorkerKind, Worker> {
    named::of(root, ("worker", WORKER), worker, mistakes)
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
