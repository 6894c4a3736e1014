//! NCSA's combined log format, as Apache and nginx write it.

use super::clock::Clock;
use super::httplog::version;
use super::line::{Entry, Subject};
use std::io::Write as _;
use std::time::SystemTime;

/// Appends the line of what began at `begun`, without a line end. A TCP session has no request, and status 000.
pub(super) fn write(entry: &Entry<'_>, clock: &mut Clock, begun: SystemTime, out: &mut Vec<u8>) {
    write!(out, "{} - - [", entry.client.address()).expect(MEMORY);
    clock.write(begun, out);
    out.extend_from_slice(b"] \"");
    match entry.subject {
        Subject::Request(head, buffer) => {
            quoted(head.method_name.of(buffer), out);
            out.push(b' ');
            quoted(head.target.of(buffer), out);
            out.extend_from_slice(version(head.version));
        }
        Subject::Session | Subject::Unreadable => out.push(b'-'),
    }
    let body = entry.bytes.saturating_sub(entry.head_bytes);
    write!(out, "\" {:03} {body} \"", entry.status).expect(MEMORY);
    field(entry, FIELDS[0], out);
    out.extend_from_slice(b"\" \"");
    field(entry, FIELDS[1], out);
    out.push(b'"');
}

const MEMORY: &str = "writing to memory";

/// The request fields in a log line, in lower case.
pub(crate) const FIELDS: [&[u8]; 2] = [b"referer", b"user-agent"];

/// The value of the first field of this name, `-` if there is none.
fn field(entry: &Entry<'_>, name: &[u8], out: &mut Vec<u8>) {
    let Subject::Request(head, buffer) = entry.subject else {
        return out.push(b'-');
    };
    let mut fields = head.fields.iter();
    match fields.find(|field| field.name.of(buffer).eq_ignore_ascii_case(name)) {
        Some(field) => quoted(field.value.of(buffer), out),
        None => out.push(b'-'),
    }
}

/// Appends text to go within quotes, escaped.
fn quoted(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' | b'\\' | ..=0x1f | 0x7f.. => write!(out, "\\x{byte:02X}").expect(MEMORY),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::{entry, every_byte, line};
    use super::*;
    use gaiola_model::proxy_file::LogFormat;

    #[test]
    fn a_request_with_its_fields() {
        let head = "GET /x?q=1 HTTP/1.0\r\nUser-Agent: a \"b\\\u{e9}\r\nreferer: http://x/\r\n\r\n";
        assert_eq!(
            line(LogFormat::Combined, head, entry()),
            "192.0.2.1 - - [14/Nov/2023:23:13:20 +0100] \"GET /x?q=1 HTTP/1.0\" 200 5 \"http://x/\" \
             \"a \\x22b\\x5C\\xC3\\xA9\"\n"
        );
    }

    #[test]
    fn no_byte_ends_the_quotes_or_the_line() {
        let line = every_byte(LogFormat::Combined);
        assert!(line.contains(" !\\x22#"), "{line}");
        assert!(line.contains("[\\x5C]"), "{line}");
    }

    #[test]
    fn what_has_no_request_has_all_places_all_the_same() {
        let entry = Entry {
            status: 0,
            ..entry()
        };
        assert_eq!(
            line(LogFormat::Combined, "", entry),
            "192.0.2.1 - - [14/Nov/2023:23:13:20 +0100] \"-\" 000 5 \"-\" \"-\"\n"
        );
    }
}
