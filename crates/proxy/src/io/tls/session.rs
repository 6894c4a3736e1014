//! A TLS session: what was received becomes text, and text becomes what is sent.

use super::Side;
use super::record::{append, encipher, too_long};
use crate::io::Buffer;
use crate::io::tcp::Tcp;
use rustix::net::RecvFlags;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus, WriteTraffic,
};
use rustls::{CertificateError, CommonState};
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

/// One side of a connection, and what is in transit.
pub(super) struct Session {
    side: Side,
    /// Received, but not yet decrypted.
    pub(super) incoming: Option<Buffer>,
    /// Decrypted, but not yet read.
    pub(super) text: Option<Buffer>,
    /// Encrypted, but not yet sent.
    outgoing: Option<Buffer>,
    /// The peer has sent close_notify.
    pub(super) ended: bool,
    /// We have sent close_notify.
    pub(super) closed: bool,
    /// The peer violated the protocol; the session is unusable.
    failed: bool,
}

/// What to do as soon as the session allows it.
pub(super) enum Task<'a, 'p> {
    Nothing,
    /// Encrypts as much as there is room for.
    Write(&'a [IoSlice<'p>]),
    Close,
}

/// Result of one step of the session.
pub(super) enum Step {
    /// Some progress; there may be more.
    Again,
    /// More data must be received first.
    Blocked,
    /// The task is done, and this many bytes were written.
    Done(usize),
}

impl Session {
    pub(super) fn new(side: Side, early: &[u8]) -> io::Result<Self> {
        let mut session = Self {
            side,
            incoming: None,
            text: None,
            outgoing: None,
            ended: false,
            closed: false,
            failed: false,
        };
        append(&mut session.incoming, early)?;
        Ok(session)
    }

    pub(super) fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(side) => side,
            Side::Server(side) => side,
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>, tcp: &Tcp) -> Poll<io::Result<()>> {
        // An end may have arrived together with text, and nothing more after it.
        if self.text.is_some() || self.incoming.is_some() || self.ended {
            return Poll::Ready(Ok(()));
        }
        tcp.stream().poll_read_ready(cx)
    }

    /// Delivers text decrypted earlier.
    pub(super) fn deliver(&mut self, into: &mut ReadBuf<'_>) {
        if let Some(text) = &mut self.text {
            let count = text.filled().len().min(into.remaining());
            into.put_slice(&text.filled()[..count]);
            text.consume(count);
            self.text = self.text.take().filter(|text| !text.is_empty());
        }
    }

    /// Runs the task, after everything that must precede it.
    pub(super) fn carry_out(&mut self, task: &Task<'_, '_>) -> io::Result<usize> {
        loop {
            match self.step(&mut ReadBuf::new(&mut []), task)? {
                Step::Again => {}
                Step::Blocked => return Err(io::ErrorKind::BrokenPipe.into()),
                Step::Done(count) => return Ok(count),
            }
        }
    }

    /// One step of the session. Text goes to `into`, and the part that does not fit is kept. After a failure there is
    /// an alert to send.
    pub(super) fn step(&mut self, into: &mut ReadBuf<'_>, task: &Task<'_, '_>) -> io::Result<Step> {
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let step = self.advance(into, task);
        if step.is_err() {
            self.failed = true;
            // This encodes the alert, after the rest of the handshake. Do not query the session again after that: it
            // would produce another alert.
            while self.common().wants_write()
                && self
                    .advance(&mut ReadBuf::new(&mut []), &Task::Nothing)
                    .is_ok()
            {}
        }
        step
    }

    fn advance(&mut self, into: &mut ReadBuf<'_>, task: &Task<'_, '_>) -> io::Result<Step> {
        let mut results = Results {
            into,
            text: &mut self.text,
            outgoing: &mut self.outgoing,
            ended: &mut self.ended,
        };
        let received = match &mut self.incoming {
            Some(incoming) => incoming.filled_mut(),
            None => &mut [],
        };
        let (used, step) = match &mut self.side {
            Side::Client(side) => results.take(side.process_tls_records(received), task),
            Side::Server(side) => results.take(side.process_tls_records(received), task),
        };
        if let Some(incoming) = &mut self.incoming {
            incoming.consume(used);
            self.incoming = self.incoming.take().filter(|rest| !rest.is_empty());
        }
        step
    }

    /// Receives what is available, at least one byte.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>, tcp: &Tcp) -> Poll<io::Result<()>> {
        let mut incoming = self.room()?;
        let mut into = ReadBuf::new(incoming.space());
        let polled = tcp.poll_read(cx, &mut into);
        let count = into.filled().len();
        incoming.advance(count);
        // No buffer is held while nothing arrives.
        self.incoming = Some(incoming).filter(|incoming| !incoming.is_empty());
        ready!(polled)?;
        Poll::Ready(match count {
            0 => Err(truncated()),
            _ => Ok(()),
        })
    }

    /// Receives what is available, possibly nothing. With `known`, makes no system call unless the event loop has
    /// reported data.
    pub(super) fn receive_now(&mut self, tcp: &Tcp, known: bool) -> io::Result<usize> {
        let mut incoming = self.room()?;
        let received = if known {
            tcp.try_read(incoming.space())
        } else {
            rustix::net::recv(tcp.stream(), incoming.space(), RecvFlags::DONTWAIT)
                .map(|(count, _)| count)
                .map_err(io::Error::from)
        };
        incoming.advance(*received.as_ref().unwrap_or(&0));
        self.incoming = Some(incoming).filter(|incoming| !incoming.is_empty());
        match received {
            Ok(0) => Err(truncated()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            received => received,
        }
    }

    /// The received data, with room after it.
    fn room(&mut self) -> io::Result<Buffer> {
        let mut incoming = self.incoming.take().unwrap_or_else(Buffer::take_long);
        incoming.compact();
        if incoming.is_full() {
            Err(too_long())
        } else {
            Ok(incoming)
        }
    }

    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, tcp: &Tcp) -> Poll<io::Result<()>> {
        while let Some(outgoing) = &mut self.outgoing {
            let sent = ready!(tcp.poll_write(cx, &[IoSlice::new(outgoing.filled())]))?;
            outgoing.consume(sent);
            self.outgoing = self.outgoing.take().filter(|rest| !rest.is_empty());
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what can be sent without waiting.
    pub(super) fn send_now(&mut self, tcp: &Tcp) -> io::Result<()> {
        let Some(outgoing) = &mut self.outgoing else {
            return Ok(());
        };
        match tcp.try_write(&[IoSlice::new(outgoing.filled())]) {
            Ok(sent) => outgoing.consume(sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        self.outgoing = self.outgoing.take().filter(|rest| !rest.is_empty());
        Ok(())
    }
}

/// Where a step puts its results.
struct Results<'a, 'b> {
    into: &'a mut ReadBuf<'b>,
    text: &'a mut Option<Buffer>,
    outgoing: &'a mut Option<Buffer>,
    ended: &'a mut bool,
}

impl Results<'_, '_> {
    /// Does what the session asks for. Also returns how many received bytes were used.
    fn take<D>(
        &mut self,
        status: UnbufferedStatus<'_, '_, D>,
        task: &Task<'_, '_>,
    ) -> (usize, io::Result<Step>) {
        let mut used = status.discard;
        let step = match status.state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    None => break Ok(Step::Again),
                    Some(Err(error)) => break Err(refused(error)),
                    Some(Ok(record)) => {
                        used += record.discard;
                        if let Err(error) = self.keep(record.payload) {
                            break Err(error);
                        }
                    }
                }
            },
            Ok(ConnectionState::EncodeTlsData(data)) => self.encode(data),
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Step::Again)
            }
            Ok(ConnectionState::PeerClosed) => {
                *self.ended = true;
                Ok(Step::Again)
            }
            Ok(ConnectionState::WriteTraffic(traffic)) => self.work(traffic, task),
            Ok(_) => Ok(Step::Blocked),
            Err(error) => Err(refused(error)),
        };
        (used, step)
    }

    fn keep(&mut self, text: &[u8]) -> io::Result<()> {
        // Earlier text is read first.
        let room = match self.text {
            Some(_) => 0,
            None => text.len().min(self.into.remaining()),
        };
        self.into.put_slice(&text[..room]);
        append(self.text, &text[room..])
    }

    fn encode<D>(&mut self, mut data: EncodeTlsData<'_, D>) -> io::Result<Step> {
        let outgoing = self.outgoing.get_or_insert_with(Buffer::take_long);
        outgoing.compact();
        match data.encode(outgoing.space()) {
            Ok(count) => {
                outgoing.advance(count);
                Ok(Step::Again)
            }
            Err(EncodeError::InsufficientSize(_)) => Err(too_long()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn work<D>(
        &mut self,
        mut traffic: WriteTraffic<'_, D>,
        task: &Task<'_, '_>,
    ) -> io::Result<Step> {
        match task {
            Task::Nothing => Ok(Step::Blocked),
            Task::Write(pieces) => {
                let outgoing = self.outgoing.get_or_insert_with(Buffer::take_long);
                let encrypt = |text: &[u8], into: &mut [u8]| traffic.encrypt(text, into);
                encipher(pieces, outgoing, encrypt).map(Step::Done)
            }
            Task::Close => {
                let outgoing = self.outgoing.get_or_insert_with(Buffer::take_long);
                let count = traffic.queue_close_notify(outgoing.space());
                outgoing.advance(count.map_err(io::Error::other)?);
                Ok(Step::Done(0))
            }
        }
    }
}

/// The error for a connection that ended without close_notify.
fn truncated() -> io::Error {
    let words = "the connection was cut off without an end of TLS";
    io::Error::new(io::ErrorKind::UnexpectedEof, words)
}

fn refused(error: rustls::Error) -> io::Error {
    if let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = &error
        && other.to_string().contains("CaUsedAsEndEntity")
    {
        let words =
            "the certificate is an authority's own; what is needed is one that it has issued";
        return io::Error::new(io::ErrorKind::InvalidData, words);
    }
    io::Error::new(io::ErrorKind::InvalidData, error)
}
