//! TLS over a TCP connection. The session and both halves belong to one thread; no memory for records is held while
//! nothing is in transit.

use super::tcp::Tcp;
use super::{Buffer, outbox};
use rustix::net::RecvFlags;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CertificateError, CommonState, HandshakeKind};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

/// Plaintext bytes in one record.
const RECORD_LEN: usize = 16 * 1024;

/// Size of a record beyond its plaintext, including a key update that may have to precede it.
const OVERHEAD: usize = 256;

/// A connection after its handshake.
pub(crate) struct TlsStream {
    tcp: Tcp,
    session: RefCell<Session>,
}

/// The reading half.
pub(crate) struct Reader<'a> {
    tcp: &'a Tcp,
    session: &'a RefCell<Session>,
}

/// The writing half.
pub(crate) struct Writer<'a> {
    tcp: &'a Tcp,
    session: &'a RefCell<Session>,
}

/// Our side of a session.
pub(crate) enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

struct Session {
    side: Side,
    /// Received, but not yet decrypted.
    incoming: Option<Buffer>,
    /// Decrypted, but not yet read.
    text: Option<Buffer>,
    /// Encrypted, but not yet sent.
    outgoing: Option<Buffer>,
    /// The peer has sent close_notify.
    ended: bool,
    /// We have sent close_notify.
    closed: bool,
    /// The peer violated the protocol; the session is unusable.
    failed: bool,
}

/// What to do as soon as the session allows it.
enum Task<'a, 'p> {
    Nothing,
    /// Encrypts as much as there is room for.
    Write(&'a [IoSlice<'p>]),
    Close,
}

/// Result of one step of the session.
enum Step {
    /// Some progress; there may be more.
    Again,
    /// More data must be received first.
    Blocked,
    /// The task is done, and this many bytes were written.
    Done(usize),
}

impl TlsStream {
    /// Performs the handshake. `early` are bytes already received.
    ///
    /// # Errors
    /// Why there is no session. An alert has been sent to the peer, if possible.
    pub(crate) async fn handshake(tcp: Tcp, side: Side, early: &[u8]) -> io::Result<Box<Self>> {
        let mut session = Session::new(side, early)?;
        loop {
            // The next step may take as long as a hundred requests.
            outbox::flush();
            let step = session.step(&mut ReadBuf::new(&mut []), &Task::Nothing);
            poll_fn(|cx| session.poll_send(cx, &tcp)).await?;
            match step? {
                Step::Again | Step::Done(_) => {}
                Step::Blocked if !session.common().is_handshaking() => break,
                Step::Blocked => {
                    poll_fn(|cx| session.poll_receive(cx, &tcp)).await?;
                }
            }
        }
        Ok(Box::new(Self {
            tcp,
            session: RefCell::new(session),
        }))
    }

    /// Splits it into both halves.
    pub(super) fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        let (tcp, session) = (&self.tcp, &self.session);
        (Reader { tcp, session }, Writer { tcp, session })
    }

    pub(super) fn end(&mut self) {
        let session = self.session.get_mut();
        if session.carry_out(&Task::Close).is_ok() {
            // A peer without room for it, or that has left, does without.
            let _ = session.send_now(&self.tcp);
        }
    }

    pub(super) const fn tcp(&self) -> &Tcp {
        &self.tcp
    }

    /// Whether the handshake resumed an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.session.borrow().common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.borrow().poll_read_ready(cx, &self.tcp)
    }

    /// Whether nothing has arrived for the user: neither plaintext nor an end. Tickets and the like are processed.
    pub(super) fn is_quiet(&self, known: bool) -> bool {
        let mut session = self.session.borrow_mut();
        if session.ended {
            return false;
        }
        loop {
            match session.step(&mut ReadBuf::new(&mut []), &Task::Nothing) {
                Ok(Step::Again) if session.text.is_none() && !session.ended => {}
                Ok(Step::Blocked) => match session.receive_now(&self.tcp, known) {
                    Ok(0) => return session.incoming.is_none(),
                    Ok(_) => {}
                    Err(_) => return false,
                },
                Ok(_) | Err(_) => return false,
            }
        }
    }
}

impl Reader<'_> {
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut session = self.session.borrow_mut();
        let before = into.filled().len();
        loop {
            session.deliver(into);
            if into.filled().len() > before || session.ended {
                return Poll::Ready(Ok(()));
            }
            let step = session.step(into, &Task::Nothing);
            // The answer to a key update, or an alert. If there is no room, it leaves with the next write.
            session.send_now(self.tcp)?;
            if let Step::Blocked = step? {
                ready!(session.poll_receive(cx, self.tcp))?;
            }
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = self.session.borrow();
        session.poll_read_ready(cx, self.tcp)
    }
}

impl Writer<'_> {
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut session = self.session.borrow_mut();
        ready!(session.poll_send(cx, self.tcp))?;
        let written = session.carry_out(&Task::Write(pieces))?;
        // What does not leave now leaves with the next call.
        match session.poll_send(cx, self.tcp) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(written)),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.session.borrow_mut().poll_send(cx, self.tcp))?;
        self.tcp.poll_late(cx)
    }

    /// Ends the sending direction of TLS and of TCP.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session.borrow_mut();
        ready!(session.poll_send(cx, self.tcp))?;
        if !session.closed {
            session.carry_out(&Task::Close)?;
            session.closed = true;
            ready!(session.poll_send(cx, self.tcp))?;
        }
        self.tcp.poll_shutdown(cx)
    }
}

impl Session {
    fn new(side: Side, early: &[u8]) -> io::Result<Self> {
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

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(side) => side,
            Side::Server(side) => side,
        }
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>, tcp: &Tcp) -> Poll<io::Result<()>> {
        // An end may have arrived together with text, and nothing more after it.
        if self.text.is_some() || self.incoming.is_some() || self.ended {
            return Poll::Ready(Ok(()));
        }
        tcp.stream().poll_read_ready(cx)
    }

    /// Delivers text decrypted earlier.
    fn deliver(&mut self, into: &mut ReadBuf<'_>) {
        if let Some(text) = &mut self.text {
            let count = text.filled().len().min(into.remaining());
            into.put_slice(&text.filled()[..count]);
            text.consume(count);
            self.text = self.text.take().filter(|text| !text.is_empty());
        }
    }

    /// Runs the task, after everything that must precede it.
    fn carry_out(&mut self, task: &Task<'_, '_>) -> io::Result<usize> {
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
    fn step(&mut self, into: &mut ReadBuf<'_>, task: &Task<'_, '_>) -> io::Result<Step> {
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
        let mut hands = Hands {
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
            Side::Client(side) => hands.take(side.process_tls_records(received), task),
            Side::Server(side) => hands.take(side.process_tls_records(received), task),
        };
        if let Some(incoming) = &mut self.incoming {
            incoming.consume(used);
            self.incoming = self.incoming.take().filter(|rest| !rest.is_empty());
        }
        step
    }

    /// Receives what is available, at least one byte.
    fn poll_receive(&mut self, cx: &mut Context<'_>, tcp: &Tcp) -> Poll<io::Result<()>> {
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
    fn receive_now(&mut self, tcp: &Tcp, known: bool) -> io::Result<usize> {
        let mut incoming = self.room()?;
        let received = match known {
            true => tcp.try_read(incoming.space()),
            false => rustix::net::recv(tcp.stream(), incoming.space(), RecvFlags::DONTWAIT)
                .map(|(count, _)| count)
                .map_err(io::Error::from),
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
        match incoming.is_full() {
            false => Ok(incoming),
            true => Err(too_long()),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, tcp: &Tcp) -> Poll<io::Result<()>> {
        while let Some(outgoing) = &mut self.outgoing {
            let sent = ready!(tcp.poll_write(cx, &[IoSlice::new(outgoing.filled())]))?;
            outgoing.consume(sent);
            self.outgoing = self.outgoing.take().filter(|rest| !rest.is_empty());
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what can be sent without waiting.
    fn send_now(&mut self, tcp: &Tcp) -> io::Result<()> {
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
struct Hands<'a, 'b> {
    into: &'a mut ReadBuf<'b>,
    text: &'a mut Option<Buffer>,
    outgoing: &'a mut Option<Buffer>,
    ended: &'a mut bool,
}

impl Hands<'_, '_> {
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

/// Encrypts as much of the pieces as there is room for, in as few records as possible, and returns the number of bytes.
fn encipher(
    pieces: &[IoSlice<'_>],
    outgoing: &mut Buffer,
    mut encrypt: impl FnMut(&[u8], &mut [u8]) -> Result<usize, EncryptError>,
) -> io::Result<usize> {
    let mut pieces = pieces.iter().map(|piece| &**piece);
    let mut piece: &[u8] = &[];
    let mut gathered = None;
    let mut written = 0;
    while outgoing.space().len() >= RECORD_LEN + OVERHEAD {
        while piece.is_empty() {
            match pieces.next() {
                Some(next) => piece = next,
                None => return Ok(written),
            }
        }
        let text = if piece.len() >= RECORD_LEN || pieces.len() == 0 {
            let (text, rest) = piece.split_at(piece.len().min(RECORD_LEN));
            piece = rest;
            text
        } else {
            let buffer = gathered.get_or_insert_with(Buffer::take);
            buffer.clear();
            gather(&mut piece, &mut pieces, buffer);
            buffer.filled()
        };
        let count = encrypt(text, outgoing.space()).map_err(io::Error::other)?;
        outgoing.advance(count);
        written += text.len();
    }
    Ok(written)
}

/// Fills the buffer with the rest of a piece and with the pieces after it.
fn gather<'a>(
    piece: &mut &'a [u8],
    pieces: &mut impl Iterator<Item = &'a [u8]>,
    buffer: &mut Buffer,
) {
    loop {
        let count = piece.len().min(buffer.space().len());
        buffer.space()[..count].copy_from_slice(&piece[..count]);
        buffer.advance(count);
        *piece = &piece[count..];
        if !piece.is_empty() {
            return;
        }
        match pieces.next() {
            Some(next) => *piece = next,
            None => return,
        }
        // A long piece that would be split anyway gets a record of its own, without a copy.
        if piece.len() >= RECORD_LEN / 2 && piece.len() > buffer.space().len() {
            return;
        }
    }
}

/// Appends bytes to a long buffer.
fn append(buffer: &mut Option<Buffer>, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let buffer = buffer.get_or_insert_with(Buffer::take_long);
    let room = buffer.space().get_mut(..bytes.len()).ok_or_else(too_long)?;
    room.copy_from_slice(bytes);
    buffer.advance(bytes.len());
    Ok(())
}

/// The error for a connection that ended without close_notify.
fn truncated() -> io::Error {
    let words = "the connection was cut off without an end of TLS";
    io::Error::new(io::ErrorKind::UnexpectedEof, words)
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message of TLS is too long")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_written_is_in_the_records_in_order() {
        let mut rng = fastrand::Rng::with_seed(7);
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        for _ in 0..500 {
            let pieces: Vec<_> = (0..rng.usize(0..8))
                .map(|_| {
                    let longest = if rng.bool() { 100 } else { 2 * RECORD_LEN };
                    let (start, len) = (rng.usize(0..50_000), rng.usize(0..longest));
                    IoSlice::new(&bytes[start..start + len])
                })
                .collect();
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            let mut outgoing = Buffer::take_long();
            let (mut text, mut records) = (Vec::new(), 0);
            let written = encipher(&pieces, &mut outgoing, |part, into| {
                assert!(!part.is_empty() && part.len() <= RECORD_LEN);
                assert!(into.len() >= part.len() + OVERHEAD);
                text.extend_from_slice(part);
                records += 1;
                Ok(part.len() + OVERHEAD)
            });
            assert_eq!(written.unwrap(), text.len());
            assert!(all.starts_with(&text));
            // Only lack of room leaves anything over, and no record is needlessly small.
            assert!(text.len() == all.len() || outgoing.space().len() < RECORD_LEN + OVERHEAD);
            assert!(records <= 1 + 2 * text.len() / (RECORD_LEN / 2));
        }
    }

    #[test]
    fn a_head_and_a_long_body_are_two_records() {
        let (head, body) = ([1; 300], [2; RECORD_LEN - 100]);
        let pieces = [&head[..100], &head[100..], &body].map(IoSlice::new);
        let mut sizes = Vec::new();
        encipher(&pieces, &mut Buffer::take_long(), |part, _| {
            sizes.push(part.len());
            Ok(part.len())
        })
        .unwrap();
        assert_eq!(sizes, [300, RECORD_LEN - 100]);
    }
}
