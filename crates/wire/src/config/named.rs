//! Sections of which there may be several, each with a name of its own: `[worker.NAME]`, `[cron.NAME]`.

use crate::file::{At, Mistakes, Section, shown};
use std::collections::BTreeMap;
use std::str::FromStr;

/// The most sections of one kind.
const MOST: usize = 50;

/// Reads all of one kind: `kind` is its first word, and `section` the name under which its keys are listed.
pub(super) fn of<K: FromStr + Ord, V>(
    root: &Section<'_>,
    (kind, section): (&'static str, &'static str),
    read: impl Fn(&Section<'_>, &mut Mistakes<'_>) -> V,
    mistakes: &mut Mistakes<'_>,
) -> BTreeMap<K, V> {
    let mut all = BTreeMap::new();
    let Some(table) = root.table(kind, kind, mistakes) else {
        return all;
    };
    for At { value: name, span } in table.entries() {
        let known: Option<K> = name.parse().ok();
        if known.is_none() {
            let what = format!("{} is not the name of a {kind}", shown(name));
            let hint = "use 1 to 32 of a-z, 0-9 and -, beginning with a letter";
            mistakes.add(&span, what, hint);
        }
        let section = table.table(name, section, mistakes);
        let value = section.map(|section| read(&section, mistakes));
        if let (Some(known), Some(value)) = (known, value) {
            all.insert(known, value);
        }
    }
    if all.len() > MOST {
        let span = root.key_span(kind).unwrap_or(0..0);
        let what = format!("there are {} {kind}s", all.len());
        mistakes.add(&span, what, format!("have {MOST} at most"));
    }
    all
}
