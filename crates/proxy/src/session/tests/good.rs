//! Exchanges that end well.

use super::{GET, OK, POST, logged, next_line, proxy, response, run, settle, status_line};
use crate::harness::{Peer, address};
use crate::io::memory;

#[test]
fn two_exchanges_on_one_connection_reuse_the_servers() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(GET).await;
        let mut server = Peer::accept(&mut listener).await;
        for round in 0..2 {
            if round > 0 {
                client.send(GET).await;
            }
            let head = server.head().await;
            assert!(head.starts_with("GET /a HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("X-Forwarded-For: 198.51.100.7\r\n"), "{head}");
            server.send(OK).await;
            assert_eq!(response(&mut client).await, "HTTP/1.1 200 OK");
            let (entry, _) = next_line(&proxy).await;
            assert_eq!(entry, logged("app/app1", 200, "--", "0"));
        }
        assert!(
            listener.try_recv().is_err(),
            "there was a second connection"
        );
    });
}

#[test]
fn requests_sent_together_are_answered_in_order() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client
            .send(format!("{GET}{}", GET.replace("/a", "/b")))
            .await;
        let mut server = Peer::accept(&mut listener).await;
        for path in ["/a", "/b"] {
            assert!(server.head().await.starts_with(&format!("GET {path} ")));
            server.send(OK).await;
        }
        for _ in 0..2 {
            assert_eq!(response(&mut client).await, "HTTP/1.1 200 OK");
        }
    });
}

#[test]
fn a_body_is_forwarded_as_it_arrives() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(format!("{POST}ab")).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        assert_eq!(server.bytes(2).await, "ab");
        client.send("cd").await;
        assert_eq!(server.bytes(2).await, "cd");
        server.send(OK).await;
        assert_eq!(response(&mut client).await, "HTTP/1.1 200 OK");
    });
}

#[test]
fn an_interim_response_precedes_the_final_one() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client
            .send(POST.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"))
            .await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let interim = client.head().await;
        assert_eq!(status_line(&interim), "HTTP/1.1 100 Continue");
        client.send("body").await;
        assert_eq!(server.bytes(4).await, "body");
        server.send(OK).await;
        assert_eq!(response(&mut client).await, "HTTP/1.1 200 OK");
    });
}

#[test]
fn a_server_that_refuses_is_followed_by_another() {
    run(async {
        let mut proxy = proxy(2);
        memory::refuse(&address(1));
        let mut listener = memory::listen(&address(2));
        let mut client = proxy.client();
        client.send(GET).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        server.send(OK).await;
        assert_eq!(response(&mut client).await, "HTTP/1.1 200 OK");
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app2", 200, "--", "+1"));
        let report = proxy.reports.try_recv().expect("the failure is reported");
        assert_eq!(report.member.name, "app1");
    });
}

#[test]
fn a_stale_connection_is_replaced_for_a_request_that_may_be_repeated() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(GET).await;
        let mut stale = Peer::accept(&mut listener).await;
        stale.head().await;
        stale.send(OK).await;
        response(&mut client).await;
        next_line(&proxy).await;
        client.send(GET).await;
        stale.head().await;
        // It has read the request, and ends without an answer.
        drop(stale);
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        server.send(OK).await;
        assert_eq!(response(&mut client).await, "HTTP/1.1 200 OK");
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 200, "--", "1"));
    });
}

#[test]
fn a_response_may_precede_the_end_of_its_request() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(format!("{POST}ab")).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        server.send(OK).await;
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 200 OK");
        assert!(head.contains("Connection: close\r\n"), "{head}");
        settle().await;
        assert_eq!(client.rest().await, ("ok".into(), true));
    });
}
