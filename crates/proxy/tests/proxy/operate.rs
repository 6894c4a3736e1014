//! What an operator asks and changes by the control socket.

mod counts;

use super::harness::*;
use gaiola_model::Revision;
use gaiola_model::proxy::{
    Admin, CheckKind, ControlReply, ControlRequest, Frontend, Limit, Mode, Most, OnMarkedDown,
    ProxyStat, Refusal, Rule, ServerOrder, ServerStat, SessionState, SessionsStat,
};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn stat(proxy: &Proxy) -> ProxyStat {
    match proxy.ask(&ControlRequest::Stat) {
        ControlReply::Stat(stat) => *stat,
        other => panic!("{other:?}"),
    }
}

fn server_of(proxy: &Proxy, name: &str) -> ServerStat {
    let mut servers = stat(proxy).servers.into_iter();
    servers.find(|server| server.server == name).unwrap()
}

fn set(proxy: &Proxy, server: &str, order: ServerOrder) {
    let request = ControlRequest::SetServer {
        backend: "app".into(),
        server: server.into(),
        order,
    };
    assert_eq!(proxy.ask(&request), ControlReply::Done);
}

fn refused(proxy: &Proxy, request: &ControlRequest) -> String {
    match proxy.ask(request) {
        ControlReply::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_is_drained_by_hand_takes_nothing_until_the_next_configuration() {
    let (s1, s2, bind) = (Origin::start("s1"), Origin::start("s2"), free_address());
    let mut config = config(bind, &[s1.address, s2.address]);
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    for state in [Admin::Drain, Admin::Maint] {
        set(&proxy, "s1", ServerOrder::State(state));
        assert_eq!(server_of(&proxy, "s1").state, state);
        let before = s1.requests().len();
        for _ in 0..4 {
            assert!(client.get("/").text().starts_with("s2"));
        }
        assert_eq!(s1.requests().len(), before);
    }
    set(&proxy, "s1", ServerOrder::State(Admin::Ready));
    eventually("it is back", || client.get("/").text().starts_with("s1"));
    set(&proxy, "s2", ServerOrder::Weight(0));
    for _ in 0..4 {
        assert!(client.get("/").text().starts_with("s1"));
    }
    assert_eq!(proxy.report().revision, Revision(1));
    config.revision = Revision(2);
    proxy.configure(&config);
    assert_eq!(server_of(&proxy, "s2").weight, 1);
    eventually("it is back", || client.get("/").text().starts_with("s2"));
}

#[test]
fn a_state_that_is_set_by_hand_begins_anew() {
    let (s1, s2, bind) = (Origin::start("s1"), Origin::start("s2"), free_address());
    let mut config = config(bind, &[s1.address, s2.address]);
    for check in [None, Some(patient_check(CheckKind::Tcp))] {
        config.revision.0 += 1;
        config.backends[0].check = check;
        let proxy = Proxy::serving(&config);
        let since = |name| server_of(&proxy, name).changed_seconds;
        for state in [Admin::Maint, Admin::Drain, Admin::Ready] {
            eventually("time has passed", || since("s1") > 0 && since("s2") > 0);
            set(&proxy, "s1", ServerOrder::State(state));
            assert_eq!(since("s1"), 0, "{state:?}");
            assert!(since("s2") > 0, "nothing has become of it");
            // What is said once more changes nothing.
            eventually("time has passed", || since("s1") > 0);
            set(&proxy, "s1", ServerOrder::State(state));
            assert!(since("s1") > 0, "{state:?}");
        }
    }
}

#[test]
fn an_unknown_name_is_reported_with_the_known_ones() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let order = ServerOrder::Weight(1);
    let request = |backend: &str, server: &str, order| ControlRequest::SetServer {
        backend: backend.into(),
        server: server.into(),
        order,
    };
    let idle = Proxy::start();
    assert_eq!(
        refused(&idle, &request("app", "s1", order)),
        "nothing is served yet"
    );
    assert_eq!(stat(&idle), ProxyStat::default());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let said = refused(&proxy, &request("ap", "s1", order));
    assert_eq!(said, "there is no backend ap; did you mean app?");
    let said = refused(&proxy, &request("app", "s9", ServerOrder::EndSessions));
    assert_eq!(said, "there is no server in app named s9; did you mean s1?");
    let said = refused(&proxy, &request("app", "s1", ServerOrder::Weight(257)));
    assert_eq!(said, "backend app: server s1: its weight is above 256");
    assert_eq!(server_of(&proxy, "s1").weight, 1);
}

#[test]
fn all_counts_are_reported() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    for _ in 0..3 {
        client.get("/");
    }
    eventually("all are counted", || {
        stat(&proxy).frontends[0].totals.total == 3
    });
    let stat = stat(&proxy);
    assert_eq!(stat.frontends[0].connections, 1);
    assert_eq!(stat.backends[0].totals.total, 3);
    let server = &stat.servers[0];
    assert_eq!((server.word(), &*server.check), ("UP", "no check"));
    assert_eq!(server.totals.total, 3);
    assert_eq!(server.address, origin.address.into());
}

fn sessions(proxy: &Proxy) -> SessionsStat {
    match proxy.ask(&ControlRequest::Sessions) {
        ControlReply::Sessions(sessions) => sessions,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_connections_activity_is_reported() {
    let (origin, held) = Origin::holding();
    let echo = Origin::with(|connection| {
        let byte = connection.client.exactly(1);
        connection.say(std::str::from_utf8(&byte).unwrap());
        connection.client.is_closed();
    });
    let (bind, bytes) = (free_address(), free_address());
    let mut config = config(bind, &[origin.address]);
    config.backends[0].servers[0].maxconn = Some(1);
    config.frontends.push(Frontend {
        name: "bytes".into(),
        ..tcp_frontend(bytes, "echo", Refusal::Close)
    });
    let server = server("e1", echo.address);
    config.backends.push(backend("echo", vec![server]));
    let proxy = Proxy::serving(&config);
    assert_eq!(sessions(&proxy), SessionsStat::default());
    let connect = || [(); 3].map(|()| Client::connect(bind));
    let [mut idle, mut busy, mut waiting] = connect();
    idle.get("/");
    idle.get("/");
    busy.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is there", || origin.requests().len() == 3);
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it waits", || stat(&proxy).backends[0].waiting == 1);
    let mut tunnel = Client::connect(bytes);
    tunnel.send("x");
    tunnel.exactly(1);
    let reported = || -> Vec<_> {
        let SessionsStat { total, sessions } = sessions(&proxy);
        assert_eq!(total, sessions.len() as u64);
        let reported = sessions.into_iter().map(|session| {
            let name = |name: Option<String>| name.unwrap_or_default();
            let (frontend, backend) = (name(session.frontend), name(session.backend));
            let to = format!("{frontend} {backend}/{}", name(session.server));
            assert_eq!(
                session.busy_ms.is_none(),
                session.state == SessionState::Idle
            );
            (session.client, to, session.state, session.requests)
        });
        reported.collect()
    };
    let line = |client: &Client, to: &str, state, requests| {
        let client = client.stream.local_addr().unwrap();
        (client, to.to_owned(), state, requests)
    };
    let wanted = [
        line(&busy, "site app/s1", SessionState::Server, 1),
        line(&waiting, "site app/", SessionState::Queue, 1),
        line(&tunnel, "bytes echo/e1", SessionState::Tunnel, 1),
        line(&idle, "site /", SessionState::Idle, 2),
    ];
    eventually("all of it is reported", || reported() == wanted);
    drop(tunnel);
    held.wait();
    for client in [&mut busy, &mut waiting] {
        assert_eq!(client.response().text(), "done");
    }
    let idle = [&idle, &busy, &waiting];
    eventually("all are idle", || {
        let rests = |(_, _, state, _): &(_, _, _, _)| *state == SessionState::Idle;
        reported().len() == idle.len() && reported().iter().all(rests)
    });
}

#[test]
fn sessions_of_a_server_are_ended_and_others_go_on() {
    let echo = || {
        Origin::with(|connection| {
            let byte = connection.client.exactly(1);
            connection.say(std::str::from_utf8(&byte).unwrap());
            connection.client.is_closed();
        })
    };
    let (s1, s2, bind) = (echo(), echo(), free_address());
    let mut config = config(bind, &[s1.address, s2.address]);
    config.frontends = vec![tcp_frontend(bind, "app", Refusal::Close)];
    let proxy = Proxy::serving(&config);
    let mut clients = Vec::new();
    for (this, other) in [("s1", "s2"), ("s2", "s1")] {
        set(&proxy, other, ServerOrder::State(Admin::Drain));
        let mut client = Client::connect(bind);
        client.send("x");
        assert_eq!(client.exactly(1), b"x");
        clients.push(client);
        assert_eq!(server_of(&proxy, this).in_flight, 1);
        set(&proxy, other, ServerOrder::State(Admin::Ready));
    }
    set(&proxy, "s1", ServerOrder::EndSessions);
    eventually("one has ended", || server_of(&proxy, "s1").in_flight == 0);
    assert_eq!(server_of(&proxy, "s2").in_flight, 1);
    let line = &proxy.log_lines(1)[0];
    assert_eq!(line["server"], "s1");
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("ended by an operator"), "{reason}");
    // It takes new ones.
    drop(clients);
    eventually("it is chosen again", || {
        let mut client = Client::connect(bind);
        client.send("x");
        client.exactly(1);
        server_of(&proxy, "s1").in_flight == 1
    });
}

#[test]
fn a_request_to_a_server_whose_sessions_are_ended_is_answered_by_another() {
    let stuck = Origin::with(|connection| {
        connection.request();
        connection.client.is_closed();
    });
    let (other, bind) = (Origin::start("other"), free_address());
    let mut config = config(bind, &[stuck.address, other.address]);
    config.backends[0].servers[1].spare = true;
    config.backends[0].on_marked_down = OnMarkedDown::ClosePooled;
    // So that no timer wakes what the interruption must wake.
    config.backends[0].timeouts.connect = LONG;
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is there", || !stuck.requests().is_empty());
    set(&proxy, "s2", ServerOrder::State(Admin::Ready));
    set(&proxy, "s1", ServerOrder::State(Admin::Drain));
    set(&proxy, "s1", ServerOrder::EndSessions);
    assert_eq!(client.response().text(), "other GET /wait HTTP/1.1");
    assert!(server_of(&proxy, "s1").up, "it has done nothing wrong");
}

#[test]
fn a_limit_is_cleared_by_hand() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    let most = Most::Rate {
        requests: 1,
        window: Duration::from_secs(86_400),
    };
    config.limits = vec![Limit::new("few", most)];
    let Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!("it is one of HTTP");
    };
    routes[0].rules = vec![Rule::Limit("few".into())];
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    let clear = |name: &str, key: Option<&str>| ControlRequest::ClearLimit {
        name: name.into(),
        key: key.map(str::to_owned),
    };
    for key in [None, Some("127.0.0.1")] {
        assert_eq!(client.get("/").status, 200);
        assert_eq!(client.get("/").status, 429);
        assert_eq!(stat(&proxy).limits[0].known, 1);
        assert_eq!(proxy.ask(&clear("few", key)), ControlReply::Done);
        if key.is_none() {
            assert_eq!(stat(&proxy).limits[0].known, 0, "nothing is known any more");
        }
    }
    assert_eq!(client.get("/").status, 200);
    assert_eq!(
        proxy.ask(&clear("few", Some("192.0.2.1"))),
        ControlReply::Done
    );
    assert_eq!(client.get("/").status, 429);
    let said = refused(&proxy, &clear("fw", None));
    assert_eq!(said, "there is no limit fw; did you mean few?");
}

#[test]
fn a_silent_client_of_the_control_socket_blocks_no_other() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let control = proxy.file("proxy.sock");
    let orders: Vec<_> = (0..200)
        .map(|_| std::os::unix::net::UnixStream::connect(&control).unwrap())
        .collect();
    // One that has begun to ask is silent as well.
    orders.iter().for_each(|mut silent| {
        std::io::Write::write_all(&mut silent, b"{").unwrap_or_default();
    });
    assert_eq!(stat(&proxy).servers.len(), 1);
    let admin = proxy.admin;
    let readers: Vec<_> = (0..200).map(|_| Client::connect(admin)).collect();
    assert_eq!(proxy.admin("/livez").status, 200);
    drop((orders, readers));
}

#[test]
fn usr2_ends_nothing() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    proxy.signal(rustix::process::Signal::USR2);
    proxy.signal(rustix::process::Signal::USR1);
    assert_eq!(Client::connect(bind).get("/").status, 200);
    proxy.report();
}

#[test]
fn idle_connections_close_for_those_that_wait() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    config.frontends[0].maxconn = 3;
    let proxy = Proxy::serving(&config);
    let mut idle: Vec<_> = (0..3).map(|_| Client::connect(bind)).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").status, 200);
    }
    for _ in 0..4 {
        let mut client = Client::connect(bind);
        assert_eq!(client.get("/").status, 200);
    }
    assert!(idle[0].is_closed(), "it was idle for longest");
    proxy.report();
}

/// Connections are asked to close just as they are sent their next request.
#[test]
fn a_client_that_waits_gets_the_place_of_one_that_had_no_time_to_close() {
    const PLACES: u32 = 8;
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    config.frontends[0].maxconn = PLACES;
    config.frontends[0].timeouts.keep_alive = 10 * LONG;
    let _proxy = Proxy::serving(&config);
    for _ in 0..40 {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..PLACES {
                let (mut client, over) = (Client::connect(bind), &over);
                client.get("/");
                scope.spawn(move || {
                    let mut goes_on = true;
                    while goes_on && !over.load(Ordering::Relaxed) {
                        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
                        goes_on = client.stream.write_all(get).is_ok() && !client.is_closed();
                        if goes_on {
                            client.response();
                        }
                    }
                });
            }
            let answers: Vec<_> = (0..PLACES / 2)
                .map(|_| {
                    let mut client = Client::connect(bind);
                    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                    !client.is_closed()
                })
                .collect();
            over.store(true, Ordering::Relaxed);
            assert!(answers.iter().all(|answered| *answered), "{answers:?}");
        });
    }
}
