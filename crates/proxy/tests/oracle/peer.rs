//! A connection of a client's or a server's.

use rustls::{AlertDescription, Connection, Error};
use socket2::SockRef;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Nothing that works takes this long.
pub(crate) const LONG: Duration = Duration::from_secs(8);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order: with TLS by its close_notify.
    Closed,
    /// With TLS, and without a close_notify.
    Cut,
    Alert(AlertDescription),
    /// What came was no TLS, or this side takes none like it.
    NotTaken,
    Reset,
    /// It did not, and nothing came.
    Silence,
}

impl End {
    pub(crate) fn words(self) -> String {
        match self {
            Self::Closed => "closed".into(),
            Self::Cut => "closed without close_notify".into(),
            Self::Alert(what) => format!("alert {what:?}"),
            Self::NotTaken => "not taken".into(),
            Self::Reset => "reset".into(),
            Self::Silence => "silent for long".into(),
        }
    }
}

/// A connection, and what was read of it beyond the last message.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    tls: Option<Connection>,
    held: VecDeque<u8>,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self {
            stream,
            tls: None,
            held: VecDeque::new(),
        }
    }

    /// Speaks TLS from here on.
    pub(crate) fn handshake(&mut self, tls: Connection) -> Result<&Connection, End> {
        let tls = self.tls.insert(tls);
        let _ = flush(tls, &mut self.stream);
        while tls.is_handshaking() {
            if receive(tls, &mut self.stream)? == 0 {
                return Err(End::Closed);
            }
        }
        Ok(tls)
    }

    /// Says it. A peer that has closed already is reported when it is read.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> Option<()> {
        let Some(tls) = &mut self.tls else {
            return self.stream.write_all(bytes).ok();
        };
        tls.writer().write_all(bytes).ok()?;
        flush(tls, &mut self.stream).ok()
    }

    /// Ends TLS, and leaves the connection open.
    pub(crate) fn notify(&mut self) -> Option<()> {
        let tls = self.tls.as_mut()?;
        tls.send_close_notify();
        flush(tls, &mut self.stream).ok()
    }

    /// Has it end with a reset once it is dropped.
    pub(crate) fn will_reset(&self) {
        let socket = SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn fill(&mut self) -> Result<(), End> {
        let mut bytes = [0; 16 * 1024];
        let count = match &mut self.tls {
            None => uninterrupted(|| self.stream.read(&mut bytes))?,
            Some(tls) => decrypted(tls, &mut self.stream, &mut bytes)?,
        };
        self.held.extend(&bytes[..count]);
        match count {
            0 => Err(End::Closed),
            _ => Ok(()),
        }
    }

    /// Waits for a byte.
    pub(crate) fn begins(&mut self) -> Result<(), End> {
        if self.held.is_empty() {
            self.fill()
        } else {
            Ok(())
        }
    }

    /// How the connection ends if it does so within this time.
    pub(crate) fn end_within(&mut self, wait: Duration) -> Option<End> {
        self.stream.set_read_timeout(Some(wait)).unwrap();
        let end = self.begins();
        self.stream.set_read_timeout(Some(LONG)).unwrap();
        end.err().filter(|end| *end != End::Silence)
    }

    /// A line without its end.
    pub(crate) fn line(&mut self) -> Result<String, End> {
        let mut from = 0;
        loop {
            if let Some(end) = self.held.iter().skip(from).position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=from + end).collect();
                return Ok(match line.strip_suffix(b"\r\n") {
                    Some(line) => line.escape_ascii().to_string(),
                    None => format!(
                        "{} (a bare line feed)",
                        line[..line.len() - 1].escape_ascii()
                    ),
                });
            }
            from = self.held.len();
            self.fill()?;
        }
    }

    /// Up to `count` bytes, as many as come.
    pub(crate) fn exactly(&mut self, count: usize, into: &mut Vec<u8>) -> Result<(), End> {
        while self.held.len() < count {
            if let Err(end) = self.fill() {
                into.extend(self.held.drain(..));
                return Err(end);
            }
        }
        into.extend(self.held.drain(..count));
        Ok(())
    }

    /// What was read and belongs to nothing.
    pub(crate) fn leftover(&mut self) -> Vec<u8> {
        self.held.drain(..).collect()
    }

    /// Everything up to the end.
    pub(crate) fn rest(&mut self, into: &mut Vec<u8>) -> End {
        loop {
            into.extend(self.held.drain(..));
            if let Err(end) = self.fill() {
                return end;
            }
        }
    }
}

fn uninterrupted(mut read: impl FnMut() -> std::io::Result<usize>) -> Result<usize, End> {
    loop {
        match read().map_err(|error| error.kind()) {
            Ok(count) => return Ok(count),
            Err(ErrorKind::Interrupted) => {}
            Err(ErrorKind::WouldBlock) => return Err(End::Silence),
            Err(_) => return Err(End::Reset),
        }
    }
}

/// Reads what was said within TLS; 0 after its close_notify.
fn decrypted(tls: &mut Connection, stream: &mut TcpStream, into: &mut [u8]) -> Result<usize, End> {
    loop {
        match tls.reader().read(into) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => receive(tls, stream)?,
            Err(_) => return Err(End::Cut),
        };
    }
}

/// Takes bytes of TLS in, and answers what there is to answer; 0 at the stream's end.
fn receive(tls: &mut Connection, stream: &mut TcpStream) -> Result<usize, End> {
    let count = uninterrupted(|| tls.read_tls(stream))?;
    let taken = tls.process_new_packets();
    let _ = flush(tls, stream);
    match taken {
        Ok(_) => Ok(count),
        Err(Error::AlertReceived(what)) => Err(End::Alert(what)),
        Err(_) => Err(End::NotTaken),
    }
}

fn flush(tls: &mut Connection, stream: &mut TcpStream) -> std::io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(stream)?;
    }
    Ok(())
}
