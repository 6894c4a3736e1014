//! Sessions of a TCP frontend: choose a server once, then copy bytes.

mod postgres;

use super::check;
use super::client::Client;
use super::clock::Instant;
use super::counters::Unasked;
use super::handshake::Handshake;
use super::io::{self, Stream};
use super::log::{Entry, Leg, Subject};
use super::serving::{Backend, NoServer, Permit, ServedBy, Want, WorkerConfig};
use super::sessions::Tracker;
use super::tunnel::{Ended, tunnel};
use super::worker::Worker;
use gaiola_core::backoff::Backoff;
use gaiola_core::health::Input;
use gaiola_core::retry::MOST_ATTEMPTS;
use gaiola_core::route;
use gaiola_core::termination::{Cause, CookieState};
use gaiola_model::proxy::{Mode, Refusal, StartTls};
use std::borrow::Cow;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

/// Delay before all servers are tried again: it gives checks time to notice a failure, and a server time to start
/// again.
const NEXT_ROUND: Backoff = Backoff {
    first: Duration::from_millis(250),
    longest: Duration::from_secs(1),
};

/// What is recorded about a session.
struct Notes {
    begun: Instant,
    served_by: ServedBy,
    queue: Leg,
    connect: Leg,
    /// Its tracker to a server, and its position in the queue.
    tracker: Tracker,
    retries: u32,
    /// Servers that failed and were followed by an attempt at another one.
    redispatched: Vec<ServedBy>,
    received: u64,
    bytes: u64,
    cause: Cause,
    reason: Cow<'static, str>,
}

impl Notes {
    fn fail(&mut self, cause: Cause, reason: &'static str) {
        (self.cause, self.reason) = (cause, Cow::Borrowed(reason));
    }
}

/// Serves a session until it ends.
pub(super) async fn serve(worker: &Rc<Worker>, client: Box<Client>) {
    serve_with_handshake(worker, client, None).await
}

/// As [`serve`], for a client whose TLS handshake is answered once a server is connected. Without a server its connection is reset:
/// it has sent nothing yet that could be lost.
pub(super) async fn serve_first(worker: &Rc<Worker>, client: Box<Client>, handshake: Handshake) {
    // Who says nothing needs no server.
    let ready = poll_fn(|cx| client.stream.poll_read_ready(cx));
    match tokio::time::timeout(handshake.limit, ready).await {
        Ok(Ok(())) => Box::pin(serve_with_handshake(worker, client, Some(handshake))).await,
        Ok(Err(_)) | Err(_) => {
            let reason = "no ClientHello came";
            worker.close_unasked(&client.origin, Unasked::Silent, reason);
        }
    }
}

async fn serve_with_handshake(
    worker: &Rc<Worker>,
    mut client: Box<Client>,
    mut handshake: Option<Handshake>,
) {
    let server_first = handshake.is_some();
    let mut notes = Notes {
        begun: Instant::now(),
        served_by: ServedBy::Nowhere,
        queue: Leg::default(),
        connect: Leg::default(),
        tracker: Tracker::of(&client.origin.activity),
        retries: 0,
        redispatched: Vec::new(),
        received: 0,
        bytes: 0,
        cause: Cause::Completed,
        reason: Cow::Borrowed(""),
    };
    client.origin.activity.begin(notes.begun);
    loop {
        let serving = worker.serving();
        let served = serve_with(worker, &mut client, &serving, &mut handshake, &mut notes).await;
        let Some(served) = served else {
            continue;
        };
        if matches!(served, Served::Unencrypted) {
            return;
        }
        finish(worker, &client, &serving, &notes, !server_first);
        client.origin.activity.rest();
        return match served {
            Served::ByServer(end) => end.leave(&mut client.stream).await,
            Served::ByNobody if server_first => client.stream.reset_when_dropped(),
            Served::ByNobody => io::close_gently(&mut client.stream).await,
            Served::Unencrypted => {}
        };
    }
}

/// How a session ended.
enum Served {
    /// A server or its client ended it.
    ByServer(Ended),
    /// It reached no server.
    ByNobody,
    /// It reached one, and then its TLS handshake failed, which is logged and counted.
    Unencrypted,
}

/// Serves a session with this configuration; `None` if another configuration replaced it before there was a server.
async fn serve_with(
    worker: &Rc<Worker>,
    client: &mut Client,
    serving: &WorkerConfig,
    handshake: &mut Option<Handshake>,
    notes: &mut Notes,
) -> Option<Served> {
    notes.served_by = ServedBy::Nowhere;
    notes.redispatched.clear();
    let Some((index, _)) = serving.frontend(&client.origin.bind) else {
        notes.fail(Cause::NothingServed, Cause::NothingServed.words());
        return Some(Served::ByNobody);
    };
    let (_, config) = serving.of(index);
    let Mode::Tcp {
        refusal, ref sni, ..
    } = config.mode
    else {
        notes.fail(Cause::NothingServed, "no TCP is served here any more");
        return Some(Served::ByNobody);
    };
    let named = client.origin.server_name.as_deref();
    let named = named.and_then(|name| route::find_by_name(sni, name));
    let route = named.map_or(0, |route| route + 1);
    let Some(mut at) = serving.backend(index, route) else {
        notes.fail(Cause::NoBackend, Cause::NoBackend.words());
        return Some(Served::ByNobody);
    };
    let limit = config.timeouts.request_head;
    if speaks_postgres(serving, at)
        && let Err(cause) = postgres::open(client, limit).await
    {
        notes.fail(cause, cause.words());
        return Some(Served::ByNobody);
    }
    let mut reached = reach(worker, client, serving, at, notes).await;
    // Its servers were thought to be up, and are not. One step: a fallback's own is for those that are routed to it.
    let unserved = matches!(
        reached,
        Err(NoServer::AllTried | NoServer::NoneUp | NoServer::StillDown)
    );
    if let Some(fallback) = serving.fallback(at.0).filter(|_| unserved) {
        at = fallback;
        reached = reach(worker, client, serving, at, notes).await;
    }
    let (_, backend) = at;
    match reached {
        Ok((permit, stream)) => {
            if let Some(handshake) = handshake.take()
                && !Box::pin(handshake.encrypt(client, worker)).await
            {
                return Some(Served::Unencrypted);
            }
            let silence = config.timeouts.tunnel;
            let end = copy(client, backend, permit, stream, (limit, silence), notes).await;
            Some(Served::ByServer(end))
        }
        Err(NoServer::Superseded) => None,
        Err(why) => {
            notes.cause = why.cause();
            if notes.reason.is_empty() {
                notes.reason = why.to_string().into();
            }
            refuse(client, refusal, limit).await;
            Some(Served::ByNobody)
        }
    }
}

/// Whether a server that it may reach is asked for TLS in PostgreSQL's protocol: then no request of the client for encryption may
/// reach it.
fn speaks_postgres(serving: &WorkerConfig, (index, backend): (usize, &Rc<Backend>)) -> bool {
    let fallback = serving.fallback(index).map(|(_, fallback)| fallback);
    let mut backends = std::iter::once(backend).chain(fallback);
    backends.any(|backend| {
        let mut tls = backend.config.servers.iter().flat_map(|server| &server.tls);
        tls.any(|tls| tls.starttls == Some(StartTls::Postgres))
    })
}

/// Counts the session, and logs it, unless it is one of those whose requests the sender logs.
fn finish(
    worker: &Rc<Worker>,
    client: &Client,
    serving: &WorkerConfig,
    notes: &Notes,
    is_logged: bool,
) {
    let Some((index, _)) = serving.frontend(&client.origin.bind) else {
        return worker.log_closed(client.origin.address, &client.origin.bind, &notes.reason);
    };
    let (frontend, config) = serving.of(index);
    let series = frontend.series(notes.served_by);
    series.record_session(notes.retries);
    series.record_bytes(notes.received, notes.bytes);
    for failed in &notes.redispatched {
        frontend.series(*failed).record_redispatch();
    }
    let (backend, server) = serving.names(notes.served_by);
    let id = worker.make_id();
    let request_id = &*String::from_utf8_lossy(&id);
    if !is_logged {
        return;
    }
    if notes.cause != Cause::Completed {
        worker.log_failed(
            (client.origin.address, &client.origin.bind),
            0,
            request_id,
            &notes.reason,
        );
    }
    worker.log(&Entry {
        request_id,
        client: client.origin.logged(config),
        sender: None,
        frontend: &config.name,
        backend,
        server,
        method: "",
        path: "",
        status: 0,
        bytes: notes.bytes,
        queue_ms: notes.queue,
        connect_ms: notes.connect,
        response_ms: Leg::default(),
        total_ms: Leg::of(notes.begun.elapsed()),
        retries: notes.retries,
        reason: &notes.reason,
        subject: Subject::Session,
        head: Leg::default(),
        head_bytes: 0,
        tls: client.stream.tls().is_some(),
        cause: notes.cause,
        cookie: CookieState::default(),
        load: worker.load(serving, index, notes.served_by),
        redispatched: !notes.redispatched.is_empty(),
        ahead: notes.tracker.ahead(),
    });
}

/// Connects to a server, trying one after another, and then all again unless there is a fallback: at most
/// [`MOST_ATTEMPTS`] in all, within the queue timeout.
async fn reach(
    worker: &Rc<Worker>,
    client: &Client,
    serving: &WorkerConfig,
    (index, backend): (usize, &Rc<Backend>),
    notes: &mut Notes,
) -> Result<(Permit, Stream), NoServer> {
    let timeouts = &backend.config.timeouts;
    let want = Want {
        key: backend.key(client.origin.address, None),
        sticky: None,
        last: false,
    };
    let has_fallback = serving.fallback(index).is_some();
    notes.served_by = ServedBy::Backend(index);
    let deadline = notes.begun + timeouts.queue;
    let mut tried = Vec::new();
    let mut rounds = 0;
    loop {
        let asked = Instant::now();
        // Nothing is waited for while the fallback may serve.
        let left = match has_fallback && !backend.any_usable() {
            true => Duration::ZERO,
            false => deadline.saturating_duration_since(asked),
        };
        let chosen = backend
            .permit(want, &tried, worker.now(), left, &notes.tracker)
            .await;
        notes.queue.span += asked.elapsed();
        match chosen {
            Ok(permit) => {
                let tls = backend.config.servers[permit.index].tls.as_ref();
                if !permit.server.is_reached_by(tls) {
                    // What the client was told depends on it.
                    return Err(NoServer::Superseded);
                }
                notes.served_by = ServedBy::Server(index, permit.index);
                notes.queue.done = true;
                let failed = tried.last().filter(|_| !tried.contains(&permit.index));
                let failed = failed.map(|&failed| ServedBy::Server(index, failed));
                notes.redispatched.extend(failed);
                let began = Instant::now();
                let connecting = permit
                    .server
                    .connect(client.origin.carried(&client.stream), timeouts.user);
                let connected = tokio::time::timeout(timeouts.connect, connecting).await;
                notes.connect.span += began.elapsed();
                notes.connect.done = matches!(connected, Ok(Ok(_)));
                let (symptom, reason) = match connected {
                    Ok(Ok(stream)) => {
                        if permit.server.proved_well() {
                            worker.report(&permit.server.member, Input::Served);
                        }
                        notes.reason = Cow::Borrowed("");
                        return Ok((permit, stream));
                    }
                    Ok(Err(error)) => (check::symptom(&error), check::in_words(error)),
                    Err(_) => {
                        let limit = timeouts.connect.as_millis();
                        let words = format!("no connection within {limit} ms");
                        (permit.server.late_to_connect(), words)
                    }
                };
                notes.reason = format!("{}: {reason}", permit.server.member.name).into();
                permit.server.doubt();
                worker.report(&permit.server.member, Input::Errored(symptom, reason));
                tried.push(permit.index);
                if notes.retries + 1 == MOST_ATTEMPTS {
                    break;
                }
                notes.retries += 1;
            }
            Err(NoServer::AllTried) if !has_fallback && Instant::now() < deadline => {
                tried.clear();
                let pause = NEXT_ROUND.delay(rounds, &mut worker.rng.borrow_mut());
                rounds += 1;
                tokio::time::sleep(pause).await;
            }
            Err(why) => return Err(why),
        }
    }
    Err(NoServer::AllTried)
}

async fn copy(
    client: &mut Client,
    backend: &Backend,
    permit: Permit,
    mut server: Stream,
    (limit, silence): (Duration, Duration),
    notes: &mut Notes,
) -> Ended {
    let down = permit.server.shut(backend.config.on_marked_down);
    client.origin.activity.tunnel();
    let asks = backend.config.servers.get(permit.index);
    let asks = asks.and_then(|server| server.tls.as_ref()?.starttls);
    let (begun, said) = match asks {
        Some(StartTls::Postgres) => postgres::begin(client, &mut server, limit).await,
        None => (0, Vec::new()),
    };
    let early = client.early.take();
    let first = early.as_ref().map_or(&[][..], io::Buffer::filled);
    let end = tunnel(
        (&mut client.stream, first),
        (&mut server, &said),
        silence,
        down,
    )
    .await;
    drop((server, permit));
    notes.received = end.to_server + begun;
    notes.bytes = end.to_client;
    notes.fail(end.cause, end.reason);
    end
}

async fn refuse(client: &mut Client, refusal: Refusal, limit: Duration) {
    match refusal {
        Refusal::Close => {}
        Refusal::Postgres => {
            // A silent client gets no answer.
            let _ = tokio::time::timeout(limit, postgres::refuse(client)).await;
        }
    }
}
