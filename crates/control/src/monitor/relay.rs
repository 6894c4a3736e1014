//! The status page of a site on machines, on this computer: every request is asked of the site's control socket.

use super::serve::{guarded, refusal};
use gaiola_net::client;
use gaiola_os::serve::{self, Response, text};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use std::rc::Rc;
use tokio::net::TcpListener;

/// Serves the page. `ask` sends `GET` with this path to the control socket; its error is for the reader. Runs within a `LocalSet`.
pub async fn page<F>(listener: TcpListener, ask: impl Fn(String) -> F + 'static)
where
    F: Future<Output = Result<client::Response, String>> + 'static,
{
    let port = listener.local_addr().map_or(0, |address| address.port());
    let ask = Rc::new(ask);
    serve::tcp(listener, move |request| {
        let (refusal, ask) = (refusal(&request, port), Rc::clone(&ask));
        let path = format!("/page{}", request.uri().path());
        async move {
            guarded(match refusal {
                Some(refusal) => refusal,
                None => passed_on(ask(path).await),
            })
        }
    })
    .await;
}

/// What the site answered, without the headers of that connection.
fn passed_on(answer: Result<client::Response, String>) -> Response {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return text(StatusCode::BAD_GATEWAY, why),
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = serve::whole(status, "text/plain", answer.body);
    if let Some(kind) = answer.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    response
}
