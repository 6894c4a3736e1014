//! Small messages that leave together. Sent between the work on one request and on the next, each would wake its
//! receiver; sent back to back, many of them wake it only once, and waking costs more than anything else that a small
//! request needs.

use super::tcp::Tcp;
use crate::counters::{Apart, Count};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// Messages up to this size wait for others.
const SMALL: usize = 4 * 1024;

/// Most messages that wait.
const MOST: usize = 256;

/// One thread's messages, in the order they were written.
struct Outbox {
    /// Wakes the task that sends them, which runs after all tasks that are ready.
    sender: Waker,
    /// Each message's connection and length.
    messages: Vec<(Tcp, usize)>,
    bytes: Vec<u8>,
    /// Counts connections whose data did not fit.
    late: Arc<Apart<Count>>,
}

/// A connection whose data did not all fit; counted until this is dropped.
pub(super) struct Late(Arc<Apart<Count>>);

impl Late {
    /// Counts one.
    pub(super) fn new() -> Self {
        let late = OUTBOX.with_borrow(|outbox| match outbox {
            Some(outbox) => Arc::clone(&outbox.late),
            None => Arc::default(),
        });
        late.add(1);
        Self(late)
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

thread_local! {
    /// `None`: messages leave at once.
    static OUTBOX: RefCell<Option<Outbox>> = const { RefCell::new(None) };
}

/// From now on, this thread's small messages wait until all ready tasks have run. Connections without room for them
/// count as `late` until they have some.
pub(crate) fn begin(late: &Arc<Apart<Count>>) {
    OUTBOX.set(Some(Outbox {
        sender: Waker::noop().clone(),
        messages: Vec::with_capacity(MOST),
        bytes: Vec::with_capacity(MOST * SMALL / 4),
        late: Arc::clone(late),
    }));
    tokio::task::spawn_local(poll_fn(|cx| {
        OUTBOX.with_borrow_mut(|outbox| {
            if let Some(outbox) = outbox {
                outbox.sender.clone_from(cx.waker());
            }
        });
        flush();
        Poll::<()>::Pending
    }));
}

/// Sends what waits. Later messages leave at once.
pub(crate) fn end() {
    flush();
    OUTBOX.set(None);
}

/// Sends what waits.
pub(super) fn flush() {
    OUTBOX.with_borrow_mut(|outbox| {
        let Some(Outbox {
            messages, bytes, ..
        }) = outbox
        else {
            return;
        };
        let mut rest = &bytes[..];
        let mut messages = messages.drain(..).peekable();
        while let Some((tcp, mut len)) = messages.next() {
            // Messages of one connection written in pieces are adjacent.
            while let Some((_, more)) = messages.next_if(|(next, _)| next.is(&tcp)) {
                len += more;
            }
            let (message, others) = rest.split_at(len);
            tcp.send_now(message);
            rest = others;
        }
        bytes.clear();
    });
}

/// Takes a message of `len` bytes if it is small; `false`: the caller has to send it.
pub(super) fn add(tcp: &Tcp, pieces: &[IoSlice<'_>], len: usize) -> bool {
    let count = OUTBOX.with_borrow_mut(|outbox| match outbox {
        Some(Outbox {
            sender,
            messages,
            bytes,
            ..
        }) if len <= SMALL && tcp.wait(len) => {
            if messages.is_empty() {
                sender.wake_by_ref();
            }
            pieces
                .iter()
                .for_each(|piece| bytes.extend_from_slice(piece));
            messages.push((tcp.clone(), len));
            Some(messages.len())
        }
        Some(_) | None => None,
    });
    if count == Some(MOST) {
        flush();
    }
    count.is_some()
}
