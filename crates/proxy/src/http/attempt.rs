//! One attempt: the request to one server and its response to the client, concurrently.
//!
//! Sending continues while the response arrives, so that a server may answer early and the client may wait for `100
//! Continue`. Once the request is sent, the same future watches whether the client leaves.

mod receiving;
mod sending;

use super::body::Body;
use super::large::Text;
use super::record::Record;
use super::scratch::Parts;
use crate::io::{Buffer, Stream, Tcp, Timer, Window};
use crate::log::Leg;
use crate::serving::{Interrupt, Server};
use gaiola_core::forward::Outgoing;
use gaiola_core::retry::Failure;
use gaiola_core::rule::Rules;
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::proxy::{Allowance, OnMarkedDown, ServerTimeouts};
use receiving::Receiving;
use sending::{Pace, Sending};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Everything one attempt needs.
pub(super) struct Attempt<'a, 'w> {
    /// The request's head as received, unless `text` has it; the spans of `heads.request` and `heads.onward` point into
    /// it.
    pub(super) front: &'a [u8],
    /// Where the head is. A buffer of the largest kind is released as soon as the request cannot be sent again.
    pub(super) text: &'a RefCell<Text>,
    pub(super) heads: &'a mut Parts,
    /// What was received after the head.
    pub(super) window: &'a mut Window<'w>,
    pub(super) body: Body,
    pub(super) client: &'a mut Stream,
    pub(super) client_timer: &'a mut Timer,
    pub(super) client_limit: Duration,
    /// Minimum rate of the body, in bytes per second.
    pub(super) body_rate: u32,
    pub(super) server: &'a mut Stream,
    pub(super) server_timer: &'a mut Timer,
    pub(super) member: &'a Server,
    pub(super) timeouts: &'a ServerTimeouts,
    /// What the route does to the response, and what it allows.
    pub(super) rules: Option<&'a Rules>,
    pub(super) allowance: &'a Allowance,
    pub(super) on_marked_down: OnMarkedDown,
    /// Our own name, as one hop.
    pub(super) hop: &'a str,
    /// Name of the cookie that only we set.
    pub(super) own_cookie: Option<&'a str>,
    /// Whether the client's connection may be kept alive, asked when the response begins.
    pub(super) keep_alive: &'a dyn Fn() -> bool,
    /// The time, as a `Date` field value.
    pub(super) date: &'a dyn Fn() -> [u8; 29],
    pub(super) reused: bool,
    /// Buffer for the response, taken at its first byte.
    pub(super) buffer: &'a mut Option<Buffer>,
    pub(super) record: &'a mut Record,
}

/// Who may send further requests on a connection to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Anyone,
    /// The client whose request it carried: the connection holds that client's state.
    Client,
}

/// How an attempt ended.
pub(super) enum Outcome {
    /// The client has received the whole response.
    Answered {
        keep_client: bool,
        /// Who may reuse the server's connection, if it is kept.
        keep_server: Option<Holder>,
    },
    /// The client has received the response that switches protocols.
    Upgraded,
    /// No byte of a response has been forwarded.
    Failed {
        failure: Failure,
        cause: Cause,
        reason: String,
    },
    /// Part of the response has been forwarded.
    Broken(Cause, Cow<'static, str>),
    /// The client is at fault. No byte of a response has been forwarded.
    Client(Cause, Cow<'static, str>),
}

impl Outcome {
    fn failed(failure: Failure, reason: String) -> Self {
        let cause = match failure {
            Failure::Connect => Cause::ServerFailed(Phase::Connect),
            Failure::Closed { .. } => Cause::ServerFailed(Phase::Response),
            Failure::TimedOut => Cause::ServerTimedOut(Phase::Response),
            Failure::BadResponse => Cause::BadResponse(Phase::Response),
            Failure::Answered => Cause::ServerFailed(Phase::Data),
        };
        Self::Failed {
            failure,
            cause,
            reason,
        }
    }

    fn broken(cause: Cause) -> Self {
        Self::Broken(cause, cause.words().into())
    }
}

/// Progress of an attempt.
#[derive(Default)]
struct Stage {
    /// Bytes of the request written so far.
    sent: Cell<u64>,
    /// When the last of them was written, or sending was given up.
    sent_at: Cell<Option<Instant>>,
    /// Whether the whole request was written. Otherwise neither connection may carry another one.
    is_sent: Cell<bool>,
    /// Time from there until the final response began.
    began_after: Cell<Option<Duration>>,
    /// The final response's status, once a byte of it may have been forwarded; 0 before.
    status: Cell<u16>,
    /// Bytes written to the client, and those of heads due to be written.
    delivered: Cell<u64>,
    heads: Cell<u64>,
}

impl Stage {
    /// Counts a head about to be written to the client.
    fn count_head(&self, head: &Outgoing) {
        self.heads.set(self.heads.get() + head.len() as u64);
    }

    /// Whether a byte of the final response may have been forwarded.
    const fn is_answered(&self) -> bool {
        self.status.get() != 0
    }
}

/// Why sending ended.
enum Stop {
    /// The client is at fault.
    Client(Outcome),
    /// The server accepts no more; it may have responded.
    Server,
}

impl Attempt<'_, '_> {
    /// Makes the attempt; also returns how many bytes of the request were sent. Called once, like its halves.
    pub(super) async fn run(&mut self) -> (Outcome, u64) {
        let stage = Stage::default();
        let carrier = self.server.tcp().cloned();
        let left = || carrier.as_ref().map(Tcp::left);
        let before = left();
        let Parts {
            request,
            onward,
            response,
            back,
            lines,
            rewritten,
            ..
        } = &mut *self.heads;
        let request = &*request;
        let edit = self.rules.map(|rules| rules.response_edit(rewritten));
        let (from_client, to_client) = self.client.split();
        let (from_server, to_server) = self.server.split();
        let head_len = onward.len() as u64;
        let mut sending = Sending {
            head: onward,
            front: self.front,
            text: self.text,
            request,
            window: self.window,
            body: self.body.clone(),
            from: from_client,
            to: to_server,
            timer: self.client_timer,
            limit: self.client_limit,
            most: self.allowance.body,
            pace: Pace::new(self.client_limit, self.body_rate),
            stage: &stage,
        };
        let mut receiving = Receiving {
            request,
            text: self.text,
            response,
            back,
            buffer: self.buffer,
            from: from_server,
            to: to_client,
            timer: self.server_timer,
            client_limit: self.client_limit,
            limit: self.allowance.response.unwrap_or(self.timeouts.response),
            edit: edit.unwrap_or_default(),
            hop: self.hop,
            lines,
            own_cookie: self.own_cookie,
            keep_alive: self.keep_alive,
            date: self.date,
            reused: self.reused,
            stage: &stage,
        };
        let repeatable = request.method.is_idempotent();
        let shut_down = self.on_marked_down == OnMarkedDown::ShutdownSessions;
        let mut sending = pin!(sending.run());
        let mut receiving = pin!(receiving.run());
        let mut interrupted = self.member.interrupted();
        let mut dying: Option<Dying> = None;
        let mut is_sending = true;
        let outcome = poll_fn(|cx| {
            if is_sending && let Poll::Ready(stop) = sending.as_mut().poll(cx) {
                match stop {
                    Stop::Client(outcome) => return Poll::Ready(outcome),
                    Stop::Server => is_sending = false,
                }
            }
            if let Poll::Ready(outcome) = receiving.as_mut().poll(cx) {
                return Poll::Ready(outcome);
            }
            // A server that was marked down may be busy with this very request, and sending it elsewhere would overload
            // the next one. Only a dead server will never answer: a request that may be retried does not wait for it.
            while let Poll::Ready(why) = Pin::new(&mut interrupted).poll(cx) {
                let shut = shut_down || why == Interrupt::Ended;
                if let Some(outcome) = shut.then(|| interrupt(&stage, why)) {
                    return Poll::Ready(outcome);
                }
                let may_move = repeatable && !stage.is_answered();
                if let (Interrupt::Lost, true, Some(carrier)) = (why, may_move, carrier.clone()) {
                    dying = Some(Box::pin(async move { carrier.is_dead().await }));
                }
                interrupted = self.member.interrupted();
            }
            let is_dead = dying.as_mut().map(|dying| dying.as_mut().poll(cx));
            if let Some(Poll::Ready(is_dead)) = is_dead {
                dying = None;
                if is_dead && repeatable && !stage.is_answered() {
                    return Poll::Ready(interrupt(&stage, Interrupt::Lost));
                }
            }
            Poll::Pending
        })
        .await;
        let record = &mut *self.record;
        record.bytes += stage.delivered.get();
        record.head_bytes += stage.heads.get();
        record.body_bytes = stage.sent.get().saturating_sub(head_len);
        if stage.is_answered() {
            record.status = stage.status.get();
        }
        match (stage.began_after.get(), stage.sent_at.get()) {
            (Some(after), _) => {
                record.response = Leg::of(after);
                self.member.answered(after);
            }
            (None, Some(sent_at)) => record.response.span = sent_at.elapsed(),
            (None, None) => {}
        }
        // What was written waits in the outbox, and may never have left.
        let has_left = before.is_none() || left() != before;
        if let (false, Outcome::Failed { .. }, Some(carrier)) = (has_left, &outcome, &carrier) {
            carrier.abandon();
        }
        (outcome, if has_left { stage.sent.get() } else { 0 })
    }
}

/// Whether the server's kernel has stopped acknowledging on a connection.
type Dying = Pin<Box<dyn Future<Output = bool>>>;

/// How an interrupted attempt ends.
fn interrupt(stage: &Stage, why: Interrupt) -> Outcome {
    if stage.is_answered() {
        return Outcome::broken(why.cause(Phase::Data));
    }
    let cause = why.cause(Phase::Response);
    Outcome::Failed {
        failure: Failure::Closed { stale: false },
        cause,
        reason: cause.words().into(),
    }
}
