//! Exchanges that fail, and what the client gets then.

use super::{GET, OK, POST, logged, next_line, proxy, response, run, settle, status_line};
use crate::harness::{Peer, Proxy, address, config};
use crate::io::memory;
use gaiola_model::proxy::OnMarkedDown;

#[test]
fn a_head_that_cannot_be_read() {
    run(async {
        let proxy = proxy(1);
        let mut client = proxy.client();
        client
            .send("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n")
            .await;
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 400 Bad Request");
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("site/<NOSRV>", 400, "PR", "0"));
        assert_eq!(client.rest().await, ("400 Bad Request\n".into(), true));
    });
}

#[test]
fn a_response_that_cannot_be_read() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(GET).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        server.send("HTTP/1.1 what\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 502 Bad Gateway");
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 502, "PH", "0"));
    });
}

#[test]
fn chunks_that_cannot_be_read() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        client.send("what\r\n").await;
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 400 Bad Request");
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 400, "PH", "0"));
    });
}

#[test]
fn a_request_that_may_have_been_carried_out_is_not_repeated() {
    run(async {
        let proxy = proxy(2);
        let mut listener = memory::listen(&address(1));
        memory::refuse(&address(2));
        let mut client = proxy.client();
        client.send(format!("{POST}body")).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        server.bytes(4).await;
        drop(server);
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 502 Bad Gateway");
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 502, "SH", "0"));
    });
}

#[test]
fn a_server_that_closes_within_its_response() {
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
        drop(server);
        response(&mut client).await;
        assert_eq!(client.rest().await, (String::new(), true));
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 200, "SD", "0"));
    });
}

#[test]
fn a_response_without_a_length_that_breaks_is_followed_by_a_reset() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(GET).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\n\r\nok").await;
        response(&mut client).await;
        server.reset();
        assert_eq!(
            client.rest().await,
            (String::new(), false),
            "it appears whole"
        );
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 200, "SD", "0"));
    });
}

#[test]
fn a_client_that_leaves_while_its_server_works() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(GET).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        drop(client);
        assert_eq!(server.rest().await, (String::new(), true));
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 499, "CH", "0"));
    });
}

#[test]
fn a_client_that_leaves_while_a_server_is_connected_to() {
    run(async {
        let proxy = proxy(1);
        memory::silence(&address(1));
        let mut client = proxy.client();
        client.send(GET).await;
        settle().await;
        drop(client);
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 499, "CC", "0"));
    });
}

#[test]
fn a_client_that_leaves_within_its_head() {
    run(async {
        let proxy = proxy(1);
        let mut client = proxy.client();
        client.send("GET / HT").await;
        settle().await;
        drop(client);
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("site/<NOSRV>", 499, "CR", "0"));
    });
}

#[test]
fn a_server_that_is_marked_down_ends_its_requests_where_configured() {
    run(async {
        let mut config = config(1);
        config.backends[0].on_marked_down = OnMarkedDown::ShutdownSessions;
        let proxy = Proxy::new(config);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(format!("{POST}body")).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        server.bytes(4).await;
        proxy.change(|orders| orders.backends[0].members[0].1.downs += 1);
        let head = client.head().await;
        assert_eq!(status_line(&head), "HTTP/1.1 502 Bad Gateway");
        let (entry, _) = next_line(&proxy).await;
        assert_eq!(entry, logged("app/app1", 502, "DH", "0"));
    });
}

#[test]
fn a_proxy_that_stops_answers_what_it_has_and_then_closes() {
    run(async {
        let proxy = proxy(1);
        let mut listener = memory::listen(&address(1));
        let mut client = proxy.client();
        client.send(GET).await;
        let mut server = Peer::accept(&mut listener).await;
        server.head().await;
        proxy.change(|orders| orders.ending = true);
        server.send(OK).await;
        let head = client.head().await;
        assert!(head.contains("Connection: close\r\n"), "{head}");
        assert_eq!(client.rest().await, ("ok".into(), true));
    });
}
