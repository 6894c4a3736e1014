//! `[deploy]`: when a release is given up although its instances are ready.

use crate::file::value::{Wrong, duration_up_to};
use crate::file::{Mistakes, Section, text};
use gaiola_model::config::DeployRules;
use std::time::Duration;

/// The longest watch over the first new instance.
const LONGEST: Duration = Duration::from_secs(600);

pub(super) fn of(root: &Section<'_>, mistakes: &mut Mistakes<'_>) -> DeployRules {
    let default = DeployRules::default();
    let Some(section) = root.table("deploy", "deploy", mistakes) else {
        return default;
    };
    let slower = section.fraction("slower", 1.1..=1000.0, mistakes);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in the range"
    )]
    let slower = slower.map(|times| (times * 1000.0).round() as u32);
    DeployRules {
        compare: section
            .boolean("compare", mistakes)
            .unwrap_or(default.compare),
        errors: section
            .number("errors", 0..=100, mistakes)
            .unwrap_or(default.errors),
        slower: slower.unwrap_or(default.slower),
        requests: section
            .number("requests", 10..=1_000_000, mistakes)
            .unwrap_or(default.requests),
        watch: text(&section, "watch", watch, mistakes).unwrap_or(default.watch),
    }
}

fn watch(text: &str) -> Result<Duration, Wrong> {
    duration_up_to(LONGEST, text)
}
