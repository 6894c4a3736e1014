//! Servers that answer before they have read all, and close: what they have said arrives. So do their resets.

use super::harness::*;
use super::tcp::tcp_config;
use gaiola_model::proxy::Refusal;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// More than the system and the proxy hold on the way.
const BODY: usize = 60 << 20;

/// A server that reads a head, says this, and closes with much unread, which resets the connection.
fn curt(answer: &'static str) -> Origin {
    Origin::with(move |connection| {
        connection.head();
        connection.say(answer);
    })
}

const BAD: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad";

/// What a client gets that sends all of its body before it reads.
fn posted(bind: SocketAddr) -> String {
    let mut client = Client::connect(bind);
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"
    ));
    client.stream.write_all(&vec![7; BODY]).unwrap();
    let mut all = Vec::new();
    let _ = client.stream.read_to_end(&mut all);
    String::from_utf8(all).unwrap()
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let (origin, bind) = (curt(BAD), free_address());
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    for _ in 0..6 {
        let answer = posted(bind);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
        assert!(answer.ends_with("\r\n\r\nbad"), "{answer:?}");
    }
}

#[test]
fn and_through_a_tcp_frontend() {
    let (origin, bind) = (curt(BAD), free_address());
    let _proxy = Proxy::serving(&tcp_config(bind, &[origin.address], Refusal::Close));
    for _ in 0..6 {
        assert_eq!(posted(bind), BAD);
    }
}

#[test]
fn and_through_a_tunnel() {
    let origin = Origin::with(|connection| {
        connection.head();
        connection.say("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n");
        connection.client.exactly(100);
        connection.say("enough");
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    for _ in 0..6 {
        let mut client = Client::connect(bind);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n");
        assert_eq!(client.head().status, 101);
        client.stream.write_all(&vec![7; BODY]).unwrap();
        assert_eq!(client.exactly(6), b"enough");
    }
}

#[test]
fn what_a_client_says_before_it_leaves_arrives() {
    let (sender, said) = std::sync::mpsc::channel();
    let origin = Origin::with(move |connection| {
        // Nobody reads this.
        let _ = connection.client.stream.write_all(&[7; 100_000]);
        let mut all = Vec::new();
        let _ = connection.client.stream.read_to_end(&mut all);
        sender.send(all).unwrap();
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&tcp_config(bind, &[origin.address], Refusal::Close));
    for _ in 0..6 {
        let mut client = std::net::TcpStream::connect(bind).unwrap();
        client.read_exact(&mut [0; 10]).unwrap();
        client.write_all(b"quit").unwrap();
        drop(client);
        assert_eq!(said.recv_timeout(LONG).unwrap(), b"quit");
    }
}

/// A server that hears a line and resets the connection.
fn broken() -> Origin {
    Origin::with(|connection| {
        connection.client.line();
        rustix::net::sockopt::set_socket_linger(&connection.client.stream, Some(Duration::ZERO))
            .unwrap();
    })
}

/// Where this many clients are each answered a second late, it takes longer than it may.
const CLIENTS: usize = 12;
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_reset_of_the_servers_reaches_a_client_that_waits_at_once() {
    let (origin, bind) = (broken(), free_address());
    let _proxy = Proxy::serving(&tcp_config(bind, &[origin.address], Refusal::Close));
    let began = Instant::now();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(bind);
        client.send("hello\r\n");
        let end = client.stream.read(&mut [0; 10]).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }
    assert!(began.elapsed() < SOON);
}

#[test]
fn and_one_that_goes_on_sending() {
    let (origin, bind) = (broken(), free_address());
    let _proxy = Proxy::serving(&tcp_config(bind, &[origin.address], Refusal::Close));
    let began = Instant::now();
    for _ in 0..2 {
        let mut client = Client::connect(bind);
        client.send("hello\r\n");
        while client.stream.write_all(b"still here\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    assert!(began.elapsed() < SOON);
}
