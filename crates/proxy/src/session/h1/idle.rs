//! Waits for the next request.

use super::Connection;
use crate::clock::Instant;
use crate::exchange::Next;
use crate::io;
use gaiola_model::proxy::{Admission, ClientTimeouts};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Why waiting for a request ended.
enum Woken {
    /// Something has arrived.
    Readable,
    /// The client has left.
    Broken,
    /// Nothing arrived in time.
    Late,
    /// The configuration has changed, or the connection was asked to close.
    Asked,
}

impl Connection {
    /// Waits for a request's first byte, without holding a buffer. `is_served`: whether a frontend exists, as far as is
    /// known.
    pub(super) async fn idle(
        &mut self,
        timeouts: &ClientTimeouts,
        mut is_served: bool,
    ) -> Result<(), Next> {
        let limit = match self.served {
            0 => timeouts.request_head,
            _ => timeouts.keep_alive,
        };
        let since = Instant::now();
        if self.closes_for_others() {
            return Err(Next::Close);
        }
        loop {
            let is_kept = is_served && self.is_kept();
            let woken = self.wait(since, limit, is_kept).await?;
            let activity = &self.client.origin.activity;
            let is_to_close = activity.is_to_close();
            activity.unpark();
            if is_to_close {
                if io::is_quiet(&self.client.stream, false) {
                    return Err(Next::Close);
                }
                self.client.origin.share().request_close_again();
            }
            match woken {
                Woken::Readable => return Ok(()),
                Woken::Broken => return Err(Next::Left),
                Woken::Late => {
                    self.log_silent(limit);
                    return Err(Next::Close);
                }
                Woken::Asked => is_served = self.terms().is_some(),
            }
        }
    }

    /// Waits for one event; an error if the connection is not kept and nothing has arrived on it.
    async fn wait(
        &mut self,
        since: Instant,
        limit: Duration,
        is_kept: bool,
    ) -> Result<Woken, Next> {
        let worker = Rc::clone(&self.worker);
        let mut changed = worker.wake.notified();
        if !is_kept && io::is_quiet(&self.client.stream, false) {
            return Err(Next::Close);
        }
        let may_close = self.served > 0;
        let (stream, timer) = (&self.client.stream, &mut self.client_timer);
        let activity = &self.client.origin.activity;
        let woken = poll_fn(|cx| {
            if let Poll::Ready(ready) = stream.poll_read_ready(cx) {
                return Poll::Ready(ready.map_or(Woken::Broken, |()| Woken::Readable));
            }
            if Pin::new(&mut changed).poll(cx).is_ready() || activity.is_to_close() {
                return Poll::Ready(Woken::Asked);
            }
            if may_close {
                activity.park(since, cx.waker());
            }
            timer.poll_until(cx, since + limit).map(|()| Woken::Late)
        });
        Ok(woken.await)
    }

    /// Whether it closes at once, since new connections wait for room.
    fn closes_for_others(&self) -> bool {
        let share = self.client.origin.share();
        self.served > 0
            && share.is_crowded()
            && io::is_quiet(&self.client.stream, false)
            && share.takes_close_request()
    }

    /// Whether the frontend keeps the connection while idle. A new one always gets its first request served: the client
    /// has just sent it, or is about to. None in plain text is kept where TLS has come to be required.
    fn is_kept(&self) -> bool {
        if self.is_too_plain() {
            return false;
        }
        let local = self.client.origin.local;
        self.served == 0 || self.worker.admission(local) != Admission::Refuse
    }
}
