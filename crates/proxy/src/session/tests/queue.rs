//! Requests that wait for a server.

use super::{GET, OK, logged, next_line, response, run, settle, status_line};
use crate::harness::{Peer, Proxy, address, config};
use crate::io::memory::{self, Listener};
use std::time::Duration;

/// A proxy with one server that takes one request at a time, and a request that it has.
async fn busy(queue_size: u32) -> (Proxy, Listener, Peer, Peer) {
    let mut config = config(1);
    config.backends[0].servers[0].maxconn = Some(1);
    config.backends[0].timeouts.queue_size = queue_size;
    let proxy = Proxy::new(config);
    let mut listener = memory::listen(&address(1));
    let mut client = proxy.client();
    client.send(GET).await;
    let mut server = Peer::accept(&mut listener).await;
    server.head().await;
    (proxy, listener, client, server)
}

#[test]
fn a_request_waits_until_another_has_ended() {
    run(async {
        let (proxy, _listener, mut first, mut server) = busy(9).await;
        let mut second = proxy.client();
        second.send(GET).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.send(OK).await;
        response(&mut first).await;
        next_line(&proxy).await;
        server.head().await;
        server.send(OK).await;
        assert_eq!(response(&mut second).await, "HTTP/1.1 200 OK");
        let (entry, times) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 200, "--", "0"));
        assert_eq!(times, "0/2000/0/0/2000");
    });
}

#[test]
fn a_wait_that_is_too_long_ends_with_503() {
    run(async {
        let (proxy, _listener, _first, _server) = busy(9).await;
        let mut second = proxy.client();
        second.send(GET).await;
        let head = second.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 503 Service Unavailable");
        let (entry, times) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/<NOSRV>", 503, "sQ", "0"));
        assert_eq!(times, "0/5000/-1/-1/5000");
    });
}

#[test]
fn a_full_queue_is_refused_at_once() {
    run(async {
        let (proxy, _listener, _first, _server) = busy(1).await;
        let mut waits = proxy.client();
        waits.send(GET).await;
        settle().await;
        let mut client = proxy.client();
        client.send(GET).await;
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 503 Service Unavailable");
        let (entry, times) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/<NOSRV>", 503, "PQ", "0"));
        assert_eq!(times, "0/-1/-1/-1/0");
    });
}

#[test]
fn a_client_that_leaves_makes_room_in_the_queue() {
    run(async {
        let (proxy, _listener, mut first, mut server) = busy(1).await;
        let mut leaves = proxy.client();
        leaves.send(GET).await;
        settle().await;
        drop(leaves);
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/<NOSRV>", 499, "CQ", "0"));
        let mut next = proxy.client();
        next.send(GET).await;
        settle().await;
        server.send(OK).await;
        response(&mut first).await;
        server.head().await;
        server.send(OK).await;
        assert_eq!(response(&mut next).await, "HTTP/1.1 200 OK");
    });
}

const UPGRADE: &str =
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A proxy with one server that takes one request at a time, and a WebSocket to it.
async fn with_tunnel(count_tunnels: bool) -> (Proxy, Listener, Peer, Peer) {
    let mut config = config(1);
    config.backends[0].servers[0].maxconn = Some(1);
    config.backends[0].count_tunnels = count_tunnels;
    let proxy = Proxy::new(config);
    let mut listener = memory::listen(&address(1));
    let mut client = proxy.client();
    client.send(UPGRADE).await;
    let mut server = Peer::accept(&mut listener).await;
    server.head().await;
    server.send(SWITCHED).await;
    client.head().await;
    (proxy, listener, client, server)
}

#[test]
fn a_tunnel_gives_its_slot_back_where_tunnels_do_not_count() {
    run(async {
        let (proxy, mut listener, _tunnel, _its_server) = with_tunnel(false).await;
        let mut client = proxy.client();
        client.send(GET).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        // Requests still count: this one waits for the one before it.
        let mut second = proxy.client();
        second.send(GET).await;
        settle().await;
        server.send(OK).await;
        assert_eq!(response(&mut client).await, "HTTP/1.1 200 OK");
        server.head().await;
        server.send(OK).await;
        assert_eq!(response(&mut second).await, "HTTP/1.1 200 OK");
    });
}

#[test]
fn a_tunnel_keeps_its_slot_where_tunnels_count() {
    run(async {
        let (proxy, _listener, _tunnel, _its_server) = with_tunnel(true).await;
        let mut client = proxy.client();
        client.send(GET).await;
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 503 Service Unavailable");
    });
}
