//! One probe of a server: a connection, a handshake, or a request.

use crate::io::{self, Stream};
use crate::orders::Member;
use crate::tls::{self, ServerSettings};
use gaiola_core::health::Symptom;
use gaiola_model::proxy::{Address, Check, CheckKind, ProxyVersion};
use std::io::{Error, ErrorKind, Result as IoResult};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// How long to wait for the rest of the response once the status is known, so that the server can finish properly.
const REST: Duration = Duration::from_millis(100);

/// Longest response of a PostgreSQL server that is read.
const LONGEST_ANSWER: usize = 4096;

/// A reusable probe.
#[derive(Clone)]
pub(super) struct Probe {
    check: Check,
    target: Address,
    send_proxy: Option<ProxyVersion>,
    tls: Option<ServerSettings>,
}

/// Result of a probe as text: `HTTP 200 in 2 ms`, or why it failed.
pub(super) type Finding = Result<String, ProbeError>;

/// Why a probe failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProbeError {
    pub(super) symptom: Symptom,
    pub(super) words: String,
}

impl From<Error> for ProbeError {
    fn from(error: Error) -> Self {
        Self {
            symptom: symptom(&error),
            words: in_words(error),
        }
    }
}

fn bad(words: String) -> ProbeError {
    let symptom = Symptom::Bad;
    ProbeError { symptom, words }
}

/// The symptom behind a failed connection.
pub(crate) fn symptom(error: &Error) -> Symptom {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => Symptom::Refused,
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Symptom::Lost
        }
        _ => Symptom::Bad,
    }
}

impl Probe {
    /// Creates the check of a member.
    pub(super) fn new(check: &Check, member: &Member, tls: Option<ServerSettings>) -> Self {
        let target = match (member.address.ip(), check.port) {
            (Some(ip), Some(port)) => (ip, port).into(),
            _ => member.address.clone(),
        };
        Self {
            check: check.clone(),
            target,
            send_proxy: member.send_proxy.filter(|_| check.port.is_none()),
            tls,
        }
    }

    /// Runs the probe once.
    pub(super) async fn ask(&self) -> Finding {
        let started = Instant::now();
        let stream = self.connect().await?;
        let left = self.check.timeout.saturating_sub(started.elapsed());
        let asked = timeout(left, self.ask_on(stream, started)).await;
        asked.unwrap_or_else(|_| {
            Err(ProbeError {
                symptom: Symptom::Silent,
                words: format!("no answer within {} ms", self.check.timeout.as_millis()),
            })
        })
    }

    async fn connect(&self) -> Result<Stream, ProbeError> {
        let limit = self.check.connect.min(self.check.timeout);
        let connecting = io::connect(&self.target, self.check.timeout);
        match timeout(limit, connecting).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(ProbeError {
                symptom: Symptom::Lost,
                words: format!("no connection within {} ms", limit.as_millis()),
            }),
        }
    }

    async fn ask_on(&self, mut stream: Stream, started: Instant) -> Finding {
        if let Some(version) = self.send_proxy {
            let header = io::proxy_header(version, None);
            stream.write_all(&header).await?;
        }
        if let Some(tls) = &self.tls {
            stream = tls.encrypt(stream).await?;
        }
        match &self.check.kind {
            CheckKind::Tcp => Ok(format!("connected in {} ms", millis(started))),
            CheckKind::Tls => Ok(format!("TLS handshake in {} ms", millis(started))),
            CheckKind::Http { path } => {
                let status = self.get(stream, path).await?;
                judge(status, self.check.accepts(status), started)
            }
            CheckKind::Https { path, .. } => {
                let status = self.get(stream, path).await?;
                judge(status, status == 200, started)
            }
            CheckKind::Postgres { user } => {
                let answer = start(&mut stream, user).await?;
                goes_on(&answer).map_err(|error| bad(error.to_string()))?;
                Ok(format!("PostgreSQL in {} ms", millis(started)))
            }
        }
    }

    async fn get(&self, mut stream: Stream, path: &str) -> IoResult<u16> {
        let host = self.check.host.as_deref().unwrap_or(Check::HOST);
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gaiola-check\r\nConnection: close\r\n"
        );
        for (name, value) in &self.check.headers {
            request.extend([name, ": ", value, "\r\n"]);
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        // "HTTP/1.1 200"
        let mut line = [0; 12];
        stream.read_exact(&mut line).await?;
        let status = status(&line).ok_or(ErrorKind::InvalidData)?;
        // A server that keeps the connection open has still responded.
        tokio::task::spawn_local(timeout(REST, drain(stream)));
        Ok(status)
    }
}

async fn drain(mut stream: Stream) {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
}

/// Starts a PostgreSQL session, and returns the first message of the response: its type, then its contents.
async fn start(stream: &mut Stream, user: &str) -> IoResult<Vec<u8>> {
    let body = [b"\0\x03\0\0user\0", user.as_bytes(), b"\0\0"].concat();
    let len = u32::try_from(body.len() + 4).map_err(Error::other)?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(&body).await?;
    stream.flush().await?;
    let kind = stream.read_u8().await?;
    let len = stream.read_u32().await?.saturating_sub(4);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut message = vec![0; len.min(LONGEST_ANSWER) + 1];
    message[0] = kind;
    stream.read_exact(&mut message[1..]).await?;
    Ok(message)
}

/// Why a session with PostgreSQL cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NotAccepted {
    /// The error that it reports.
    #[error("{0}")]
    Rejected(String),
    #[error("the answer is not PostgreSQL's")]
    NotPostgres,
}

/// Whether PostgreSQL accepts the session, or why not.
fn goes_on(message: &[u8]) -> Result<(), NotAccepted> {
    match message {
        [b'R', ..] => Ok(()),
        [b'E', fields @ ..] => {
            let mut fields = fields.split(|&byte| byte == 0);
            let words = fields.find_map(|field| field.strip_prefix(b"M"));
            let words = String::from_utf8_lossy(words.unwrap_or(b"an error"));
            Err(NotAccepted::Rejected(words.into_owned()))
        }
        _ => Err(NotAccepted::NotPostgres),
    }
}

fn status(line: &[u8; 12]) -> Option<u16> {
    let text = std::str::from_utf8(line).ok()?;
    let digits = text
        .strip_prefix("HTTP/1.1 ")
        .or(text.strip_prefix("HTTP/1.0 "))?;
    digits.parse().ok()
}

fn judge(status: u16, good: bool, started: Instant) -> Finding {
    let words = format!("HTTP {status} in {} ms", millis(started));
    if good { Ok(words) } else { Err(bad(words)) }
}

fn millis(started: Instant) -> u128 {
    started.elapsed().as_millis()
}

/// The usual failures by name, without the system's error numbers.
pub(crate) fn in_words(error: Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::ConnectionReset => "connection reset".into(),
        ErrorKind::HostUnreachable => "host unreachable".into(),
        ErrorKind::NetworkUnreachable => "network unreachable".into(),
        ErrorKind::TimedOut => "timed out".into(),
        ErrorKind::UnexpectedEof => "closed without an answer".into(),
        ErrorKind::InvalidData if error.get_ref().is_none() => "the answer is not HTTP".into(),
        _ => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => tls::in_words(error),
            None => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_goes_on_or_says_why_not() {
        assert_eq!(goes_on(b"R\0\0\0\x0a"), Ok(()));
        let error = b"ESFATAL\0C57P03\0Mthe database system is starting up\0\0";
        assert_eq!(
            goes_on(error).unwrap_err().to_string(),
            "the database system is starting up"
        );
        assert!(goes_on(b"HTTP/").is_err());
        assert!(goes_on(b"").is_err());
    }

    #[test]
    fn a_status_is_read_out_of_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 200"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        assert_eq!(status(b"SSH-2.0-Open"), None);
    }
}
