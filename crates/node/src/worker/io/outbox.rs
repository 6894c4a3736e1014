//! Small messages that leave together. Between the work on one request and on the next each of them would wake its
//! receiver; one after the other they wake it once for many, and waking costs more than anything else that a small
//! request needs.

use super::tcp::Tcp;
use std::cell::RefCell;
use std::io::IoSlice;

/// Up to so many bytes wait for others.
const SMALL: usize = 4 * 1024;

/// Messages that wait at most.
const MOST: usize = 256;

/// Messages of one thread, in the order in which they were written.
struct Outbox {
    /// Whose each is, and of how many bytes.
    messages: Vec<(Tcp, usize)>,
    bytes: Vec<u8>,
}

thread_local! {
    /// `None` where messages leave at once.
    static OUTBOX: RefCell<Option<Outbox>> = const { RefCell::new(None) };
}

/// From now on this thread's small messages wait for [`flush`], which its event loop is to call before it waits for
/// anything itself.
pub(in crate::worker) fn begin() {
    OUTBOX.set(Some(Outbox {
        messages: Vec::with_capacity(MOST),
        bytes: Vec::with_capacity(MOST * SMALL / 4),
    }));
}

/// Sends what waits.
pub(in crate::worker) fn flush() {
    OUTBOX.with_borrow_mut(|outbox| {
        let Some(Outbox { messages, bytes }) = outbox else {
            return;
        };
        let mut rest = &bytes[..];
        for (tcp, len) in messages.drain(..) {
            let (message, others) = rest.split_at(len);
            tcp.send_now(message);
            rest = others;
        }
        bytes.clear();
    });
}

/// Takes a message of `len` bytes, if it is small; `false` where it has to be sent otherwise.
pub(super) fn add(tcp: &Tcp, pieces: &[IoSlice<'_>], len: usize) -> bool {
    let count = OUTBOX.with_borrow_mut(|outbox| match outbox {
        Some(Outbox { messages, bytes }) if len <= SMALL => {
            pieces
                .iter()
                .for_each(|piece| bytes.extend_from_slice(piece));
            tcp.wait();
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
