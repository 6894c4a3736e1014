//! Every timeout ends what it is for, at its time, and for the right cause.

use super::{GET, OK, POST, logged, next_line, proxy, response, run, status_line, with_timeouts};
use crate::clock::Instant;
use crate::counters::Unasked;
use crate::harness::{Peer, address};
use crate::io::memory;
use std::time::Duration;

#[test]
fn a_server_that_accepts_no_connection() {
    run(async {
        let proxy = with_timeouts(|_, server| server.queue = Duration::from_secs(60));
        memory::silence(&address(1));
        let mut client = proxy.client();
        let begun = Instant::now();
        client.send(GET).await;
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 503 Service Unavailable");
        assert!(
            begun.elapsed() >= 4 * Duration::from_millis(500),
            "four attempts"
        );
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 503, "sC", "3"));
    });
}

#[test]
fn a_server_that_does_not_respond() {
    run(async {
        let proxy = proxy(2);
        let mut listener = memory::listen(&address(1));
        memory::refuse(&address(2));
        let mut client = proxy.client();
        client.send(GET).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 504 Gateway Timeout");
        let (entry, times) = next_line(&proxy).await;
        // A slow request is not sent to another server, whose load it would double.
        assert_eq!(entry, logged("app/app1", 504, "sH", "0"));
        assert_eq!(times, "0/0/0/-1/30000");
    });
}

#[test]
fn a_server_that_stops_within_its_response() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(GET).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        server
            .send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
            .await;
        response(&mut client).await;
        let (entry, times) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 200, "sD", "0"));
        assert_eq!(times, "0/0/0/0/30000");
        assert_eq!(client.rest().await, (String::new(), true));
    });
}

#[test]
fn a_head_that_does_not_end() {
    run(async {
        let proxy = proxy(1);
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost:").await;
        tokio::time::sleep(Duration::from_secs(9)).await;
        client.send(" a\r\n").await;
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 408 Request Timeout");
        let (entry, times) = next_line(&proxy).await;
        assert_eq!(entry, logged("site/<NOSRV>", 408, "cR", "0"));
        assert_eq!(times, "-1/-1/-1/-1/10000");
    });
}

#[test]
fn a_body_that_does_not_end() {
    run(async {
        let proxy = with_timeouts(|client, _| client.idle = Duration::from_secs(7));
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(format!("{POST}ab")).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 408 Request Timeout");
        let (entry, times) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 408, "cH", "0"));
        assert!(times.ends_with("/7000"), "{times}");
        assert_eq!(server.rest().await, ("ab".into(), true));
    });
}

#[test]
fn a_client_that_takes_nothing() {
    run(async {
        let proxy = with_timeouts(|client, _| client.idle = Duration::from_secs(7));
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(GET).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        server
            .send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            .await;
        server.send_until_refused().await;
        let (entry, times) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 200, "cD", "0"));
        assert_eq!(times, "0/0/0/0/7000");
    });
}

#[test]
fn a_connection_without_another_request() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(GET).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        server.send(OK).await;
        response(&mut client).await;
        let begun = Instant::now();
        assert_eq!(client.rest().await, (String::new(), true));
        assert_eq!(begun.elapsed().as_secs(), 60);
    });
}

#[test]
fn a_connection_without_any_request() {
    run(async {
        let proxy = proxy(1);
        let begun = Instant::now();
        let mut client = proxy.client();
        assert_eq!(client.rest().await, (String::new(), true));
        assert_eq!(begun.elapsed().as_secs(), 10);
        let silent = proxy.worker.counters.unasked(Unasked::Silent);
        assert_eq!(silent.get(), 1);
    });
}
