//! What a request needs while it is served, reused for the next one.

use crate::free_list::FreeList;
use gaiola_core::forward::Outgoing;
use gaiola_core::rule::Rewritten;
use gaiola_model::http::{RequestHead, ResponseHead};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static KEPT: RefCell<FreeList<Box<Parts>>> = const { RefCell::new(FreeList::new(1024)) };
}

/// Frees memory that was not needed recently.
pub(crate) fn trim() {
    KEPT.with_borrow_mut(FreeList::trim);
}

/// The heads of a request and its response, as received and as forwarded.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) request: RequestHead,
    pub(super) onward: Outgoing,
    pub(super) response: ResponseHead,
    pub(super) back: Outgoing,
    /// What rules changed of the request; meaningful only if its route has rules.
    pub(super) rewritten: Rewritten,
    /// Temporary memory, which any user overwrites.
    pub(super) scratch: Vec<u8>,
    /// Lines to add to the response.
    pub(super) lines: Vec<u8>,
}

/// [`Parts`] on loan.
pub(crate) struct Heads(Option<Box<Parts>>);

impl Heads {
    /// Parts with no meaningful content.
    pub(crate) fn take() -> Self {
        Self(Some(
            KEPT.with_borrow_mut(FreeList::take).unwrap_or_default(),
        ))
    }
}

impl Deref for Heads {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.0.as_ref().expect("held until dropped")
    }
}

impl DerefMut for Heads {
    fn deref_mut(&mut self) -> &mut Parts {
        self.0.as_mut().expect("held until dropped")
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        if let Some(parts) = self.0.take() {
            // At the end of a thread it may be gone already.
            let _ = KEPT.try_with(|kept| kept.borrow_mut().give(parts));
        }
    }
}
