//! The control socket: HTTP over a Unix socket that only its owner may connect to.

mod upload;

use crate::api::schema;
use crate::api::steps::Steps;
use crate::api::{ChangeRequest, Harm, KnownSecrets, Progress};
use crate::change;
use crate::monitor::{self, status::status};
use crate::site::Site;
use bytes::Bytes;
use gaiola_agent::state::Order;
use gaiola_model::config::Machines;
use gaiola_model::schema::SCHEMA;
use gaiola_model::{Revision, ServerName};
use gaiola_os::serve::{Response, connection, json, not_found, text};
use gaiola_store::StoreError;
use gaiola_store::events::Events;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UnixListener;
use tracing::Instrument as _;

/// The largest request: a site's file.
const LARGEST_REQUEST: usize = 1024 * 1024;
/// Interval of empty lines in a stream of events: a failed write shows that the reader disconnected.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Serves the control socket.
pub async fn serve(listener: UnixListener, site: Rc<Site>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let own = rustix::process::geteuid().as_raw();
        let peer = stream.peer_cred().map(|peer| peer.uid()).ok();
        if !peer.is_some_and(|uid| uid == own || uid == 0) {
            let uid = peer.map_or("unknown".into(), |uid| uid.to_string());
            tracing::warn!(%uid, "rejected a control connection of another user");
            continue;
        }
        let site = Rc::clone(&site);
        tokio::task::spawn_local(connection(stream, move |request| {
            let site = Rc::clone(&site);
            async move { control(site, request).await }
        }));
    }
}

/// Serves a request whose schema this process supports. Every response carries this process's schema.
async fn control(site: Rc<Site>, request: Request<Incoming>) -> Response {
    let theirs = request.headers().get(schema::HEADER);
    let theirs = schema::read(theirs.map(HeaderValue::as_bytes));
    let mut response = match schema::check(SCHEMA, theirs) {
        Err(mismatch) if !schema::is_exempt(request.uri().path()) => {
            text(StatusCode::BAD_REQUEST, mismatch.to_string())
        }
        _ => respond(site, request).await,
    };
    response
        .headers_mut()
        .insert(schema::HEADER, HeaderValue::from(SCHEMA));
    response
}

async fn respond(site: Rc<Site>, request: Request<Incoming>) -> Response {
    let path = request.uri().path().to_string();
    match (request.method().clone(), path.as_str()) {
        (Method::GET, "/ping") if site.provider.is_down() => text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{} is down", site.name),
        ),
        (Method::GET, "/ping") if site.provider.is_lost() => text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("this machine is no part of {} any more", site.name),
        ),
        (Method::GET, "/ping") if site.provider.is_ending() => text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{} is going down", site.name),
        ),
        (Method::GET, "/ping") => json(&site.info()),
        (Method::GET, "/status") => json(&status(&site)),
        (Method::GET, "/store") => json(&monitor::store::members(&site).await),
        (Method::POST, "/change") => match read_json::<ChangeRequest>(request).await {
            Ok(asked) => stream_change(site, asked),
            Err(refusal) => refusal,
        },
        (Method::POST, "/plan") => match read_json::<ChangeRequest>(request).await {
            Ok(asked) => json(&change::plan(&site, &asked.change).await),
            Err(refusal) => refusal,
        },
        (Method::POST, "/harm") => match read_json::<Harm>(request).await {
            Ok(harm) => do_harm(site, harm).await,
            Err(refusal) => refusal,
        },
        (Method::GET, "/network") => json(&site.provider.network()),
        (Method::GET, "/faults") => json(&site.provider.faults()),
        (Method::GET, "/events") => stream_events(&site, request.uri().query().unwrap_or_default()),
        (Method::GET, "/machines") => json(&machines(&site)),
        (Method::GET, "/secrets") => json(&secrets(&site)),
        (Method::GET, "/releases") => json(&change::releases(&site)),
        (Method::GET, "/down") => json(&site.provider.not_stopped()),
        (Method::POST, "/down") => {
            site.provider.end();
            json(&true)
        }
        (Method::GET | Method::PUT, path) if let Some(contents) = upload::Contents::of(path) => {
            upload::respond(&site, contents, request).await
        }
        (Method::GET, path) if let Some(page) = path.strip_prefix("/page") => {
            monitor::serve::over_control(&site, page)
        }
        (Method::GET, path) => match path.strip_prefix("/servers/").map(str::parse) {
            Some(Ok(server)) => access(&site, server),
            Some(Err(error)) => text(StatusCode::NOT_FOUND, error.to_string()),
            None => not_found(),
        },
        _ => not_found(),
    }
}

/// The machines of the site, as they are desired.
fn machines(site: &Site) -> Option<Machines> {
    let view = site.view.borrow();
    let (_, desired) = view.desired.as_ref()?;
    desired.config.machines.clone()
}

/// The operator's secrets, without their values.
fn secrets(site: &Site) -> KnownSecrets {
    let view = site.view.borrow();
    let desired = view.desired.as_ref();
    let order = site.order.borrow();
    let is_stored = |order: &Rc<Order>| order.revision > Revision(0);
    KnownSecrets {
        founded: desired.is_some() || order.as_ref().is_some_and(is_stored),
        secrets: desired.map(|(_, desired)| change::secrets(desired)),
    }
}

fn access(site: &Site, server: ServerName) -> Response {
    let order = site.order.borrow();
    let placed = order.as_ref().map(|order| order.placement.servers.keys());
    match placed.and_then(|placed| is_unknown(server, placed)) {
        None => json(&site.provider.server(server)),
        Some(why) => text(StatusCode::NOT_FOUND, why),
    }
}

/// A message if the server is not in the placement.
fn is_unknown<'a>(
    server: ServerName,
    placed: impl Iterator<Item = &'a ServerName>,
) -> Option<String> {
    let placed: Vec<&ServerName> = placed.collect();
    let names = placed.iter().map(ToString::to_string);
    let names = names.collect::<Vec<_>>().join(", ");
    (!placed.contains(&&server)).then(|| format!("there is no {server}; there are {names}"))
}

/// Does a harm completely, even if the client disconnects: what was stopped must be recorded, to be undone.
async fn do_harm(site: Rc<Site>, harm: Harm) -> Response {
    let doing = tokio::task::spawn_local(async move { site.provider.harm(harm).await });
    let why = match doing.await {
        Ok(Ok(())) => return json(&true),
        Ok(Err(error)) => gaiola_os::chain(&error),
        Err(panicked) => panicked.to_string(),
    };
    text(StatusCode::CONFLICT, why)
}

/// Streams one line of JSON for each step. If the client disconnects, the change continues.
fn stream_change(site: Rc<Site>, asked: ChangeRequest) -> Response {
    let (sender, body) = Channel::new(64);
    let kind = asked.change.kind();
    let span = tracing::info_span!("change", kind, generation = tracing::field::Empty);
    let change = async move {
        let mut steps = Steps::new(sender);
        tracing::info!("a change begins");
        let outcome = change::carry_out(&site, asked, &mut steps).await;
        tracing::info!(exit = ?outcome.exit, "a change ends");
        let _ = steps.say(Progress::Done(Box::new(outcome))).await;
    };
    tokio::task::spawn_local(change.instrument(span));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(
        "content-type",
        HeaderValue::from_static("application/x-ndjson"),
    );
    response
}

/// Streams one line of JSON for each event: the last ones, then, if requested, each new one.
fn stream_events(site: &Site, query: &str) -> Response {
    let value = |key: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    };
    let last: usize = value("last")
        .and_then(|last| last.parse().ok())
        .unwrap_or(20);
    let follow = value("follow") == Some("true");
    let Some(store) = site.store.borrow().clone() else {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the store is not connected yet",
        );
    };
    let events = Events::new(store, &site.name);
    let (sender, body) = Channel::new(64);
    tokio::task::spawn_local(async move {
        // It ends when the reader disconnects or the store fails.
        let _ = send_events(&events, last, follow, sender).await;
    });
    Response::new(body.boxed_unsync())
}

async fn send_events(
    events: &Events,
    last: usize,
    follow: bool,
    sender: Sender<Bytes, Infallible>,
) -> Result<(), StoreError> {
    let mut lines = Steps::new(sender);
    let mut after = Revision(0);
    for logged in events.last(last.max(1)).await? {
        after = logged.revision;
        if last > 0 && lines.line(&logged.event).await.is_err() {
            return Ok(());
        }
    }
    let mut following = events.follow(after);
    if !follow {
        return Ok(());
    }
    loop {
        let sent = match tokio::time::timeout(KEEP_ALIVE, following.next()).await {
            Ok(logged) => lines.line(&logged?.event).await,
            Err(_) => lines.say_nothing().await,
        };
        if sent.is_err() {
            return Ok(());
        }
    }
}

async fn read_json<T: serde::de::DeserializeOwned>(
    request: Request<Incoming>,
) -> Result<T, Response> {
    let body = Limited::new(request.into_body(), LARGEST_REQUEST)
        .collect()
        .await;
    let body = body.map_err(|error| {
        text(
            StatusCode::BAD_REQUEST,
            format!("cannot read the request: {error}"),
        )
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        text(
            StatusCode::BAD_REQUEST,
            format!("malformed request: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_there_is_not_is_reported_with_those_that_there_are() {
        let placed: Vec<ServerName> = ["lb1", "app1"].map(|name| name.parse().unwrap()).into();
        let why = |name: &str| is_unknown(name.parse().unwrap(), placed.iter());
        assert_eq!(why("app1"), None);
        let words = "there is no app9; there are lb1, app1";
        assert_eq!(why("app9").as_deref(), Some(words));
    }
}
