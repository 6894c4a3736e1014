//! A TCP connection. Small writes leave together with those of other connections.

use super::outbox::{self, Late};
use gaiola_os as os;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use socket2::{SockRef, TcpKeepalive};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

/// Most bytes of one connection that wait in the outbox: more is sent at once, and accepted no faster than the peer
/// reads.
const WAITING: usize = 16 * 1024;

/// After the owner has dropped a connection, the peer may accept no late data for this many polls in a row.
const PATIENCE: u32 = 30;

/// Poll interval.
const POLL: Duration = Duration::from_secs(1);

/// Silence before the kernel sends a keep-alive probe, and interval of further probes: the shortest that it supports.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// Time the peer's kernel has to acknowledge a probe.
const ACK_LIMIT: Duration = Duration::from_millis(300);

/// Poll interval for the acknowledgement.
const ACK_POLL: Duration = Duration::from_millis(20);

/// Resolution of the kernel's clock.
const TICK: Duration = Duration::from_millis(10);

/// A connection; clones share it. It closes when the last one is dropped and what was written has left. If some of that
/// cannot leave, the peer gets a reset instead of a proper end.
#[derive(Clone)]
pub(crate) struct Tcp(Rc<Inner>);

struct Inner {
    stream: TcpStream,
    sending: RefCell<Sending>,
    /// Number of bytes that have left.
    left: Cell<u64>,
    /// Whether a separate task sends the late data.
    has_task: Cell<bool>,
}

/// State of the data written.
enum Sending {
    /// All of it has left.
    Done,
    /// This many bytes wait in the outbox: all of it, until the outbox sends one message after the other.
    Waits(usize),
    /// The rest, for which there was no room.
    Late(Vec<u8>),
    /// Nothing more can be sent.
    Broken(Errno),
}

impl From<TcpStream> for Tcp {
    fn from(stream: TcpStream) -> Self {
        Self(Rc::new(Inner {
            stream,
            sending: RefCell::new(Sending::Done),
            left: Cell::new(0),
            has_task: Cell::new(false),
        }))
    }
}

impl Tcp {
    /// The underlying socket, for reading and for queries.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.0.stream
    }

    /// Whether both are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the peer's kernel has stopped acknowledging, detected by keep-alive probes within 1.3 s. A busy or
    /// hanging process does not matter: its kernel still acknowledges.
    pub(crate) async fn is_dead(&self) -> bool {
        let connection = SockRef::from(&self.0.stream);
        let (begun, before) = (Instant::now(), self.since_last_ack());
        // The interval first: the connection may have been silent long enough already, and then the first probe leaves
        // at once.
        let often = TcpKeepalive::new().with_interval(KEEPALIVE);
        let soon = TcpKeepalive::new().with_time(KEEPALIVE);
        let probing = connection.set_tcp_keepalive(&often);
        let probing = probing.and_then(|()| connection.set_tcp_keepalive(&soon));
        let (Some(before), Ok(())) = (before, probing) else {
            return true;
        };
        let answered = || {
            let ago = self.since_last_ack();
            ago.is_some_and(|ago| ago + TICK < before + begun.elapsed())
        };
        while begun.elapsed() < KEEPALIVE + ACK_LIMIT && !answered() {
            tokio::time::sleep(ACK_POLL).await;
        }
        // A later lost probe must not end a connection that works.
        let _ = connection.set_keepalive(false);
        !answered()
    }

    /// Time since the peer's kernel last acknowledged anything; `None`: the connection is gone.
    fn since_last_ack(&self) -> Option<Duration> {
        os::socket::since_last_ack(self.0.stream.as_fd()).ok()
    }

    /// Waits until the peer's kernel has acknowledged all that has left, or has acknowledged nothing more for a second.
    pub(super) async fn acknowledged(&self) {
        os::socket::acknowledged(self.0.stream.as_fd(), Duration::from_secs(1)).await;
    }

    /// Discards what still waits to leave.
    pub(crate) fn abandon(&self) {
        let mut sending = self.0.sending.borrow_mut();
        if matches!(*sending, Sending::Waits(_) | Sending::Late(_)) {
            *sending = Sending::Broken(Errno::CONNRESET);
        }
    }

    /// How many written bytes have left, not counting what the kernel moved by itself.
    pub(crate) fn left(&self) -> u64 {
        self.0.left.get()
    }

    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.stream.poll_read_ready(cx))?;
            match self.try_read(into.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(count) => {
                    into.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads what is available without waiting; makes no system call unless the event loop has reported data.
    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let stream = &self.0.stream;
        let wanted = into.len();
        let receive = || Ok(rustix::net::recv(stream, into, RecvFlags::empty())?.0);
        let count = stream.try_io(Interest::READABLE, receive)?;
        match count {
            // The system reports an error once, and then a proper end.
            0 => {
                if let Some(error) = self.broken().filter(|error| *error != Errno::PIPE) {
                    return Err(error.into());
                }
            }
            _ if count < wanted => spent(stream, Interest::READABLE),
            _ => {}
        }
        Ok(count)
    }

    /// Writes some of the pieces. Small ones leave together with others in the same turn of the event loop.
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.when_there_is_room(cx, || self.try_write(pieces))
    }

    /// As [`Self::poll_write`], without waiting.
    pub(super) fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_late()?;
        let len = pieces.iter().map(|piece| piece.len()).sum();
        if outbox::add(self, pieces, len) {
            return Ok(len);
        }
        self.leave()?;
        let stream = &self.0.stream;
        let written = stream.try_io(Interest::WRITABLE, || match pieces {
            [piece] => Ok(rustix::net::send(stream, piece, SendFlags::NOSIGNAL)?),
            pieces => Ok(rustix::io::writev(stream, pieces)?),
        });
        let written = written.map_err(|error| self.broke(error))?;
        self.0.count(written);
        if written < len {
            spent(stream, Interest::WRITABLE);
        }
        Ok(written)
    }

    /// Makes the peer notice a bad end, as far as the kernel can: by itself, dropping appears as a proper end.
    pub(super) fn reset_when_dropped(&self) {
        // Otherwise, on drop, an end would leave with what was written.
        let _ = self.leave();
        self.abandon();
        let _ = SockRef::from(&self.0.stream).set_linger(Some(Duration::ZERO));
    }

    /// Ready when all that was written has left: required before sending in any other way.
    pub(super) fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.when_there_is_room(cx, || self.leave())
    }

    /// Ready when no data is late.
    pub(super) fn poll_late(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.when_there_is_room(cx, || self.0.send_late())
    }

    /// Retries the write until it has the room it needs.
    fn when_there_is_room<T>(
        &self,
        cx: &mut Context<'_>,
        attempt: impl Fn() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.0.stream.poll_write_ready(cx))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }

    /// Sends what was written, as far as there is room.
    fn leave(&self) -> io::Result<()> {
        if matches!(*self.0.sending.borrow(), Sending::Waits(_)) {
            outbox::flush();
        }
        self.0.send_late()
    }

    /// Shuts down the sending direction.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        match rustix::net::shutdown(&self.0.stream, Shutdown::Write) {
            // A connection that is gone may still have data to read.
            Ok(()) | Err(Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Adds `len` bytes to those in the outbox; `false` if that is too much.
    pub(super) fn wait(&self, len: usize) -> bool {
        let mut sending = self.0.sending.borrow_mut();
        let before = match *sending {
            Sending::Waits(before) => before,
            Sending::Done | Sending::Late(_) | Sending::Broken(_) => 0,
        };
        let fits = before + len <= WAITING;
        if fits {
            *sending = Sending::Waits(before + len);
        }
        fits
    }

    /// Remembers why nothing more can be sent: the system reports it only once.
    pub(super) fn broke(&self, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::WouldBlock
            && let Some(errno) = Errno::from_io_error(&error)
        {
            *self.0.sending.borrow_mut() = Sending::Broken(errno);
        }
        error
    }

    /// Sends a message from the outbox. What does not fit leaves as soon as there is room.
    pub(super) fn send_now(self, message: &[u8]) {
        // If the owner has dropped the connection, its end leaves with the last of what was written.
        let is_last = Rc::strong_count(&self.0) == 1;
        let flags = if is_last {
            SendFlags::MORE
        } else {
            SendFlags::empty()
        };
        let mut sending = self.0.sending.borrow_mut();
        let rest = match &mut *sending {
            Sending::Broken(_) => return,
            Sending::Late(rest) => return rest.extend_from_slice(message),
            Sending::Done | Sending::Waits(_) => match self.0.send(message, flags) {
                Ok(count) => &message[count..],
                Err(error) => return *sending = Sending::Broken(error),
            },
        };
        if rest.is_empty() {
            *sending = Sending::Done;
            if is_last {
                let _ = rustix::net::shutdown(&self.0.stream, Shutdown::Write);
            }
        } else {
            *sending = Sending::Late(rest.to_vec());
            drop(sending);
            if !self.0.has_task.replace(true) {
                tokio::task::spawn_local(self.send_rest());
            }
        }
    }

    /// Sends late data, whether or not the connection has an owner. An owner keeps its own timeout.
    async fn send_rest(self) {
        let _counted = Late::new();
        let mut idle = 0;
        loop {
            let before = self.0.late();
            if before == 0 || idle == PATIENCE {
                return self.0.has_task.set(false);
            }
            let all = (self.0.stream).async_io(Interest::WRITABLE, || self.0.send_more());
            // The amount of late data shows whether it is done.
            if tokio::time::timeout(POLL, all).await.is_err() {
                // The event loop reports room only when there is much of it.
                let _ = self.0.send_more();
            }
            let is_alone = Rc::strong_count(&self.0) == 1;
            idle = if is_alone && self.0.late() == before {
                idle + 1
            } else {
                0
            };
        }
    }

    fn broken(&self) -> Option<Errno> {
        match *self.0.sending.borrow() {
            Sending::Broken(error) => Some(error),
            Sending::Done | Sending::Waits(_) | Sending::Late(_) => None,
        }
    }
}

impl Inner {
    /// Number of late bytes.
    fn late(&self) -> usize {
        match &*self.sending.borrow() {
            Sending::Late(rest) => rest.len(),
            Sending::Done | Sending::Waits(_) | Sending::Broken(_) => 0,
        }
    }

    fn send(&self, bytes: &[u8], flags: SendFlags) -> Result<usize, Errno> {
        match rustix::net::send(&self.stream, bytes, flags | SendFlags::NOSIGNAL) {
            Ok(count) => {
                self.count(count);
                Ok(count)
            }
            Err(Errno::AGAIN) => Ok(0),
            error => error,
        }
    }

    fn count(&self, left: usize) {
        self.left.set(self.left.get() + left as u64);
    }

    /// Sends late data, if the event loop has reported room.
    fn send_late(&self) -> io::Result<()> {
        match *self.sending.borrow() {
            Sending::Done | Sending::Waits(_) => return Ok(()),
            Sending::Broken(error) => return Err(error.into()),
            Sending::Late(_) => {}
        }
        self.stream.try_io(Interest::WRITABLE, || self.send_more())
    }

    /// Sends late data until all of it has left.
    fn send_more(&self) -> io::Result<()> {
        let mut sending = self.sending.borrow_mut();
        while let Sending::Late(rest) = &mut *sending {
            match self.send(rest, SendFlags::empty()) {
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(count) if count < rest.len() => drop(rest.drain(..count)),
                Ok(_) => *sending = Sending::Done,
                Err(error) => {
                    *sending = Sending::Broken(error);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if matches!(self.sending.get_mut(), Sending::Waits(_) | Sending::Late(_)) {
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// No more to read, or no room to write: the system is asked again only after the event loop has reported some.
fn spent(stream: &TcpStream, interest: Interest) {
    let _ = stream.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}

#[cfg(test)]
mod tests;
