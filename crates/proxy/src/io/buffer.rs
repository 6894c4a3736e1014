//! Read buffers, held only while they contain something.

use crate::free_list::FreeList;
use gaiola_model::proxy::Allowance;
use std::cell::{Cell, RefCell};

/// Size of a buffer: fits a head of the usual size; bodies pass in pieces of this size.
pub(crate) const BUFFER_LEN: usize = 16 * 1024;

/// Size of a long buffer: two TLS records as sent, or a head and a body of 16 KiB with room to spare.
const LONG_LEN: usize = 34 * 1024;

/// Size of a buffer for the largest head that a route may allow, with room for part of the body.
const LARGEST_LEN: usize = Allowance::MOST_HEAD as usize + 1024;

/// Most buffers of the largest kind per worker, so that clients cannot make it use unbounded memory: 16 MiB.
const MOST_LARGEST: usize = 256;

/// Memory of [`BUFFER_LEN`], [`LONG_LEN`] or [`LARGEST_LEN`] bytes, of which `start..end` is filled. The default has
/// no memory, and stands where a buffer was moved away.
#[derive(Default)]
pub(crate) struct Buffer {
    data: Box<[u8]>,
    start: usize,
    end: usize,
}

type Spares = RefCell<FreeList<Box<[u8]>>>;

thread_local! {
    static SPARE: Spares = const { RefCell::new(FreeList::new(1024)) };
    static SPARE_LONG: Spares = const { RefCell::new(FreeList::new(256)) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Frees memory that was not needed recently.
pub(crate) fn trim() {
    SPARE.with_borrow_mut(FreeList::trim);
    SPARE_LONG.with_borrow_mut(FreeList::trim);
}

impl Buffer {
    /// An empty buffer, from the worker's free list if possible.
    pub(crate) fn take() -> Self {
        Self::of(SPARE.with_borrow_mut(FreeList::take), BUFFER_LEN)
    }

    /// An empty long buffer, for TLS records and for responses.
    pub(crate) fn take_long() -> Self {
        Self::of(SPARE_LONG.with_borrow_mut(FreeList::take), LONG_LEN)
    }

    fn of(spare: Option<Box<[u8]>>, len: usize) -> Self {
        Self {
            data: spare.unwrap_or_else(|| vec![0; len].into_boxed_slice()),
            start: 0,
            end: 0,
        }
    }

    /// Moves the contents into a buffer of the largest kind, unless they are in one already. `false`: the worker has no
    /// more of those.
    pub(crate) fn make_room(&mut self) -> bool {
        if self.data.len() == LARGEST_LEN {
            return true;
        }
        let used = LARGEST.get();
        if used == MOST_LARGEST {
            return false;
        }
        LARGEST.set(used + 1);
        let mut larger = Self::of(None, LARGEST_LEN);
        let filled = self.filled();
        larger.data[..filled.len()].copy_from_slice(filled);
        larger.end = filled.len();
        *self = larger;
        true
    }

    /// The bytes filled and not consumed.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// As [`Self::filled`], for decryption in place.
    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// Whether nothing is filled.
    pub(crate) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether no further byte fits without moving the contents.
    pub(crate) fn is_full(&self) -> bool {
        self.end == self.data.len()
    }

    /// The first `count` filled bytes are no longer needed.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "consumed more than filled");
        self.start += count;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Discards the contents.
    pub(crate) const fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Moves the contents to the front.
    pub(crate) fn compact(&mut self) {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Splits off the first `count` filled bytes: they stay unchanged while the rest serves as a buffer. Report what is
    /// filled afterwards to [`Self::keep`].
    pub(crate) fn split(&mut self, count: usize) -> (&[u8], Window<'_>) {
        assert_eq!(self.start, 0, "only a compact buffer is split");
        let (head, rest) = self.data.split_at_mut(count);
        let end = self.end - count;
        let window = Window {
            data: rest,
            start: 0,
            end,
            overwritten: false,
        };
        (head, window)
    }

    /// Its first `count` bytes, consumed or not.
    pub(crate) fn front(&self, count: usize) -> &[u8] {
        &self.data[..count]
    }

    /// Sets what is filled from now on, as offsets from the start of the buffer.
    pub(crate) fn keep(&mut self, range: std::ops::Range<usize>) {
        assert!(range.end <= self.data.len(), "kept more than there is");
        (self.start, self.end) = (range.start, range.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// The free part after the contents; in the largest kind, only as much as a buffer of the usual size, so that what
    /// follows a head fits into one.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let end = match self.data.len() {
            LARGEST_LEN => LARGEST_LEN.min(self.end + BUFFER_LEN),
            len => len,
        };
        &mut self.data[self.end..end]
    }

    /// Copies what is filled after the first `count` bytes to a buffer of the usual size; `None` if this is not of the
    /// largest kind.
    pub(crate) fn behind(&self, count: usize) -> Option<Self> {
        (self.data.len() == LARGEST_LEN).then(|| {
            let mut behind = Self::take();
            let rest = &self.filled()[count..];
            behind.space()[..rest.len()].copy_from_slice(rest);
            behind.advance(rest.len());
            behind
        })
    }

    /// `count` bytes of [`Self::space`] have been filled.
    pub(crate) fn advance(&mut self, count: usize) {
        self.end += count;
        assert!(self.end <= self.data.len(), "filled more than there is");
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        let kept = match data.len() {
            0 => return,
            LARGEST_LEN => {
                let _ = LARGEST.try_with(|used| used.set(used.get() - 1));
                return;
            }
            LONG_LEN => &SPARE_LONG,
            _ => &SPARE,
        };
        // At the end of a thread the free list may be gone already.
        let _ = kept.try_with(|spare| spare.borrow_mut().give(data));
    }
}

/// The part of a [`Buffer`] after a head that must not move.
pub(crate) struct Window<'a> {
    data: &'a mut [u8],
    start: usize,
    end: usize,
    overwritten: bool,
}

impl Window<'_> {
    /// The bytes filled and not consumed.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// What is filled, as offsets from the end of the head.
    pub(crate) const fn range(&self) -> std::ops::Range<usize> {
        self.start..self.end
    }

    /// Whether consumed bytes have been overwritten: then the body cannot be sent again.
    pub(crate) const fn was_overwritten(&self) -> bool {
        self.overwritten
    }

    /// Consumes the first `count` filled bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "consumed more than filled");
        self.start += count;
    }

    /// Whether nothing can be read without overwriting consumed bytes.
    pub(crate) fn is_full(&self) -> bool {
        self.end == self.data.len()
    }

    /// Discards the consumed bytes to make room. Nothing may be filled.
    pub(crate) fn reuse(&mut self) {
        assert_eq!(self.start, self.end, "bytes would be lost");
        self.overwritten |= self.start > 0;
        (self.start, self.end) = (0, 0);
    }
}

/// Something to read bytes into.
pub(crate) trait Sink {
    /// The free part; not empty when it is read into.
    fn space(&mut self) -> &mut [u8];
    /// `count` bytes of it have been filled.
    fn advance(&mut self, count: usize);
}

impl Sink for Buffer {
    fn space(&mut self) -> &mut [u8] {
        Self::space(self)
    }

    fn advance(&mut self, count: usize) {
        Self::advance(self, count);
    }
}

impl Sink for Window<'_> {
    fn space(&mut self) -> &mut [u8] {
        &mut self.data[self.end..]
    }

    fn advance(&mut self, count: usize) {
        self.end += count;
    }
}
