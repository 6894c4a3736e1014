//! A new process takes over from the one that serves.

mod load;
mod standalone;

use super::harness::*;
use super::streams;
use gaiola_model::proxy::{
    Address, Admin, Bind, CheckKind, Ejection, Limit, Mode, Most, ProxyConfig, Rule,
};
use load::Load;
use rustix::net::sockopt::socket_peercred;
use rustix::process::Signal;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The process that serves control requests.
fn serving_pid(proxy: &Proxy) -> u32 {
    let stream = UnixStream::connect(proxy.file("proxy.sock")).unwrap();
    let peer = socket_peercred(&stream).unwrap();
    peer.pid.as_raw_nonzero().get().unsigned_abs()
}

/// Has another process take over; returns the old one.
fn replace(proxy: &mut Proxy) -> Old {
    let new = proxy.spawn();
    let pid = new.id();
    let old = Old(std::mem::replace(&mut proxy.child, new));
    eventually("the new process serves", || serving_pid(proxy) == pid);
    proxy.report();
    old
}

/// An old process, which ends with this value.
struct Old(Child);

impl Old {
    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn ends(&mut self) {
        eventually("the old process ends", || self.has_ended());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Old {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_request_fails_and_no_connection_is_reset_through_twenty_take_overs() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut proxy = Proxy::serving(&config(bind, &[origin.address]));
    let load = Load::start(bind, 8, 8);
    for _ in 0..20 {
        load.more(50);
        let mut old = replace(&mut proxy);
        load.more(50);
        // Its connections have said that they close.
        old.ends();
    }
    assert_eq!(load.failures(), [""; 0]);
}

fn upgraded(bind: SocketAddr) -> Client {
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(client.head().status, 101);
    client
}

/// A server that repeats every line.
fn echo() -> Origin {
    Origin::with(|connection| {
        if connection.head().is_none() {
            return;
        }
        connection.say("HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        while !connection.client.is_closed() {
            let line = connection.client.line();
            connection.say(&format!("echo {line}\r\n"));
        }
    })
}

fn echoes(client: &mut Client, text: &str) {
    client.send(&format!("{text}\r\n"));
    assert_eq!(client.line(), format!("echo {text}"));
}

#[test]
fn web_sockets_go_on_in_the_old_process_which_ends_with_the_last() {
    let (origin, bind) = (echo(), free_address());
    let mut proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut first = upgraded(bind);
    let mut old = replace(&mut proxy);
    let mut second = upgraded(bind);
    let mut older = replace(&mut proxy);
    let report = proxy.report();
    assert_eq!(report.old_processes, 2);
    assert_eq!((report.connections, report.servers[0].in_flight), (2, 2));
    echoes(&mut first, "one");
    echoes(&mut second, "two");
    drop(second);
    echoes(&mut first, "three");
    assert!(!old.has_ended() && !older.has_ended());
    drop(first);
    old.ends();
    older.ends();
    eventually("nothing is old", || proxy.report().old_processes == 0);
}

#[test]
fn an_idle_connection_is_kept_until_its_next_response_says_that_it_closes() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/1").field("Connection"), None);
    let mut old = replace(&mut proxy);
    let last = client.get("/2");
    assert_eq!(last.status, 200);
    assert_eq!(last.field("Connection"), Some("close"));
    assert!(client.is_closed());
    old.ends();
    assert_eq!(Client::connect(bind).get("/3").field("Connection"), None);
}

#[test]
fn the_counts_of_limits_go_on() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    let Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!()
    };
    routes[0].rules = vec![Rule::Limit("five".into())];
    let rate = Most::Rate {
        requests: 5,
        window: Duration::from_secs(86_400),
    };
    config.limits = vec![Limit::new("five", rate)];
    let mut proxy = Proxy::serving(&config);
    let status = || Client::connect(bind).get("/").status;
    assert_eq!([status(), status()], [200, 200]);
    let _first = replace(&mut proxy);
    assert_eq!([status(), status()], [200, 200]);
    let _second = replace(&mut proxy);
    assert_eq!([status(), status()], [200, 429]);
}

#[test]
fn health_is_known_to_the_new_process_and_members_are_not_probed_at_once() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let gone = free_address();
    let mut config = config(bind, &[origin.address, gone]);
    let mut check = patient_check(CheckKind::Http { path: "/up".into() });
    (check.interval, check.fast_interval) = (Duration::from_secs(600), Duration::from_secs(600));
    config.backends[0].check = Some(check);
    let mut proxy = Proxy::serving(&config);
    let state = |proxy: &Proxy| {
        let servers = proxy.report().servers.into_iter();
        servers
            .map(|server| (server.up, server.reason))
            .collect::<Vec<_>>()
    };
    let before = state(&proxy);
    assert_eq!([before[0].0, before[1].0], [true, false], "{before:?}");
    let probes = || {
        origin
            .requests()
            .iter()
            .filter(|asked| asked.path() == "/up")
            .count()
    };
    assert_eq!(probes(), 1);
    for _ in 0..3 {
        replace(&mut proxy).ends();
        assert_eq!(state(&proxy), before);
        for _ in 0..4 {
            assert_eq!(Client::connect(bind).get("/").status, 200);
        }
    }
    assert_eq!(probes(), 1);
    assert_eq!(origin.requests().len(), 13, "all to the one that is up");
}

#[test]
fn an_ejected_member_stays_ejected() {
    let (good, bind) = (Origin::start("s1"), free_address());
    let bad = Origin::with(|_| {});
    let mut config = config(bind, &[good.address, bad.address]);
    config.backends[0].ejection = Ejection {
        error_limit: 1,
        time: Duration::from_secs(600),
        max_time: Duration::from_secs(600),
        ..Ejection::default()
    };
    let mut proxy = Proxy::serving(&config);
    eventually("one is ejected", || {
        Client::connect(bind).get("/");
        !proxy.report().servers[1].up
    });
    let accepted = bad.accepted();
    let _old = replace(&mut proxy);
    assert!(!proxy.report().servers[1].up);
    for _ in 0..6 {
        assert_eq!(Client::connect(bind).get("/").text(), "s1 GET / HTTP/1.1");
    }
    assert_eq!(bad.accepted(), accepted);
}

#[test]
fn a_new_configuration_reaches_the_old_process_before_it_counts_as_applied() {
    let (first, second, bind) = (Origin::start("s1"), Origin::start("s2"), free_address());
    let mut proxy = Proxy::serving(&config(bind, &[first.address]));
    let mut idle = Client::connect(bind);
    assert_eq!(idle.get("/").text(), "s1 GET / HTTP/1.1");
    let _old = replace(&mut proxy);
    let mut other = config(bind, &[second.address]);
    other.revision.0 = 2;
    proxy.configure(&other);
    assert_eq!(idle.get("/").text(), "s2 GET / HTTP/1.1");
}

#[test]
fn unix_sockets_are_handed_over_and_their_files_stay() {
    let origin = Origin::start("s1");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.sock");
    let mut config = config(free_address(), &[origin.address]);
    config.frontends[0].binds = vec![Bind::new(Address::Unix(path.clone()))];
    let mut proxy = Proxy::serving(&config);
    for _ in 0..3 {
        replace(&mut proxy).ends();
        assert!(streams::ask(&path).ends_with("s1 GET /a HTTP/1.1"));
        assert_eq!(proxy.admin("/readyz").status, 200);
    }
    proxy.signal(Signal::TERM);
    assert!(proxy.child.wait().unwrap().success());
    assert!(!path.exists() && !proxy.file("proxy.sock").exists());
}

/// A new process that waits for a keeper which does not exist, for a second: so much time is there to harm it.
fn with_slow_heir(config: &ProxyConfig) -> Proxy {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("keeper.sock"), "").unwrap();
    let proxy = Proxy::start_in(directory);
    proxy.configure(config);
    proxy
}

/// Starts a process to take over, and waits until it holds everything and is not ready yet.
fn half_way(proxy: &Proxy) -> Child {
    let sockets = |pid: u32| {
        let all = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        let names = all.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names
            .filter(|name| name.starts_with("socket:"))
            .collect::<Vec<_>>()
    };
    let new = proxy.spawn();
    eventually("it has the sockets", || {
        let own = sockets(proxy.child.id());
        let shared = sockets(new.id())
            .into_iter()
            .filter(|name| own.contains(name));
        // Two listeners, the control socket and the admin port, and the copies of the first two for its workers.
        shared.count() >= 6
    });
    new
}

#[test]
fn a_new_process_killed_half_way_changes_nothing() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut proxy = with_slow_heir(&config(bind, &[origin.address]));
    let load = Load::start(bind, 4, 4);
    for _ in 0..3 {
        let mut new = half_way(&proxy);
        load.more(20);
        new.kill().unwrap();
        new.wait().unwrap();
        load.more(100);
        assert_eq!(proxy.report().old_processes, 0);
    }
    replace(&mut proxy).ends();
    load.more(100);
    assert_eq!(load.failures(), [""; 0]);
}

#[test]
fn when_the_old_process_is_killed_half_way_the_new_one_serves_what_waits() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut proxy = with_slow_heir(&config(bind, &[origin.address]));
    let new = half_way(&proxy);
    // It accepts no more; connections wait in the backlog of the sockets that both hold.
    freeze(&proxy);
    let mut waiting: Vec<_> = (0..50).map(|_| Client::connect(bind)).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    proxy.child.kill().unwrap();
    proxy.child.wait().unwrap();
    proxy.child = new;
    for client in &mut waiting {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(proxy.report().old_processes, 0);
    drop(waiting);
    replace(&mut proxy).ends();
}

/// Stops all of its threads.
fn freeze(proxy: &Proxy) {
    proxy.signal(Signal::STOP);
    let tasks = format!("/proc/{}/task", proxy.child.id());
    eventually("it has stopped", || {
        let mut tasks = std::fs::read_dir(&tasks).unwrap();
        tasks.all(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.contains(") T ")
        })
    });
}

#[test]
fn a_new_process_that_cannot_start_leaves_the_old_one_serving() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let load = Load::start(bind, 4, 4);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = config(taken.local_addr().unwrap(), &[origin.address]);
    let bad = serde_json::to_vec(&bad).unwrap();
    std::fs::write(proxy.file("config.json"), bad).unwrap();
    let mut new = proxy.spawn();
    assert!(!new.wait().unwrap().success());
    load.more(100);
    let report = proxy.report();
    assert_eq!((report.old_processes, report.revision.0), (0, 1));
    assert_eq!(serving_pid(&proxy), proxy.child.id());
    assert_eq!(proxy.admin("/readyz").status, 200);
    assert_eq!(load.failures(), [""; 0]);
}

#[test]
fn a_process_that_does_not_answer_is_stopped_first() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut proxy = Proxy::serving(&config(bind, &[origin.address]));
    let socket = proxy.file("proxy.sock");
    proxy.child.kill().unwrap();
    proxy.child.wait().unwrap();
    std::fs::remove_file(&socket).unwrap();
    // A program that knows no take-over.
    let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n\
                  while True:\n c, _ = s.accept(); c.recv(1000); c.sendall(b'{\"refused\": \"what?\"}\\n')";
    let mut earlier = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&socket)
        .spawn()
        .unwrap();
    eventually("it listens", || UnixStream::connect(&socket).is_ok());
    proxy.child = proxy.spawn();
    let ended = earlier.wait().unwrap();
    assert!(!ended.success(), "{ended}");
    eventually("the new one listens", || {
        UnixStream::connect(&socket).is_ok()
    });
    proxy.configure(&config(bind, &[origin.address]));
    assert_eq!(Client::connect(bind).get("/").status, 200);
}

#[test]
fn the_oldest_process_ends_when_there_are_too_many() {
    let (origin, bind) = (echo(), free_address());
    let mut proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut olds = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(upgraded(bind));
        olds.push(replace(&mut proxy));
    }
    for (index, client) in clients.iter_mut().enumerate() {
        echoes(client, &format!("client {index}"));
    }
    assert_eq!(proxy.report().old_processes, 4);
    clients.push(upgraded(bind));
    olds.push(replace(&mut proxy));
    olds[0].ends();
    assert!(clients[0].is_closed());
    for client in &mut clients[1..] {
        echoes(client, "still there");
    }
    eventually("four are left", || proxy.report().old_processes == 4);
}

#[test]
fn a_keeper_hears_the_new_process_before_the_old_one_falls_silent() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let directory = tempfile::tempdir().unwrap();
    let keeper = UnixListener::bind(directory.path().join("keeper.sock")).unwrap();
    let mut proxy = Proxy::start_in(directory);
    proxy.configure(&config(bind, &[origin.address]));
    let accept =
        |count: usize| -> Vec<_> { (0..count).map(|_| keeper.accept().unwrap().0).collect() };
    let old_beats = accept(2);
    let old_pid = proxy.child.id();
    let pid = |beat: &UnixStream| socket_peercred(beat).unwrap().pid.as_raw_nonzero().get();
    assert!(
        old_beats
            .iter()
            .all(|beat| pid(beat).unsigned_abs() == old_pid)
    );
    let mut old = replace(&mut proxy);
    // Both of its workers have connected, and the old one's have closed since.
    keeper.set_nonblocking(true).unwrap();
    let new_beats = accept(2);
    assert!(
        new_beats
            .iter()
            .all(|beat| pid(beat).unsigned_abs() == proxy.child.id())
    );
    for beat in old_beats {
        std::io::Read::read_to_end(&mut { beat }, &mut Vec::new()).unwrap();
    }
    old.ends();
}

#[test]
fn what_an_operator_has_set_goes_over_and_is_told_to_the_old_process() {
    let (first, second, bind) = (Origin::start("s1"), Origin::start("s2"), free_address());
    let mut proxy = Proxy::serving(&config(bind, &[first.address, second.address]));
    let mut idle: Vec<_> = (0..4).map(|_| Client::connect(bind)).collect();
    for client in &mut idle {
        client.get("/");
    }
    let set = |proxy: &Proxy, server: &str, admin| {
        let reply = proxy.ask(&gaiola_model::proxy::ControlRequest::SetServer {
            backend: "app".into(),
            server: server.into(),
            order: gaiola_model::proxy::ServerOrder::State(admin),
        });
        assert_eq!(reply, gaiola_model::proxy::ControlReply::Done);
    };
    set(&proxy, "s1", Admin::Maint);
    let _old = replace(&mut proxy);
    for _ in 0..4 {
        assert_eq!(Client::connect(bind).get("/").text(), "s2 GET / HTTP/1.1");
    }
    set(&proxy, "s1", Admin::Ready);
    set(&proxy, "s2", Admin::Maint);
    for client in &mut idle {
        assert_eq!(client.get("/").text(), "s1 GET / HTTP/1.1");
    }
}
