//! Connections that do nothing.

use super::*;

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
