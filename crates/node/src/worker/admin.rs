//! The port for metrics and health: `/metrics`, `/livez`, `/readyz`.

use super::metrics;
use super::supervisor::Supervisor;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Most connections at a time; further ones stay in the listen queue.
const CONNECTIONS: usize = 32;

/// Until a request's head must have come, and the longest life of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);

/// Answers for ever.
pub(super) async fn serve(listener: TcpListener, supervisor: Rc<Supervisor>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let supervisor = Rc::clone(&supervisor);
                tokio::task::spawn_local(async move {
                    let _place = place;
                    let _ = tokio::time::timeout(CONNECTION_LIMIT, talk(stream, supervisor)).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn talk(stream: TcpStream, supervisor: Rc<Supervisor>) {
    let service = hyper::service::service_fn(move |request| {
        let response = respond(&request, &supervisor);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an admin connection ended");
    }
}

fn respond(request: &Request<Incoming>, supervisor: &Supervisor) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, text) = match request.uri().path() {
        _ if !is_read => (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into()),
        "/livez" => (StatusCode::OK, "alive\n".into()),
        "/readyz" if supervisor.is_ready() => (StatusCode::OK, "ready\n".into()),
        "/readyz" => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no configuration yet, or ending\n".into(),
        ),
        "/metrics" => (StatusCode::OK, metrics::render(supervisor)),
        _ => (
            StatusCode::NOT_FOUND,
            "see /metrics, /livez, /readyz\n".into(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    let content_type = hyper::header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
