//! The request half of an attempt.

use super::{Outcome, Stage, Stop};
use crate::clock::Instant;
use crate::exchange::body::Body;
use crate::exchange::large::{self, Text};
use crate::io::{self, Fault, Reader, Timer, Window, Writer};
use gaiola_core::forward::Outgoing;
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::http::RequestHead;
use std::borrow::Cow;
use std::cell::RefCell;
use std::future::pending;
use std::time::Duration;

/// Forwards the request to the server.
pub(super) struct Sending<'a, 'b> {
    pub(super) head: &'a Outgoing,
    pub(super) front: &'a [u8],
    pub(super) text: &'a RefCell<Text>,
    pub(super) request: &'a RequestHead,
    pub(super) window: &'a mut Window<'b>,
    pub(super) body: Body,
    pub(super) from: Reader<'a>,
    pub(super) to: Writer<'a>,
    pub(super) timer: &'a mut Timer,
    pub(super) limit: Duration,
    /// Size limit of the body.
    pub(super) most: Option<u64>,
    pub(super) pace: Pace,
    pub(super) stage: &'a Stage,
}

/// How fast a body arrives, counting only time spent waiting for it.
pub(super) struct Pace {
    /// Time allowed in addition to what the rate gives.
    grace: Duration,
    /// Minimum rate in bytes per second; 0: none.
    rate: u32,
    waited: Duration,
    received: u64,
}

impl Pace {
    pub(super) const fn new(grace: Duration, rate: u32) -> Self {
        Self {
            grace,
            rate,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// How long the next bytes may take.
    fn left(&self) -> Duration {
        let millis = self
            .received
            .saturating_mul(1000)
            .checked_div(self.rate.into());
        let earned = millis.map_or(Duration::MAX, Duration::from_millis);
        let all = self.grace.saturating_add(earned);
        all.saturating_sub(self.waited)
    }

    /// Adds bytes received and the time waited for them.
    fn add(&mut self, received: usize, waited: Duration) {
        self.received += received as u64;
        self.waited += waited;
    }
}

impl Sending<'_, '_> {
    /// Runs to the end. Called once; by value, the future would hold `self` twice.
    pub(super) async fn run(&mut self) -> Stop {
        match self.send().await {
            Ok(()) => {
                self.stage.sent_at.set(Some(Instant::now()));
                self.stage.is_sent.set(true);
            }
            Err(stop) => {
                // The response, if any, has already arrived.
                self.stage.sent_at.set(Some(Instant::now()));
                return stop;
            }
        }
        self.watch().await
    }

    async fn send(&mut self) -> Result<(), Stop> {
        self.pace.received += self.window.filled().len() as u64;
        let part = self.take()?;
        let body = &self.window.filled()[..part];
        let large = self.text.borrow().large();
        let front = large.as_ref().map_or(self.front, |large| large.filled());
        let pieces = self.head.slices(front).chain([body]);
        let written = io::write_pieces(&mut self.to, pieces, &self.stage.sent);
        self.timer
            .within(self.limit, written)
            .await
            .map_err(|_| Stop::Server)?;
        drop(large);
        self.window.consume(part);
        while !self.body.is_done() {
            if self.window.filled().is_empty() {
                self.read().await?;
            }
            let part = self.take()?;
            let body = &self.window.filled()[..part];
            let written = io::write_pieces(&mut self.to, [body].into_iter(), &self.stage.sent);
            self.timer
                .within(self.limit, written)
                .await
                .map_err(|_| Stop::Server)?;
            self.window.consume(part);
        }
        Ok(())
    }

    fn take(&mut self) -> Result<usize, Stop> {
        let taken = self.body.take(self.window.filled());
        let taken = taken.map_err(|bad| self.reject(400, bad.to_string()))?;
        match (&self.body, self.most) {
            (Body::Chunked(chunks), Some(most)) if chunks.data_taken() > most => {
                Err(self.reject(413, format!("its body has more than {most} bytes")))
            }
            _ => Ok(taken),
        }
    }

    /// Its body is not acceptable.
    fn reject(&self, status: u16, reason: String) -> Stop {
        self.stop(|phase| Cause::Rejected { phase, status }, reason)
    }

    /// The client is at fault.
    fn stop(&self, cause: impl Fn(Phase) -> Cause, reason: impl Into<Cow<'static, str>>) -> Stop {
        let reason = reason.into();
        Stop::Client(if self.stage.is_answered() {
            Outcome::Broken(cause(Phase::Data), reason)
        } else {
            Outcome::Client(cause(Phase::Response), reason)
        })
    }

    async fn read(&mut self) -> Result<(), Stop> {
        if self.window.is_full() {
            self.window.reuse();
            // Without its body it cannot be sent again.
            large::give_up(self.text, self.request);
        }
        let left = if self.stage.is_answered() {
            // It may be a conversation.
            Duration::MAX
        } else {
            self.pace.left()
        };
        let began = Instant::now();
        let read = io::read(&mut self.from, self.window);
        let fault = match self.timer.within(self.limit.min(left), read).await {
            Ok(count) => {
                self.pace.add(count, began.elapsed());
                return Ok(());
            }
            Err(fault) => fault,
        };
        Err(match fault {
            Fault::Deadline if left < self.limit => {
                let rate = self.pace.rate;
                let why = format!("the client sent its request at less than {rate} bytes a second");
                self.stop(Cause::ClientTimedOut, why)
            }
            Fault::Deadline => self.stop(
                Cause::ClientTimedOut,
                "the client stopped sending its request",
            ),
            Fault::Closed | Fault::Os(_) => {
                self.stop(Cause::ClientLeft, "the client left within its request")
            }
        })
    }

    /// Reads ahead while there is room, and notices when the client leaves.
    async fn watch(&mut self) -> Stop {
        while !self.window.is_full() {
            if io::read(&mut self.from, self.window).await.is_err() {
                return self.stop(Cause::ClientLeft, "the client left");
            }
        }
        pending().await
    }
}
