//! The control socket: HTTP over a Unix socket that only the lab's owner may connect to. And the read-only page.

use super::Lab;
use super::change;
use super::disk;
use super::faults;
use crate::api::{ChangeRequest, Disk, Harm, Outcome, Progress, ServerHandle};
use crate::page;
use bytes::Bytes;
use gaiola_model::{Revision, ServerName};
use gaiola_os::serve::{self, Answer, connection, json, not_found, text};
use gaiola_store::StoreError;
use gaiola_store::events::Events;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

/// The largest request that is read: a site's file.
const LARGEST_REQUEST: usize = 1024 * 1024;
/// A stream of events says an empty line after this long, so that a reader who went away is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Answers the control socket.
pub async fn serve(listener: UnixListener, lab: Rc<Lab>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let ours = rustix::process::geteuid().as_raw();
        let peer = stream.peer_cred().map(|peer| peer.uid());
        if !peer.is_ok_and(|uid| uid == ours || uid == 0) {
            tracing::warn!("a stranger knocked at the control socket");
            continue;
        }
        let lab = Rc::clone(&lab);
        tokio::task::spawn_local(connection(stream, move |request| {
            let lab = Rc::clone(&lab);
            async move { control(lab, request).await }
        }));
    }
}

async fn control(lab: Rc<Lab>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_string();
    match (request.method().clone(), path.as_str()) {
        (Method::GET, "/ping") if lab.ending.get() => text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{} is going down", lab.site),
        ),
        (Method::GET, "/ping") => json(&lab.place),
        (Method::GET, "/status") => json(&change::status(&lab)),
        (Method::POST, "/change") => match read_json::<ChangeRequest>(request).await {
            Ok(asked) => stream_change(lab, asked),
            Err(refusal) => refusal,
        },
        (Method::POST, "/plan") => match read_json::<ChangeRequest>(request).await {
            Ok(asked) => json(&change::plan(&lab, &asked.change).await),
            Err(refusal) => refusal,
        },
        (Method::POST, "/harm") => match read_json::<Harm>(request).await {
            Ok(harm) => harm_answer(lab, harm).await,
            Err(refusal) => refusal,
        },
        (Method::GET, "/lab") => json(&ServerHandle {
            pid: Some(std::process::id()),
            rootless: lab.rootless,
            disk: Disk::Unknown,
        }),
        (Method::GET, "/faults") => json(&faults::in_force(&lab)),
        (Method::GET, "/events") => stream_events(&lab, request.uri().query().unwrap_or_default()),
        (Method::POST, "/down") => {
            lab.ending.set(true);
            lab.poke.notify_one();
            json(&true)
        }
        (Method::GET, path) => match path.strip_prefix("/servers/").map(str::parse) {
            Some(Ok(server)) => handle_answer(&lab, server),
            Some(Err(error)) => text(StatusCode::NOT_FOUND, error.to_string()),
            None => not_found(),
        },
        _ => not_found(),
    }
}

fn handle_answer(lab: &Lab, server: ServerName) -> Answer {
    let order = lab.order.borrow();
    let placed = order.as_ref().map(|order| order.placement.servers.keys());
    match placed.and_then(|placed| is_unknown(server, placed)) {
        None => json(&handle(lab, server)),
        Some(why) => text(StatusCode::NOT_FOUND, why),
    }
}

/// Why there is no such server; `None`: it is one of those that are placed.
fn is_unknown<'a>(
    server: ServerName,
    placed: impl Iterator<Item = &'a ServerName>,
) -> Option<String> {
    let placed: Vec<&ServerName> = placed.collect();
    let names = placed.iter().map(ToString::to_string);
    let names = names.collect::<Vec<_>>().join(", ");
    (!placed.contains(&&server)).then(|| format!("there is no {server}; there are {names}"))
}

fn handle(lab: &Lab, server: ServerName) -> ServerHandle {
    let pid = lab
        .hardware
        .borrow()
        .identity(server)
        .map(|identity| identity.pid);
    ServerHandle {
        pid,
        rootless: lab.rootless,
        disk: disk::of(lab, server),
    }
}

/// Does a harm in whole, also where whoever asked goes away meanwhile: what it has stopped must be known, to be undone.
async fn harm_answer(lab: Rc<Lab>, harm: Harm) -> Answer {
    let doing = tokio::task::spawn_local(async move { change::harm(&lab, harm).await });
    match doing
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
    {
        Ok(()) => json(&true),
        Err(error) => text(StatusCode::CONFLICT, error.to_string()),
    }
}

/// Answers with one line of JSON for each step; where the client goes away the change goes on, and nobody waits for it.
fn stream_change(lab: Rc<Lab>, asked: ChangeRequest) -> Answer {
    let (sender, body) = Channel::new(64);
    tokio::task::spawn_local(async move {
        let mut steps = Steps { sender };
        let outcome = change::carry_out(&lab, asked, &mut steps).await;
        let _ = steps.say(Progress::Done(Box::new(outcome))).await;
    });
    let mut answer = Response::new(body.boxed_unsync());
    answer.headers_mut().insert(
        "content-type",
        HeaderValue::from_static("application/x-ndjson"),
    );
    answer
}

/// Answers with one line of JSON for each event: the last ones, then, where asked, each as it happens.
fn stream_events(lab: &Lab, query: &str) -> Answer {
    let value = |key: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    };
    let last: usize = value("last")
        .and_then(|last| last.parse().ok())
        .unwrap_or(20);
    let follow = value("follow") == Some("true");
    let Some(store) = lab.store.borrow().clone() else {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the store is not known yet",
        );
    };
    let events = Events::new(store, &lab.site);
    let (sender, body) = Channel::new(64);
    tokio::task::spawn_local(async move {
        // It ends when the reader goes away, or the store does.
        let _ = tell_events(&events, last, follow, sender).await;
    });
    Response::new(body.boxed_unsync())
}

async fn tell_events(
    events: &Events,
    last: usize,
    follow: bool,
    sender: Sender<Bytes, Infallible>,
) -> Result<(), StoreError> {
    let mut lines = Steps { sender };
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
        let told = match tokio::time::timeout(KEEP_ALIVE, following.next()).await {
            Ok(logged) => lines.line(&logged?.event).await,
            Err(_) => lines.say_nothing().await,
        };
        if told.is_err() {
            return Ok(());
        }
    }
}

/// Where the steps of a change are told.
pub struct Steps {
    sender: Sender<Bytes, Infallible>,
}

/// Whoever asked for the change is not listening any more.
#[derive(Debug)]
pub struct Gone;

impl Steps {
    /// Tells one step.
    ///
    /// # Errors
    /// Where nobody listens any more.
    pub async fn say(&mut self, progress: Progress) -> Result<(), Gone> {
        self.line(&progress).await
    }

    /// Sends an empty line, which means nothing.
    ///
    /// # Errors
    /// Where nobody listens any more.
    pub async fn say_nothing(&mut self) -> Result<(), Gone> {
        self.sender
            .send_data(Bytes::from_static(b"\n"))
            .await
            .map_err(|_| Gone)
    }

    async fn line(&mut self, value: &impl serde::Serialize) -> Result<(), Gone> {
        let mut line = serde_json::to_vec(value).unwrap_or_default();
        line.push(b'\n');
        self.sender.send_data(line.into()).await.map_err(|_| Gone)
    }
}

/// Answers the status page's port: reading only, and only when asked by the name of this machine.
pub async fn serve_page(listener: TcpListener, lab: Rc<Lab>) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    serve::tcp(listener, move |request| {
        let answer = answer_page(&lab, &request, port);
        async { answer }
    })
    .await;
}

fn answer_page(lab: &Lab, request: &Request<Incoming>, port: u16) -> Answer {
    let mut answer = look_up(lab, request, port);
    let headers = [
        ("cache-control", "no-store"),
        ("content-security-policy", page::POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ];
    for (name, value) in headers {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn look_up(lab: &Lab, request: &Request<Incoming>, port: u16) -> Answer {
    if !is_local_host(request, port) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "this page answers to localhost only",
        );
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => status_page(lab),
        (&Method::GET, "/style.css") => {
            serve::whole(StatusCode::OK, "text/css; charset=utf-8", page::STYLE)
        }
        (&Method::GET, "/refresh.js") => serve::whole(
            StatusCode::OK,
            "text/javascript; charset=utf-8",
            page::SCRIPT,
        ),
        (&Method::GET, "/metrics") => serve::metrics(lab.traffic.metrics()),
        (&Method::GET, "/status.json") => json(&change::status(lab)),
        (&Method::GET, _) => not_found(),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "this page is read-only"),
    }
}

fn status_page(lab: &Lab) -> Answer {
    let (status, figures) = (change::status(lab), lab.traffic.figures());
    // Generation 0: the store has told nothing yet.
    let known = Some(&status).filter(|status| status.generation.desired > 0);
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%d %H:%M:%S UTC")
        .to_string();
    let sight = page::Sight {
        site: &lab.site,
        status: known,
        figures: &figures,
        now: &now,
    };
    serve::whole(
        StatusCode::OK,
        "text/html; charset=utf-8",
        page::render(sight),
    )
}

/// A foreign name in `Host` means that some web page makes a browser ask us (DNS rebinding).
fn is_local_host(request: &Request<Incoming>, port: u16) -> bool {
    let host = request
        .headers()
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let name = host.strip_suffix(&format!(":{port}")).unwrap_or(host);
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

async fn read_json<T: serde::de::DeserializeOwned>(
    request: Request<Incoming>,
) -> Result<T, Answer> {
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
            format!("the request is not what it should be: {error}"),
        )
    })
}

/// The end of a change that could not be begun.
pub fn refused(exit: u8, message: impl Into<String>) -> Outcome {
    Outcome {
        exit,
        message: message.into(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_there_is_not_is_told_with_those_that_there_are() {
        let placed: Vec<ServerName> = ["lb1", "app1"].map(|name| name.parse().unwrap()).into();
        let why = |name: &str| is_unknown(name.parse().unwrap(), placed.iter());
        assert_eq!(why("app1"), None);
        let words = "there is no app9; there are lb1, app1";
        assert_eq!(why("app9").as_deref(), Some(words));
    }
}
