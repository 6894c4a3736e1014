//! The status page's port, which is read-only.

use super::page;
use super::status::status;
use crate::site::Site;
use gaiola_os::serve::{self, Response, json, not_found, text};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use std::rc::Rc;
use tokio::net::TcpListener;

/// Serves the status page's port: read-only, and only to requests for localhost.
pub async fn page(listener: TcpListener, site: Rc<Site>) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    serve::tcp(listener, move |request| {
        let response = respond(&site, &request, port);
        async { response }
    })
    .await;
}

fn respond(site: &Site, request: &Request<Incoming>, port: u16) -> Response {
    let mut response = route(site, request, port);
    let headers = [
        ("cache-control", "no-store"),
        ("content-security-policy", page::POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn route(site: &Site, request: &Request<Incoming>, port: u16) -> Response {
    if !is_local_host(request, port) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "this page is served to localhost only",
        );
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => status_page(site),
        (&Method::GET, "/style.css") => {
            serve::whole(StatusCode::OK, "text/css; charset=utf-8", page::STYLE)
        }
        (&Method::GET, "/refresh.js") => serve::whole(
            StatusCode::OK,
            "text/javascript; charset=utf-8",
            page::SCRIPT,
        ),
        (&Method::GET, "/metrics") => {
            site.watch();
            serve::metrics(site.traffic.metrics())
        }
        (&Method::GET, "/status.json") => json(&status(site)),
        (&Method::GET, _) => not_found(),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "this page is read-only"),
    }
}

fn status_page(site: &Site) -> Response {
    let (status, figures) = (status(site), site.traffic.figures());
    // Generation 0: nothing has been read from the store yet.
    let known = Some(&status).filter(|status| status.generation.desired > 0);
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%d %H:%M:%S UTC")
        .to_string();
    let sight = page::Sight {
        site: &site.name,
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

/// A foreign name in `Host` means that a web page makes a browser request this page (DNS rebinding).
fn is_local_host(request: &Request<Incoming>, port: u16) -> bool {
    let host = request
        .headers()
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let name = host.strip_suffix(&format!(":{port}")).unwrap_or(host);
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}
