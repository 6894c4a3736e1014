//! An HTTP/1.1 server for the other processes of the site: mutual TLS, and who asks is known by its certificate.
//!
//! Every wait has a deadline and every number a limit, of which one address gets a part only. Who has not shown a certificate yet
//! takes no place from those that have.

mod patient;

use crate::pki;
use bytes::Bytes;
use gaiola_os::connection_limit::{ConnectionLimit, Permit};
use gaiola_os::serve::{Body, Response, connection};
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use patient::Patient;
use rustls::ServerConfig;
use std::cell::Cell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Wait after a connection could not be accepted, such as for lack of descriptors.
const AGAIN: Duration = Duration::from_millis(50);

/// The limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most TLS handshakes at a time, and from one address; for a further one, the oldest is given up.
    pub handshakes: (usize, usize),
    /// Timeout of a handshake, and of the wait for a place after it.
    pub handshake: Duration,
    /// The most connections at a time, and from one address; for a further one, the longest idle one is closed.
    pub connections: (usize, usize),
    /// A peer that takes nothing of its response for this long is gone.
    pub silence: Duration,
    /// Timeout of a request, to the end of its response.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: (64, 8),
            handshake: Duration::from_secs(5),
            connections: (128, 16),
            silence: Duration::from_secs(30),
            request: Duration::from_secs(900),
        }
    }
}

/// Serves every connection of a listener with `answer`: it gets the common name of the peer's certificate. `tls` is asked with each
/// connection, so that a new certificate is taken over. Never returns; dropping it closes all connections. Runs within a `LocalSet`.
pub async fn serve<F>(
    listener: TcpListener,
    limits: Limits,
    tls: impl Fn() -> Arc<ServerConfig>,
    answer: impl Fn(String, Request<Incoming>) -> F + 'static,
) where
    F: Future<Output = Response> + 'static,
{
    let serving = Rc::new(Serving {
        handshakes: ConnectionLimit::shared(limits.handshakes.0, limits.handshakes.1),
        connections: ConnectionLimit::shared(limits.connections.0, limits.connections.1),
        limits,
        answer,
    });
    let mut served = JoinSet::new();
    loop {
        while served.try_join_next().is_some() {}
        let Ok((stream, from)) = listener.accept().await else {
            sleep(AGAIN).await;
            continue;
        };
        // A handshake gives its place up at once.
        let place = serving.handshakes.enter_from(from.ip()).await;
        let (serving, tls) = (Rc::clone(&serving), tls());
        served.spawn_local(async move { serving.serve(stream, from.ip(), tls, place).await });
    }
}

struct Serving<A> {
    handshakes: Rc<ConnectionLimit>,
    connections: Rc<ConnectionLimit>,
    limits: Limits,
    answer: A,
}

impl<A> Serving<A> {
    async fn serve<F>(&self, stream: TcpStream, from: IpAddr, tls: Arc<ServerConfig>, place: Permit)
    where
        A: Fn(String, Request<Incoming>) -> F,
        F: Future<Output = Response>,
    {
        let entered = tokio::select! {
            entered = timeout(self.limits.handshake, self.enter(stream, from, tls)) => entered,
            () = place.dismissed() => return,
        };
        let Ok(Some((stream, peer, permit))) = entered else {
            return;
        };
        drop(place);
        let turn = Rc::new(Turn {
            permit,
            began: Cell::new(None),
            changed: Notify::new(),
        });
        let served = connection(stream, |request| {
            let turn = Began::new(&turn);
            let answered = (self.answer)(peer.clone(), request);
            async { answered.await.map(|body| Sent { body, _turn: turn }) }
        });
        tokio::select! {
            () = served => {}
            () = turn.permit.dismissed() => {}
            () = turn.is_late(self.limits.request) => {}
        }
    }

    /// The handshake, and a place among those that have shown a certificate.
    async fn enter(
        &self,
        stream: TcpStream,
        from: IpAddr,
        tls: Arc<ServerConfig>,
    ) -> Option<(TlsStream<Patient<TcpStream>>, String, Permit)> {
        let stream = Patient::new(stream, self.limits.silence);
        // What does not speak TLS, or has no certificate of the site, is no error of ours.
        let stream = TlsAcceptor::from(tls).accept(stream).await.ok()?;
        let peer = peer(&stream)?;
        Some((stream, peer, self.connections.enter_from(from).await))
    }
}

fn peer<S>(stream: &TlsStream<S>) -> Option<String> {
    let (_, connection) = stream.get_ref();
    pki::common_name(connection.peer_certificates()?.first()?)
}

/// Whether a connection is idle, or since when it has been busy with a request.
struct Turn {
    permit: Permit,
    began: Cell<Option<Instant>>,
    changed: Notify,
}

impl Turn {
    /// Returns once a request has taken longer than this.
    async fn is_late(&self, limit: Duration) {
        loop {
            match self.began.get().map(|began| began + limit) {
                Some(due) if due <= Instant::now() => return,
                Some(due) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    fn set(&self, began: Option<Instant>) {
        self.began.set(began);
        self.changed.notify_one();
    }
}

/// A request in progress, until this is dropped.
struct Began(Rc<Turn>);

impl Began {
    fn new(turn: &Rc<Turn>) -> Self {
        turn.permit.work();
        turn.set(Some(Instant::now()));
        Self(Rc::clone(turn))
    }
}

impl Drop for Began {
    fn drop(&mut self) {
        self.0.set(None);
        self.0.permit.rest();
    }
}

/// A response's body: the request is in progress until it has been sent.
struct Sent {
    body: Body,
    _turn: Began,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
