//! The port for metrics and health: `/metrics`, `/livez`, `/readyz`.

use super::metrics;
use super::supervisor::Supervisor;
use gaiola_os::serve::{self, Response};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use std::rc::Rc;
use tokio::net::TcpListener;

/// Serves requests. Never returns; while another process has taken over, it accepts and keeps no connection.
pub(super) async fn serve(listener: TcpListener, supervisor: Rc<Supervisor>) {
    loop {
        supervisor.until_leaving(false).await;
        let asked = Rc::clone(&supervisor);
        let served = serve::tcp(&listener, move |request| {
            let response = respond(&request, &asked);
            async { response }
        });
        tokio::select! {
            () = served => {}
            () = supervisor.until_leaving(true) => {}
        }
    }
}

fn respond(request: &Request<Incoming>, supervisor: &Supervisor) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        _ if !is_read => serve::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"),
        "/livez" => serve::text(StatusCode::OK, "alive"),
        "/readyz" if supervisor.is_ready() => serve::text(StatusCode::OK, "ready"),
        "/readyz" => serve::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "no configuration yet, or stopping",
        ),
        "/metrics" => serve::metrics(metrics::render(supervisor)),
        _ => serve::text(StatusCode::NOT_FOUND, "see /metrics, /livez, /readyz"),
    }
}
