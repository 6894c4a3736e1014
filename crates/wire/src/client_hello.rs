//! The beginning of a TLS connection: the requested server name (RFC 8446, section 4.1.2; RFC 6066, section 3).
//!
//! Parses only as much as it takes to find the name. The server validates the rest.

/// Result of parsing the beginning of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The ClientHello is incomplete: read more and decode again from the first byte.
    Partial,
    /// The requested name, in lower case; `None`: there is none.
    Done(Option<String>),
}

/// Bytes that are no TLS ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHello {
    /// Another protocol.
    #[error("the connection does not begin with a TLS ClientHello")]
    Protocol,
    /// Longer than [`LIMIT`].
    #[error("the TLS ClientHello is too long")]
    Long,
    /// Lengths that contradict each other.
    #[error("the TLS ClientHello is malformed")]
    Malformed,
    /// A name that no host can have.
    #[error("the TLS ClientHello requests an invalid host name")]
    Name,
}

/// Longest accepted ClientHello, including record headers.
pub const LIMIT: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// Longest fragment of a record.
const RECORD_LIMIT: usize = 16 * 1024;

/// Longest host name.
const NAME_LIMIT: usize = 253;

/// Reads the server name that a client requests. The result depends on the bytes alone, not on how they arrived.
///
/// ```
/// use gaiola_wire::client_hello::{BadHello, Progress, server_name};
///
/// assert_eq!(server_name(b"\x16\x03\x01"), Ok(Progress::Partial));
/// assert_eq!(server_name(b"GET / HTTP/1.1\r\n"), Err(BadHello::Protocol));
/// ```
///
/// # Errors
/// As soon as the bytes cannot become a ClientHello.
pub fn server_name(bytes: &[u8]) -> Result<Progress, BadHello> {
    let mut rest = &bytes[..bytes.len().min(LIMIT)];
    // The message may be spread over several records.
    let mut message = Vec::new();
    loop {
        if let Some(hello) = whole(&message)? {
            return name_of(hello).map(Progress::Done);
        }
        let Some((text, behind)) = record(rest)? else {
            return if bytes.len() >= LIMIT {
                Err(BadHello::Long)
            } else {
                Ok(Progress::Partial)
            };
        };
        message.extend_from_slice(text);
        rest = behind;
    }
}

/// The fragment of a record, and the bytes after it.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The record at the start of the bytes; `None` while it is incomplete.
fn record(bytes: &[u8]) -> Result<Option<Record<'_>>, BadHello> {
    match bytes {
        [kind, ..] if *kind != HANDSHAKE => return Err(BadHello::Protocol),
        [_, major, ..] if *major != 3 => return Err(BadHello::Protocol),
        _ => {}
    }
    let Some(([_, _, _, high, low], rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes([*high, *low])) {
        0 => Err(BadHello::Malformed),
        len if len > RECORD_LIMIT => Err(BadHello::Long),
        len => Ok(rest.split_at_checked(len)),
    }
}

/// The contents of the message, once it is complete.
fn whole(message: &[u8]) -> Result<Option<&[u8]>, BadHello> {
    if message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
        return Err(BadHello::Protocol);
    }
    let Some(([_, high, middle, low], rest)) = message.split_first_chunk() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes([0, *high, *middle, *low]);
    match usize::try_from(len) {
        Ok(len) if len <= LIMIT => Ok(rest.get(..len)),
        Ok(_) | Err(_) => Err(BadHello::Long),
    }
}

fn name_of(hello: &[u8]) -> Result<Option<String>, BadHello> {
    match extension(Fields(hello)).ok_or(BadHello::Malformed)? {
        None => Ok(None),
        Some(list) => host(list)
            .ok_or(BadHello::Malformed)?
            .map(check)
            .transpose(),
    }
}

/// The server name extension: `Some(None)` if there is none, `None` if the hello is malformed.
fn extension(mut hello: Fields<'_>) -> Option<Option<Fields<'_>>> {
    hello.take(2 + 32)?; // version and random
    hello.short()?; // session id
    hello.long()?; // cipher suites
    hello.short()?; // compression methods
    if hello.0.is_empty() {
        return Some(None);
    }
    let mut extensions = hello.long()?;
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let contents = extensions.long()?;
        if kind == SERVER_NAME {
            return Some(Some(contents));
        }
    }
    Some(None)
}

/// The first host name of the list; `Some(None)` if there is none, `None` if the list is malformed.
fn host(mut contents: Fields<'_>) -> Option<Option<&[u8]>> {
    let mut list = contents.long()?;
    while !list.0.is_empty() {
        let kind = list.take(1)?[0];
        let name = list.long()?;
        if kind == HOST_NAME {
            return Some(Some(name.0));
        }
    }
    Some(None)
}

fn check(name: &[u8]) -> Result<String, BadHello> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let is_usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    if name.is_empty() || name.len() > NAME_LIMIT || !name.iter().all(is_usual) {
        return Err(BadHello::Name);
    }
    let name = String::from_utf8(name.to_ascii_lowercase());
    name.map_err(|_| BadHello::Name)
}

/// Reads bytes from the front. `None`: there are not enough.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let bytes = self.take(2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    }

    /// A field with a length prefix of one byte.
    fn short(&mut self) -> Option<Self> {
        let len = self.take(1)?[0];
        self.take(len.into()).map(Self)
    }

    /// A field with a length prefix of two bytes.
    fn long(&mut self) -> Option<Self> {
        let len = self.number()?;
        self.take(len.into()).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn long(contents: &[u8]) -> Vec<u8> {
        let len = u16::try_from(contents.len()).unwrap().to_be_bytes();
        [&len[..], contents].concat()
    }

    /// A ClientHello without a name, or with one after another extension.
    fn hello(name: Option<&[u8]>) -> Vec<u8> {
        let mut extensions = [&[0, 43][..], &long(b"\x02\x03\x04")].concat();
        if let Some(name) = name {
            let list = [&[HOST_NAME][..], &long(name)].concat();
            extensions.extend([&[0, 0][..], &long(&long(&list))].concat());
        }
        let start = [&[3, 3][..], &[7; 32], &[0], &long(&[0x13, 1]), &[1, 0]].concat();
        let body = [start, long(&extensions)].concat();
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO], &len[1..], &body].concat()
    }

    /// The message in records of `size` bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[HANDSHAKE, 3, 1][..], &long(part)].concat();
        message.chunks(size).flat_map(record).collect()
    }

    #[test]
    fn a_hello_without_a_name_asks_for_none() {
        let bytes = records(&hello(None), 1000);
        assert_eq!(server_name(&bytes), Ok(Progress::Done(None)));
    }

    #[test]
    fn names_are_compared_without_case_and_last_dot() {
        let bytes = records(&hello(Some(b"WWW.Example.org.")), 1000);
        let name = Some("www.example.org".into());
        assert_eq!(server_name(&bytes), Ok(Progress::Done(name)));
        for name in [&b""[..], b".", b"a b", b"a/b", "é".as_bytes(), &[b'a'; 254]] {
            let bytes = records(&hello(Some(name)), 1000);
            assert_eq!(server_name(&bytes), Err(BadHello::Name), "{name:?}");
        }
    }

    #[test]
    fn what_is_no_hello_is_reported() {
        for (bytes, error) in [
            (&b"\x15"[..], BadHello::Protocol),
            (b"\x16\x02", BadHello::Protocol),
            (b"\x16\x03\x01\0\0", BadHello::Malformed),
            (b"\x16\x03\x01\x40\x01", BadHello::Long),
            (b"\x16\x03\x01\0\x01\x02", BadHello::Protocol),
            (b"\x16\x03\x01\0\x04\x01\0\x40\x01", BadHello::Long),
            (b"\x16\x03\x01\0\x04\x01\0\0\0", BadHello::Malformed),
        ] {
            assert_eq!(server_name(bytes), Err(error), "{bytes:?}");
        }
        // One record per byte is more overhead than payload.
        let endless = records(&[1, 0, 0x3f, 0xff].repeat(4000), 1);
        assert_eq!(server_name(&endless[..LIMIT]), Err(BadHello::Long));
    }

    proptest! {
        #[test]
        fn a_name_is_found_however_it_is_cut(name in "[a-z0-9]{1,30}(\\.[a-z0-9]{1,9}){0,3}", size in 1_usize..300) {
            let bytes = records(&hello(Some(name.as_bytes())), size);
            for end in 0..bytes.len() {
                prop_assert_eq!(server_name(&bytes[..end]), Ok(Progress::Partial));
            }
            let more = [&bytes[..], b"more"].concat();
            prop_assert_eq!(server_name(&more), Ok(Progress::Done(Some(name))));
        }

        #[test]
        fn a_changed_hello_is_read_the_same_however_it_arrives(at in 0_usize..90, byte: u8, size in 1_usize..100) {
            let mut bytes = records(&hello(Some(b"example.org")), size);
            let at = at % bytes.len();
            bytes[at] = byte;
            let whole = server_name(&bytes);
            for end in 0..bytes.len() {
                let beginning = server_name(&bytes[..end]);
                prop_assert!(beginning == Ok(Progress::Partial) || beginning == whole);
            }
        }
    }
}
