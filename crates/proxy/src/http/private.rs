//! Connections to servers that carry one client's requests only (HAProxy: private). They last no longer than the client's.

use crate::io::Stream;
use crate::serving::{Idle, Server};
use gaiola_model::http::Method;
use std::rc::Rc;
use std::time::Duration;

/// Most that one client holds; the one that was used longest ago makes room.
const MOST: usize = 5;

/// A client's connections to servers on which nothing is asked now, the one used last at the end.
#[derive(Default)]
pub(super) struct Private(Vec<Held>);

struct Held {
    server: Rc<Server>,
    idle: Idle,
    /// Whether it holds state of the client's, so that the next request belongs there; the others only name the client.
    bound: bool,
    /// How often the server's connections had been closed when it was kept.
    closings: u64,
}

impl Held {
    fn stands(&self) -> bool {
        self.closings == self.server.closings() && self.idle.is_quiet(true)
    }
}

impl Private {
    /// Keeps one for the client's next request.
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

    /// The one to this server, if it still stands and may carry a request of this method; and whether it holds state. Such a
    /// one has no age: another would have the client prove itself anew.
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

    /// Which of these servers holds state of the client's and takes requests, by index.
    pub(super) fn preferred(&self, servers: &[Rc<Server>]) -> Option<usize> {
        let held = self.0.iter().rev().filter(|held| held.bound);
        let mut held = held.filter(|held| held.server.is_usable() && held.stands());
        held.find_map(|held| {
            let mut all = servers.iter();
            all.position(|server| Rc::ptr_eq(server, &held.server))
        })
    }
}
