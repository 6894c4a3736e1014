//! All mistakes in a file with their positions, in the order of its lines.

use serde::Serialize;
use std::fmt;
use std::ops::Range;

/// One mistake of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong; one line.
    pub what: String,
    /// What to do about it; one line.
    pub hint: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            what,
            hint,
        } = self;
        write!(f, "{line}:{column}: {what}; {hint}")
    }
}

/// All mistakes in a file, sorted by position. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    mistakes: Vec<Mistake>,
}

impl ConfigErrors {
    /// The text was rejected unread.
    pub(super) fn too_long() -> Self {
        Self {
            mistakes: vec![Mistake {
                line: 1,
                column: 1,
                what: "the file is longer than 1 MiB".into(),
                hint: "check that it is the one you meant".into(),
            }],
        }
    }

    /// The mistakes, sorted by position.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// One line per mistake, `FILE:LINE:COLUMN: what; hint`, without a trailing newline.
    ///
    /// ```
    /// let errors = gaiola_wire::config::load("site = 'a'\napp = 5").unwrap_err();
    /// assert_eq!(
    ///     errors.in_file("gaiola.toml").to_string(),
    ///     "gaiola.toml:2:7: `app` is a number, but must be a table; write it as [app] with its keys below"
    /// );
    /// ```
    pub fn in_file<'a>(&'a self, file: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            for (index, mistake) in self.mistakes.iter().enumerate() {
                let newline = if index == 0 { "" } else { "\n" };
                write!(f, "{newline}{file}:{mistake}")?;
            }
            Ok(())
        })
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.in_file("gaiola.toml").fmt(f)
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects mistakes while a file is read.
pub(crate) struct Mistakes<'a> {
    text: &'a str,
    found: Vec<Mistake>,
    /// Lines with broken syntax: no further mistakes are reported for them.
    broken_lines: Vec<usize>,
}

impl<'a> Mistakes<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            found: Vec::new(),
            broken_lines: Vec::new(),
        }
    }

    /// A value or key that is wrong.
    pub(crate) fn add(
        &mut self,
        span: &Range<usize>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (line, column) = position(self.text, span.start);
        if !self.broken_lines.contains(&line) {
            self.push(line, column, what.into(), hint.into());
        }
    }

    /// A missing key. If the syntax is broken it may be on the broken line, so nothing is reported.
    pub(crate) fn missing(
        &mut self,
        section: &Range<usize>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.broken_lines.is_empty() {
            self.add(section, what, hint);
        }
    }

    /// The line of a byte offset.
    pub(crate) fn line(&self, offset: usize) -> &'a str {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let from = before.rfind('\n').map_or(0, |newline| newline + 1);
        self.text[from..].lines().next().unwrap_or_default()
    }

    /// A line that is not TOML.
    pub(crate) fn syntax(&mut self, offset: usize, what: String, hint: String) {
        let (line, column) = position(self.text, offset);
        if !self.broken_lines.contains(&line) {
            self.broken_lines.push(line);
            self.push(line, column, what, hint);
        }
    }

    /// Whether there are no mistakes so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Number of mistakes so far.
    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    /// `value` if there were no mistakes.
    pub(crate) fn finish<T>(mut self, value: T) -> Result<T, ConfigErrors> {
        if self.found.is_empty() {
            return Ok(value);
        }
        self.found
            .sort_by_key(|mistake| (mistake.line, mistake.column));
        Err(ConfigErrors {
            mistakes: self.found,
        })
    }

    fn push(&mut self, line: usize, column: usize, what: String, hint: String) {
        self.found.push(Mistake {
            line,
            column,
            what,
            hint,
        });
    }
}

/// Line and column of a byte offset, both from 1, the column in characters. An offset past the end counts as the end.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// A value as displayed in a mistake: quoted, escaped, and truncated if long.
pub(crate) fn shown(value: &str) -> String {
    const LONGEST: usize = 60;
    match value.char_indices().nth(LONGEST) {
        None => format!("{value:?}"),
        Some((cut, _)) => format!("{:?}...", &value[..cut]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        assert_eq!(position("a\nçà x", "a\nçà ".len()), (2, 4));
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("ab", 99), (1, 3));
        assert_eq!(position("ç", 1), (1, 2), "an offset within a character");
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        assert_eq!(shown(&"é".repeat(100)).chars().count(), 65);
    }
}
