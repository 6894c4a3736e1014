//! How a head is forwarded: the same bytes, except for hop-by-hop fields (RFC 9110, section 7.6).
//!
//! A head is edited by referring to pieces of the buffer it was read into, with our own text between them. Adjacent
//! unchanged lines are one piece, so a typical head is sent as two: all of its lines, then the added ones.

mod request;
mod response;
mod way;

pub use request::{Hop, client, is_https, new_request_id, request, request_id};
pub use response::{ResponseContext, Sent, response};
pub use way::{is_loop, max_forwards};

use gaiola_model::http::{Field, FieldName, Span};

/// A run of bytes of an outgoing head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the buffer that the head was read into.
    Buffer(Span),
    /// Bytes of [`Outgoing::owned`].
    Owned(Span),
    /// Static text.
    Static(&'static [u8]),
}

/// How a rule changes a head's fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edit<'a> {
    /// Names, in lower case, of the fields to remove. Names in a request's list have no `_`, and also remove fields
    /// that differ from them only in that: CGI, WSGI and PHP treat both as one.
    pub removed: &'a [Box<[u8]>],
    /// Complete lines to add.
    pub added: &'a [u8],
}

impl Edit<'_> {
    /// Whether the field is removed.
    fn removes(&self, field: &Field, buffer: &[u8]) -> bool {
        let name = || field.name.of(buffer);
        self.removed
            .iter()
            .any(|removed| resembles(name(), removed, Match::Whole))
    }

    /// Whether rules determine the field of this name, in lower case, even if they only remove it.
    pub fn speaks_of(&self, name: &[u8]) -> bool {
        let lines = self.added.split(|&byte| byte == b'\n');
        let mut names = lines.map(|line| line.split(|&byte| byte == b':').next().unwrap_or(line));
        self.removed.iter().any(|removed| **removed == *name)
            || names.any(|added| added.eq_ignore_ascii_case(name))
    }

    /// Applies the rules to a head of our own, which consists of complete lines so far.
    pub fn apply(&self, head: &mut String) {
        for removed in self.removed {
            let mut start = 0;
            while let Some(len) = head[start..].find('\n') {
                let line = start..start + len + 1;
                let name = head[line.clone()].split(':').next();
                if name.is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(removed)) {
                    drop(head.drain(line))
                } else {
                    start = line.end
                }
            }
        }
        head.push_str(&String::from_utf8_lossy(self.added));
    }
}

/// A head ready to be written. It is reused, so the steady state allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    pieces: Vec<Piece>,
    owned: Vec<u8>,
}

impl Outgoing {
    /// The pieces, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// What [`Piece::Owned`] refers to.
    pub fn owned(&self) -> &[u8] {
        &self.owned
    }

    /// The bytes to write, in order. `buffer` is the one the head was read into.
    pub fn slices<'a>(&'a self, buffer: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.pieces.iter().map(move |piece| match *piece {
            Piece::Buffer(span) => span.of(buffer),
            Piece::Owned(span) => span.of(&self.owned),
            Piece::Static(words) => words,
        })
    }

    /// Number of bytes to write.
    pub fn len(&self) -> usize {
        let len = |piece: &Piece| match piece {
            Piece::Buffer(span) | Piece::Owned(span) => span.len(),
            Piece::Static(words) => words.len(),
        };
        self.pieces.iter().map(len).sum()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Empties it, but keeps its memory.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.owned.clear();
    }

    /// Adds a piece of the buffer; extends the last piece if it ends here.
    fn keep(&mut self, span: Span) {
        match self.pieces.last_mut() {
            _ if span.is_empty() => {}
            Some(Piece::Buffer(last)) if last.end == span.start => last.end = span.end,
            _ => self.pieces.push(Piece::Buffer(span)),
        }
    }

    fn say(&mut self, words: &'static [u8]) {
        if !words.is_empty() {
            self.pieces.push(Piece::Static(words));
        }
    }

    /// Adds the bytes that `write` appends.
    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.owned.len();
        write(&mut self.owned);
        let added = Span::new(start, self.owned.len());
        match self.pieces.last_mut() {
            Some(Piece::Owned(last)) if last.end == added.start => last.end = added.end,
            _ => self.pieces.push(Piece::Owned(added)),
        }
    }
}

/// The non-empty elements of a comma-separated list.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether `Connection` lists field names at all, rather than only the usual options.
fn lists_fields(fields: &[Field], buffer: &[u8]) -> bool {
    options(fields, buffer).any(|option| {
        ![b"keep-alive".as_slice(), b"close", b"upgrade", b"te"]
            .iter()
            .any(|usual| option.eq_ignore_ascii_case(usual))
    })
}

/// Everything that the `Connection` fields list.
fn options<'a>(fields: &'a [Field], buffer: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(|field| field.known == FieldName::Connection)
        .flat_map(move |field| list(field.value.of(buffer)))
}

/// Whether the sender may have this field removed by listing it in `Connection`. Fields that framing, routing, or the
/// next hop's trust depend on always stay.
fn is_listed(field: &Field, fields: &[Field], buffer: &[u8]) -> bool {
    let name = field.name.of(buffer);
    field.known == FieldName::Other
        && !resembles(name, b"x-forwarded-", Match::Beginning)
        && options(fields, buffer).any(|option| option.eq_ignore_ascii_case(name))
}

fn line(text: &mut Vec<u8>, name: &[u8], value: &[&[u8]]) {
    text.extend_from_slice(name);
    value.iter().for_each(|part| text.extend_from_slice(part));
    text.extend_from_slice(b"\r\n");
}

/// How much of a name is compared.
#[derive(Clone, Copy)]
enum Match {
    Whole,
    Beginning,
}

/// Whether a field of this name describes framing, the connection, the target's host, or the hops: it must be true, so
/// no rule may change it.
pub(crate) fn speaks_of_the_hop(name: &[u8]) -> bool {
    let dashed: Vec<u8> = name
        .iter()
        .map(|&b| if b == b'_' { b'-' } else { b })
        .collect();
    matches!(
        FieldName::of(&dashed),
        FieldName::Host
            | FieldName::Connection
            | FieldName::ContentLength
            | FieldName::TransferEncoding
            | FieldName::Expect
            | FieldName::Upgrade
            | FieldName::KeepAlive
            | FieldName::Proxy
            | FieldName::ProxyConnection
            | FieldName::ProxyAuthenticate
            | FieldName::ProxyAuthorization
            | FieldName::ProxyAuthenticationInfo
            | FieldName::Te
            | FieldName::Trailer
            | FieldName::Via
            | FieldName::XForwardedFor
            | FieldName::XForwardedProto
            | FieldName::XForwardedHost
            | FieldName::XRequestId
    )
}

/// Whether a name equals this one (in lower case) to a reader that does not distinguish `_` from `-`, as CGI's
/// successors do not.
fn resembles(name: &[u8], wanted: &[u8], how: Match) -> bool {
    let same = |(a, b): (&u8, &u8)| a.to_ascii_lowercase() == *b || (*a == b'_' && *b == b'-');
    let fits = match how {
        Match::Whole => name.len() == wanted.len(),
        Match::Beginning => name.len() >= wanted.len(),
    };
    fits && name.iter().zip(wanted).all(same)
}

#[cfg(test)]
mod tests;
