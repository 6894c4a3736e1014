//! Getting a server for a request, and a connection to it.

use crate::check;
use crate::http::Connection;
use crate::http::record::Record;
use crate::io::{self, Buffer, Fault, Stream};
use crate::serving::{Backend, Lease, NoServer, Server, Want};
use crate::worker::Worker;
use gaiola_core::backoff::Backoff;
use gaiola_core::health::{Input, Symptom};
use gaiola_core::retry::Failure;
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::http::Method;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

/// Delay before all servers are tried a second time.
const SECOND_ROUND: Backoff = Backoff {
    first: Duration::from_millis(50),
    longest: Duration::from_millis(500),
};

/// A connection to a server.
pub(super) struct Upstream {
    pub(super) lease: Lease,
    pub(super) stream: Stream,
    /// Whether it has served a request before.
    pub(super) reused: bool,
    /// Whether it holds the client's state.
    pub(super) bound: bool,
}

/// A failed attempt.
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) cause: Cause,
    pub(super) reason: String,
    pub(super) sent: u64,
    pub(super) body_held: bool,
}

/// Chooses a server; when all have failed, starts over after a delay. `queue` is the route's queue timeout, if it has
/// one instead of the backend's. `None`: the client has left. What it sends meanwhile goes to `buffer`.
pub(super) async fn lease(
    connection: &mut Connection,
    buffer: &mut Buffer,
    backend: &Rc<Backend>,
    want: Want,
    tried: &mut Vec<usize>,
    record: &mut Record,
    (attempts, queue): (u32, Option<Duration>),
) -> Option<Result<Lease, NoServer>> {
    let why = match backend.lease_now(want, tried, &record.way) {
        Ok(lease) => {
            record.queue.done = true;
            return Some(Ok(lease));
        }
        Err(why) => why,
    };
    let worker = Rc::clone(&connection.worker);
    let asked = Instant::now();
    let limit = queue.unwrap_or(backend.config.timeouts.queue);
    let limit = limit.saturating_sub(record.queue.span);
    let way = &record.way;
    // Most requests get a server at once, and reserve no memory for this.
    let later = Box::pin(async {
        let later = backend.lease_later(why, want, tried, worker.now(), limit, way);
        match later.await {
            Err(NoServer::AllTried) => {
                let pause = SECOND_ROUND.delay(attempts, &mut worker.rng.borrow_mut());
                tokio::time::sleep(pause).await;
                tried.clear();
                backend.lease(want, tried, worker.now(), limit, way).await
            }
            lease => lease,
        }
    });
    let lease = while_it_stays(&mut connection.client.stream, buffer, later).await;
    record.queue.span += asked.elapsed();
    record.queue.done |= match lease {
        Some(Ok(_) | Err(NoServer::QueueTimeout | NoServer::StillDown)) => true,
        Some(Err(_)) | None => false,
    };
    lease
}

/// Runs this while the client stays; `None`: it has left. What it sends goes to `buffer`, while there is room.
async fn while_it_stays<T>(
    client: &mut Stream,
    buffer: &mut Buffer,
    mut work: Pin<Box<impl Future<Output = T>>>,
) -> Option<T> {
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        while !buffer.is_full() {
            if ready!(Pin::new(&mut io::read(client, buffer)).poll(cx)).is_err() {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    })
    .await
}

/// An idle connection to the server, or a new one. `None`: the client has left. What it sends meanwhile goes to
/// `buffer`.
pub(super) async fn reach(
    connection: &mut Connection,
    buffer: &mut Buffer,
    backend: &Backend,
    lease: Lease,
    (method, fresh): (Method, bool),
    record: &mut Record,
) -> Option<Result<Upstream, Failed>> {
    let timeouts = &backend.config.timeouts;
    let server = &lease.server;
    if !fresh && let Some((stream, bound)) = connection.idle_to(server, method, timeouts.pooled) {
        record.connect.done = true;
        return Some(Ok(Upstream {
            lease,
            stream,
            reused: true,
            bound,
        }));
    }
    let began = Instant::now();
    // Most requests find an idle connection, and reserve no memory for this.
    let connecting = Box::pin(server.connect(connection.client.carried(), timeouts.user));
    let timer = &mut connection.server_timer;
    let connecting = Box::pin(timer.within(timeouts.connect, connecting));
    let connected = while_it_stays(&mut connection.client.stream, buffer, connecting).await;
    record.connect.span += began.elapsed();
    let connected = connected?;
    record.connect.done = connected.is_ok();
    Some(match connected {
        Ok(stream) => Ok(Upstream {
            lease,
            stream,
            reused: false,
            bound: false,
        }),
        Err(fault) => {
            let (cause, symptom, reason) = match fault {
                Fault::Os(error) => {
                    let cause = Cause::ServerFailed(Phase::Connect);
                    (cause, check::symptom(&error), check::in_words(error))
                }
                Fault::Deadline | Fault::Closed => {
                    let limit = timeouts.connect.as_millis();
                    let words = format!("no connection within {limit} ms");
                    let cause = Cause::ServerTimedOut(Phase::Connect);
                    (cause, server.late_to_connect(), words)
                }
            };
            note_failure(&connection.worker, &lease, symptom, &reason);
            Err(Failed {
                failure: Failure::Connect,
                cause,
                reason: format!("{}: {reason}", lease.server.member.name),
                sent: 0,
                body_held: true,
            })
        }
    })
}

impl Connection {
    /// An idle connection to the server that may carry this client's request, and whether it holds the client's state.
    fn idle_to(
        &mut self,
        server: &Rc<Server>,
        method: Method,
        longest: Duration,
    ) -> Option<(Stream, bool)> {
        let private = self.private.take(server, method, longest);
        private.or_else(|| {
            let pooled = (!server.tells_client).then(|| server.take_pooled(method, longest));
            pooled.flatten().map(|stream| (stream, false))
        })
    }

    /// Keeps a connection for another request: any client's, or only this client's if the connection is `bound` to it
    /// or announced it in a PROXY header.
    pub(super) fn keep(&mut self, server: &Rc<Server>, stream: Stream, bound: bool) {
        match bound || server.tells_client {
            true => self.private.keep(server, stream, bound),
            false => server.pool(stream),
        }
    }
}

pub(super) fn note_failure(worker: &Rc<Worker>, lease: &Lease, symptom: Symptom, reason: &str) {
    lease.server.doubt();
    worker.report(&lease.server.member, Input::Errored(symptom, reason.into()));
}
