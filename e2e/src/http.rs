//! One plain HTTP/1.1 request over a new connection.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Timeout of connecting and of each read.
const LIMIT: Duration = Duration::from_secs(5);

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head's lines, in lower case.
    pub head: String,
    /// The body, which must have a Content-Length.
    pub body: String,
}

impl Answer {
    /// A field of the JSON body, as text.
    pub fn field(&self, name: &str) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        match &body[name] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

/// Requests `path` from `address`.
///
/// # Errors
/// If there is no complete response.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    ask(address, "GET", path)
}

/// Posts an empty body to `path` at `address`.
///
/// # Errors
/// If there is no complete response.
pub fn post(address: SocketAddr, path: &str) -> io::Result<Answer> {
    ask(address, "POST", path)
}

fn ask(address: SocketAddr, method: &str, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    let mut read = Vec::new();
    stream.read_to_end(&mut read)?;
    parse(&String::from_utf8_lossy(&read)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// A whole response.
pub(crate) fn parse(read: &str) -> Option<Answer> {
    let (head, body) = read.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        head: head.to_ascii_lowercase(),
        body: body.into(),
    })
}
