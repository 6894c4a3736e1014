//! TLS over a TCP connection. The session and both halves belong to one thread; no memory for records is held while
//! nothing is on its way.

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

/// Bytes of text in one record.
const RECORD_LEN: usize = 16 * 1024;

/// What a record needs besides its text, and what may have to be sent before it (an update of keys).
const OVERHEAD: usize = 256;

/// A connection whose handshake is over.
pub(crate) struct TlsStream {
    tcp: Tcp,
    session: RefCell<Session>,
}

/// The half that is read from.
pub(crate) struct Reader<'a> {
    tcp: &'a Tcp,
    session: &'a RefCell<Session>,
}

/// The half that is written to.
pub(crate) struct Writer<'a> {
    tcp: &'a Tcp,
    session: &'a RefCell<Session>,
}

/// The side of a session that is ours.
pub(crate) enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

struct Session {
    side: Side,
    /// What was received and could not be deciphered yet.
    incoming: Option<Buffer>,
    /// What was deciphered and not read yet.
    text: Option<Buffer>,
    /// What was enciphered and not sent yet.
    outgoing: Option<Buffer>,
    /// The other side has said that nothing more comes.
    ended: bool,
    /// We have said so.
    closed: bool,
    /// The other side broke the rules; nothing more can be done.
    failed: bool,
}

/// What is to be done as soon as the session allows it.
enum Task<'a, 'p> {
    Nothing,
    /// Enciphers as much as there is room for.
    Write(&'a [IoSlice<'p>]),
    Close,
}

/// How far the session came.
enum Step {
    /// Something was done; there may be more.
    Again,
    /// More must be received first.
    Blocked,
    /// The task is done; so many bytes were written.
    Done(usize),
}

impl TlsStream {
    /// Makes the handshake. `early` are bytes that were received already.
    ///
    /// # Errors
    /// Why there is no session. The other side has been told, as far as it can be.
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

    /// Both halves.
    pub(super) fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        let (tcp, session) = (&self.tcp, &self.session);
        (Reader { tcp, session }, Writer { tcp, session })
    }

    pub(super) fn end(&mut self) {
        let session = self.session.get_mut();
        if session.carry_out(&Task::Close).is_ok() {
            // Whoever has no room for it, or has gone, does without.
            let _ = session.send_now(&self.tcp);
        }
    }

    pub(super) const fn tcp(&self) -> &Tcp {
        &self.tcp
    }

    /// Whether the handshake was a short one, for the other side knew an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.session.borrow().common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.borrow().poll_read_ready(cx, &self.tcp)
    }

    /// Whether nothing has come that concerns the user: neither text nor an end. Tickets and the like are taken in.
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
            // An answer to an update of keys, or an alert. Where there is no room, it leaves with what is written next.
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
        // What does not leave now does with the next call.
        match session.poll_send(cx, self.tcp) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(written)),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.session.borrow_mut().poll_send(cx, self.tcp))?;
        self.tcp.poll_late(cx)
    }

    /// Says that nothing more comes, within TLS and below it.
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
        // An end may have come together with text, and nothing more after it.
        if self.text.is_some() || self.incoming.is_some() || self.ended {
            return Poll::Ready(Ok(()));
        }
        tcp.stream().poll_read_ready(cx)
    }

    /// Hands over text that was deciphered before.
    fn deliver(&mut self, into: &mut ReadBuf<'_>) {
        if let Some(text) = &mut self.text {
            let count = text.filled().len().min(into.remaining());
            into.put_slice(&text.filled()[..count]);
            text.consume(count);
            self.text = self.text.take().filter(|text| !text.is_empty());
        }
    }

    /// Does the task, and before it all that must come first.
    fn carry_out(&mut self, task: &Task<'_, '_>) -> io::Result<usize> {
        loop {
            match self.step(&mut ReadBuf::new(&mut []), task)? {
                Step::Again => {}
                Step::Blocked => return Err(io::ErrorKind::BrokenPipe.into()),
                Step::Done(count) => return Ok(count),
            }
        }
    }

    /// One step of the session. Text goes to `into`, and what has no room there is kept. After a failure there is an alert
    /// to be sent.
    fn step(&mut self, into: &mut ReadBuf<'_>, task: &Task<'_, '_>) -> io::Result<Step> {
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let step = self.advance(into, task);
        if step.is_err() {
            self.failed = true;
            // This encodes the alert, and before it what is left of the handshake. The session must not be asked again after
            // that, for it would send another.
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

    /// Receives what there is, at least one byte.
    fn poll_receive(&mut self, cx: &mut Context<'_>, tcp: &Tcp) -> Poll<io::Result<()>> {
        let mut incoming = self.room()?;
        let mut into = ReadBuf::new(incoming.space());
        let polled = tcp.poll_read(cx, &mut into);
        let count = into.filled().len();
        incoming.advance(count);
        // No buffer is held while nothing comes.
        self.incoming = Some(incoming).filter(|incoming| !incoming.is_empty());
        ready!(polled)?;
        Poll::Ready(match count {
            0 => Err(truncated()),
            _ => Ok(()),
        })
    }

    /// Receives what there is, which may be nothing. With `known` the system is not asked unless the event loop has
    /// heard of something.
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

    /// What was received, with room behind it.
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

/// Where a step puts what comes of it.
struct Hands<'a, 'b> {
    into: &'a mut ReadBuf<'b>,
    text: &'a mut Option<Buffer>,
    outgoing: &'a mut Option<Buffer>,
    ended: &'a mut bool,
}

impl Hands<'_, '_> {
    /// Does what the session asks for. Also tells how many of the received bytes are used up.
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
        // What came before is read before.
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

/// Enciphers as much of the pieces as there is room for, in as few records as it can, and tells how many bytes that were.
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

/// Fills the buffer with the rest of a piece and with those that follow it.
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
        // A long piece that would be cut anyway goes into a record of its own, uncopied.
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

/// The connection ended where TLS did not.
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
            // Nothing is left but for want of room, and no record is small for no reason.
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
