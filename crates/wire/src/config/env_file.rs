//! A file of variables: lines `NAME=value`, as `.env` files have them.
//!
//! A line may begin with `export`; blank lines and those that begin with `#` are skipped. In single quotes a value is as it stands, in double quotes
//! `\n`, `\"`, `\\` and `\$` stand for a line feed, a quote, a backslash and a dollar; either may go over several lines. Without quotes it ends at the
//! line's end, or before a `#` after a space. Nothing is put in place of `$NAME`: whose value would that be?

use crate::file::value::Wrong;
use std::iter;

/// A line that is not blank: a variable and its value, or what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Counted from 1; the first of several.
    pub(super) line: usize,
    pub(super) entry: Result<(String, String), Wrong>,
}

/// The entries of a file, in its order.
pub(super) fn entries(text: &str) -> impl Iterator<Item = Entry> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    iter::from_fn(move || {
        loop {
            let trimmed = rest.trim_start_matches([' ', '\t', '\r']);
            let (first, after) = trimmed.split_once('\n').unwrap_or((trimmed, ""));
            if trimmed.is_empty() {
                return None;
            }
            if first.trim().is_empty() || first.starts_with('#') {
                (rest, line) = (after, line + 1);
                continue;
            }
            let (entry, after) = entry(trimmed);
            let at = line;
            line += trimmed[..trimmed.len() - after.len()].matches('\n').count();
            rest = after;
            return Some(Entry { line: at, entry });
        }
    })
}

/// The entry at the beginning of a text, and what comes after its last line.
fn entry(text: &str) -> (Result<(String, String), Wrong>, &str) {
    let (first, after) = text.split_once('\n').unwrap_or((text, ""));
    let wrong = |what: &str, hint: &str| Err((what.to_owned(), hint.to_owned()));
    let Some((name, value)) = first.split_once('=') else {
        return (wrong("has no `=`", "write it as NAME=value"), after);
    };
    let exported = name
        .strip_prefix("export")
        .filter(|rest| rest.starts_with([' ', '\t']));
    let name = exported.unwrap_or(name).trim().to_owned();
    let whole = value;
    let value = value.trim_start();
    let Some(quote) = value
        .chars()
        .next()
        .filter(|first| ['"', '\''].contains(first))
    else {
        return (Ok((name, unquoted(whole))), after);
    };
    // It may go on after the first line, whose end it is.
    let quoted = &text[first.len() - value.len() + 1..];
    let Some((value, end)) = unquote(quoted, quote) else {
        let hint = format!("end the value with {quote}");
        return (Err((format!("has a {quote} without its end"), hint)), after);
    };
    let (tail, after) = quoted[end..]
        .split_once('\n')
        .unwrap_or((&quoted[end..], ""));
    let tail = tail.trim();
    if !tail.is_empty() && !tail.starts_with('#') {
        let hint = "put all of the value into quotes";
        return (
            wrong("goes on after the value's closing quote", hint),
            after,
        );
    }
    (Ok((name, value)), after)
}

fn unquoted(value: &str) -> String {
    let comment = value
        .char_indices()
        .find(|&(at, sign)| sign == '#' && value[..at].ends_with([' ', '\t']));
    value[..comment.map_or(value.len(), |(at, _)| at)]
        .trim()
        .into()
}

/// The value up to the closing quote, and the place after it; `None`: there is none.
fn unquote(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut signs = text.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            sign if sign == quote => return Some((value, at + sign.len_utf8())),
            '\\' if quote == '"' => match signs.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('"' | '\\' | '$') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            sign => value.push(sign),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A variable, or what is wrong.
    type Read = Result<(String, String), String>;

    fn read(text: &str) -> Vec<(usize, Read)> {
        let entries = entries(text);
        let plain = entries.map(|it| (it.line, it.entry.map_err(|(what, _)| what)));
        plain.collect()
    }

    #[test]
    fn values_are_read_as_such_files_write_them() {
        let text = "# the shop\n\nexport TZ=Europe/Lisbon\r\n A = b c  # d\nURL=http://x/#top\nEMPTY= # none\n\
             SINGLE='a \\n $b \"' # said\nDOUBLE=\"a\\n\\\"b\\\" \\$c \\d\"\nKEY=\"one\ntwo\"\nLAST=#1";
        let all = [
            (3, "TZ", "Europe/Lisbon"),
            (4, "A", "b c"),
            (5, "URL", "http://x/#top"),
            (6, "EMPTY", ""),
            (7, "SINGLE", "a \\n $b \""),
            (8, "DOUBLE", "a\n\"b\" $c \\d"),
            (9, "KEY", "one\ntwo"),
            (11, "LAST", "#1"),
        ];
        let all = all.map(|(line, name, value)| (line, Ok((name.into(), value.into()))));
        assert_eq!(read(text), all);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_the_rest_is_read() {
        let text = "A\nB='x\nC=\"a\" b\nD=1";
        let said = |what: &str| Err(what.to_owned());
        let expected = [
            (1, said("has no `=`")),
            (2, said("has a ' without its end")),
            (3, said("goes on after the value's closing quote")),
            (4, Ok(("D".into(), "1".into()))),
        ];
        assert_eq!(read(text), expected);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_count_lines_wrongly(text in "[A=#'\"\\\\ \n\r$é]{0,40}") {
            let lines = text.lines().count();
            for (line, _) in read(&text) {
                prop_assert!((1..=lines).contains(&line), "{line} of {lines}");
            }
        }

        #[test]
        fn a_value_in_double_quotes_is_read_back(value in "[a-z#'\"\\\\ \n$é]{0,20}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
            let text = format!("A=\"{escaped}\"\nB=1\n");
            let read: Vec<_> = read(&text).into_iter().map(|(_, entry)| entry.unwrap().1).collect();
            prop_assert_eq!(read, [value, "1".into()]);
        }
    }
}
