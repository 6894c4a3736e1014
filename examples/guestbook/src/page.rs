//! The page itself, for a site without a web tier; with one, its servers answer these paths.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// Path, file in the release's directory, and type.
const FILES: [(&str, &str, &str); 3] = [
    ("/", "public/index.html", "text/html; charset=utf-8"),
    ("/style.css", "public/style.css", "text/css; charset=utf-8"),
    (
        "/script.js",
        "public/script.js",
        "text/javascript; charset=utf-8",
    ),
];

/// Serves the page's files, and 404 for other paths.
pub(crate) async fn answer(request: Request) -> Response {
    let path = request.uri().path();
    let Some((_, file, kind)) = FILES.iter().find(|(known, ..)| *known == path) else {
        return (StatusCode::NOT_FOUND, "There is no such page.\n").into_response();
    };
    match std::fs::read(file) {
        Ok(bytes) => ([(CONTENT_TYPE, *kind)], bytes).into_response(),
        Err(error) => {
            eprintln!("guestbook: cannot read {file}: {error}");
            (StatusCode::NOT_FOUND, "This page is missing here.\n").into_response()
        }
    }
}
