//! The access log as operators read it. Lines in HAProxy's format are held against those that HAProxy 2.6 wrote for the
//! same conversations, but for times, sizes and counts.

use super::harness::*;
use gaiola_model::proxy::{
    Admin, Conditions, Fixed, PathMatch, ProxyConfig, Refusal, Route, Rule, Server, Sticky,
};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// A proxy whose log is this, which serves `config`.
fn logging(access_log: &str, config: &ProxyConfig) -> Proxy {
    let (directory, admin) = (tempfile::tempdir().unwrap(), free_address());
    let text = format!(
        "workers = 2\ncontrol = 'proxy.sock'\nadmin = '{admin}'\naccess_log = {access_log}\n\
         [frontend.first]\nbind = '{}'\nbackend = 'none'\n[backend.none.server]\ns = '127.0.0.1:1'\n",
        free_address()
    );
    std::fs::write(directory.path().join("proxy.toml"), text).unwrap();
    let mut proxy = Proxy::start_in(directory);
    proxy.admin = admin;
    proxy.configure(config);
    proxy
}

/// A server that does what the path asks for.
fn moody() -> Origin {
    Origin::with(|connection| {
        while let Some(request) = connection.request() {
            let begun = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc";
            match request.path() {
                "/close" => return,
                "/half" => drop(connection.say(begun)),
                "/bad" => drop(connection.say("HTTP/9 xx\r\n\r\n")),
                _ if connection.answer("hello") => continue,
                _ => {}
            }
            return;
        }
    })
}

fn route(path: &str, rule: Option<Rule>, backend: &str) -> Route {
    Route {
        when: Conditions {
            paths: vec![PathMatch::Exact(path.into())],
            ..Conditions::default()
        },
        rules: rule.into_iter().collect(),
        ..Route::to(backend)
    }
}

/// What follows the date, with `#` for what differs from run to run.
fn masked(line: &str) -> String {
    let (_, rest) = line.split_once("] ").unwrap();
    let mut words: Vec<String> = rest.split(' ').map(str::to_owned).collect();
    let is_tcp = words[3].parse::<u64>().is_ok() && words[5].contains('/');
    let counts = if is_tcp { 5 } else { 8 };
    let parts = words[2].split('/');
    let times: Vec<_> = parts
        .map(|time| if time == "-1" { time } else { "#" })
        .collect();
    words[2] = times.join("/");
    words[if is_tcp { 3 } else { 4 }] = "#".into();
    words[counts] = "#".into();
    words.join(" ")
}

/// The text of the next message to a syslog server, which must be of this kind.
fn message(server: &UdpSocket, priority: &str) -> String {
    let mut bytes = [0; 4096];
    let len = server.recv(&mut bytes).unwrap();
    let text = std::str::from_utf8(&bytes[..len]).unwrap();
    assert!(text.starts_with(priority), "{text:?}");
    let (_, line) = text.split_once("]: ").unwrap();
    line.to_owned()
}

fn syslog() -> (UdpSocket, SocketAddr) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(LONG)).unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

#[test]
fn lines_are_those_that_haproxy_writes() {
    let origin = moody();
    let (bind, tcp) = (free_address(), free_address());
    let down = Server {
        admin: Admin::Maint,
        ..server("s1", origin.address)
    };
    let (server_log, address) = syslog();
    let fixed = Fixed {
        status: 200,
        content_type: "text/plain".into(),
        body: "hi".into(),
        needs: None,
    };
    let mut config = config(bind, &[origin.address]);
    config.frontends[0] = gaiola_model::proxy::Frontend {
        name: "fe".into(),
        ..http_frontend(bind, "app")
    };
    let gaiola_model::proxy::Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!("it is one of HTTP");
    };
    routes.splice(
        0..0,
        [
            route("/deny", Some(Rule::Deny), "app"),
            route("/ret", Some(Rule::Return(fixed)), "app"),
            route("/none", None, "none"),
            route("/refused", None, "refused"),
        ],
    );
    config.frontends.push(gaiola_model::proxy::Frontend {
        name: "tcpfe".into(),
        ..tcp_frontend(tcp, "refused", Refusal::Close)
    });
    config.backends.push(backend("none", vec![down]));
    let nobody = vec![server("s1", free_address())];
    config.backends.push(backend("refused", nobody));
    config.backends[2].timeouts.queue = Duration::from_millis(100);
    let log = format!("{{ to = 'syslog:{address}', format = 'httplog' }}");
    let proxy = logging(&log, &config);

    let conversations = [
        (
            "GET /x HTTP/1.0\r\n\r\n",
            "fe app/s1 0/0/0/0/0 200 54 - - ---- 1/1/0/0/0 0/0 \"GET /x HTTP/1.0\"",
        ),
        (
            "GET /deny HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "fe fe/<NOSRV> 0/-1/-1/-1/0 403 192 - - PR-- 1/1/0/0/0 0/0 \"GET /deny HTTP/1.1\"",
        ),
        (
            "GET /ret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "fe fe/<NOSRV> 0/-1/-1/-1/0 200 73 - - LR-- 1/1/0/0/0 0/0 \"GET /ret HTTP/1.1\"",
        ),
        (
            "GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "fe none/<NOSRV> 0/-1/-1/-1/0 503 217 - - SC-- 1/1/0/0/0 0/0 \"GET /none HTTP/1.1\"",
        ),
        (
            "POST /refused HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "fe refused/s1 0/301/-1/-1/301 503 217 - - SC-- 1/1/0/0/1 0/0 \"POST /refused HTTP/1.1\"",
        ),
        (
            "POST /close HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "fe app/s1 0/0/0/-1/0 502 209 - - SH-- 1/1/0/0/0 0/0 \"POST /close HTTP/1.1\"",
        ),
        (
            "GET /half HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "fe app/s1 0/0/0/0/0 200 54 - - SD-- 1/1/0/0/0 0/0 \"GET /half HTTP/1.1\"",
        ),
        (
            "GET /bad HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "fe app/s1 0/0/0/-1/0 502 209 - - PH-- 1/1/0/0/0 0/0 \"GET /bad HTTP/1.1\"",
        ),
        (
            "GET / \u{1}\r\n\r\n",
            "fe fe/<NOSRV> -1/-1/-1/-1/0 400 0 - - PR-- 2/2/0/0/0 0/0 \"<BADREQ>\"",
        ),
    ];
    for (said, line) in conversations {
        let mut client = Client::connect(bind);
        client.send(said);
        client.rest();
        let own = message(&server_log, "<134>");
        let theirs = format!("127.0.0.1:46788 [26/Nov/2026:01:58:30.292] {line}");
        assert_eq!(masked(&own), masked(&theirs));
        assert!(own.starts_with("127.0.0.1:"), "{own}");
    }
    Client::connect(tcp).rest();
    let theirs =
        "127.0.0.1:57930 [26/Nov/2026:01:58:49.037] tcpfe refused/s1 302/-1/301 0 SC 1/1/0/0/1 0/0";
    assert_eq!(masked(&message(&server_log, "<134>")), masked(theirs));
    drop(proxy);
}

#[test]
fn a_file_that_is_not_there_is_an_answer_of_our_own() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    let gaiola_model::proxy::Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!("it is one of HTTP");
    };
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("there"), "x").unwrap();
    let only_files = gaiola_model::proxy::Route {
        files: vec![files.path().into()],
        ..gaiola_model::proxy::Route::default()
    };
    routes.insert(0, only_files);
    let log = "{ to = 'access.log', format = 'httplog' }";
    let proxy = logging(log, &config);
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/there").status, 200);
    assert_eq!(client.get("/gone").status, 404);
    client.send("POST /there HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().status, 404);
    let read = || std::fs::read_to_string(proxy.file("access.log")).unwrap();
    eventually("the lines are there", || read().lines().count() == 3);
    for (line, status) in read().lines().zip([" 200 ", " 404 ", " 404 "]) {
        assert!(line.contains(status) && line.contains(" LR-- "), "{line}");
    }
}

#[test]
fn a_combined_log_counts_bodies() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = logging(
        "{ to = 'access.log', format = 'combined' }",
        &config(bind, &[origin.address]),
    );
    let mut client = Client::connect(bind);
    client.send("GET /a?b HTTP/1.1\r\nHost: a\r\nUser-Agent: test\r\n\r\n");
    let length = client.response().body.len();
    let read = || std::fs::read_to_string(proxy.file("access.log")).unwrap();
    eventually("the line is there", || read().ends_with('\n'));
    let line = read();
    let end = format!("] \"GET /a?b HTTP/1.1\" 200 {length} \"-\" \"test\"\n");
    assert!(
        line.starts_with("127.0.0.1 - - [") && line.ends_with(&end),
        "{line}"
    );
}

#[test]
fn every_format_has_the_client_that_a_trusted_sender_names() {
    for format in ["httplog", "combined"] {
        let (origin, bind) = (Origin::start("s1"), free_address());
        let mut config = config(bind, &[origin.address]);
        let gaiola_model::proxy::Mode::Http { trusted, .. } = &mut config.frontends[0].mode else {
            unreachable!("it is one of HTTP");
        };
        trusted.push("127.0.0.0/8".parse().unwrap());
        let log = format!("{{ to = 'access.log', format = '{format}' }}");
        let proxy = logging(&log, &config);
        let mut client = Client::connect(bind);
        let port = client.stream.local_addr().unwrap().port();
        let end = match format {
            "httplog" => format!(":{port} ["),
            _ => " - - [".into(),
        };
        let named = [
            ("192.0.2.5:4711", "192.0.2.5"),
            ("198.51.100.1, 192.0.2.6", "192.0.2.6"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("unknown", "0.0.0.0"),
        ];
        for (said, _) in named {
            client.send(&format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {said}\r\n\r\n"
            ));
            assert_eq!(client.response().status, 200);
        }
        assert_eq!(client.get("/").status, 200);
        let read = || std::fs::read_to_string(proxy.file("access.log")).unwrap();
        eventually("the lines are there", || read().lines().count() == 5);
        let lines = read();
        let mut lines = lines.lines();
        for ((_, is), line) in named.iter().zip(&mut lines) {
            assert!(line.starts_with(&format!("{is}{end}")), "{line}");
        }
        let last = lines.next().unwrap();
        assert!(last.starts_with(&format!("127.0.0.1{end}")), "{last}");
    }
}

#[test]
fn httplog_has_how_many_waited_for_the_same_server() {
    let (origin, held) = Origin::holding();
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    config.backends[0].sticky = Some(Sticky::new("at"));
    config.backends[0].servers[0].cookie = Some("one".into());
    config.backends[0].servers[0].maxconn = Some(1);
    let proxy = logging("{ to = 'access.log', format = 'httplog' }", &config);
    let mut busy = Client::connect(bind);
    busy.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is in flight", || {
        proxy.report().servers[0].in_flight == 1
    });
    let waits = |fields: &str, depth: usize| {
        let mut client = Client::connect(bind);
        client.send(&format!("GET /{depth} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        eventually("it waits", || {
            let metrics = proxy.admin("/metrics");
            let depth = format!("gaiola_queue_depth{{backend=\"app\"}} {depth}\n");
            metrics.text().contains(&depth)
        });
        client
    };
    let own = "Cookie: at=one\r\n";
    let waiting = [
        waits(own, 1),
        waits(own, 2),
        waits("", 3),
        waits("", 4),
        waits(own, 5),
    ];
    held.wait();
    for mut client in [busy].into_iter().chain(waiting) {
        assert_eq!(client.response().status, 200);
    }
    let read = || std::fs::read_to_string(proxy.file("access.log")).unwrap();
    eventually("the lines are there", || read().lines().count() == 6);
    let lines = read();
    let queues = [
        ("held", "0/0"),
        ("1", "0/0"),
        ("2", "1/0"),
        ("3", "0/0"),
        ("4", "0/1"),
        ("5", "2/0"),
    ];
    for (path, queue) in queues {
        let end = format!(" {queue} \"GET /{path} HTTP/1.1\"");
        assert!(
            lines.lines().any(|line| line.ends_with(&end)),
            "{end} in {lines}"
        );
    }
}

#[test]
fn a_syslog_server_that_is_not_there_costs_lines_and_no_request() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("log");
    let log = format!(
        "{{ to = 'syslog:{}', facility = 'local7' }}",
        path.display()
    );
    let proxy = logging(&log, &config(bind, &[origin.address]));
    assert_eq!(Client::connect(bind).get("/lost").status, 200);
    eventually("the lost line is counted", || {
        let metrics = proxy.admin("/metrics");
        metrics.text().contains("gaiola_log_dropped_total 1\n")
    });
    let server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(Client::connect(bind).get("/sent").status, 200);
    let mut bytes = [0; 4096];
    let len = server.recv(&mut bytes).unwrap();
    let text = std::str::from_utf8(&bytes[..len]).unwrap();
    assert!(
        text.starts_with("<190>") && text.contains("\"/sent\""),
        "{text}"
    );
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_request() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = logging("'stdout'", &config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    let long = format!("/{}", "a".repeat(7000));
    let dropped = || {
        let metrics = proxy.admin("/metrics");
        let mut lines = metrics.text().lines();
        let count = lines.find_map(|line| line.strip_prefix("gaiola_log_dropped_total "));
        count.unwrap().parse::<u64>().unwrap()
    };
    eventually("lines find no room", || {
        for _ in 0..50 {
            assert_eq!(client.get(&long).status, 200);
        }
        dropped() > 0
    });
}

#[test]
fn lines_go_to_standard_output() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut proxy = logging("'stdout'", &config(bind, &[origin.address]));
    assert_eq!(Client::connect(bind).get("/out").status, 200);
    let mut lines = BufReader::new(proxy.child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"path\":\"/out\"")));
}
