//! The site's paths.

use crate::database::{Failure, Pool};
use crate::echo::Sockets;
use crate::entries::{self, Entry, NewEntry, Served};
use crate::gate::Gate;
use crate::page;
use crate::served_by::ServedBy;
use crate::settings::Settings;
use axum::extract::rejection::JsonRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The longest wait for the database.
const LIMIT: Duration = Duration::from_secs(10);
/// Maximum size of a body, in bytes.
const BODY: usize = 16 * 1024;

struct Site {
    primary: Option<Pool>,
    standbys: Option<Pool>,
    gate: Gate,
    sockets: Sockets,
    instance: Option<String>,
    release: Option<String>,
}

/// All routes.
pub(crate) fn routes(settings: &Settings, sockets: Sockets) -> Router {
    let site = Arc::new(Site {
        primary: settings.primary.as_ref().map(Pool::new),
        standbys: settings.standbys.as_ref().map(Pool::new),
        gate: Gate::new(settings.rate),
        sockets,
        instance: settings.instance.clone(),
        release: settings.release.clone(),
    });
    Router::new()
        .route("/api/served_by", get(served_by))
        .route("/api/entries", get(list).post(add))
        .route("/api/entries/{id}", get(find))
        .route("/api/echo", get(echo))
        .fallback(page::answer)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn_with_state(site.clone(), pass_the_gate))
        .route("/up", get(up))
        .with_state(site)
}

/// Whether this process serves. It does not query the database: without one the site still shows its page, and
/// nothing is gained if all instances report that they are unhealthy. It bypasses the gate too.
async fn up() -> &'static str {
    "up\n"
}

async fn pass_the_gate(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    match site.gate.enter().await {
        Some(_in_flight) => next.run(request).await,
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            [(RETRY_AFTER, "1")],
            "Too many requests at a time.\n",
        )
            .into_response(),
    }
}

async fn echo(State(site): State<Arc<Site>>, upgrade: WebSocketUpgrade) -> Response {
    site.sockets.clone().accept(upgrade)
}

async fn served_by(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    site.answer(&headers, StatusCode::OK, None, json!({}))
}

async fn list(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    match limited(site.standbys.as_ref(), entries::list).await {
        Ok((entries, server)) => site.answer(
            &headers,
            StatusCode::OK,
            server,
            json!({ "entries": entries }),
        ),
        Err(failure) => site.unavailable(&headers, &failure, json!({})),
    }
}

async fn find(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let missing = json!({ "error": "there is no such entry" });
    let Ok(id) = id.parse() else {
        return site.answer(&headers, StatusCode::NOT_FOUND, None, missing);
    };
    match limited(site.primary.as_ref(), |pool| entries::find(pool, id)).await {
        Ok((Some(entry), server)) => site.answer(&headers, StatusCode::OK, server, json!(entry)),
        Ok((None, server)) => site.answer(&headers, StatusCode::NOT_FOUND, server, missing),
        Err(failure) => site.unavailable(&headers, &failure, json!({})),
    }
}

async fn add(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
    body: Result<Json<NewEntry>, JsonRejection>,
) -> Response {
    let refused = |status, why| {
        site.answer(
            &headers,
            status,
            None,
            json!({ "error": why, "acknowledged": false }),
        )
    };
    let new = match body {
        Ok(Json(new)) => new,
        Err(rejection) => return refused(rejection.status(), rejection.body_text()),
    };
    let new = match new.checked() {
        Ok(new) => new,
        Err(why) => return refused(StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    match limited(site.primary.as_ref(), |pool| entries::add(pool, &new)).await {
        Ok((entry, server)) => site.created(&headers, &entry, server),
        Err(failure) => site.unavailable(&headers, &failure, json!({ "acknowledged": false })),
    }
}

/// Queries the database, but not for longer than a visitor waits.
async fn limited<'a, T, Asked>(
    pool: Option<&'a Pool>,
    ask: impl FnOnce(&'a Pool) -> Asked,
) -> Result<Served<T>, Failure>
where
    Asked: Future<Output = Result<Served<T>, Failure>>,
{
    let pool = pool.ok_or(Failure::Absent)?;
    timeout(LIMIT, ask(pool)).await.unwrap_or_else(|_| {
        Err(Failure::Broken(format!(
            "nothing within {} s",
            LIMIT.as_secs()
        )))
    })
}

impl Site {
    fn created(&self, headers: &HeaderMap, entry: &Entry, server: Option<String>) -> Response {
        let place = [(LOCATION, format!("/api/entries/{}", entry.id))];
        (
            place,
            self.answer(headers, StatusCode::CREATED, server, json!(entry)),
        )
            .into_response()
    }

    fn unavailable(&self, headers: &HeaderMap, failure: &Failure, mut body: Value) -> Response {
        eprintln!("guestbook: {failure}");
        body["error"] = Value::String(failure.to_string());
        let answer = self.answer(headers, StatusCode::SERVICE_UNAVAILABLE, None, body);
        ([(RETRY_AFTER, "1")], answer).into_response()
    }

    /// `body` is an object; the request's path through the site is added to it.
    fn answer(
        &self,
        headers: &HeaderMap,
        status: StatusCode,
        database: Option<String>,
        mut body: Value,
    ) -> Response {
        let mut way = ServedBy {
            app: self.instance.clone(),
            release: self.release.clone(),
            database,
            ..ServedBy::default()
        };
        way.read_via(headers);
        body["served_by"] = json!(way);
        (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
    }
}
