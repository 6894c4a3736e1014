//! Servers that are too busy for their checks, and those that are gone.

use super::harness::*;
use gaiola_model::proxy::{Check, CheckKind, ControlReply, ControlRequest, ProxyConfig, ProxyStat};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use socket2::{SockFilter, SockRef};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

/// A check that is soon tired of waiting.
fn impatient() -> Check {
    Check {
        timeout: Duration::from_millis(100),
        fall: 2,
        ..patient_check(CheckKind::Http { path: "/up".into() })
    }
}

/// A server that does one thing at a time, `/slow` until the test meets it at the barrier: the next connection waits where
/// the system holds it. It closes each after its answer.
struct OneAtATime {
    origin: Origin,
    held: Arc<Barrier>,
}

impl OneAtATime {
    fn start() -> Self {
        let held = Arc::new(Barrier::new(2));
        let release = Arc::clone(&held);
        let busy = std::sync::Mutex::new(());
        let origin = Origin::with(move |connection| {
            let _busy = busy.lock().unwrap();
            let Some(request) = connection.request() else {
                return;
            };
            if request.path() == "/slow" {
                release.wait();
            }
            connection.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone");
        });
        Self { origin, held }
    }

    fn slow_requests(&self) -> usize {
        let requests = self.origin.requests();
        requests
            .iter()
            .filter(|request| request.path() == "/slow")
            .count()
    }
}

fn stat(proxy: &Proxy) -> ProxyStat {
    match proxy.ask(&ControlRequest::Stat) {
        ControlReply::Stat(stat) => *stat,
        other => panic!("{other:?}"),
    }
}

fn asks_slowly(bind: SocketAddr) -> Client {
    let mut client = Client::connect(bind);
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    client
}

#[test]
fn a_slow_request_reaches_one_server_and_gets_its_answer() {
    let servers = [OneAtATime::start(), OneAtATime::start()];
    let bind = free_address();
    let mut config = config(
        bind,
        &[servers[0].origin.address, servers[1].origin.address],
    );
    config.backends[0].check = Some(impatient());
    let proxy = Proxy::serving(&config);
    let mut slow = asks_slowly(bind);
    let down = || proxy.report().servers.iter().position(|server| !server.up);
    eventually("its server is too busy for the check", || down().is_some());
    let busy = down().unwrap();
    for _ in 0..20 {
        assert_eq!(Client::connect(bind).get("/").status, 200);
    }
    assert!(!proxy.report().servers[busy].up);
    servers[busy].held.wait();
    assert_eq!(slow.response().text(), "done");
    assert_eq!(servers[busy].slow_requests(), 1);
    assert_eq!(servers[1 - busy].slow_requests(), 0);
    eventually("it is up again", || down().is_none());
    assert!(proxy.log_lines(21).iter().all(|line| line["retries"] == 0));
}

#[test]
fn servers_that_checks_alone_have_taken_out_serve_for_lack_of_others() {
    let only = OneAtATime::start();
    let bind = free_address();
    let mut config = config(bind, &[only.origin.address]);
    config.backends[0].check = Some(impatient());
    let proxy = Proxy::serving(&config);
    let metric = |panic: u8| {
        let line = format!("gaiola_backend_panic{{backend=\"app\"}} {panic}\n");
        proxy.admin("/metrics").text().contains(&line)
    };
    assert!(metric(0));
    let mut slow = asks_slowly(bind);
    eventually("the only server is too busy for its check", || {
        stat(&proxy).backends[0].panic
    });
    assert!(metric(1));
    let server = &stat(&proxy).servers[0];
    assert_eq!(
        (server.up, server.busy, server.word()),
        (false, true, "BUSY")
    );
    let reason = &proxy.report().servers[0].reason;
    assert!(reason.ends_with("for lack of others"), "{reason}");
    let mut waiting = Client::connect(bind);
    waiting.send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("another request is there too", || {
        proxy.report().servers[0].in_flight == 2
    });
    only.held.wait();
    assert_eq!(slow.response().text(), "done");
    assert_eq!(waiting.response().text(), "done");
    eventually("all is well again", || metric(0));
}

#[test]
fn a_server_that_says_no_to_its_check_is_believed() {
    let origin = Origin::with(|connection| {
        while let Some(request) = connection.request() {
            let status = if request.path() == "/up" { 503 } else { 200 };
            connection.say(&format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    config.backends[0].check = Some(impatient());
    let proxy = Proxy::serving(&config);
    assert_eq!(Client::connect(bind).get("/").status, 503);
    assert!(!stat(&proxy).backends[0].panic);
}

/// A port where connections are accepted, and then nothing comes back any more, as from a server that has lost power.
pub(super) struct Vanishing {
    address: SocketAddr,
    socket: OwnedFd,
}

impl Vanishing {
    pub(super) fn start() -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        listen(&socket, 0).unwrap();
        Self {
            address: SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap(),
            socket,
        }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until it vanishes.
    fn accepts(&self) -> std::sync::mpsc::Sender<()> {
        let listener = TcpListener::from(self.socket.try_clone().unwrap());
        listener.set_nonblocking(true).unwrap();
        let (sender, stop) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while stop.try_recv().is_err() {
                drop(listener.accept());
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        sender
    }

    /// From now on no connection is made: the listen queue is full of these.
    pub(super) fn vanish(&self) -> Vec<TcpStream> {
        let limit = Duration::from_millis(200);
        let connect = || TcpStream::connect_timeout(&self.address, limit).ok();
        std::iter::from_fn(connect).collect()
    }
}

/// A server of one frontend whose check finds that no connection is made any more, while a GET is in flight.
struct Lost {
    proxy: Proxy,
    config: ProxyConfig,
    client: Client,
    _held: Vec<TcpStream>,
}

impl Lost {
    /// `vanish` is called just before the check finds it out.
    fn start(server: &Origin, vanish: impl FnOnce()) -> Self {
        let power = Vanishing::start();
        let accepting = power.accepts();
        let bind = free_address();
        let mut config = config(bind, &[server.address]);
        config.backends[0].check = Some(Check {
            port: Some(power.address().port()),
            connect: Duration::from_millis(100),
            fall: 2,
            ..patient_check(CheckKind::Tcp)
        });
        config.backends[0].timeouts.queue_when_down = true;
        config.backends[0].timeouts.queue = LONG;
        // So that no timer wakes what the interruption must wake.
        config.backends[0].timeouts.connect = LONG;
        let proxy = Proxy::serving(&config);
        let mut client = Client::connect(bind);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("it is in flight", || {
            proxy.report().servers[0].in_flight == 1 && !server.requests().is_empty()
        });
        vanish();
        accepting.send(()).unwrap();
        let held = power.vanish();
        eventually("its check has found it out", || {
            !proxy.report().servers[0].up
        });
        Self {
            proxy,
            config,
            client,
            _held: held,
        }
    }
}

/// From now on its system drops whatever comes on this connection, as one that has lost power.
fn lose_power(connection: &TcpStream) {
    const RETURN: u16 = 6;
    let drop_all = [SockFilter::new(RETURN, 0, 0, 0)];
    SockRef::from(connection).attach_filter(&drop_all).unwrap();
}

#[test]
fn a_get_does_not_wait_for_a_server_that_is_dead() {
    let (found, power) = channel();
    let power = Mutex::new(power);
    let dead = Origin::with(move |connection| {
        connection.request();
        power.lock().unwrap().recv().unwrap();
        lose_power(&connection.client.stream);
        // The connection is not closed.
        std::thread::sleep(2 * LONG);
    });
    let mut lost = Lost::start(&dead, || found.send(()).unwrap());
    eventually("it waits for another", || {
        let metrics = lost.proxy.admin("/metrics");
        metrics
            .text()
            .contains("gaiola_queue_depth{backend=\"app\"} 1\n")
    });
    let other = Origin::start("other");
    lost.config.revision.0 += 1;
    lost.config.backends[0].check = None;
    lost.config.backends[0].servers = vec![server("s2", other.address)];
    lost.proxy.configure(&lost.config);
    assert_eq!(lost.client.response().text(), "other GET / HTTP/1.1");
}

#[test]
fn a_get_keeps_its_server_whose_listen_queue_is_full() {
    let (release, held) = channel();
    let held = Mutex::new(held);
    let busy = Origin::with(move |connection| {
        connection.request();
        held.lock().unwrap().recv().unwrap();
        connection.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
    });
    let mut lost = Lost::start(&busy, || ());
    // Longer than its kernel is asked for.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lost.proxy.report().servers[0].in_flight, 1);
    release.send(()).unwrap();
    assert_eq!(lost.client.response().text(), "done");
    assert_eq!(busy.requests().len(), 1);
    assert_eq!(lost.proxy.log_lines(1)[0]["retries"], 0);
}

#[test]
fn a_client_that_leaves_gives_its_place_up_while_a_server_is_connected_to() {
    let dead = Vanishing::start();
    let _held = dead.vanish();
    let bind = free_address();
    let mut config = config(bind, &[dead.address()]);
    config.backends[0].servers[0].maxconn = Some(1);
    config.backends[0].timeouts.connect = 10 * LONG;
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is connected to", || {
        proxy.report().servers[0].in_flight == 1
    });
    drop(client);
    eventually("the place is free", || {
        proxy.report().servers[0].in_flight == 0
    });
    let line = &proxy.log_lines(1)[0];
    assert_eq!(line["status"], 499);
    let reason = "the client left while a server was connected to";
    assert_eq!(line["reason"], reason);
}
