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
    let response = match refusal(request, port) {
        Some(refusal) => refusal,
        None => route(site, request.uri().path()),
    };
    guarded(response)
}

/// The page's port is read-only, and for localhost alone.
pub(super) fn refusal(request: &Request<Incoming>, port: u16) -> Option<Response> {
    if !is_local_host(request, port) {
        let why = "this page is served to localhost only";
        return Some(text(StatusCode::MISDIRECTED_REQUEST, why));
    }
    let is_read = request.method() == Method::GET;
    let why = "this page is read-only";
    (!is_read).then(|| text(StatusCode::METHOD_NOT_ALLOWED, why))
}

/// The same over the control socket, for a page elsewhere ([`super::relay`]).
pub(crate) fn over_control(site: &Site, path: &str) -> Response {
    guarded(route(site, path))
}

/// With the headers that keep a browser from doing more than showing the page.
pub(super) fn guarded(mut response: Response) -> Response {
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

fn route(site: &Site, path: &str) -> Response {
    match path {
        "/" => status_page(site),
        "/style.css" => serve::whole(StatusCode::OK, "text/css; charset=utf-8", page::STYLE),
        "/refresh.js" => serve::whole(
            StatusCode::OK,
            "text/javascript; charset=utf-8",
            page::SCRIPT,
        ),
        "/metrics" => {
            site.watch();
            serve::metrics(site.traffic.metrics())
        }
        "/status.json" => json(&status(site)),
        _ => not_found(),
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
