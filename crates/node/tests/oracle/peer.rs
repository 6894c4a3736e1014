//! A connection of a client's or a server's.

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
    Closed,
    Reset,
    /// It did not, and nothing came.
    Silence,
}

impl End {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Silence => "silent for long",
        }
    }
}

/// A connection, and what was read of it beyond the last message.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    held: VecDeque<u8>,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self {
            stream,
            held: VecDeque::new(),
        }
    }

    /// Says it. A peer that has closed already is told of when it is read.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).ok()
    }

    /// Has it end with a reset once it is dropped.
    pub(crate) fn will_reset(&self) {
        let socket = SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn fill(&mut self) -> Result<(), End> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(End::Closed),
            Ok(count) => {
                self.held.extend(&bytes[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(End::Silence),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(End::Reset),
        }
    }

    /// Waits for a byte.
    pub(crate) fn begins(&mut self) -> Result<(), End> {
        match self.held.is_empty() {
            true => self.fill(),
            false => Ok(()),
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

    /// As many of so many bytes as come.
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
