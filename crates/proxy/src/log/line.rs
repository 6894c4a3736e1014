//! One line of the access log, in each of its formats.

use super::clock::Clock;
use super::{combined, httplog};
use crate::orders::Ahead;
use gaiola_core::termination::{Cause, CookieState};
use gaiola_model::http::RequestHead;
use gaiola_model::proxy_file::LogFormat;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};
use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

/// One phase of a request. In JSON it is written in milliseconds with three decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leg {
    /// Its duration, up to the failure if it failed.
    pub(crate) span: Duration,
    /// Whether it was completed.
    pub(crate) done: bool,
}

impl Leg {
    /// A completed one.
    pub(crate) const fn of(span: Duration) -> Self {
        Self { span, done: true }
    }
}

impl Serialize for Leg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = u32::try_from(self.span.as_micros()).unwrap_or(u32::MAX);
        serializer.serialize_f64(f64::from(micros) / 1000.0)
    }
}

/// What the client requested.
#[derive(Debug)]
pub(crate) enum Subject<'a> {
    /// Nothing: it is a TCP session.
    Session,
    /// An unreadable request.
    Unreadable,
    /// A request: its head, and the buffer that begins with it.
    Request(&'a RequestHead, &'a [u8]),
}

/// Where the client of a request or session is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClientAt {
    /// At this address.
    Tcp(SocketAddr),
    /// On this machine, through a Unix socket: the index of that bind within the frontend, from 1.
    Unix(usize),
}

impl ClientAt {
    /// Its address without the port.
    pub(super) fn address(self) -> impl Display {
        fmt::from_fn(move |f| match self {
            Self::Tcp(address) => address.ip().fmt(f),
            Self::Unix(_) => self.fmt(f),
        })
    }
}

/// In HAProxy's form: `192.0.2.1:41002`, IPv6 without brackets, or `unix:1`.
impl Display for ClientAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{}:{}", address.ip(), address.port()),
            Self::Unix(bind) => write!(f, "unix:{bind}"),
        }
    }
}

/// Concurrent connections and requests when the line was written; only in HAProxy's format.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Connections of the process and of the frontend.
    pub(crate) process: u64,
    pub(crate) frontend: u64,
    /// Requests and sessions of the backend and of the server.
    pub(crate) backend: u64,
    pub(crate) server: u64,
}

/// What is logged of a request or session.
#[derive(Debug, Serialize)]
pub(crate) struct Entry<'a> {
    pub(crate) request_id: &'a str,
    #[serde(serialize_with = "without_port")]
    pub(crate) client: ClientAt,
    /// The sender, if a trusted one named another client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sender: Option<IpAddr>,
    pub(crate) frontend: &'a str,
    /// `-` if there is none; likewise the server.
    pub(crate) backend: &'a str,
    pub(crate) server: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) path: &'a str,
    /// Status sent; 0: none.
    pub(crate) status: u16,
    /// Bytes sent to the client.
    pub(crate) bytes: u64,
    /// Time waiting for a server.
    pub(crate) queue_ms: Leg,
    /// Time until a connection to it was established.
    pub(crate) connect_ms: Leg,
    /// Time from then to the head of its response.
    pub(crate) response_ms: Leg,
    /// Time from the first byte of the request to the last of the response.
    pub(crate) total_ms: Leg,
    /// Number of retries.
    pub(crate) retries: u32,
    /// What went wrong, as text.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) reason: &'a str,
    #[serde(skip)]
    pub(crate) subject: Subject<'a>,
    /// Time until the request's head was complete.
    #[serde(skip)]
    pub(crate) head: Leg,
    /// The part of `bytes` that heads took.
    #[serde(skip)]
    pub(crate) head_bytes: u64,
    /// Whether the client used TLS.
    #[serde(skip)]
    pub(crate) tls: bool,
    #[serde(skip)]
    pub(crate) cause: Cause,
    #[serde(skip)]
    pub(crate) cookie: CookieState,
    #[serde(skip)]
    pub(crate) load: Load,
    /// Whether a retry went to another server.
    #[serde(skip)]
    pub(crate) redispatched: bool,
    /// How many were queued ahead when it began to wait for a server.
    #[serde(skip)]
    pub(crate) ahead: Ahead,
}

fn without_port<S: Serializer>(client: &ClientAt, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&client.address())
}

/// Writes lines of one format.
pub(super) struct Scribe {
    format: LogFormat,
    clock: Clock,
}

impl Scribe {
    /// Writes local times in this zone.
    pub(super) fn new(format: LogFormat, zone: TimeZone) -> Self {
        let clock = match format {
            LogFormat::Json => Clock::new("%Y-%m-%dT%H:%M:%S", TimeZone::UTC),
            LogFormat::Httplog => Clock::new("%d/%b/%Y:%H:%M:%S", zone),
            LogFormat::Combined => Clock::new("%d/%b/%Y:%H:%M:%S %z", zone),
        };
        Self { format, clock }
    }

    /// Appends the line of what ended at `now`.
    pub(super) fn write(&mut self, entry: &Entry<'_>, now: SystemTime, out: &mut Vec<u8>) {
        let begun = now.checked_sub(entry.total_ms.span).unwrap_or(now);
        match self.format {
            LogFormat::Json => json(entry, &mut self.clock, now, out),
            LogFormat::Httplog => httplog::write(entry, &mut self.clock, begun, out),
            LogFormat::Combined => combined::write(entry, &mut self.clock, begun, out),
        }
        out.push(b'\n');
    }
}

/// One object, which begins with the time.
fn json(entry: &Entry<'_>, clock: &mut Clock, now: SystemTime, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    clock.write_millis(now, out);
    out.extend_from_slice(b"Z\",");
    let object = out.len() - 1;
    // The comma overwrites the object's opening brace.
    serde_json::to_writer(&mut *out, entry).expect("writing to memory");
    out.copy_within(object + 2.., object + 1);
    out.pop();
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use gaiola_model::http::Span;
    use gaiola_wire::http1::{Limits, Progress, parse_request};
    use std::time::UNIX_EPOCH;

    /// An entry of a request that a server answered.
    pub(in super::super) fn entry<'a>() -> Entry<'a> {
        let millis = |millis| Leg::of(Duration::from_millis(millis));
        Entry {
            request_id: "5e1f",
            client: ClientAt::Tcp(([192, 0, 2, 1], 41_002).into()),
            sender: None,
            frontend: "site",
            backend: "web",
            server: "web1",
            method: "GET",
            path: "/a\"b\n",
            status: 200,
            bytes: 54,
            queue_ms: millis(1),
            connect_ms: Leg::of(Duration::from_micros(1250)),
            response_ms: millis(3),
            total_ms: millis(2045),
            retries: 1,
            reason: "",
            subject: Subject::Unreadable,
            head: millis(0),
            head_bytes: 49,
            tls: false,
            cause: Cause::Completed,
            cookie: CookieState::default(),
            load: Load {
                process: 4,
                frontend: 3,
                backend: 2,
                server: 1,
            },
            redispatched: false,
            ahead: Ahead::default(),
        }
    }

    /// The line of a request with every possible byte in its target: one line, and quoted as a whole.
    pub(in super::super) fn every_byte(format: LogFormat) -> String {
        let buffer: Vec<u8> = (0..=u8::MAX).collect();
        let head = RequestHead {
            target: Span::new(0, buffer.len()),
            ..RequestHead::default()
        };
        let entry = Entry {
            subject: Subject::Request(&head, &buffer),
            ..entry()
        };
        let mut out = Vec::new();
        Scribe::new(format, TimeZone::UTC).write(&entry, UNIX_EPOCH, &mut out);
        let line = String::from_utf8(out).unwrap();
        let (line, rest) = line.split_once('\n').unwrap();
        assert_eq!(rest, "");
        let quotes = if format == LogFormat::Combined { 6 } else { 2 };
        assert_eq!(line.matches('"').count(), quotes, "{line}");
        assert!(
            line.bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ')
        );
        line.to_owned()
    }

    /// The line of an entry for this request, which ended 2,045 ms after 2023-11-14 22:13:20.045 UTC.
    pub(in super::super) fn line(format: LogFormat, head: &str, entry: Entry<'_>) -> String {
        let mut parsed = RequestHead::default();
        let limits = Limits {
            head: 8192,
            target: 8192,
            fields: 100,
        };
        let read = parse_request(head.as_bytes(), &mut parsed, &limits);
        let entry = match read {
            Ok(Progress::Done) => Entry {
                subject: Subject::Request(&parsed, head.as_bytes()),
                ..entry
            },
            Ok(Progress::Partial) | Err(_) => entry,
        };
        let mut out = Vec::new();
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_002_090);
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        Scribe::new(format, zone).write(&entry, now, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_client_on_a_unix_socket_has_its_number() {
        let written = |format, beginning: &str| {
            let entry = Entry {
                client: ClientAt::Unix(2),
                ..entry()
            };
            let line = line(format, "GET / HTTP/1.1\r\n\r\n", entry);
            assert!(line.contains(beginning), "{line}");
        };
        written(LogFormat::Json, "\"client\":\"unix:2\",");
        written(LogFormat::Httplog, "unix:2 [14/Nov/2023:");
        written(LogFormat::Combined, "unix:2 - - [14/Nov/2023:");
    }

    #[test]
    fn a_line_is_one_json_object_with_its_time_first() {
        let line = line(LogFormat::Json, "", entry());
        assert!(line.starts_with("{\"time\":\"2023-11-14T22:13:22.090Z\","));
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["client"], "192.0.2.1");
        assert_eq!(value["connect_ms"], 1.25);
        assert_eq!(value["path"], "/a\"b\n");
        assert_eq!(value.get("reason"), None);
    }
}
