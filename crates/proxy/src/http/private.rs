//! Connections to servers that carry one client's requests only (HAProxy: private). They last no longer than the
//! client's.

use crate::io::Stream;
use crate::serving::{Idle, Server};
use gaiola_model::http::Method;
use std::rc::Rc;
use std::time::Duration;

/// Most per client; beyond it, the least recently used is closed.
const MOST: usize = 5;

/// A client's idle connections to servers, the most recently used last.
#[derive(Default)]
pub(super) struct Private(Vec<Held>);

struct Held {
    server: Rc<Server>,
    idle: Idle,
    /// Whether it holds the client's state, so that the next request belongs there; the others were only announced in a
    /// PROXY header.
    bound: bool,
    /// The server's count of closings when it was kept.
    closings: u64,
}

impl Held {
    fn stands(&self) -> bool {
        self.closings == self.server.closings() && self.idle.is_quiet(true)
    }
}

impl Private {
    /// Keeps a connection for the client's next request.
    pub(super) fn keep(&mut self, server: &Rc<Server>, stream: Stream, bound: bool) {
        self.0.retain(Held::stands);
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Held {
            server: Rc::clone(server),
            idle: Idle::new(stream),
            bound,
            closings: server.closings(),
        });
    }

    /// The one to this server, if it is still open and may carry a request of this method; and whether it holds state.
    /// One with state has no age limit: on another the client would have to authenticate again.
    pub(super) fn take(
        &mut self,
        server: &Rc<Server>,
        method: Method,
        longest: Duration,
    ) -> Option<(Stream, bool)> {
        let mut held = self.0.iter();
        let place = held.rposition(|held| Rc::ptr_eq(&held.server, server))?;
        let held = self.0.remove(place);
        if !held.stands() {
            return None;
        }
        let stream = match held.bound {
            true => held.idle.unless_stirred(method),
            false => held.idle.reuse(method, longest),
        };
        stream.map(|stream| (stream, held.bound))
    }

    /// Index of a server that holds the client's state and takes requests, the most recently used first.
    pub(super) fn preferred(&self, servers: &[Rc<Server>]) -> Option<usize> {
        let held = self.0.iter().rev().filter(|held| held.bound);
        let mut held = held.filter(|held| held.server.is_usable() && held.stands());
        held.find_map(|held| {
            let mut all = servers.iter();
            all.position(|server| Rc::ptr_eq(server, &held.server))
        })
    }
}
