//! A request for a server: choosing one, connecting to it, and retrying where allowed.

mod choose;
mod connect;
mod prepare;

use super::attempt::{Attempt, Holder, Message, Outcome, Policy, Upstream};
use super::body::Body;
use super::large::Text;
use super::scratch::Parts;
use super::{Downstream, End, Exchange, Routed};
use crate::io::Buffer;
use crate::serving::{Backend, Idle, NoServer, Permit, ServedBy, Server, Want};
use crate::tunnel::tunnel;
use crate::worker::Worker;
use connect::ServerConnection;
use gaiola_core::health::{Input, Symptom};
use gaiola_core::private;
use gaiola_core::retry::{self, Failure, Verdict};
use gaiola_core::sticky::Found;
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::http::{Framing, Version};
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

/// Where a request is to go.
struct Target<'a> {
    backend: &'a Rc<Backend>,
    /// The backend's index.
    index: usize,
    want: Want,
    /// The server named by the request's cookie.
    found: Option<Found>,
}

/// The attempts so far.
#[derive(Default)]
struct Attempts {
    /// How many there were, with the current one.
    count: u32,
    /// Servers that failed; allocates with the first failure only.
    tried: Vec<usize>,
    /// Whether a connection was stale, so that the next attempt needs a new one.
    fresh: bool,
}

/// A failed attempt.
struct Failed {
    failure: Failure,
    cause: Cause,
    reason: String,
    /// Index of the server.
    server: usize,
    /// Bytes of the request that left for it.
    sent: u64,
    /// Whether all of the body read so far is still held.
    body_held: bool,
}

/// What is left of an attempt.
struct Attempted {
    outcome: Outcome,
    /// Bytes of the request that left for the server.
    sent: u64,
    body_held: bool,
    /// Range of what follows the request.
    rest: Range<usize>,
}

impl Exchange<'_> {
    /// Forwards the request, and its response to the client.
    pub(super) async fn forward(&mut self, routed: &Routed<'_>, route: usize) -> End {
        let Some((index, backend)) = routed.serving.backend(routed.frontend, route) else {
            self.record.fail(Cause::NoBackend);
            return self.answer_error(routed).await;
        };
        let target = self.target(routed, backend, index);
        self.prepare(routed, backend);
        let mut attempts = Attempts::default();
        loop {
            attempts.count += 1;
            let failed = match self.attempt(routed, &target, &mut attempts).await {
                Ok(end) => return end,
                Err(failed) => failed,
            };
            let body_held = failed.body_held;
            if let Verdict::GiveUp(why) = self.judge(routed, failed, &mut attempts) {
                let reason = format!("{}; not repeated: {why}", self.record.reason);
                self.record.reason = reason.into();
                let routed = Routed {
                    // The remaining body bytes from the client could be taken for a request.
                    keep_alive: routed.keep_alive && body_held,
                    ..*routed
                };
                return self.answer_error(&routed).await;
            }
        }
    }

    /// Makes one attempt: chooses a server, connects to it, and sends the request.
    async fn attempt(
        &mut self,
        routed: &Routed<'_>,
        target: &Target<'_>,
        attempts: &mut Attempts,
    ) -> Result<End, Failed> {
        self.record.served_by = ServedBy::Backend(target.index);
        let queue = routed.allowance.queue;
        let Some(chosen) = self.choose(target, attempts, queue).await else {
            return Ok(self.client_left(Phase::Queue));
        };
        let permit = match chosen {
            Ok(permit) => permit,
            Err(NoServer::Superseded) => return Ok(End::Again),
            Err(none) => return Ok(self.answer_no_server(routed, none).await),
        };
        self.note_choice(routed, target, attempts, &permit);
        self.set_lines(routed, target, permit.index);
        let connected = self.connect(target.backend, permit, attempts.fresh).await;
        let Some(connected) = connected else {
            return Ok(self.client_left(Phase::Connect));
        };
        self.send_to(routed, target.backend, connected?).await
    }

    /// Records which server was chosen.
    fn note_choice(
        &mut self,
        routed: &Routed<'_>,
        target: &Target<'_>,
        attempts: &Attempts,
        permit: &Permit,
    ) {
        self.record.served_by = ServedBy::Server(target.index, permit.index);
        let tried = &attempts.tried;
        if let Some(&failed) = tried.last().filter(|_| !tried.contains(&permit.index)) {
            self.record.redispatched = true;
            let (frontend, _) = routed.serving.of(routed.frontend);
            let failed = ServedBy::Server(target.index, failed);
            frontend.series(failed).record_redispatch();
        }
    }

    /// Records a failed attempt, and decides whether there is another one.
    fn judge(&mut self, routed: &Routed<'_>, failed: Failed, attempts: &mut Attempts) -> Verdict {
        let attempt = retry::FailedAttempt {
            failure: failed.failure,
            sent: failed.sent,
            method: self.request.heads.request.method,
            body_held: failed.body_held,
            attempts: attempts.count,
        };
        let budget = &mut self.worker.budget.borrow_mut();
        let verdict = retry::verdict(attempt, self.worker.now(), budget);
        self.record.fail_for(failed.cause, failed.reason);
        if verdict == Verdict::Repeat {
            self.record.retries += 1;
            let (frontend, _) = routed.serving.of(routed.frontend);
            frontend.series(self.record.served_by).record_retry();
            match failed.failure {
                Failure::Closed { stale: true } => attempts.fresh = true,
                _ => attempts.tried.push(failed.server),
            }
        }
        verdict
    }

    /// Sends the request to one server.
    async fn send_to(
        &mut self,
        routed: &Routed<'_>,
        backend: &Backend,
        mut connection: ServerConnection,
    ) -> Result<End, Failed> {
        let (head, text) = self.request.head();
        connection.bound |= private::by_request(head, text);
        let mut response = None;
        let attempted = self.run_attempt(routed, backend, &mut connection, &mut response);
        let attempted = attempted.await;
        match attempted.outcome {
            Outcome::Answered {
                keep_client,
                keep_server,
            } => {
                self.answered(connection, keep_server);
                Ok(if keep_client {
                    End::Request(attempted.rest)
                } else {
                    End::Close
                })
            }
            Outcome::Upgraded => {
                self.request.buffer.keep(attempted.rest);
                // The future is large, and most requests do not need it.
                Ok(Box::pin(self.tunnel(routed, backend, connection, response)).await)
            }
            Outcome::Broken(cause, reason) => {
                self.record.fail_for(cause, reason);
                if ends_with_connection(&self.request.heads) {
                    self.downstream.stream.reset_when_dropped();
                }
                Ok(End::Abort)
            }
            Outcome::Client(cause, reason) => {
                self.record.fail_for(cause, reason);
                if matches!(cause, Cause::ClientLeft(_)) {
                    return Ok(self.no_client());
                }
                // The server is free before the client is answered.
                drop(connection);
                let routed = Routed {
                    keep_alive: false,
                    ..*routed
                };
                Ok(self.answer_error(&routed).await)
            }
            Outcome::Failed(failure, cause, ref reason) => {
                Err(self.failed(&connection.permit, (failure, cause, reason), &attempted))
            }
        }
    }

    /// Runs one attempt with everything it needs.
    async fn run_attempt(
        &mut self,
        routed: &Routed<'_>,
        backend: &Backend,
        connection: &mut ServerConnection,
        response: &mut Option<Buffer>,
    ) -> Attempted {
        let request = &mut self.request;
        let (base, framing) = (request.base(), request.heads.request.framing);
        let text = RefCell::new(std::mem::replace(&mut request.text, Text::Front));
        let (front, mut window) = request.buffer.split(base);
        let policy = Policy::new(self.worker, self.downstream.origin, routed, backend);
        let mut attempt = Attempt {
            message: Message {
                front,
                text: &text,
                heads: &mut request.heads,
                window: &mut window,
                body: Body::new(framing),
            },
            downstream: &mut self.downstream,
            upstream: Upstream {
                stream: &mut connection.stream,
                timer: self.server_timer,
                server: &connection.permit.server,
                reused: connection.reused,
                buffer: response,
            },
            policy,
            record: &mut self.record,
        };
        let (outcome, sent) = attempt.run().await;
        let body_held = !window.was_overwritten();
        let rest = window.range();
        request.settle(text.into_inner());
        Attempted {
            outcome,
            sent,
            body_held,
            rest: base + rest.start..base + rest.end,
        }
    }

    /// The client has received the whole response; the server's connection is kept for `holder`.
    fn answered(&mut self, connection: ServerConnection, holder: Option<Holder>) {
        let ServerConnection {
            permit,
            mut stream,
            bound,
            ..
        } = connection;
        self.record.cause = Cause::Completed;
        if permit.server.proved_well() {
            self.worker.report(&permit.server.member, Input::Served);
        }
        match holder {
            Some(holder) => {
                let bound = bound || holder == Holder::Client;
                keep(&self.downstream, &permit.server, stream, bound);
            }
            None => stream.end(),
        }
    }

    /// The server did not respond.
    fn failed(
        &mut self,
        permit: &Permit,
        (failure, cause, reason): (Failure, Cause, &str),
        attempted: &Attempted,
    ) -> Failed {
        let ended = matches!(cause, Cause::SessionsShutdown(_));
        if let Some(symptom) = symptom_of(failure).filter(|_| !ended) {
            note_failure(self.worker, permit, symptom, reason);
        }
        if attempted.body_held {
            self.request.buffer.keep(0..attempted.rest.end);
        }
        Failed {
            failure,
            cause,
            reason: format!("{}: {reason}", permit.server.member.name),
            server: permit.index,
            sent: attempted.sent,
            body_held: attempted.body_held,
        }
    }

    /// Both sides have switched to another protocol.
    async fn tunnel(
        &mut self,
        routed: &Routed<'_>,
        backend: &Backend,
        mut connection: ServerConnection,
        response: Option<Buffer>,
    ) -> End {
        let silence = routed.serving.of(routed.frontend).1.timeouts.tunnel;
        let first = response.as_ref().map_or(&[][..], Buffer::filled);
        let server = Rc::clone(&connection.permit.server);
        connection.permit.becomes_tunnel();
        let end = tunnel(
            (self.downstream.stream, self.request.buffer.filled()),
            (&mut connection.stream, first),
            silence,
            server.shut(backend.config.on_marked_down),
        )
        .await;
        self.record.bytes += end.to_client;
        self.record.body_bytes += end.to_server;
        self.record.fail_for(end.cause, end.reason);
        drop((server, connection));
        end.leave(self.downstream.stream).await;
        End::Abort
    }

    async fn answer_no_server(&mut self, routed: &Routed<'_>, none: NoServer) -> End {
        if self.record.reason.is_empty() {
            self.record.fail_for(none.cause(), none.to_string())
        } else {
            self.record.cause = none.cause()
        }
        self.answer_error(routed).await
    }

    fn client_left(&mut self, phase: Phase) -> End {
        self.record.fail(Cause::ClientLeft(phase));
        self.no_client()
    }

    /// No client is left to answer.
    fn no_client(&mut self) -> End {
        self.record.status = self.record.cause.status().unwrap_or_default();
        End::Abort
    }
}

/// Keeps a connection for another request: any client's, or only this client's if the connection is `bound` to it or
/// announced it in a PROXY header.
fn keep(client: &Downstream<'_>, server: &Rc<Server>, stream: crate::io::Stream, bound: bool) {
    if !server.fits(&stream) {
        drop(Idle::new(stream));
    } else if bound || server.announces_client {
        client.private.keep(server, stream, bound)
    } else {
        server.pool(stream)
    }
}

/// Whether a truncated response body appears complete when the connection closes properly.
fn ends_with_connection(heads: &Parts) -> bool {
    match heads.response.framing {
        Framing::UntilClose => true,
        Framing::Chunked => heads.request.version == Version::Http10,
        Framing::None | Framing::Length(_) => false,
    }
}

/// The symptom of a server that did not respond. A stale connection says nothing about the server.
const fn symptom_of(failure: Failure) -> Option<Symptom> {
    match failure {
        Failure::TimedOut => Some(Symptom::Silent),
        Failure::Connect | Failure::Closed { stale: false } => Some(Symptom::Bad),
        Failure::Closed { stale: true } | Failure::BadResponse | Failure::Answered => None,
    }
}

fn note_failure(worker: &Worker, permit: &Permit, symptom: Symptom, reason: &str) {
    permit.server.doubt();
    worker.report(
        &permit.server.member,
        Input::Errored(symptom, reason.into()),
    );
}
