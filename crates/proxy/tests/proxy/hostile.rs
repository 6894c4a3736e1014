//! Clients that mean harm: what they get, what is noted of them, and that nobody else notices.

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

/// Whatever two readers might take for different messages ends the connection, and of what was to be smuggled no server
/// sees a byte.
#[test]
fn no_form_of_smuggling_reaches_a_server() {
    const INNER: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let (origin, seen) = silent();
    let bind = free_address();
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let fields = [
        // Two lengths.
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 5, 0",
        "Content-Length: 0\r\nTransfer-encoding: identity",
        // One that some do not see.
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\r\n\tTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\r\r\nTransfer-Encoding: chunked",
        "X: y\0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: \0chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding:\n chunked",
        "Transfer\u{131}-Encoding: chunked",
        "Content-Length : 5",
        // One that some read otherwise.
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5;",
        "Content-Length: 5.0",
        "Content-Length: ",
        "Content-Length: 18446744073709551621",
        // Two hosts.
        "Host: b",
        "host: a",
    ];
    let heads = fields
        .iter()
        .map(|field| format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
    let lines = [
        "POST / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a/../b\r\n\r\n",
        "POST / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\nHost: a\n\n",
        "POST / HTTP/1.1\r\nHost: a\n\r\n",
        "POST  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /\tx HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\rHost: a\r\n\r\n",
        " POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / http/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.10\r\nHost: a\r\n\r\n",
        "POST / HTTP/0.9\r\nHost: a\r\n\r\n",
        "POST /\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "POST * HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST a HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "PO\0ST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let chunks = [
        "0x0\r\n\r\n",
        " 0\r\n\r\n",
        "+0\r\n\r\n",
        "-0\r\n\r\n",
        "0 \r\n\r\n",
        "0\n\n",
        "0\r\r\n\r\n",
        "\r\n0\r\n\r\n",
        ";x\r\n\r\n",
        "0;\0\r\n\r\n",
        "0;x\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nno trailer\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "10000000000000000\r\n",
        "00000000000000000\r\n\r\n",
    ];
    let bodies = chunks.iter().map(|body| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    });
    let all: Vec<_> = heads.chain(lines.map(String::from)).chain(bodies).collect();
    for outer in &all {
        println!("{outer:?}");
        let (status, mut client) = asked(bind, &format!("{outer}{INNER}"));
        assert!(matches!(status, 400 | 501 | 505), "{status}: {outer:?}");
        assert!(client.is_closed(), "{outer:?}");
    }
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert!(!seen.contains("smuggled"), "{seen}");
    for (outer, (status, reason)) in all.iter().zip(reasons(&proxy, all.len())) {
        assert!(
            !reason.is_empty(),
            "{status} without a reason for {outer:?}"
        );
    }
}

/// A server that ignores framing cannot be told a second request by what a body says.
#[test]
fn what_a_body_says_is_no_request() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = inner.len();
    client.send(&format!(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}\
         POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n\
         GET /3 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"
    ));
    for n in 1..=3 {
        assert!(client.response().text().contains(&format!("/{n} ")));
    }
    let paths: Vec<_> = origin
        .requests()
        .iter()
        .map(|r| r.path().to_owned())
        .collect();
    assert_eq!(paths, ["/1", "/2", "/3"]);
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
    let mut told = 0;
    eventually("all are told", || {
        slow.retain_mut(|client| {
            client.stream.set_nonblocking(true).unwrap();
            let is_told = client.reader.fill_some();
            client.stream.set_nonblocking(false).unwrap();
            if is_told {
                told += usize::from(client.response().status == 408);
            } else {
                let _ = client.stream.write_all(b"X: y\r\n");
            }
            !is_told
        });
        assert_eq!(others.get("/").status, 200);
        slow.is_empty()
    });
    assert_eq!(told, 50);
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

#[test]
fn connections_that_never_send_are_closed_and_counted() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    impatient(&mut config);
    let proxy = Proxy::serving(&config);
    let silent: Vec<_> = (0..500)
        .map(|_| TcpStream::connect(bind).unwrap())
        .collect();
    assert_eq!(Client::connect(bind).get("/").status, 200);
    eventually("each is counted", || {
        metric(
            &proxy,
            "gaiola_connections_unasked_total{reason=\"silent\"}",
        ) == 500
    });
    for mut stream in silent {
        stream.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    eventually("none is left", || {
        metric(&proxy, "gaiola_connections{frontend=\"site\"}") == 0
    });
}

#[test]
fn connections_that_do_not_begin_as_they_must_are_counted_by_their_reason() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    impatient(&mut config);
    config.frontends[0].binds[0].proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
    let proxy = Proxy::serving(&config);
    let mut late = Client::connect(bind);
    late.send("PROXY TCP4 ");
    let mut other = Client::connect(bind);
    other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(late.is_closed() && other.is_closed());
    assert_eq!(
        metric(
            &proxy,
            "gaiola_connections_unasked_total{reason=\"header\"}"
        ),
        2
    );
    assert!(origin.requests().is_empty());
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
fn thousands_of_idle_connections_cost_little_memory_and_no_time() {
    const MANY: u64 = 5000;
    many_descriptors();
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    config.frontends[0].maxconn = 10_000;
    let proxy = Proxy::serving(&config);
    assert_eq!(Client::connect(bind).get("/").status, 200);
    let before = resident(&proxy);
    let idle: Vec<_> = (0..MANY)
        .map(|_| {
            let mut stream = TcpStream::connect(bind).unwrap();
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                .unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            assert_ne!(stream.read(&mut [0; 1024]).unwrap(), 0);
            stream
        })
        .collect();
    eventually("all are open, and the first is gone", || {
        metric(&proxy, "gaiola_connections{frontend=\"site\"}") == MANY
    });
    let each = resident(&proxy).saturating_sub(before) / MANY;
    assert!(
        each < 14 * 1024,
        "{each} bytes for each connection, unoptimized"
    );
    assert_eq!(Client::connect(bind).get("/").status, 200);
    drop(idle);
    eventually("none is left", || {
        metric(&proxy, "gaiola_connections{frontend=\"site\"}") == 0
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
            "the method is not served",
        ),
        (
            "GET / HTTP/2.0\r\n\r\n".into(),
            505,
            "the HTTP version is not served",
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
    let told = |number: usize| {
        let path = format!("/{number}");
        lines.iter().any(|line| line["path"] == path)
    };
    assert!(told(0) && told(699));
}
