//! Exchanges with clients and servers within memory, under a paused clock: no test waits, and every time is exact.

mod endings;
mod good;
mod queue;
mod timeouts;

use crate::harness::{Peer, Proxy, config};
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{ClientTimeouts, ServerTimeouts};
use std::time::Duration;

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Runs on a runtime like a worker's, whose clock moves on only when every task waits.
fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(Default::default())
        .expect("a runtime")
        .block_on(work);
}

/// A proxy with this many servers.
fn proxy(servers: u8) -> Proxy {
    Proxy::new(config(servers))
}

/// A proxy with one server, and with other timeouts.
fn with_timeouts(change: impl FnOnce(&mut ClientTimeouts, &mut ServerTimeouts)) -> Proxy {
    let mut config = config(1);
    let ProxyConfig {
        frontends,
        backends,
        ..
    } = &mut config;
    change(&mut frontends[0].timeouts, &mut backends[0].timeouts);
    Proxy::new(config)
}

/// Receives a response with its two bytes of body, and returns its status line.
async fn response(client: &mut Peer) -> String {
    let head = client.head().await;
    assert_eq!(client.bytes(2).await, "ok");
    status_line(&head).into()
}

fn status_line(head: &str) -> &str {
    head.lines().next().unwrap_or_default()
}

/// What the access log says of a request.
#[derive(Debug, PartialEq, Eq)]
struct Logged {
    /// `backend/server`
    server: String,
    status: String,
    /// HAProxy's first two letters.
    cause: String,
    /// Preceded by a plus if one of them went to another server.
    retries: String,
}

fn logged(server: &str, status: u16, cause: &str, retries: &str) -> Logged {
    Logged {
        server: server.into(),
        status: status.to_string(),
        cause: cause.into(),
        retries: retries.into(),
    }
}

/// The next line of the log, and its times: `TR/Tw/Tc/Tr/Ta` in milliseconds.
async fn next_line(proxy: &Proxy) -> (Logged, String) {
    let line = proxy.line().await;
    let words: Vec<_> = line.split(' ').collect();
    let retries = words[10].rsplit('/').next().unwrap_or_default();
    let entry = Logged {
        server: words[3].into(),
        status: words[5].into(),
        cause: words[9][..2].into(),
        retries: retries.into(),
    };
    (entry, words[4].into())
}

/// Lets every task run until it waits.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
