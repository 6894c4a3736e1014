//! A request for a server: choosing one, connecting to it, and retrying where allowed.

mod reach;

use super::attempt::{Attempt, Holder, Outcome};
use super::body::Body;
use super::large::Text;
use super::record::Record;
use super::request::{Request, Then, own};
use super::scratch::Parts;
use super::{Connection, Pending};
use crate::clock::seconds;
use crate::io::Buffer;
use crate::log::{Ending, GOOD};
use crate::serving::{Backend, Interrupt, NoServer, Place, Want};
use crate::tunnel::tunnel;
use gaiola_core::cookie;
use gaiola_core::forward::{self, Hop};
use gaiola_core::health::{Input, Symptom};
use gaiola_core::private;
use gaiola_core::retry::{self, Failure, MOST_ATTEMPTS, Verdict};
use gaiola_core::sticky::{Found, Jar};
use gaiola_model::http::{Framing, Version};
use gaiola_model::proxy::{Address, Admission, ClientTimeouts, OnMarkedDown};
use reach::{Failed, Upstream, lease, note_failure, reach};
use std::borrow::Cow;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

/// Forwards the request, and its response to the client.
pub(super) async fn forward(
    connection: &mut Connection,
    pending: &mut Pending,
    request: &Request<'_>,
    record: &mut Record,
    route: usize,
) -> Then {
    let Some((index, backend)) = request.serving.backend(request.frontend, route) else {
        record.fail(*b"LR", "its route leads to no backend");
        return own(connection, pending, request, record, 404).await;
    };
    let (want, found) = want(connection, request.client, pending, record, backend);
    prepare(connection, pending, request, record, backend);
    let method = pending.heads.request.method;
    let mut tried = Vec::new(); // allocates with the first failure only
    let mut fresh = false;
    for attempts in 1.. {
        let queue = request.allowance.queue;
        let asked = (attempts, queue);
        record.place = Place::Backend(index);
        let last = attempts == MOST_ATTEMPTS;
        let want = Want { last, ..want };
        let buffer = &mut pending.buffer;
        let leased = lease(connection, buffer, backend, want, &mut tried, record, asked);
        let Some(lease) = leased.await else {
            return gone(
                record,
                *b"CQ",
                "the client left while it waited for a server",
            );
        };
        let lease = match lease {
            Ok(lease) => lease,
            Err(NoServer::Superseded) => return Then::Again,
            Err(refusal) => {
                match record.reason.is_empty() {
                    true => record.fail(refusal.ending(), refusal.to_string()),
                    false => record.ending = refusal.ending(),
                }
                return own(connection, pending, request, record, 503).await;
            }
        };
        let member = lease.index;
        record.place = Place::Server(index, member);
        if let Some(&failed) = tried.last().filter(|_| !tried.contains(&member)) {
            record.redispatched = true;
            let (frontend, _) = request.serving.of(request.frontend);
            let failed = Place::Server(index, failed);
            frontend.series(failed).record_redispatch();
        }
        set_cookie(pending, record, backend, member, found);
        let buffer = &mut pending.buffer;
        let how = (method, fresh);
        let reached = reach(connection, buffer, backend, lease, how, record).await;
        let Some(reached) = reached else {
            return gone(
                record,
                *b"CC",
                "the client left while a server was connected to",
            );
        };
        let failed = match reached {
            Ok(upstream) => {
                match once(connection, pending, request, record, backend, upstream).await {
                    Ok(then) => return then,
                    Err(failed) => failed,
                }
            }
            Err(failed) => failed,
        };
        let worker = &connection.worker;
        let attempt = retry::FailedAttempt {
            failure: failed.failure,
            sent: failed.sent,
            method,
            body_held: failed.body_held,
            attempts,
        };
        let verdict = retry::verdict(attempt, worker.now(), &mut worker.budget.borrow_mut());
        record.fail(failed.ending, failed.reason);
        match verdict {
            Verdict::Repeat => {
                record.retries += 1;
                let (frontend, _) = request.serving.of(request.frontend);
                frontend.series(record.place).record_retry();
                match failed.failure {
                    Failure::Closed { stale: true } => fresh = true,
                    _ => tried.push(member),
                }
            }
            Verdict::GiveUp(why) => {
                record.reason = format!("{}; not repeated: {why}", record.reason).into();
                let request = Request {
                    // The remaining body bytes from the client could not be told apart from a request.
                    keep_alive: request.keep_alive && failed.body_held,
                    ..*request
                };
                let status = status_of(failed.failure);
                return own(connection, pending, &request, record, status).await;
            }
        }
    }
    unreachable!("`core::retry` ends it")
}

const fn status_of(failure: Failure) -> u16 {
    match failure {
        Failure::Connect => 503,
        Failure::TimedOut => 504,
        Failure::Closed { .. } | Failure::BadResponse | Failure::Answered => 502,
    }
}

/// What the choice of a server depends on, and the server named by the request's cookie.
fn want(
    connection: &Connection,
    client: IpAddr,
    pending: &Pending,
    record: &mut Record,
    backend: &Backend,
) -> (Want, Option<Found>) {
    let (head, buffer) = pending.head();
    let jar = backend.jar.as_ref();
    let found = jar.and_then(|jar| jar.find(head, buffer, seconds()));
    if let Some(jar) = jar {
        record.cookie = match found {
            Some(_) => *b"VN",
            None if cookie::find(head, buffer, jar.name()).is_some() => *b"IN",
            None => *b"NN",
        };
    }
    let want = Want {
        key: backend.key(client, Some((head, buffer))),
        sticky: match found {
            Some(found) => Some(found.server),
            None => connection.private.preferred(backend.servers()),
        },
        last: false,
    };
    (want, found)
}

/// Adds a cookie that names this server to the response, unless the client has it.
fn set_cookie(
    pending: &mut Pending,
    record: &mut Record,
    backend: &Backend,
    server: usize,
    found: Option<Found>,
) {
    let lines = &mut pending.heads.lines;
    lines.clear();
    // A client that reached a spare only because others just failed is not kept there.
    let stays =
        backend.servers()[server].is_usable() || found.is_some_and(|it| it.server == server);
    if let Some(jar) = backend.jar.as_ref().filter(|_| stays) {
        jar.set(server, found, seconds(), lines);
        record.cookie = match (record.cookie[0], found) {
            (given, _) if lines.is_empty() => [given, b'N'],
            (_, Some(found)) if found.server == server => *b"VU",
            (_, Some(_)) => *b"DI",
            (given, None) => [given, b'I'],
        };
    }
}

/// Writes the head to send to the server.
fn prepare(
    connection: &Connection,
    pending: &mut Pending,
    request: &Request<'_>,
    record: &Record,
    backend: &Backend,
) {
    let heads = &mut *pending.heads;
    let default_host = match (heads.request.host, &*connection.client.bind) {
        (Some(_), _) => String::new(),
        (None, Address::Tcp(bind)) => bind.to_string(),
        (None, Address::Unix(_)) => "localhost".into(),
    };
    let rewritten = &heads.rewritten;
    let (path, host, edit) = match request.rules {
        Some(rules) => (
            &*rewritten.path,
            &*rewritten.host,
            rules.request_edit(rewritten),
        ),
        None => Default::default(),
    };
    let hop = Hop {
        client: connection.client.address,
        trusted: request.trusted,
        tls: connection.client.stream.tls().is_some(),
        server: &request.serving.config().server,
        request_id: record.id(),
        default_host: &default_host,
        path,
        host,
        edit,
        hidden_cookie: backend.jar.as_ref().and_then(Jar::hidden),
    };
    forward::request(
        &heads.request,
        pending.text.of(&pending.buffer, heads.request.len),
        &hop,
        &mut heads.onward,
    );
}

/// Sends the request to one server.
async fn once(
    connection: &mut Connection,
    pending: &mut Pending,
    request: &Request<'_>,
    record: &mut Record,
    backend: &Backend,
    mut upstream: Upstream,
) -> Result<Then, Failed> {
    let (_, frontend) = request.serving.of(request.frontend);
    let &ClientTimeouts {
        idle, body_rate, ..
    } = &frontend.timeouts;
    let (head, text) = pending.head();
    let bound = upstream.bound || private::by_request(head, text);
    let (base, framing) = (pending.base(), head.framing);
    let text = RefCell::new(std::mem::replace(&mut pending.text, Text::Front));
    let heads = &mut *pending.heads;
    let (front, mut window) = pending.buffer.split(base);
    let mut response = None;
    let (worker, local) = (&connection.worker, connection.client.local);
    let keep_alive = || request.keep_alive && worker.admission(local) == Admission::Accept;
    let mut attempt = Attempt {
        front,
        text: &text,
        heads,
        window: &mut window,
        body: Body::new(framing),
        client: &mut connection.client.stream,
        client_timer: &mut connection.client_timer,
        client_limit: idle,
        body_rate,
        server: &mut upstream.stream,
        server_timer: &mut connection.server_timer,
        member: &upstream.lease.server,
        timeouts: &backend.config.timeouts,
        rules: request.rules,
        allowance: request.allowance,
        on_marked_down: backend.config.on_marked_down,
        hop: &request.serving.config().server,
        own_cookie: backend.jar.as_ref().map(Jar::name),
        keep_alive: &keep_alive,
        date: &|| worker.date(),
        reused: upstream.reused,
        buffer: &mut response,
        record,
    };
    let (outcome, sent) = attempt.run().await;
    let body_held = !window.was_overwritten();
    let rest = window.range();
    let rest = base + rest.start..base + rest.end;
    pending.settle(text.into_inner());
    match outcome {
        Outcome::Answered {
            keep_client,
            keep_server,
        } => {
            let Upstream {
                lease, mut stream, ..
            } = upstream;
            record.ending = GOOD;
            if lease.server.proved_well() {
                connection
                    .worker
                    .report(&lease.server.member, Input::Served);
            }
            match keep_server {
                Some(holder) => {
                    let bound = bound || holder == Holder::Client;
                    connection.keep(&lease.server, stream, bound);
                }
                None => stream.end(),
            }
            Ok(if keep_client {
                Then::Request(rest)
            } else {
                Then::Close
            })
        }
        Outcome::Upgraded => {
            pending.buffer.keep(rest);
            let down = backend.config.on_marked_down;
            let tunnel = (response, down);
            // The future is large, and most requests do not need it.
            Ok(Box::pin(talk(connection, pending, request, record, upstream, tunnel)).await)
        }
        Outcome::Broken(ending, reason) => {
            record.fail(ending, reason);
            if ends_with_connection(&pending.heads) {
                connection.client.stream.reset_when_dropped();
            }
            Ok(Then::Abort)
        }
        Outcome::Client {
            status,
            ending,
            reason,
        } => {
            if status == 499 {
                return Ok(gone(record, ending, reason));
            }
            record.fail(ending, reason);
            // Its place is released before the client is answered.
            drop(upstream);
            let request = Request {
                keep_alive: false,
                ..*request
            };
            Ok(own(connection, pending, &request, record, status).await)
        }
        Outcome::Failed {
            failure,
            ending,
            reason,
        } => {
            let ended = ending[0] == Interrupt::Ended.letter();
            if let Some(symptom) = symptom_of(failure).filter(|_| !ended) {
                note_failure(&connection.worker, &upstream.lease, symptom, &reason);
            }
            if body_held {
                pending.buffer.keep(0..rest.end);
            }
            Err(Failed {
                failure,
                ending,
                reason: format!("{}: {reason}", upstream.lease.server.member.name),
                sent,
                body_held,
            })
        }
    }
}

/// No client is left to answer.
fn gone(record: &mut Record, ending: Ending, reason: impl Into<Cow<'static, str>>) -> Then {
    record.fail(ending, reason);
    record.status = 499;
    Then::Abort
}

/// Whether a truncated response body looks complete when the connection closes properly.
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

/// Both sides have switched to another protocol.
async fn talk(
    connection: &mut Connection,
    pending: &Pending,
    request: &Request<'_>,
    record: &mut Record,
    mut upstream: Upstream,
    (response, on_marked_down): (Option<Buffer>, OnMarkedDown),
) -> Then {
    let silence = request.serving.of(request.frontend).1.timeouts.tunnel;
    let first = response.as_ref().map_or(&[][..], Buffer::filled);
    let server = Rc::clone(&upstream.lease.server);
    let end = tunnel(
        (&mut connection.client.stream, pending.buffer.filled()),
        (&mut upstream.stream, first),
        silence,
        server.shut(on_marked_down),
    )
    .await;
    record.bytes += end.to_client;
    record.body_bytes += end.to_server;
    record.fail(end.ending, end.reason);
    drop((server, upstream));
    end.leave(&mut connection.client.stream).await;
    Then::Abort
}
