//! `memory`, `cpu` and `tasks`: what a process of the site may use.

use crate::file::value::{Wrong, size};
use crate::file::{Mistakes, Section, text};
use gaiola_model::config::Limits;

/// Less is no room for a program at all.
const LEAST_MEMORY: u64 = 4 << 20;
const MOST_MEMORY: u64 = 1 << 50;
/// Thousandths of a processor: the kernel counts no less than a millisecond in a tenth of a second.
const LEAST_CPU: f64 = 0.01;
const MOST_CPU: f64 = 10_000.0;
const MOST_TASKS: u32 = 4_000_000;

pub(super) fn of(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Limits {
    Limits {
        memory: text(section, "memory", memory, mistakes),
        cpu: cpu(section, mistakes),
        tasks: section.number("tasks", 1..=MOST_TASKS, mistakes),
    }
}

fn memory(text: &str) -> Result<u64, Wrong> {
    let hint = |text: &str| text.to_owned();
    match size(text) {
        Ok(bytes) if bytes < LEAST_MEMORY => Err((
            "is less than any program needs".into(),
            hint("write at least \"4MiB\""),
        )),
        Ok(bytes) if bytes > MOST_MEMORY => Err((
            "is more than any server has".into(),
            hint("leave it out: a process may use what there is then"),
        )),
        Ok(bytes) => Ok(bytes),
        Err((what, _)) => Err((
            what,
            hint("write a number and MB, GB, MiB or GiB: \"512MiB\""),
        )),
    }
}

/// Processors, with a fraction or without.
fn cpu(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Option<u32> {
    let processors = section.fraction("cpu", LEAST_CPU..=MOST_CPU, mistakes)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in the range"
    )]
    Some((processors * 1000.0).round() as u32)
}
