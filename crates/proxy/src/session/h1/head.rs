//! Reads the head of the next request.

use super::Connection;
use crate::clock::Instant;
use crate::exchange::{Heads, Next, Record, Request};
use crate::io::{self, Buffer, Fault};
use crate::rules::LIMITS;
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::proxy::ClientTimeouts;
use gaiola_wire::http1::{self, Limits, Progress};
use std::time::Duration;

/// A head of which some was read.
struct Reading {
    buffer: Buffer,
    heads: Heads,
    begun: Instant,
    /// Time until its last bytes arrived.
    took: Duration,
    /// How much of the buffer was searched for the head's end.
    searched: usize,
    limits: Limits,
}

impl Connection {
    /// Waits for a request and reads its head. `received` are its first bytes.
    pub(super) async fn next_request(&mut self, received: Option<Buffer>) -> Result<Request, Next> {
        let terms = self.terms();
        let is_served = terms.is_some();
        let (timeouts, largest) = terms.unwrap_or((ClientTimeouts::default(), LIMITS.head));
        let buffer = match received {
            Some(received) => received,
            None => {
                self.idle(&timeouts, is_served).await?;
                Buffer::take()
            }
        };
        if self.is_too_plain() {
            return Err(Next::Close);
        }
        let mut reading = Reading::new(buffer, largest);
        loop {
            match reading.parse() {
                Ok(true) => return Ok(reading.into_request()),
                Ok(false) => {}
                Err((cause, why)) => return Err(self.refuse(reading.begun, cause, why).await),
            }
            if !reading.has_room() {
                let cause = Cause::OutOfMemory;
                return Err(self.refuse(reading.begun, cause, cause.words()).await);
            }
            self.read(&mut reading, timeouts.request_head).await?;
        }
    }

    /// Reads more of the head, all of which may take `limit`.
    async fn read(&mut self, reading: &mut Reading, limit: Duration) -> Result<(), Next> {
        let goes_on = !reading.buffer.is_empty();
        let left = if goes_on {
            limit.saturating_sub(reading.begun.elapsed())
        } else {
            limit
        };
        let read = io::read(&mut self.client.stream, &mut reading.buffer);
        match self.client_timer.within(left, read).await {
            Ok(_) if goes_on => reading.took = reading.begun.elapsed(),
            Ok(_) => {}
            Err(Fault::Deadline) if !reading.buffer.is_empty() => {
                let cause = Cause::ClientTimedOut(Phase::Request);
                return Err(self.refuse(reading.begun, cause, cause.words()).await);
            }
            // A partial TLS record has arrived.
            Err(Fault::Deadline) => {
                self.log_silent(limit);
                return Err(Next::Close);
            }
            Err(fault) => {
                if !reading.buffer.is_empty() {
                    self.log_left(reading.begun);
                } else if let Fault::Os(error) = fault {
                    self.log_broken(error);
                }
                return Err(Next::Left);
            }
        }
        Ok(())
    }

    /// Counts and logs a request whose client left before the head was complete.
    fn log_left(&self, begun: Instant) {
        let mut record = Record::new(&self.worker, begun);
        record.fail(Cause::ClientLeft(Phase::Request));
        record.status = 499;
        let serving = self.worker.serving();
        let is_tls = self.client.stream.tls().is_some();
        record.finish(&self.worker, (&self.client.origin, is_tls), &serving, None);
    }
}

impl Reading {
    fn new(buffer: Buffer, largest: usize) -> Self {
        Self {
            buffer,
            heads: Heads::take(),
            begun: Instant::now(),
            took: Duration::ZERO,
            searched: 0,
            limits: Limits {
                head: largest,
                ..LIMITS
            },
        }
    }

    /// Whether the head is complete.
    fn parse(&mut self) -> Result<bool, (Cause, String)> {
        let filled = self.buffer.filled();
        let may_have_ended = may_have_ended(filled, self.searched, self.limits.head);
        self.searched = filled.len();
        if !may_have_ended {
            return Ok(false);
        }
        match http1::parse_request(filled, &mut self.heads.request, &self.limits) {
            Ok(progress) => Ok(progress == Progress::Done),
            Err(bad) => {
                let cause = Cause::Rejected {
                    phase: Phase::Request,
                    status: bad.status(),
                };
                Err((cause, bad.to_string()))
            }
        }
    }

    /// Makes room for a head larger than usual; `false`: the worker has no buffer for it.
    fn has_room(&mut self) -> bool {
        self.buffer.filled().len() < LIMITS.head || self.buffer.make_room()
    }

    fn into_request(self) -> Request {
        Request::new(self.buffer, self.heads, self.begun, self.took)
    }
}

/// Whether to parse the head. Of the largest heads not every piece is parsed, or a client that drips one would cost us
/// much.
fn may_have_ended(filled: &[u8], searched: usize, limit: usize) -> bool {
    const END: &[u8] = b"\r\n\r\n";
    let is_usual = filled.len() < LIMITS.head || filled.len() >= limit;
    let new = &filled[searched.saturating_sub(END.len())..];
    !filled.is_empty() && (is_usual || new.windows(END.len()).any(|four| four == END))
}
