//! Connections within memory, and the addresses that they are made to: for tests with a paused clock, and for benches.
//! A connection behaves as a socket does: it has little room, it ends properly or by a reset, and its end is noticed by
//! whoever reads or writes.

use gaiola_model::proxy::Address;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::io::ReadBuf;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Room for bytes in one direction, as in a socket's buffer.
const ROOM: usize = 64 * 1024;

/// One end of a connection; it closes when dropped.
pub(crate) struct Memory {
    incoming: Rc<Direction>,
    outgoing: Rc<Direction>,
    resets: Cell<bool>,
}

/// One direction of a connection.
#[derive(Default)]
struct Direction {
    bytes: RefCell<VecDeque<u8>>,
    state: Cell<State>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The writer has ended it.
    Ended,
    /// One side is gone, with bytes lost or to be lost.
    Broken,
}

/// A connection's two ends.
pub(crate) fn pair() -> (Memory, Memory) {
    let (one, other) = (Rc::<Direction>::default(), Rc::<Direction>::default());
    let end = |incoming: &Rc<_>, outgoing: &Rc<_>| Memory {
        incoming: Rc::clone(incoming),
        outgoing: Rc::clone(outgoing),
        resets: Cell::new(false),
    };
    (end(&one, &other), end(&other, &one))
}

impl Direction {
    fn set(&self, state: State) {
        self.state.set(state);
        for waker in [&self.reader, &self.writer] {
            waker.take().into_iter().for_each(Waker::wake);
        }
    }

    fn is_readable(&self) -> bool {
        self.state.get() != State::Open || !self.bytes.borrow().is_empty()
    }
}

impl Memory {
    /// Ready when there may be something to read.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.incoming.is_readable() {
            Poll::Ready(Ok(()))
        } else {
            self.incoming.reader.set(Some(cx.waker().clone()));
            Poll::Pending
        }
    }

    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = self.incoming.bytes.borrow_mut();
        match (bytes.is_empty(), self.incoming.state.get()) {
            (_, State::Broken) => return Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            (true, State::Ended) => return Poll::Ready(Ok(())),
            (true, State::Open) => {
                self.incoming.reader.set(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            (false, State::Open | State::Ended) => {}
        }
        let (front, _) = bytes.as_slices();
        let count = front.len().min(into.remaining());
        into.put_slice(&front[..count]);
        bytes.drain(..count);
        self.incoming
            .writer
            .take()
            .into_iter()
            .for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.outgoing.state.get() != State::Open {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let mut bytes = self.outgoing.bytes.borrow_mut();
        let before = bytes.len();
        for piece in pieces {
            let room = ROOM - bytes.len();
            bytes.extend(&piece[..piece.len().min(room)]);
        }
        match bytes.len() - before {
            0 => {
                self.outgoing.writer.set(Some(cx.waker().clone()));
                Poll::Pending
            }
            written => {
                self.outgoing
                    .reader
                    .take()
                    .into_iter()
                    .for_each(Waker::wake);
                Poll::Ready(Ok(written))
            }
        }
    }

    /// Ends the sending direction.
    pub(super) fn shutdown(&self) {
        if self.outgoing.state.get() == State::Open {
            self.outgoing.set(State::Ended);
        }
    }

    /// Whether nothing has arrived: neither data nor an end.
    pub(super) fn is_quiet(&self) -> bool {
        !self.incoming.is_readable()
    }

    /// The other end gets a reset when this one is dropped.
    pub(crate) fn reset_when_dropped(&self) {
        self.resets.set(true);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.resets.get() || !self.incoming.bytes.borrow().is_empty() {
            self.outgoing.set(State::Broken)
        } else {
            self.shutdown()
        }
        self.incoming.set(State::Broken);
    }
}

/// Receives the connections made to an address.
pub(crate) type Listener = UnboundedReceiver<Memory>;

/// What happens to a connection made to an address.
enum Behaviour {
    Accept(UnboundedSender<Memory>),
    Refuse,
    /// Nothing answers.
    Silence,
}

thread_local! {
    static ADDRESSES: RefCell<HashMap<Address, Behaviour>> = RefCell::default();
}

fn set(address: &Address, answer: Behaviour) {
    ADDRESSES.with_borrow_mut(|all| all.insert(address.clone(), answer));
}

/// Accepts this thread's connections to the address.
pub(crate) fn listen(address: &Address) -> Listener {
    let (sender, listener) = unbounded_channel();
    set(address, Behaviour::Accept(sender));
    listener
}

/// Refuses this thread's connections to the address.
pub(crate) fn refuse(address: &Address) {
    set(address, Behaviour::Refuse);
}

/// Leaves this thread's connections to the address without an answer.
pub(crate) fn silence(address: &Address) {
    set(address, Behaviour::Silence);
}

/// Connects to the address; `None`: it is not one within memory.
pub(super) async fn connect(address: &Address) -> Option<io::Result<Memory>> {
    let connected = ADDRESSES.with_borrow(|all| match all.get(address)? {
        Behaviour::Accept(sender) => {
            let (near, far) = pair();
            let sent = sender.send(far);
            let refused = |_| ErrorKind::ConnectionRefused.into();
            Some(Some(sent.map(|()| near).map_err(refused)))
        }
        Behaviour::Refuse => Some(Some(Err(ErrorKind::ConnectionRefused.into()))),
        Behaviour::Silence => Some(None),
    });
    match connected? {
        Some(connected) => Some(connected),
        None => pending().await,
    }
}
