//! TOML files, read key by key, reporting all mistakes at once with their positions.
//!
//! The parsed table keeps the position of each value (`section`). A wrong value is reported and replaced by its default, so
//! that one run finds all mistakes; a result is returned only if there were none.

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

/// A longer text is rejected unread.
const LONGEST_FILE: usize = 1 << 20;

/// Reads a text with this vocabulary; `meaning` interprets the whole file.
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
