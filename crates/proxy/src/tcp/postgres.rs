//! The beginning of a PostgreSQL session, where the proxy answers in place of a server: that no server is available, or that there is
//! no encryption, where the proxy itself encrypts what goes to the server.

use crate::client::Client;
use crate::io::{self, Buffer, Fault};
use gaiola_core::termination::{Cause, Phase};
use std::cell::Cell;
use std::time::Duration;

/// Requests that may precede a client's startup message: encryption by TLS, by GSSAPI.
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// Longest startup message.
const LONGEST: usize = 10_000;

/// What a client sends first.
#[derive(Debug, PartialEq, Eq)]
enum First {
    /// A request for encryption, of this many bytes.
    Encryption(usize),
    /// A startup message: the client waits for our answer.
    Startup,
    /// Another protocol, or a cancel request, which is never answered.
    Other,
}

/// Requests for encryption that a client may make: one of each kind.
const MOST_REQUESTS: usize = 2;

/// Answers the client's requests for encryption with a no, until it sends something else, which is kept.
///
/// # Errors
/// The client left, or sent nothing whole within `limit`.
pub(super) async fn open(client: &mut Client, limit: Duration) -> Result<(), Cause> {
    match tokio::time::timeout(limit, decline(client)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Cause::ClientLeft(Phase::Request)),
        Err(_) => Err(Cause::ClientTimedOut(Phase::Request)),
    }
}

async fn decline(client: &mut Client) -> Result<(), Fault> {
    let mut buffer = client.early.take().unwrap_or_else(Buffer::take);
    let mut declined = 0;
    loop {
        match first(buffer.filled()) {
            None => {
                io::read(&mut client.stream, &mut buffer).await?;
            }
            Some(First::Encryption(len)) if declined < MOST_REQUESTS => {
                declined += 1;
                buffer.consume(len);
                buffer.compact();
                say(client, b"N").await?;
            }
            // The server answers what is none of its protocol.
            Some(_) => {
                client.early = Some(buffer);
                return Ok(());
            }
        }
    }
}

/// Waits for the client's startup message and answers it with the error 57P03 (`cannot_connect_now`).
pub(super) async fn refuse(client: &mut Client) -> Result<(), Fault> {
    let mut buffer = client.early.take().unwrap_or_else(Buffer::take);
    loop {
        match first(buffer.filled()) {
            None => {
                io::read(&mut client.stream, &mut buffer).await?;
            }
            Some(First::Encryption(len)) => {
                buffer.consume(len);
                buffer.compact();
                say(client, b"N").await?;
            }
            Some(First::Startup) => return say(client, &error()).await,
            Some(First::Other) => return Ok(()),
        }
    }
}

async fn say(client: &mut Client, bytes: &[u8]) -> Result<(), Fault> {
    io::write_pieces(&mut client.stream, [bytes].into_iter(), &Cell::new(0)).await
}

/// Classifies the first bytes; `None` while there are too few.
fn first(bytes: &[u8]) -> Option<First> {
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let len = usize::try_from(word(0)?).unwrap_or(usize::MAX);
    if !(8..=LONGEST).contains(&len) {
        return Some(First::Other);
    }
    match word(4)? {
        SSL_REQUEST | GSS_REQUEST if len == 8 => Some(First::Encryption(len)),
        CANCEL_REQUEST => Some(First::Other),
        _ if bytes.len() >= len => Some(First::Startup),
        _ => None,
    }
}

/// An ErrorResponse: severity twice (localized and not), code, message, hint.
fn error() -> Vec<u8> {
    let mut fields = Vec::new();
    for (kind, text) in [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', "57P03"),
        (b'M', "no database server can take this connection now"),
        (
            b'H',
            "A standby may be taking over. Try again in a few seconds.",
        ),
    ] {
        fields.push(kind);
        fields.extend_from_slice(text.as_bytes());
        fields.push(0);
    }
    fields.push(0);
    let len = u32::try_from(fields.len() + 4).expect("a short message");
    let mut message = vec![b'E'];
    message.extend_from_slice(&len.to_be_bytes());
    message.extend_from_slice(&fields);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_startup_message_differs_from_what_precedes_it() {
        let ssl = [0, 0, 0, 8, 4, 210, 22, 47];
        assert_eq!(first(&ssl), Some(First::Encryption(8)));
        assert_eq!(first(&ssl[..7]), None);
        let startup = [0, 0, 0, 9, 0, 3, 0, 0, 0];
        assert_eq!(first(&startup), Some(First::Startup));
        assert_eq!(first(&startup[..8]), None);
        assert_eq!(first(b"GET / HTTP/1.1\r\n"), Some(First::Other));
        assert_eq!(first(&[0, 0, 0, 16, 4, 210, 22, 46]), Some(First::Other));
    }

    #[test]
    fn the_error_is_well_formed() {
        let message = error();
        assert_eq!(message[0], b'E');
        let len = u32::from_be_bytes(message[1..5].try_into().unwrap());
        assert_eq!(len as usize, message.len() - 1);
        assert!(message.ends_with(&[0, 0]));
    }
}
