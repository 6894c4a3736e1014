//! A small HTTP server for status requests of people and programs: bounded, plain, and not for the data plane.

use crate::connection_limit::ConnectionLimit;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::borrow::Borrow;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Timeout of a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// The most connections at a time; for a further one, the longest idle one is closed.
const CONNECTIONS: usize = 64;

/// A response's body.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
/// A response.
pub type Response = hyper::Response<Body>;

/// Serves every connection of a listener with `respond`. Never returns; dropping it closes them. Runs within a `LocalSet`.
pub async fn tcp<F>(
    listener: impl Borrow<TcpListener>,
    respond: impl Fn(Request<Incoming>) -> F + 'static,
) where
    F: Future<Output = Response> + 'static,
{
    let (respond, limit) = (Rc::new(respond), ConnectionLimit::new(CONNECTIONS));
    let mut served = JoinSet::new();
    loop {
        while served.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.borrow().accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let permit = limit.enter().await;
        let respond = Rc::clone(&respond);
        served.spawn_local(async move {
            let served = connection(stream, |request| {
                permit.work();
                let response = respond(request);
                async {
                    let response = response.await;
                    permit.rest();
                    response
                }
            });
            tokio::select! {
                () = served => {}
                () = permit.dismissed() => {}
            }
        });
    }
}

/// Serves the requests of one connection until either side closes it.
pub async fn connection<I, F, B>(stream: I, respond: impl Fn(Request<Incoming>) -> F)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Future<Output = hyper::Response<B>>,
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + 'static,
{
    let served = service_fn(|request| {
        let response = respond(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(16 * 1024);
    // A client that disconnects midway is no error.
    let _ = builder.serve_connection(TokioIo::new(stream), served).await;
}

/// 200 with a JSON body.
pub fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => whole(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// A line of plain text.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
    whole(status, "text/plain; charset=utf-8", text.into() + "\n")
}

/// Metrics for Prometheus.
pub fn metrics(text: String) -> Response {
    whole(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        text,
    )
}

/// 404.
pub fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "no such path")
}

/// A response with this body.
pub fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::from(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
