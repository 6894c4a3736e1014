//! A request as it was received.

use super::body::Body;
use super::large::{self, Text};
use super::scratch::Heads;
use crate::clock::Instant;
use crate::io::Buffer;
use gaiola_model::http::RequestHead;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// A request whose head has been read.
pub(crate) struct Request {
    /// Begins with the head, unless that is elsewhere; then bytes of the body or of the next request.
    pub(super) buffer: Buffer,
    /// Where the head is.
    pub(super) text: Text,
    pub(super) heads: Heads,
    pub(super) begun: Instant,
    /// Time until the head was complete.
    pub(super) took: Duration,
}

impl Request {
    /// A request whose head the buffer begins with.
    pub(crate) fn new(buffer: Buffer, heads: Heads, begun: Instant, took: Duration) -> Self {
        let (buffer, text) = match buffer.behind(heads.request.len) {
            Some(behind) => (behind, Text::Large(Rc::new(buffer))),
            None => (buffer, Text::Front),
        };
        Self {
            buffer,
            text,
            heads,
            begun,
            took,
        }
    }

    /// The head, and the text it refers to.
    pub(super) fn head(&self) -> (&RequestHead, &[u8]) {
        let head = &self.heads.request;
        (head, self.text.of(&self.buffer, head.len))
    }

    /// Offset in the buffer of what follows the head.
    pub(super) fn base(&self) -> usize {
        match self.text {
            Text::Front => self.heads.request.len,
            Text::Large(_) | Text::Digest(..) => 0,
        }
    }

    /// Range of what follows a request whose body is unread, if all of the body has arrived.
    pub(super) fn rest(&self) -> Option<Range<usize>> {
        let base = self.base();
        let behind = &self.buffer.filled()[base..];
        let mut body = Body::new(self.heads.request.framing);
        let taken = body.take(behind).ok()?;
        body.is_done().then(|| base + taken..base + behind.len())
    }

    /// The head is needed for the log only.
    pub(super) fn give_up_head(&mut self) {
        let text = RefCell::new(std::mem::replace(&mut self.text, Text::Front));
        large::give_up(&text, &self.heads.request);
        self.settle(text.into_inner());
    }

    /// Sets where the text of the head is; a digest replaces the head, too.
    pub(super) fn settle(&mut self, mut text: Text) {
        if let Text::Digest(head, _) = &mut text
            && let Some(head) = head.take()
        {
            self.heads.request = *head;
        }
        self.text = text;
    }

    /// A buffer with these bytes of it, which begin the next request.
    pub(super) fn take_rest(&mut self, rest: Range<usize>) -> Buffer {
        self.buffer.keep(rest);
        self.buffer.compact();
        std::mem::take(&mut self.buffer)
    }
}
