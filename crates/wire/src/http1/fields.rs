//! The field lines of a head, and their meaning for framing and the connection.

use super::error::BadField;
use super::{Limits, scan};
use gaiola_model::http::{Field, FieldName, Span, Version};

/// The combined meaning of the fields.
#[derive(Default)]
pub(super) struct Summary {
    pub(super) length: Option<u64>,
    pub(super) transfer_encoding: Option<Coding>,
    pub(super) host: Option<Span>,
    pub(super) several_hosts: bool,
    pub(super) expects_continue: bool,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade: Option<bool>,
}

/// The content of `Transfer-Encoding`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Exactly `chunked`.
    Chunked,
    /// Something else, and then `chunked`.
    Other,
    /// Not ended by `chunked`, `chunked` twice, or no coding at all.
    Malformed,
}

impl Summary {
    /// Whether the sender keeps the connection open after this message.
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }

    /// Whether the connection may switch to another protocol (another version of HTTP does not count).
    pub(super) fn upgrade(&self) -> bool {
        self.connection_upgrade && self.upgrade == Some(true)
    }
}

/// Result of parsing one field line.
pub(super) enum Line {
    /// It is incomplete.
    Partial,
    /// A field; the next line begins here.
    Field(usize),
    /// The blank line; the head ends here.
    Blank(usize),
}

/// Parses the lines from `at` up to the blank line, and returns the offset after it, or `None` if it is not there yet.
pub(super) fn parse(
    bytes: &[u8],
    mut at: usize,
    fields: &mut Vec<Field>,
    summary: &mut Summary,
    limits: &Limits,
) -> Result<Option<usize>, BadField> {
    loop {
        match line(bytes, at, fields)? {
            Line::Partial => return Ok(None),
            Line::Blank(end) => return Ok(Some(end)),
            Line::Field(next) => {
                if fields.len() > limits.fields {
                    return Err(BadField::TooMany);
                }
                at = next;
            }
        }
        if let Some(field) = fields.last()
            && field.known != FieldName::Other
        {
            note(*field, bytes, summary)?;
        }
    }
}

/// Parses the line that begins at `at`.
pub(super) fn line(bytes: &[u8], at: usize, fields: &mut Vec<Field>) -> Result<Line, BadField> {
    let name_end = at + scan::token(&bytes[at..]);
    match bytes.get(name_end) {
        None => return Ok(Line::Partial),
        Some(b':') if name_end > at => {}
        Some(b' ' | b'\t') if name_end == at => return Err(BadField::Folded),
        Some(b' ' | b'\t') => return Err(BadField::SpaceBeforeColon),
        Some(b'\r') if name_end == at => {
            return line_end(bytes, at).map(|end| end.map_or(Line::Partial, Line::Blank));
        }
        Some(b'\n') if name_end == at => return Err(BadField::BareLf),
        Some(_) => return Err(BadField::Name),
    }
    let value_start = name_end + 1;
    let value_end = value_start + scan::value(&bytes[value_start..]);
    let Some(next) = line_end(bytes, value_end)? else {
        return Ok(Line::Partial);
    };
    let name = Span::new(at, name_end);
    fields.push(Field {
        known: FieldName::of(name.of(bytes)),
        name,
        value: trimmed(bytes, value_start, value_end),
        line_end: Span::new(at, next).end,
    });
    Ok(Line::Field(next))
}

/// The offset after the CRLF at `at`; `None` if it has not arrived yet.
pub(super) fn line_end(bytes: &[u8], at: usize) -> Result<Option<usize>, BadField> {
    match (bytes.get(at), bytes.get(at + 1)) {
        (None, _) | (Some(b'\r'), None) => Ok(None),
        (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
        (Some(b'\r'), Some(_)) => Err(BadField::BareCr),
        (Some(b'\n'), _) => Err(BadField::BareLf),
        (Some(_), _) => Err(BadField::Control),
    }
}

/// The piece without surrounding spaces and tabs.
fn trimmed(bytes: &[u8], mut start: usize, mut end: usize) -> Span {
    let blank = |byte: u8| byte == b' ' || byte == b'\t';
    while start < end && blank(bytes[start]) {
        start += 1;
    }
    while end > start && blank(bytes[end - 1]) {
        end -= 1;
    }
    Span::new(start, end)
}

/// Adds one field to the summary.
fn note(field: Field, bytes: &[u8], summary: &mut Summary) -> Result<(), BadField> {
    let value = field.value.of(bytes);
    match field.known {
        FieldName::Host => {
            summary.several_hosts |= summary.host.is_some();
            summary.host = Some(field.value);
        }
        FieldName::ContentLength => {
            if summary.length.is_some() {
                return Err(BadField::SeveralLengths);
            }
            summary.length = Some(number(value).ok_or(BadField::ContentLength)?);
        }
        FieldName::TransferEncoding => {
            let first = summary.transfer_encoding.is_none();
            summary.transfer_encoding = Some(if first {
                coding(value)
            } else {
                Coding::Malformed
            });
        }
        FieldName::Connection => list(value).for_each(|option| note_connection(option, summary)),
        FieldName::Upgrade => {
            let changes = list(value).all(changes_protocol);
            summary.upgrade = Some(summary.upgrade.unwrap_or(true) && changes);
        }
        FieldName::Expect => {
            summary.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
        }
        _ => return Ok(()),
    }
    if summary.length.is_some() && summary.transfer_encoding.is_some() {
        return Err(BadField::BothLengths);
    }
    Ok(())
}

fn note_connection(option: &[u8], summary: &mut Summary) {
    summary.close |= option.eq_ignore_ascii_case(b"close");
    summary.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
    summary.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
}

/// Whether this is a protocol other than HTTP and TLS.
fn changes_protocol(protocol: &[u8]) -> bool {
    let begins = |with: &[u8]| {
        protocol
            .get(..with.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    !(begins(b"h2") || begins(b"http") || begins(b"tls"))
}

/// The elements of a comma-separated list; empty ones are skipped (RFC 9110, section 5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// A length of decimal digits only.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    let number = digits.iter().try_fold(0u64, |number, &digit| {
        let digit = u64::from(digit.wrapping_sub(b'0'));
        (digit < 10).then_some(())?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.filter(|number| *number <= super::MOST_LENGTH)
}

fn coding(value: &[u8]) -> Coding {
    let chunked = |name: &[u8]| name.eq_ignore_ascii_case(b"chunked");
    if chunked(value) {
        return Coding::Chunked;
    }
    let last_is_chunked = list(value).last().is_some_and(chunked);
    let once = list(value).filter(|name| chunked(name)).count() == 1;
    match (last_is_chunked && once, list(value).count()) {
        (true, 2..) => Coding::Other,
        _ => Coding::Malformed,
    }
}
