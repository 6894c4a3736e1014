//! Connections to servers that carry one client's requests only (HAProxy: private). They last no longer than the
//! client's.

use crate::io::Stream;
use crate::serving::{Idle, Server};
use gaiola_model::http::Method;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Most per client; beyond it, the least recently used is closed.
const MOST: usize = 5;

/// A client's idle connections to servers, the most recently used last.
#[derive(Default)]
pub(crate) struct Private(RefCell<Vec<Kept>>);

struct Kept {
    server: Rc<Server>,
    idle: Idle,
    /// Whether it holds the client's state, so that the next request belongs there; the others were only announced in a
    /// PROXY header.
    bound: bool,
    /// The server's count of closings when it was kept.
    closings: u64,
}

impl Kept {
    fn stands(&self) -> bool {
        self.closings == self.server.closings() && self.idle.is_quiet(true)
    }
}

impl Private {
    /// Keeps a connection for the client's next request.
    pub(super) fn keep(&self, server: &Rc<Server>, stream: Stream, bound: bool) {
        let mut all = self.0.borrow_mut();
        all.retain(Kept::stands);
        if all.len() >= MOST {
            all.remove(0);
        }
        all.push(Kept {
            server: Rc::clone(server),
            idle: Idle::new(stream),
            bound,
            closings: server.closings(),
        });
    }

    /// The one to this server, if it is still open and may carry a request of this method; and whether it holds state.
    /// One with state has no age limit: on another the client would have to authenticate again.
    pub(super) fn take(
        &self,
        server: &Rc<Server>,
        method: Method,
        longest: Duration,
    ) -> Option<(Stream, bool)> {
        let mut all = self.0.borrow_mut();
        let index = all
            .iter()
            .rposition(|kept| Rc::ptr_eq(&kept.server, server))?;
        let kept = all.remove(index);
        if !kept.stands() {
            return None;
        }
        let stream = if kept.bound {
            kept.idle.if_quiet(method)
        } else {
            kept.idle.reuse(method, longest)
        };
        stream.map(|stream| (stream, kept.bound))
    }

    /// Index of a server that holds the client's state and takes requests, the most recently used first.
    pub(super) fn preferred(&self, servers: &[Rc<Server>]) -> Option<usize> {
        let all = self.0.borrow();
        let bound = all.iter().rev().filter(|kept| kept.bound);
        let mut usable = bound.filter(|kept| kept.server.is_usable() && kept.stands());
        usable.find_map(|kept| {
            let mut all = servers.iter();
            all.position(|server| Rc::ptr_eq(server, &kept.server))
        })
    }
}
