//! HAProxy's own format: `option httplog`, and `option tcplog` for TCP sessions, without the preceding syslog header.
//!
//! The tests' lines are what HAProxy 2.6 writes in the same case, with other numbers and names.

use super::clock::Clock;
use super::line::{Entry, Leg, Subject};
use gaiola_model::http::Version;
use std::fmt;
use std::io::Write as _;
use std::time::SystemTime;

/// Appends the line of what began at `begun`, without a line end.
pub(super) fn write(entry: &Entry<'_>, clock: &mut Clock, begun: SystemTime, out: &mut Vec<u8>) {
    write!(out, "{} [", entry.client).expect(MEMORY);
    clock.write_millis(begun, out);
    let secure = if entry.tls { "~" } else { "" };
    let frontend = entry.frontend;
    let backend = named(entry.backend).unwrap_or(frontend);
    let server = named(entry.server).unwrap_or("<NOSRV>");
    write!(out, "] {frontend}{secure} {backend}/{server} ").expect(MEMORY);
    let (queue, connect) = (Millis(entry.queue_ms), Millis(entry.connect_ms));
    let (total, bytes) = (Millis(entry.total_ms), entry.bytes);
    if let Subject::Session = entry.subject {
        write!(out, "{queue}/{connect}/{total} {bytes} ").expect(MEMORY);
        out.extend_from_slice(&entry.cause.letters());
        return load(entry, out);
    }
    let (head, response) = (Millis(entry.head), Millis(entry.response_ms));
    write!(out, "{head}/{queue}/{connect}/{response}/{total} ").expect(MEMORY);
    match entry.status {
        0 => out.extend_from_slice(b"-1"),
        status => write!(out, "{status}").expect(MEMORY),
    }
    write!(out, " {bytes} - - ").expect(MEMORY);
    out.extend_from_slice(&entry.cause.letters());
    out.extend_from_slice(&entry.cookie.letters());
    load(entry, out);
    out.extend_from_slice(b" \"");
    request(entry, out);
    out.push(b'"');
}

const MEMORY: &str = "writing to memory";

fn named(name: &str) -> Option<&str> {
    (name != "-").then_some(name)
}

/// Milliseconds, -1 for what was not completed.
struct Millis(Leg);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.done {
            self.0.span.as_millis().fmt(f)
        } else {
            f.write_str("-1")
        }
    }
}

fn load(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let (load, retries, ahead) = (&entry.load, entry.retries, entry.ahead);
    let sign = if entry.redispatched { "+" } else { "" };
    write!(
        out,
        " {}/{}/{}/{}/{sign}{retries} {}/{}",
        load.process, load.frontend, load.backend, load.server, ahead.server, ahead.backend
    )
    .expect(MEMORY);
}

/// The request line.
fn request(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let Subject::Request(head, buffer) = entry.subject else {
        return out.extend_from_slice(b"<BADREQ>");
    };
    for part in [head.method_name.of(buffer), b" ", head.target.of(buffer)] {
        for &byte in part {
            match byte {
                b'"' | b'#' | ..=0x1f | 0x7f.. => write!(out, "#{byte:02X}").expect(MEMORY),
                _ => out.push(byte),
            }
        }
    }
    out.extend_from_slice(version(head.version));
}

pub(super) const fn version(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b" HTTP/1.0",
        Version::Http11 => b" HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::{entry, every_byte, line};
    use super::*;
    use crate::orders::Ahead;
    use gaiola_core::termination::{Cause, CookieState, Phase, Received, Sent};
    use gaiola_model::proxy_file::LogFormat;

    const GET: &str = "GET /x?q=1 HTTP/1.1\r\nHost: a\r\n\r\n";

    fn httplog(head: &str, entry: Entry<'_>) -> String {
        line(LogFormat::Httplog, head, entry)
    }

    #[test]
    fn a_request_that_a_server_answered() {
        assert_eq!(
            httplog(GET, entry()),
            "192.0.2.1:41002 [14/Nov/2023:23:13:20.045] site web/web1 0/1/1/3/2045 200 54 - - ---- \
             4/3/2/1/1 0/0 \"GET /x?q=1 HTTP/1.1\"\n"
        );
    }

    #[test]
    fn a_request_that_could_not_be_read() {
        let entry = Entry {
            backend: "-",
            server: "-",
            status: 400,
            bytes: 0,
            retries: 0,
            head: Leg::default(),
            queue_ms: Leg::default(),
            connect_ms: Leg::default(),
            response_ms: Leg::default(),
            cause: Cause::Rejected {
                phase: Phase::Request,
                status: 400,
            },
            ..entry()
        };
        assert_eq!(
            httplog("GET /\u{1}", entry),
            "192.0.2.1:41002 [14/Nov/2023:23:13:20.045] site site/<NOSRV> -1/-1/-1/-1/2045 400 0 - - PR-- \
             4/3/2/1/0 0/0 \"<BADREQ>\"\n"
        );
    }

    #[test]
    fn a_request_that_waited_in_vain() {
        let entry = Entry {
            server: "-",
            status: 503,
            bytes: 217,
            retries: 0,
            queue_ms: entry().total_ms,
            connect_ms: Leg::default(),
            response_ms: Leg::default(),
            cause: Cause::QueueTimedOut,
            ahead: Ahead {
                server: 2,
                backend: 1,
            },
            ..entry()
        };
        assert_eq!(
            httplog(GET, entry),
            "192.0.2.1:41002 [14/Nov/2023:23:13:20.045] site web/<NOSRV> 0/2045/-1/-1/2045 503 217 - - sQ-- \
             4/3/2/1/0 2/1 \"GET /x?q=1 HTTP/1.1\"\n"
        );
    }

    #[test]
    fn a_cookie_and_another_server_and_tls() {
        let entry = Entry {
            cookie: CookieState {
                received: Received::Down,
                sent: Sent::Inserted,
            },
            redispatched: true,
            tls: true,
            ..entry()
        };
        let line = httplog(GET, entry);
        assert!(line.contains(" site~ web/web1 "), "{line}");
        assert!(line.contains(" --DI 4/3/2/1/+1 0/0 "), "{line}");
    }

    #[test]
    fn a_session() {
        let entry = Entry {
            subject: Subject::Session,
            cause: Cause::ClientTimedOut(Phase::Data),
            ..entry()
        };
        assert_eq!(
            httplog("", entry),
            "192.0.2.1:41002 [14/Nov/2023:23:13:20.045] site web/web1 1/1/2045 54 cD 4/3/2/1/1 0/0\n"
        );
    }

    #[test]
    fn no_byte_ends_the_quotes_or_the_line() {
        let line = every_byte(LogFormat::Httplog);
        assert!(line.contains(" !#22#23$"), "{line}");
        assert!(line.contains("~#7F#80"), "{line}");
    }
}
