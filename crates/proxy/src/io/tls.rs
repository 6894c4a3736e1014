//! TLS over a TCP connection. The session and both halves belong to one thread; no memory for records is held while
//! nothing is in transit.

mod record;
mod session;

use super::outbox;
use super::tcp::Tcp;
use rustls::HandshakeKind;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use session::{Session, Step, Task};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

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
