//! What a request needs while it is served, kept for the next one.

use crate::spare::Spare;
use gaiola_core::forward::Outgoing;
use gaiola_core::rule::Rewritten;
use gaiola_model::http::{RequestHead, ResponseHead};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static KEPT: RefCell<Spare<Box<Parts>>> = const { RefCell::new(Spare::new(1024)) };
}

/// Gives memory back that was not needed of late.
pub(crate) fn trim() {
    KEPT.with_borrow_mut(Spare::trim);
}

/// The heads of a request and its response, as they came and as they are sent on.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) request: RequestHead,
    pub(super) onward: Outgoing,
    pub(super) response: ResponseHead,
    pub(super) back: Outgoing,
    /// What rules make of the request; of use only where its route has some.
    pub(super) rewritten: Rewritten,
    /// Written over by whoever needs some memory for a moment.
    pub(super) scratch: Vec<u8>,
    /// Lines that the response gets besides.
    pub(super) lines: Vec<u8>,
}

/// [`Parts`] on loan.
pub(super) struct Heads(Option<Box<Parts>>);

impl Heads {
    /// Parts that hold nothing of use.
    pub(super) fn take() -> Self {
        Self(Some(KEPT.with_borrow_mut(Spare::take).unwrap_or_default()))
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
            // At a thread's end they may be gone already.
            let _ = KEPT.try_with(|kept| kept.borrow_mut().give(parts));
        }
    }
}
