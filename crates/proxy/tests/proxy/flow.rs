//! What is on its way: it passes as it comes, and no faster than it is taken.

use super::authority::Authority;
use super::harness::*;
use super::tcp::tcp_config;
use super::tls::tls_config;
use gaiola_model::proxy::Refusal;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

/// More than the system and the proxy hold on the way.
const LARGE: usize = 40 << 20;

/// Who is not taken from for so long is held up.
const SOON: Duration = Duration::from_millis(500);

/// A server whose second event waits until the client has the first.
fn events() -> (Origin, Sender<()>) {
    let (sender, seen) = channel();
    let seen: Mutex<Receiver<()>> = Mutex::new(seen);
    let origin = Origin::with(move |connection| {
        while let Some(request) = connection.request() {
            let (head, end) = match request.path() {
                "/chunked" => ("Transfer-Encoding: chunked", "0\r\n\r\n"),
                _ => ("Connection: close", ""),
            };
            connection.say(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"));
            for event in ["data: 1\n\n", "data: 2\n\n"] {
                match end {
                    "" => connection.say(event),
                    _ => connection.say(&format!("{:x}\r\n{event}\r\n", event.len())),
                };
                seen.lock().unwrap().recv_timeout(LONG).unwrap();
            }
            connection.say(end);
            if end.is_empty() {
                return;
            }
        }
    });
    (origin, sender)
}

/// Reads until this has come.
fn until(stream: &mut impl Read, wanted: &str) {
    let (mut all, mut piece) = (Vec::new(), [0; 1024]);
    while !String::from_utf8_lossy(&all).contains(wanted) {
        let count = stream.read(&mut piece).unwrap();
        assert_ne!(count, 0, "it ended before {wanted:?}");
        all.extend_from_slice(&piece[..count]);
    }
}

fn takes_events(stream: &mut (impl Read + Write), path: &str, seen: &Sender<()>) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: site.test\r\n\r\n").unwrap();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        until(stream, event);
        seen.send(()).unwrap();
    }
}

#[test]
fn events_pass_as_they_come() {
    let ((origin, seen), bind) = (events(), free_address());
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    for path in ["/chunked", "/until_close"] {
        let mut client = Client::connect(bind);
        takes_events(&mut client.stream, path, &seen);
    }
}

#[test]
fn events_pass_as_they_come_over_tls() {
    let ((origin, seen), bind) = (events(), free_address());
    let authority = Authority::new();
    let site = authority.issue("site.pem", &["site.test"]);
    let _proxy = Proxy::serving(&tls_config(bind, &[origin.address], &[site]));
    for path in ["/chunked", "/until_close"] {
        let mut client = authority.any().connect(bind, "site.test").unwrap();
        takes_events(client.get_mut(), path, &seen);
    }
}

/// Writes as much of these bytes as is taken, and returns how much that was.
fn until_held_up(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    stream.set_write_timeout(Some(SOON)).unwrap();
    let mut written = 0;
    while written < bytes.len() {
        let piece = &bytes[written..bytes.len().min(written + (1 << 16))];
        match stream.write(piece) {
            Ok(count) => written += count,
            Err(error) => {
                assert!(matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut
                ));
                break;
            }
        }
    }
    stream.set_write_timeout(Some(LONG)).unwrap();
    written
}

fn numbers() -> Vec<u8> {
    (0..u32::try_from(LARGE).unwrap() / 4)
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// Pipes that the proxy has open: what the kernel moves by itself passes through one.
fn pipes(proxy: &Proxy) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", proxy.child.id())).unwrap();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("pipe:"))
        .count()
}

/// A server that takes `prefix` and then nothing until the test waits at the barrier too; then it takes all, and sends it
/// back.
fn slow(has_head: bool) -> (Origin, Arc<Barrier>) {
    let barrier = Arc::new(Barrier::new(2));
    let taken = Arc::clone(&barrier);
    let origin = Origin::with(move |connection| {
        if has_head {
            connection.head().unwrap();
        }
        taken.wait();
        let all = connection.client.exactly(LARGE);
        if has_head {
            connection.say(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"
            ));
        }
        let sent = until_held_up(&mut connection.client.stream, &all);
        assert!(sent < LARGE, "all of it was taken");
        taken.wait();
        connection.client.stream.write_all(&all[sent..]).unwrap();
    });
    (origin, barrier)
}

/// Sends and takes all, each when the other side has been held up.
fn goes_and_comes(client: &mut Client, proxy: &Proxy, barrier: &Barrier, has_head: bool) {
    let bytes = numbers();
    let before = pipes(proxy);
    let sent = until_held_up(&mut client.stream, &bytes);
    assert!(sent < LARGE, "all of it was taken");
    barrier.wait();
    client.stream.write_all(&bytes[sent..]).unwrap();
    barrier.wait();
    assert!(pipes(proxy) > before, "nothing is moved by the kernel");
    if has_head {
        assert_eq!(client.head().status, 200);
    }
    assert!(client.exactly(LARGE) == bytes);
}

#[test]
fn bodies_are_taken_no_faster_than_they_are_passed_on() {
    let ((origin, barrier), bind) = (slow(true), free_address());
    let mut config = config(bind, &[origin.address]);
    // The system must not take a server that does not read for one that has gone.
    config.backends[0].timeouts.user = LONG;
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"
    ));
    goes_and_comes(&mut client, &proxy, &barrier, true);
}

#[test]
fn bytes_are_taken_no_faster_than_they_are_passed_on() {
    let ((origin, barrier), bind) = (slow(false), free_address());
    let mut config = tcp_config(bind, &[origin.address], Refusal::Close);
    config.backends[0].timeouts.user = LONG;
    let proxy = Proxy::serving(&config);
    goes_and_comes(&mut Client::connect(bind), &proxy, &barrier, false);
}

#[test]
fn small_messages_need_no_pipe() {
    let origin = Origin::with(|connection| {
        while let [byte] = connection.client.exactly(1)[..] {
            connection.client.stream.write_all(&[byte]).unwrap();
        }
    });
    let bind = free_address();
    let proxy = Proxy::serving(&tcp_config(bind, &[origin.address], Refusal::Close));
    let mut client = Client::connect(bind);
    let before = pipes(&proxy);
    for n in 0..50 {
        client.stream.write_all(&[n]).unwrap();
        assert_eq!(client.exactly(1), [n]);
    }
    assert_eq!(pipes(&proxy), before);
}
