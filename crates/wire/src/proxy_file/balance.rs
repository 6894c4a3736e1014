//! How a backend chooses a server: `balance`, `hash`, `ejection` and `slow_ejection`.

use super::{Reader, positive, value};
use crate::file::value::Wrong;
use crate::file::{Mistakes, Section, text};
use gaiola_model::proxy::{Algorithm, Ejection, HashKey, Observe, SlowEjection};

/// Highest percentage that makes sense anywhere.
const MOST_PERCENT: u16 = 10_000;

/// The values of a hash's `on`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Source,
    Uri,
    Header,
    Cookie,
}

impl Reader<'_, '_, '_> {
    pub(super) fn algorithm(&mut self, section: &Section<'_>) -> Algorithm {
        let written = text(section, "balance", value::balance, self.mistakes);
        let hash = section.table("hash", "backend.NAME.hash", self.mistakes);
        let hash = hash.map(|hash| self.hash(&hash));
        let is_known = written.is_some() || !section.has("balance");
        match (written.unwrap_or_default(), hash) {
            (Algorithm::Hash { .. }, Some(hash)) => hash,
            (other, _) => {
                if is_known && !matches!(other, Algorithm::Hash { .. }) {
                    self.has_no_meaning(section, "hash", "it belongs to balance = \"hash\"");
                }
                other
            }
        }
    }

    fn hash(&mut self, section: &Section<'_>) -> Algorithm {
        let written = text(section, "on", on, self.mistakes);
        let on = written.unwrap_or(On::Source);
        let is_known = written.is_some() || !section.has("on");
        let is_named = matches!(on, On::Header | On::Cookie);
        if is_named {
            section.need("name", "\"NAME\"", self.mistakes);
        } else if is_known {
            self.has_no_meaning(
                section,
                "name",
                "it belongs to on = \"header\" or \"cookie\"",
            );
        }
        if is_known && on != On::Uri {
            for key in ["query", "depth"] {
                self.has_no_meaning(section, key, "it belongs to on = \"uri\"");
            }
        }
        let name = text(section, "name", value::token, self.mistakes).unwrap_or_default();
        let query = section.boolean("query", self.mistakes);
        let depth = section.number("depth", 0..=1_000, self.mistakes);
        Algorithm::Hash {
            key: match on {
                On::Source => HashKey::Source,
                On::Uri => HashKey::Uri {
                    query: query.unwrap_or_default(),
                    depth: depth.unwrap_or_default(),
                },
                On::Header => HashKey::Header(name),
                On::Cookie => HashKey::Cookie(name),
            },
            bound: self.bound_of(section),
        }
    }

    /// Percent, or `"none"`.
    fn bound_of(&mut self, section: &Section<'_>) -> Option<u16> {
        if section.has_text("bound") {
            return text(section, "bound", none, self.mistakes)?;
        }
        let bound = section.number("bound", 100..=MOST_PERCENT, self.mistakes);
        Some(bound.unwrap_or(Algorithm::USUAL_BOUND))
    }
}

/// `ejection`: missing keys have their defaults.
pub(crate) fn ejection(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Ejection {
    let default = Ejection::default();
    let Some(section) = section.table("ejection", "backend.NAME.ejection", mistakes) else {
        return default;
    };
    let time = text(&section, "time", positive, mistakes).unwrap_or(default.time);
    let max_time = text(&section, "max_time", positive, mistakes);
    Ejection {
        observe: text(&section, "observe", observe, mistakes).unwrap_or_default(),
        error_limit: section
            .number("error_limit", 1..=1_000_000, mistakes)
            .unwrap_or(default.error_limit),
        time,
        max_time: max_time.unwrap_or(default.max_time.max(time)),
        max_share: section
            .number("max_share", 1..=100, mistakes)
            .unwrap_or(default.max_share),
    }
}

/// `slow_ejection`.
pub(crate) fn slow_ejection(
    section: &Section<'_>,
    mistakes: &mut Mistakes<'_>,
) -> Option<SlowEjection> {
    let section = section.table("slow_ejection", "backend.NAME.slow_ejection", mistakes)?;
    section.need("factor", "300", mistakes);
    section.need("after", "\"10s\"", mistakes);
    let factor = section.number("factor", 101..=MOST_PERCENT, mistakes);
    let after = text(&section, "after", positive, mistakes);
    Some(SlowEjection {
        factor: factor?,
        after: after?,
    })
}

fn observe(text: &str) -> Result<Observe, Wrong> {
    value::one_of(
        text,
        &[
            ("layer7", Observe::Layer7),
            ("layer4", Observe::Layer4),
            ("none", Observe::None),
        ],
    )
}

fn on(text: &str) -> Result<On, Wrong> {
    value::one_of(
        text,
        &[
            ("source", On::Source),
            ("uri", On::Uri),
            ("header", On::Header),
            ("cookie", On::Cookie),
        ],
    )
}

fn none(text: &str) -> Result<Option<u16>, Wrong> {
    match text {
        "none" => Ok(None),
        _ => Err((
            "is not a bound".into(),
            format!("write a number of percent from 100 to {MOST_PERCENT}, or \"none\""),
        )),
    }
}
