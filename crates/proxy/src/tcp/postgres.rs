//! The beginning of a PostgreSQL session, where the proxy answers in place of a server: that no server is available, or that there is
//! no encryption, where the proxy itself encrypts what goes to the server.

use crate::client::Client;
use crate::io::{self, Buffer, Fault, Stream};
use gaiola_core::termination::{Cause, Phase};
use std::cell::Cell;
use std::time::Duration;

/// Requests that may precede a client's startup message: encryption by TLS, by GSSAPI.
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// Longest startup message, and longest first message of a server.
const LONGEST: usize = 10_000;

/// First bytes of what a server says first: it negotiates the protocol's version, it asks for authentication.
const VERSION: u8 = b'v';
const AUTHENTICATION: u8 = b'R';
/// That by SASL.
const SASL: [u8; 4] = [0, 0, 0, 10];

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

/// Sends the client's startup message to a server behind TLS, and returns what that says first, without the offer of channel binding:
/// our client has no TLS to bind to, and libpq gives up where it is offered over plain text. Nothing is lost where this ends early; the
/// session goes on as it is.
///
/// Returns the bytes sent to the server, and those to send to the client.
pub(super) async fn begin(
    client: &mut Client,
    server: &mut Stream,
    limit: Duration,
) -> (u64, Vec<u8>) {
    let is_startup = |early: &Buffer| matches!(first(early.filled()), Some(First::Startup));
    let Some(startup) = client.early.take_if(|early| is_startup(early)) else {
        return (0, Vec::new());
    };
    let sent = Cell::new(0);
    let mut said = Buffer::take();
    let mut unbound = None;
    let begins = async {
        io::write_pieces(server, [startup.filled()].into_iter(), &sent).await?;
        while unbound.is_none() && said.filled().len() <= LONGEST {
            io::read(server, &mut said).await?;
            unbound = without_channel_binding(said.filled());
        }
        Ok::<_, Fault>(())
    };
    let _ = tokio::time::timeout(limit, begins).await;
    let left = usize::try_from(sent.get()).unwrap_or(usize::MAX);
    if left < startup.filled().len() {
        let mut rest = startup;
        rest.consume(left);
        client.early = Some(rest);
    }
    (
        sent.get(),
        unbound.unwrap_or_else(|| said.filled().to_vec()),
    )
}

/// What a server says first, with no mechanism of SASL that binds to its TLS (RFC 5802, section 6); `None` while too little is there.
fn without_channel_binding(said: &[u8]) -> Option<Vec<u8>> {
    let mut at = 0;
    loop {
        let message = &said[at..];
        let (kind, len) = (*message.first()?, message.get(1..5)?);
        let len = u32::from_be_bytes(len.try_into().ok()?);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !(4..=LONGEST).contains(&len) || !matches!(kind, VERSION | AUTHENTICATION) {
            return Some(said.to_vec());
        }
        let (message, rest) = message.split_at_checked(1 + len)?;
        if kind == AUTHENTICATION {
            let before = &said[..at];
            return Some([before, &unbound(message), rest].concat());
        }
        at += 1 + len;
    }
}

/// An authentication request; one for SASL without the mechanisms that end in `-PLUS`, if others are left.
fn unbound(message: &[u8]) -> Vec<u8> {
    let Some(mechanisms) = message[5..].strip_prefix(&SASL) else {
        return message.to_vec();
    };
    let mut kept = SASL.to_vec();
    for mechanism in mechanisms.split(|byte| *byte == 0) {
        if !mechanism.is_empty() && !mechanism.ends_with(b"-PLUS") {
            kept.extend_from_slice(mechanism);
            kept.push(0);
        }
    }
    if kept.len() == SASL.len() {
        return message.to_vec();
    }
    kept.push(0);
    let len = u32::try_from(kept.len() + 4).expect("it is shorter than a message");
    [&[AUTHENTICATION][..], &len.to_be_bytes(), &kept].concat()
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

    fn asks(mechanisms: &str) -> Vec<u8> {
        let mut body = SASL.to_vec();
        body.extend_from_slice(mechanisms.as_bytes());
        let len = u32::try_from(body.len() + 4).unwrap();
        [&b"R"[..], &len.to_be_bytes(), &body].concat()
    }

    #[test]
    fn channel_binding_is_offered_to_nobody() {
        let both = asks("SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        let one = asks("SCRAM-SHA-256\0\0");
        assert_eq!(without_channel_binding(&both).unwrap(), one);
        assert_eq!(without_channel_binding(&one).unwrap(), one);
        // After a negotiation of the version, and with more after it.
        let version = [b'v', 0, 0, 0, 8, 0, 3, 0, 0];
        let said = [&version[..version.len()], &both, b"more"].concat();
        let expected = [&version[..], &one, b"more"].concat();
        assert_eq!(without_channel_binding(&said).unwrap(), expected);
        for cut in 0..said.len() - 4 {
            assert_eq!(without_channel_binding(&said[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn what_is_no_request_for_sasl_stays_as_it_is() {
        let only = asks("SCRAM-SHA-256-PLUS\0\0");
        let ok = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];
        let huge = [b'R', 255, 255, 255, 255, 0];
        for said in [&only[..], &ok, &error(), &huge, b"HTTP/1.1 200 OK"] {
            assert_eq!(without_channel_binding(said).unwrap(), said);
        }
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
