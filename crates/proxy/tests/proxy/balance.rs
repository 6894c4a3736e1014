//! How servers are chosen, on the wire.

mod sticky;

use super::harness::*;
use gaiola_model::Revision;
use gaiola_model::proxy::{
    Admin, Algorithm, Check, CheckKind, ControlReply, ControlRequest, HashKey, ProxyConfig,
    Refusal, Secret, Server, SlowEjection, Sticky,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Two servers that answer with their names, and hold requests for `/held` until all are released.
struct Pair {
    origins: [Origin; 2],
    released: Arc<AtomicBool>,
}

impl Pair {
    fn start() -> Self {
        let released = Arc::<AtomicBool>::default();
        let origins = ["s1", "s2"].map(|name| {
            let released = Arc::clone(&released);
            Origin::with(move |connection| {
                while let Some(request) = connection.request() {
                    while request.path() == "/held" && !released.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    if !connection.answer(name) {
                        return;
                    }
                }
            })
        });
        Self { origins, released }
    }

    fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }

    fn config(&self, bind: SocketAddr, algorithm: Algorithm) -> ProxyConfig {
        let mut config = config(bind, &[self.origins[0].address, self.origins[1].address]);
        config.backends[0].algorithm = algorithm;
        config.backends[0].timeouts.queue = LONG;
        config
    }
}

/// A client whose request for `/held` has reached a server, where `held` are then.
fn hold(bind: SocketAddr, proxy: &Proxy, held: u64) -> Client {
    until_in_flight(proxy, held - 1);
    let mut client = Client::connect(bind);
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    until_in_flight(proxy, held);
    client
}

/// A request counts for a moment after its client has the response.
fn until_in_flight(proxy: &Proxy, count: u64) {
    eventually("that number is in flight", || {
        in_flight(proxy).iter().sum::<u64>() == count
    });
}

fn in_flight(proxy: &Proxy) -> Vec<u64> {
    let servers = proxy.report().servers;
    servers.iter().map(|server| server.in_flight).collect()
}

/// Who answers each of `count` requests.
fn names(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| client.get("/").text().into()).collect()
}

/// Who answers a request with these field lines.
fn ask(client: &mut Client, path: &str, fields: &str) -> Response {
    client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.response()
}

#[test]
fn weights_are_followed_and_change_while_requests_run() {
    let pair = Pair::start();
    let bind = free_address();
    let mut config = pair.config(bind, Algorithm::RoundRobin);
    config.backends[0].servers[0].weight = 3;
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    let share = |names: Vec<String>| names.iter().filter(|name| *name == "s1").count();
    assert_eq!(share(names(&mut client, 40)), 30);
    let (done, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (done, served) = (Arc::clone(&done), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut client = Client::connect(bind);
                while !done.load(Ordering::SeqCst) {
                    assert_eq!(client.get("/").status, 200);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for weights in [[1, 256], [0, 1], [1, 0], [7, 3], [1, 4]] {
        let before = served.load(Ordering::SeqCst);
        eventually("requests run", || {
            served.load(Ordering::SeqCst) > before + 20
        });
        for (server, weight) in config.backends[0].servers.iter_mut().zip(weights) {
            server.weight = weight;
        }
        config.revision = Revision(config.revision.0 + 1);
        proxy.configure(&config);
    }
    done.store(true, Ordering::SeqCst);
    load.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(share(names(&mut client, 50)), 10);
}

#[test]
fn a_busy_server_gets_less() {
    for algorithm in [Algorithm::LeastConn, Algorithm::Random] {
        let pair = Pair::start();
        let bind = free_address();
        let proxy = Proxy::serving(&pair.config(bind, algorithm));
        let mut busy = hold(bind, &proxy, 1);
        let holder = in_flight(&proxy).iter().position(|&held| held == 1);
        let idle = ["s2", "s1"][holder.unwrap()];
        // From each worker, sooner or later.
        for _ in 0..8 {
            until_in_flight(&proxy, 1);
            assert_eq!(names(&mut Client::connect(bind), 4), [idle; 4]);
        }
        pair.release();
        assert_ne!(busy.response().text(), idle);
    }
}

#[test]
fn the_first_server_with_room_is_taken() {
    let pair = Pair::start();
    let bind = free_address();
    let mut config = pair.config(bind, Algorithm::First);
    config.backends[0].servers[0].maxconn = Some(1);
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    assert_eq!(names(&mut client, 4), ["s1"; 4]);
    let mut busy = hold(bind, &proxy, 1);
    assert_eq!(names(&mut client, 4), ["s2"; 4]);
    pair.release();
    assert_eq!(busy.response().text(), "s1");
    eventually("there is room again", || names(&mut client, 1) == ["s1"]);
}

#[test]
fn a_key_finds_its_server_again() {
    let origins = ["s1", "s2", "s3", "s4"].map(Origin::start);
    let addresses = origins.iter().map(|origin| origin.address);
    let bind = free_address();
    let mut config = config(bind, &addresses.collect::<Vec<_>>());
    let proxy = Proxy::start();
    let mut serve = |key: HashKey| {
        config.backends[0].algorithm = Algorithm::Hash { key, bound: None };
        config.revision = Revision(config.revision.0 + 1);
        proxy.configure(&config);
    };
    let server = |path: &str, fields: &str| {
        let response = ask(&mut Client::connect(bind), path, fields);
        response.text().split(' ').next().unwrap().to_owned()
    };
    let differ = |answers: Vec<String>| answers.iter().any(|answer| *answer != answers[0]);
    serve(HashKey::Source);
    assert!(!differ(
        (0..8).map(|n| server(&format!("/{n}"), "")).collect()
    ));
    serve(HashKey::Uri {
        query: false,
        depth: 1,
    });
    assert!(differ(
        (0..16).map(|n| server(&format!("/{n}"), "")).collect()
    ));
    assert!(!differ(
        (0..8).map(|n| server(&format!("/a/{n}?{n}"), "")).collect()
    ));
    for (key, field) in [
        (HashKey::Header("X-User".into()), "x-user: "),
        (HashKey::Cookie("user".into()), "Cookie: a=b; user="),
    ] {
        serve(key);
        let of = |user: usize| server("/", &format!("{field}{user}\r\n"));
        assert!(differ((0..16).map(of).collect()));
        for user in 0..4 {
            assert!(!differ((0..6).map(|_| of(user)).collect()));
        }
        let mut client = Client::connect(bind);
        let keyless = (0..4).map(|_| client.get("/").text().to_owned());
        assert!(differ(keyless.collect()), "without it they take turns");
    }
}

#[test]
fn a_key_that_is_asked_for_too_much_is_shared() {
    let pair = Pair::start();
    let bind = free_address();
    let algorithm = Algorithm::Hash {
        key: HashKey::Source,
        bound: Some(Algorithm::USUAL_BOUND),
    };
    let proxy = Proxy::serving(&pair.config(bind, algorithm));
    let mut clients: Vec<_> = (1..=3).map(|held| hold(bind, &proxy, held)).collect();
    let mut shares = in_flight(&proxy);
    shares.sort_unstable();
    assert_eq!(shares, [1, 2]);
    pair.release();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.response().status, 200));
}

#[test]
fn a_spare_serves_while_no_other_does() {
    let pair = Pair::start();
    let bind = free_address();
    let mut config = pair.config(bind, Algorithm::RoundRobin);
    config.backends[0].servers[1].spare = true;
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    for (admin, name) in [
        (Admin::Ready, "s1"),
        (Admin::Drain, "s2"),
        (Admin::Ready, "s1"),
    ] {
        config.backends[0].servers[0].admin = admin;
        proxy.configure(&config);
        assert_eq!(names(&mut client, 4), [name; 4]);
    }
    // The first server listens no more: after its errors the spare takes over.
    config.backends[0].servers[0].address = free_address().into();
    proxy.configure(&config);
    assert_eq!(names(&mut client, 8), ["s2"; 8]);
}

#[test]
fn a_request_that_all_others_have_failed_is_served_by_a_spare() {
    let origin = Origin::start("spare");
    let bind = free_address();
    let mut config = config(bind, &[free_address(), free_address(), origin.address]);
    config.backends[0].servers[2].spare = true;
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "spare GET / HTTP/1.1");
    }
}

#[test]
fn a_server_that_answers_much_later_than_the_others_is_left_out() {
    let quick = ["s1", "s2"].map(Origin::start);
    let slow = Origin::with(|connection| {
        while connection.request().is_some() {
            std::thread::sleep(Duration::from_millis(30));
            connection.answer("s3");
        }
    });
    let bind = free_address();
    let mut config = config(bind, &[quick[0].address, quick[1].address, slow.address]);
    config.backends[0].slow_ejection = Some(SlowEjection {
        factor: 300,
        after: Duration::ZERO,
    });
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    eventually("it is left out", || {
        client.get("/");
        !proxy.report().servers[2].up
    });
    let servers = proxy.report().servers;
    assert!(servers[2].reason.contains("answers after"), "{servers:?}");
    assert!(servers[0].up && servers[1].up, "{servers:?}");
}

#[test]
fn a_server_that_came_up_again_starts_with_a_small_share() {
    let well = Arc::new(AtomicBool::new(true));
    let is_well = Arc::clone(&well);
    let returning = Origin::with(move |connection| {
        while let Some(request) = connection.request() {
            if request.path() == "/up" && !is_well.load(Ordering::SeqCst) {
                connection.say("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
            } else {
                connection.answer("s1");
            }
        }
    });
    let stable = Origin::with(|connection| {
        while connection.request().is_some() {
            connection.answer("s2");
        }
    });
    let bind = free_address();
    let mut config = config(bind, &[returning.address, stable.address]);
    config.backends[0].slow_start = Some(Duration::from_secs(24 * 3600));
    config.backends[0].check = Some(Check {
        kind: CheckKind::Http { path: "/up".into() },
        port: None,
        host: None,
        headers: std::collections::BTreeMap::new(),
        status: Vec::new(),
        interval: Duration::from_millis(20),
        fast_interval: Duration::from_millis(20),
        connect: LONG,
        timeout: LONG,
        rise: 1,
        fall: 1,
    });
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    let mut share = || {
        let names = names(&mut client, 34);
        names.iter().filter(|name| *name == "s1").count()
    };
    assert_eq!(share(), 17, "it was never down");
    for up in [false, true] {
        well.store(up, Ordering::SeqCst);
        eventually("its state is known", || proxy.report().servers[0].up == up);
    }
    // It took no traffic until now, and takes a sixteenth of its weight from now on.
    eventually("it takes traffic again", || (1..=3).contains(&share()));
    assert!((1..=3).contains(&share()));
    config.backends[0].slow_start = None;
    proxy.configure(&config);
    assert!((16..=18).contains(&share()));
}

#[test]
fn a_server_whose_traffic_failed_is_better_than_one_that_drains() {
    let pair = Pair::start();
    let bind = free_address();
    let mut config = pair.config(bind, Algorithm::RoundRobin);
    config.backends[0].servers[0].address = free_address().into();
    config.backends[0].servers[1].admin = Admin::Drain;
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    eventually("it is ejected", || {
        assert_eq!(client.get("/").status, 503);
        !proxy.report().servers[0].up
    });
    assert_eq!(client.get("/last").status, 503);
    eventually("the last request is logged", || {
        let lines = proxy.log_lines(2);
        lines.last().unwrap()["path"] == "/last"
    });
    let lines = proxy.log_lines(2);
    let reason = lines.last().unwrap()["reason"].as_str().unwrap();
    assert!(reason.contains("s1: connection refused"), "{reason}");
}

#[test]
fn connections_of_one_address_reach_one_server() {
    let origins = ["s1", "s2", "s3"].map(|name| {
        Origin::with(move |connection| {
            connection.say(name);
        })
    });
    let bind = free_address();
    let addresses = origins.iter().map(|origin| origin.address);
    let mut config = config(bind, &addresses.collect::<Vec<_>>());
    config.frontends = vec![tcp_frontend(bind, "app", Refusal::Close)];
    config.backends[0].algorithm = Algorithm::Hash {
        key: HashKey::Source,
        bound: None,
    };
    let _proxy = Proxy::serving(&config);
    let first = Client::connect(bind).rest();
    assert!(!first.is_empty());
    for _ in 0..8 {
        assert_eq!(Client::connect(bind).rest(), first);
    }
}
