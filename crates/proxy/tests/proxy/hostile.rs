//! Clients that mean harm: what they get, what is noted of them, and that nobody else notices.

mod idle;
mod smuggling;

use super::harness::*;
use gaiola_model::proxy::{Mode, ProxyConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MOMENT: Duration = Duration::from_millis(300);

/// The metric's value, with its labels where it has some.
fn metric(proxy: &Proxy, name: &str) -> u64 {
    let response = proxy.admin("/metrics");
    let mut lines = response.text().lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {name}"))
        .parse()
        .unwrap()
}

/// Why each request ended as it did, with its status.
fn reasons(proxy: &Proxy, count: usize) -> Vec<(u64, String)> {
    let lines = proxy.log_lines(count).into_iter();
    lines
        .map(|line| {
            let reason = line["reason"].as_str().unwrap_or_default();
            (line["status"].as_u64().unwrap(), reason.to_owned())
        })
        .collect()
}

/// Sends all of it, as far as the other side takes it, and reads the answer.
fn asked(bind: std::net::SocketAddr, request: &str) -> (u16, Client) {
    let mut client = Client::connect(bind);
    let _ = client.stream.write_all(request.as_bytes());
    let status = client.response().status;
    (status, client)
}

/// A server that answers nothing and keeps what it is sent.
fn silent() -> (Origin, Arc<Mutex<Vec<u8>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let origin = Origin::with(move |connection| {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = connection.client.reader.read(&mut bytes) {
            noted.lock().unwrap().extend_from_slice(&bytes[..count]);
        }
    });
    (origin, seen)
}

fn impatient(config: &mut ProxyConfig) {
    config.frontends[0].timeouts.request_head = MOMENT;
    config.frontends[0].timeouts.idle = MOMENT;
}

/// Bytes of the process' memory that are in use.
fn resident(proxy: &Proxy) -> u64 {
    let path = format!("/proc/{}/status", proxy.child.id());
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

/// A soft limit of descriptors is lifted as far as the hard one lets it.
fn many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let lifted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, lifted).unwrap();
}

#[test]
fn floods_of_fields_are_refused() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let many: String = (0..101).map(|n| format!("X-{n}: y\r\n")).collect();
    let large = format!("X: {}\r\n", "y".repeat(20_000));
    let long_name = format!("{}: y\r\n", "y".repeat(20_000));
    let cookies = format!("Cookie: {}\r\n", "a=b; ".repeat(10_000));
    for fields in [&many, &large, &long_name, &cookies] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(asked(bind, &request).0, 431);
    }
    let target = "y".repeat(10_000);
    let (status, _) = asked(bind, &format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(status, 414);
    let (status, _) = asked(bind, &format!("{target} / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(status, 501);
    assert_eq!(Client::connect(bind).get("/").status, 200);
    assert_eq!(origin.requests().len(), 1);
    let reasons = reasons(&proxy, 7);
    let said = |reason: &str| reasons.iter().filter(|(_, said)| said == reason).count();
    assert_eq!(said("there are too many header fields"), 1, "{reasons:?}");
    assert_eq!(said("the head is too long"), 3, "{reasons:?}");
    assert_eq!(said("the request target is too long"), 1, "{reasons:?}");
}

#[test]
fn huge_extensions_and_trailers_of_chunks_are_refused() {
    let (origin, seen) = silent();
    let bind = free_address();
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "y".repeat(100_000);
    let trailers: String = (0..10_000).map(|n| format!("X-{n}: y\r\n")).collect();
    for body in [
        format!("1;{long}"),
        format!("0\r\nX: {long}"),
        format!("0\r\n{trailers}\r\n"),
        "0".repeat(100_000),
    ] {
        assert_eq!(asked(bind, &format!("{head}{body}")).0, 400);
    }
    assert!(seen.lock().unwrap().len() < 4 * 20_000);
    let reasons = reasons(&proxy, 4);
    let said = |reason: &str| reasons.iter().filter(|(_, said)| said == reason).count();
    assert_eq!(
        said("a chunk's extension is malformed or too long"),
        1,
        "{reasons:?}"
    );
    assert_eq!(said("the trailers are too long"), 2, "{reasons:?}");
    assert_eq!(said("a chunk's size is malformed"), 1, "{reasons:?}");
}

/// The time is counted from the first byte: further ones win none.
#[test]
fn a_head_that_drips_gets_408() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    impatient(&mut config);
    let proxy = Proxy::serving(&config);
    let mut slow: Vec<_> = (0..50).map(|_| Client::connect(bind)).collect();
    for client in &mut slow {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    }
    let mut others = Client::connect(bind);
    let mut answered = 0;
    eventually("all are answered", || {
        slow.retain_mut(|client| {
            client.stream.set_nonblocking(true).unwrap();
            let is_answered = client.reader.fill_some();
            client.stream.set_nonblocking(false).unwrap();
            if is_answered {
                answered += usize::from(client.response().status == 408);
            } else {
                let _ = client.stream.write_all(b"X: y\r\n");
            }
            !is_answered
        });
        assert_eq!(others.get("/").status, 200);
        slow.is_empty()
    });
    assert_eq!(answered, 50);
    eventually("each is noted", || {
        let noted = reasons(&proxy, 50);
        let slow = noted.iter().filter(|(status, reason)| {
            *status == 408 && reason == "the request's head did not end in time"
        });
        slow.count() == 50
    });
    drop(others);
    eventually("none is left", || {
        metric(&proxy, "gaiola_connections{frontend=\"site\"}") == 0
    });
}

trait FillSome {
    /// Whether there is something to read.
    fn fill_some(&mut self) -> bool;
}

impl FillSome for std::io::BufReader<TcpStream> {
    fn fill_some(&mut self) -> bool {
        std::io::BufRead::fill_buf(self).is_ok()
    }
}

#[test]
fn a_body_that_stops_gets_408_and_frees_its_server() {
    let (origin, _) = silent();
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    impatient(&mut config);
    let proxy = Proxy::serving(&config);
    for framing in [
        "Content-Length: 100\r\n\r\nx",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nx",
    ] {
        let (status, mut client) = asked(bind, &format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
        assert_eq!(status, 408);
        assert!(client.is_closed());
    }
    for (status, reason) in reasons(&proxy, 2) {
        assert_eq!(
            (status, &*reason),
            (408, "the client stopped sending its request")
        );
    }
    eventually("its server is free", || {
        proxy.report().servers[0].in_flight == 0
    });
}

#[test]
fn a_body_that_comes_in_drops_is_ended_where_that_is_wanted() {
    let origin = Origin::start("s1");
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    let timeouts = &mut config.frontends[0].timeouts;
    (timeouts.idle, timeouts.body_rate) = (Duration::from_millis(400), 1000);
    let proxy = Proxy::serving(&config);
    let drip = |count| {
        let mut client = Client::connect(bind);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n");
        for _ in 0..count {
            std::thread::sleep(Duration::from_millis(100));
            // It is closed at some time.
            let _ = client.stream.write_all(b"x");
        }
        client.response().status
    };
    assert_eq!(drip(11), 408);
    assert_eq!(
        reasons(&proxy, 1)[0],
        (
            408,
            "the client sent its request at less than 1000 bytes a second".into()
        )
    );
    config.revision.0 += 1;
    config.frontends[0].timeouts.body_rate = 0;
    proxy.configure(&config);
    assert_eq!(drip(12), 200);
}

/// The proxy takes no more of a response than it can get rid of.
#[test]
fn a_client_that_does_not_read_is_left_and_holds_no_memory() {
    let origin = Origin::with(|connection| {
        while let Some(request) = connection.request() {
            let size: usize = 256 << 20;
            let head = match request.path() {
                "/length" => format!("Content-Length: {size}\r\n\r\n"),
                _ => format!("Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n"),
            };
            connection.say(&format!("HTTP/1.1 200 OK\r\n{head}"));
            let piece = vec![b'x'; 1 << 16];
            for _ in 0..size / piece.len() {
                if connection.client.stream.write_all(&piece).is_err() {
                    return;
                }
            }
        }
    });
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    impatient(&mut config);
    let proxy = Proxy::serving(&config);
    let before = resident(&proxy);
    let mut clients: Vec<_> = (0..40).map(|_| Client::connect(bind)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let path = ["/length", "/chunks"][n % 2];
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    for (status, reason) in reasons(&proxy, clients.len()) {
        assert_eq!(
            (status, &*reason),
            (200, "the client took no bytes for too long")
        );
    }
    let more = resident(&proxy).saturating_sub(before);
    assert!(
        more < 8 << 20,
        "{more} bytes more for {} clients",
        clients.len()
    );
    eventually("its server is free", || {
        proxy.report().servers[0].in_flight == 0
    });
}

/// What the proxy answers by itself. What rules answer is with the rules.
#[test]
fn every_answer_of_our_own_has_its_reason_in_the_log() {
    let closing = Origin::with(|connection| {
        connection.request();
    });
    let (mute, _) = silent();
    let strange = Origin::with(|connection| {
        connection.request();
        connection.say("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
    });
    let bind = free_address();
    let mut config = config(bind, &[closing.address]);
    impatient(&mut config);
    let backends = [
        ("closing", closing.address),
        ("mute", mute.address),
        ("strange", strange.address),
        ("dead", free_address()),
    ];
    let mut routes = Vec::new();
    for (name, address) in backends {
        let mut backend = backend(name, vec![server("s", address)]);
        backend.timeouts.response = MOMENT;
        config.backends.push(backend);
        let mut route = gaiola_model::proxy::Route::to(name);
        route.path_prefix = format!("/{name}");
        routes.push(route);
    }
    let trusted = Vec::new();
    config.frontends[0].mode = Mode::Http { routes, trusted };
    let proxy = Proxy::serving(&config);
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let conversations = [
        (get("/none"), 404, "no route matches"),
        (get("/closing"), 502, "s: it closed without a response"),
        (get("/mute"), 504, "s: no response within 300 ms"),
        (
            get("/strange"),
            502,
            "s: the Content-Length field is malformed",
        ),
        (get("/dead"), 503, "s: connection refused"),
        (
            "GET / HTTP/1.1\r\n\r\n".into(),
            400,
            "the Host field is missing",
        ),
        (
            "GET / HTTP/1.1\r\n".into(),
            408,
            "the request's head did not end in time",
        ),
        (
            get(&"/x".repeat(8000)),
            414,
            "the request target is too long",
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\n\r\n".into(),
            501,
            "the method is not supported",
        ),
        (
            "GET / HTTP/2.0\r\n\r\n".into(),
            505,
            "the HTTP version is not supported",
        ),
    ];
    for (n, (request, status, reason)) in conversations.iter().enumerate() {
        assert_eq!(asked(bind, request).0, *status, "{request:?}");
        let noted = reasons(&proxy, n + 1).pop().unwrap();
        assert_eq!(noted.0, u64::from(*status), "{request:?}");
        assert!(noted.1.starts_with(reason), "{request:?}: {noted:?}");
    }
}

/// More than the workers have of the largest buffers, each with a large head and an answer that does not end.
#[test]
fn large_heads_with_long_answers_keep_no_others_out() {
    many_descriptors();
    let origin = Origin::with(|connection| {
        let Some(request) = connection.request() else {
            return;
        };
        if request.field("Upgrade").is_some() {
            connection.say("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n");
            assert_eq!(connection.client.exactly(4), b"more");
        } else {
            connection.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        }
        connection.say("hello");
        // Until the client has left.
        let _ = connection.client.reader.read(&mut [0]);
    });
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    let Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!("it is an HTTP frontend");
    };
    routes[0].allowance.head = Some(64 * 1024);
    let proxy = Proxy::serving(&config);
    let large = "x".repeat(20_000);
    let asked = |number: usize| {
        let upgrade = match number % 2 {
            0 => "",
            _ => "Connection: upgrade\r\nUpgrade: other\r\n",
        };
        let mut client = Client::connect(bind);
        client.send(&format!(
            "GET /{number}?q HTTP/1.1\r\nHost: a\r\nX: {large}\r\n{upgrade}\r\nmore"
        ));
        let status = client.head().status;
        assert!(matches!(status, 101 | 200), "{status} to request {number}");
        assert_eq!(client.exactly(5), b"hello");
        client
    };
    let clients: Vec<_> = (0..700).map(asked).collect();
    drop(clients);
    let lines = proxy.log_lines(700);
    let logged = |number: usize| {
        let path = format!("/{number}");
        lines.iter().any(|line| line["path"] == path)
    };
    assert!(logged(0) && logged(699));
}
