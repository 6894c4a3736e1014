//! Files in TOML: read key by key, with every mistake told at once and where it stands.
//!
//! The parsed table still holds where each value stands (`section`). A wrong value is reported and its default taken, so
//! that one run finds all mistakes; a value comes out only when there was none.

mod mistake;
mod section;
pub(crate) mod value;
mod words;

pub use mistake::{ConfigErrors, Mistake};
pub(crate) use mistake::{Mistakes, shown};
pub(crate) use section::{At, Element, Section, checked, text};
pub use words::closest;
pub(crate) use words::{Elsewhere, Keys, Words};

use toml::de::DeTable;

/// A longer text is refused unread.
const LONGEST_FILE: usize = 1 << 20;

/// Reads a text in these words; `meaning` gives the whole file its meaning.
pub(crate) fn read<T>(
    text: &str,
    words: &'static Words,
    meaning: impl FnOnce(&Section<'_>, &mut Mistakes<'_>) -> T,
) -> Result<T, ConfigErrors> {
    if text.len() > LONGEST_FILE {
        return Err(ConfigErrors::too_long());
    }
    let mut mistakes = Mistakes::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let offset = error.span().map_or(text.len(), |span| span.start);
        let line = mistakes.line(offset);
        let hint = words.foreign_line(line);
        let hint = hint.unwrap_or_else(|| "see https://toml.io for how values are written".into());
        mistakes.syntax(offset, value::one_line(error.message()), hint);
    }
    let root = Section::root(table.get_ref(), words, &mut mistakes);
    let meant = meaning(&root, &mut mistakes);
    mistakes.finish(meant)
}
