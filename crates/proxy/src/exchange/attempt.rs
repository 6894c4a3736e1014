//! One attempt: the request to one server and its response to the client, concurrently.
//!
//! Sending continues while the response arrives, so that a server may answer early and the client may wait for `100
//! Continue`. Once the request is sent, the same future watches whether the client leaves.

mod receiving;
mod sending;
mod watch;

use super::body::Body;
use super::large::Text;
use super::record::Record;
use super::scratch::Parts;
use super::{Downstream, Routed};
use crate::client::Origin;
use crate::clock::Instant;
use crate::io::{Buffer, Stream, Tcp, Timer, Window};
use crate::log::Leg;
use crate::serving::{Backend, Server};
use crate::worker::Worker;
use gaiola_core::compression;
use gaiola_core::forward::Outgoing;
use gaiola_core::retry::Failure;
use gaiola_core::rule::Rules;
use gaiola_core::sticky::Jar;
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::proxy::{Admission, Compression, OnMarkedDown};
use receiving::Receiving;
use sending::{Pace, Sending};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use watch::Watch;

/// Everything one attempt needs.
pub(super) struct Attempt<'a, 'w, 'c> {
    pub(super) message: Message<'a, 'w>,
    pub(super) downstream: &'a mut Downstream<'c>,
    pub(super) upstream: Upstream<'a>,
    pub(super) policy: Policy<'a>,
    pub(super) record: &'a mut Record,
}

/// The request, and room for the response.
pub(super) struct Message<'a, 'w> {
    /// The request's head as received, unless `text` has it; the spans of `heads.request` and `heads.onward` point into
    /// it.
    pub(super) front: &'a [u8],
    /// Where the head is. A buffer of the largest kind is released as soon as the request cannot be sent again.
    pub(super) text: &'a RefCell<Text>,
    pub(super) heads: &'a mut Parts,
    /// What was received after the head.
    pub(super) window: &'a mut Window<'w>,
    pub(super) body: Body,
}

/// The server's side.
pub(super) struct Upstream<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) timer: &'a mut Timer,
    pub(super) server: &'a Server,
    /// Whether the connection has served a request before.
    pub(super) reused: bool,
    /// Buffer for the response, taken at its first byte.
    pub(super) buffer: &'a mut Option<Buffer>,
}

/// What the configuration says about the attempt.
pub(super) struct Policy<'a> {
    /// How long the client may stall.
    client_limit: Duration,
    /// Minimum rate of the body, in bytes per second.
    body_rate: u32,
    /// Size limit of the body.
    body_limit: Option<u64>,
    /// How long the response may take to begin, and how long it may stall.
    response_limit: Duration,
    /// What the route does to the response.
    rules: Option<&'a Rules>,
    on_marked_down: OnMarkedDown,
    /// How the route has responses compressed, and for whom.
    compress: Option<&'a Compression>,
    reader: compression::Client,
    /// The name of this proxy, as one hop.
    hop: &'a str,
    /// Name of the cookie that only we set.
    own_cookie: Option<&'a str>,
    /// Whether the response has the request's id in `X-Request-ID`.
    own_request_id: bool,
    /// Whether the client's connection may be kept alive, as far as the request is concerned.
    keep_alive: bool,
    /// The local address that the client connected to, which the worker may have stopped to serve.
    local: IpAddr,
    worker: &'a Worker,
}

impl<'a> Policy<'a> {
    /// The policy for an attempt of this request at a server of this backend.
    pub(super) fn new(
        worker: &'a Worker,
        origin: &Origin,
        routed: &Routed<'a>,
        backend: &'a Backend,
    ) -> Self {
        let frontend = routed.serving.of(routed.frontend).1;
        let timeouts = &frontend.timeouts;
        let response = routed.allowance.response;
        Self {
            client_limit: timeouts.idle,
            body_rate: timeouts.body_rate,
            body_limit: routed.allowance.body,
            response_limit: response.unwrap_or(backend.config.timeouts.response),
            rules: routed.rules,
            on_marked_down: backend.config.on_marked_down,
            compress: routed.compress,
            reader: routed.reader,
            hop: &routed.serving.config().server,
            own_cookie: backend.jar.as_ref().map(Jar::name),
            own_request_id: frontend.return_request_id,
            keep_alive: routed.keep_alive,
            local: origin.local,
            worker,
        }
    }

    /// Whether the client's connection may be kept alive, asked when the response begins.
    fn keeps_alive(&self) -> bool {
        self.keep_alive && self.worker.admission(self.local) == Admission::Accept
    }
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
    Failed(Failure, Cause, String),
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
        Self::Failed(failure, cause, reason)
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

impl Attempt<'_, '_, '_> {
    /// Makes the attempt; also returns how many bytes of the request were sent. Called once, like its halves.
    pub(super) async fn run(&mut self) -> (Outcome, u64) {
        let stage = Stage::default();
        let carrier = self.upstream.stream.tcp().cloned();
        let left = || carrier.as_ref().map(Tcp::left);
        let before = left();
        let outcome = self.send_and_receive(&stage, carrier.as_ref()).await;
        self.note(&stage);
        self.count(&stage, &outcome);
        // What was written waits in the outbox, and may never have left.
        let has_left = before.is_none() || left() != before;
        if let (false, Outcome::Failed(..), Some(carrier)) = (has_left, &outcome, &carrier) {
            carrier.abandon();
        }
        (outcome, if has_left { stage.sent.get() } else { 0 })
    }

    /// Runs both halves until one of them, or an interrupt of the server, decides the outcome.
    async fn send_and_receive(&mut self, stage: &Stage, carrier: Option<&Tcp>) -> Outcome {
        let (message, policy) = (&mut self.message, &self.policy);
        let Parts {
            request,
            onward,
            response,
            back,
            lines,
            rewritten,
            ..
        } = &mut *message.heads;
        let request = &*request;
        let edit = policy.rules.map(|rules| rules.response_edit(rewritten));
        let (from_client, to_client) = self.downstream.stream.split();
        let (from_server, to_server) = self.upstream.stream.split();
        let mut sending = Sending {
            head: onward,
            front: message.front,
            text: message.text,
            request,
            window: message.window,
            body: message.body.clone(),
            from: from_client,
            to: to_server,
            timer: self.downstream.timer,
            limit: policy.client_limit,
            most: policy.body_limit,
            pace: Pace::new(policy.client_limit, policy.body_rate),
            stage,
        };
        let mut receiving = Receiving {
            request,
            text: message.text,
            response,
            back,
            buffer: self.upstream.buffer,
            from: from_server,
            to: to_client,
            timer: self.upstream.timer,
            edit: edit.unwrap_or_default(),
            lines,
            reused: self.upstream.reused,
            policy,
            stage,
        };
        let mut watch = Watch {
            server: self.upstream.server,
            interrupted: self.upstream.server.interrupted(),
            carrier,
            repeatable: request.method.is_idempotent(),
            shut_down: policy.on_marked_down == OnMarkedDown::ShutdownSessions,
            dying: None,
        };
        let mut sending = pin!(sending.run());
        let mut receiving = pin!(receiving.run());
        let mut is_sending = true;
        poll_fn(|cx| {
            if is_sending && let Poll::Ready(stop) = sending.as_mut().poll(cx) {
                match stop {
                    Stop::Client(outcome) => return Poll::Ready(outcome),
                    Stop::Server => is_sending = false,
                }
            }
            if let Poll::Ready(outcome) = receiving.as_mut().poll(cx) {
                return Poll::Ready(outcome);
            }
            watch.poll(cx, stage)
        })
        .await
    }

    /// Counts what is the server's fault. A kept connection that it had closed meanwhile is not.
    fn count(&self, stage: &Stage, outcome: &Outcome) {
        let server = &self.upstream.server;
        match outcome {
            Outcome::Failed(Failure::Closed { stale: true }, ..) => {}
            Outcome::Failed(..) => server.failed(),
            _ if stage.status.get() >= 500 => server.erred(),
            _ => {}
        }
    }

    /// Records what was sent and received.
    fn note(&mut self, stage: &Stage) {
        let head_len = self.message.heads.onward.len() as u64;
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
                self.upstream.server.answered(after);
            }
            (None, Some(sent_at)) => record.response.span = sent_at.elapsed(),
            (None, None) => {}
        }
    }
}
