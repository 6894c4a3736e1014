//! Changing the configuration under traffic, and ending.

use super::harness::*;
use gaiola_model::Revision;
use gaiola_model::proxy::{Admin, ControlReply, ControlRequest};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

#[test]
fn a_new_configuration_loses_no_connection_and_no_request() {
    let (one, two, bind) = (Origin::start("one"), Origin::start("two"), free_address());
    let mut config = config(bind, &[one.address]);
    let proxy = Proxy::serving(&config);
    let done = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                let mut client = Client::connect(bind);
                let mut served = 0;
                while !done.load(Ordering::SeqCst) {
                    let response = client.get("/");
                    assert_eq!(response.status, 200);
                    assert_eq!(response.field("Connection"), None);
                    served += 1;
                }
                served
            })
        })
        .collect();
    for n in 0..20 {
        config.revision.0 += 1;
        let address = [one.address, two.address][n % 2];
        config.backends[0].servers = vec![server(["s1", "s2"][n % 2], address)];
        proxy.configure(&config);
    }
    done.store(true, Ordering::SeqCst);
    let served: u32 = load.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(served > 0);
    assert_eq!(proxy.report().revision, config.revision);
    let origins = one.requests().len() + two.requests().len();
    assert_eq!(u32::try_from(origins).unwrap(), served);
}

#[test]
fn listeners_come_and_go() {
    let (origin, first, second) = (Origin::start("s1"), free_address(), free_address());
    let mut config = config(first, &[origin.address]);
    let proxy = Proxy::serving(&config);
    let mut kept = Client::connect(first);
    assert_eq!(kept.get("/").status, 200);
    config.revision.0 += 1;
    config.frontends[0].binds[0].address = second.into();
    proxy.configure(&config);
    assert_eq!(Client::connect(second).get("/").status, 200);
    eventually("the old one is closed", || {
        std::net::TcpStream::connect(first).is_err()
    });
    assert!(kept.is_closed());
}

#[test]
fn a_request_whose_frontend_is_gone_gets_503() {
    let (origin, first, second) = (Origin::start("s1"), free_address(), free_address());
    let mut config = config(first, &[origin.address]);
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(first);
    client.send("GET / HTTP/1.1\r\n");
    client.send("Host: a\r\n");
    // In the backlog, it would be reset.
    eventually("it is accepted", || proxy.report().connections == 1);
    config.revision.0 += 1;
    config.frontends[0].binds[0].address = second.into();
    proxy.configure(&config);
    client.send("\r\n");
    assert_eq!(client.response().status, 503);
    assert!(client.is_closed());
}

#[test]
fn what_cannot_be_bound_is_refused_and_all_stays_as_it_was() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    let proxy = Proxy::serving(&config);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    config.revision.0 += 1;
    config.frontends[0].binds[0].address = taken.local_addr().unwrap().into();
    let refused = |config: &gaiola_model::ProxyConfig| match proxy
        .ask(&ControlRequest::Configure(Box::new(config.clone())))
    {
        ControlReply::Refused(reason) => reason,
        other => panic!("{other:?}"),
    };
    let reason = refused(&config);
    assert!(
        reason.contains(&taken.local_addr().unwrap().to_string()),
        "{reason}"
    );
    config.frontends[0].binds[0].address = bind.into();
    config.backends[0].name = "other".into();
    let reason = refused(&config);
    assert_eq!(reason, "frontend site: there is no backend app");
    config.revision = Revision(0);
    let reason = refused(&config);
    assert!(reason.contains("older"), "{reason}");
    assert_eq!(proxy.report().revision, Revision(1));
    assert_eq!(Client::connect(bind).get("/").status, 200);
}

#[test]
fn a_drained_server_ends_what_it_has_and_gets_nothing_new() {
    let held = Arc::new(Barrier::new(2));
    let release = Arc::clone(&held);
    let one = Origin::with(move |connection| {
        while connection.request().is_some() {
            release.wait();
            connection.answer("one");
        }
    });
    let (two, bind) = (Origin::start("two"), free_address());
    let mut config = config(bind, &[one.address]);
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    eventually("it is in flight", || {
        proxy.report().servers[0].in_flight == 1
    });
    config.revision.0 += 1;
    config.backends[0].servers[0].admin = Admin::Drain;
    config.backends[0].servers.push(server("s2", two.address));
    proxy.configure(&config);
    for _ in 0..4 {
        assert_eq!(Client::connect(bind).get("/").text(), "two GET / HTTP/1.1");
    }
    assert_eq!(proxy.report().servers[0].in_flight, 1);
    // Even one that is no longer configured is reported until it has ended.
    config.revision.0 += 1;
    config.backends[0].servers.remove(0);
    proxy.configure(&config);
    let report = proxy.report();
    assert!(
        report
            .servers
            .iter()
            .any(|server| server.server == "s1" && server.in_flight == 1)
    );
    held.wait();
    assert_eq!(client.response().text(), "one");
    eventually("it is gone", || proxy.report().servers.len() == 1);
}

#[test]
fn a_drained_servers_idle_connections_are_closed() {
    let closed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&closed);
    let origin = Origin::with(move |connection| {
        while connection.request().is_some() {
            connection.answer("x");
        }
        seen.store(true, Ordering::SeqCst);
    });
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    let proxy = Proxy::serving(&config);
    assert_eq!(Client::connect(bind).get("/").status, 200);
    assert!(!closed.load(Ordering::SeqCst));
    config.revision.0 += 1;
    config.backends[0].servers[0].admin = Admin::Drain;
    proxy.configure(&config);
    eventually("the pooled connection is closed", || {
        closed.load(Ordering::SeqCst)
    });
    assert_eq!(Client::connect(bind).get("/").status, 503);
}

#[test]
fn a_file_is_served_until_the_agent_comes() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let directory = tempfile::tempdir().unwrap();
    let text = serde_json::to_string(&config(bind, &[origin.address])).unwrap();
    std::fs::write(directory.path().join("config.json"), text).unwrap();
    let proxy = Proxy::start_in(directory);
    eventually("it is ready", || proxy.admin("/readyz").status == 200);
    assert_eq!(Client::connect(bind).get("/").status, 200);
    let mode = std::fs::metadata(proxy.file("proxy.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_proxy_is_ready_once_it_is_configured() {
    let proxy = Proxy::start();
    assert_eq!(proxy.admin("/livez").status, 200);
    assert_eq!(proxy.admin("/readyz").status, 503);
    proxy.configure(&config(free_address(), &[]));
    assert_eq!(proxy.admin("/readyz").status, 200);
    assert_eq!(proxy.admin("/other").status, 404);
}

#[test]
fn every_worker_gives_the_keeper_signs_of_life() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = UnixListener::bind(directory.path().join("keeper.sock")).unwrap();
    let mut proxy = Proxy::start_in(directory);
    keeper.set_nonblocking(true).unwrap();
    assert!(keeper.accept().is_err(), "not before it is configured");
    keeper.set_nonblocking(false).unwrap();
    proxy.configure(&config(free_address(), &[]));
    let mut names = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let (mut stream, _) = keeper.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut name = [0; 14];
        stream.read_exact(&mut name).unwrap();
        names.push(String::from_utf8(name.to_vec()).unwrap());
        let mut beats = [0; 3];
        stream.read_exact(&mut beats).unwrap();
        assert_eq!(&beats, b"...");
        streams.push(stream);
    }
    names.sort();
    assert_eq!(names, ["worker 0 of 2\n", "worker 1 of 2\n"]);
    proxy.child.kill().unwrap();
    for mut stream in streams {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
}

#[test]
fn a_proxy_that_is_asked_to_end_serves_what_it_has() {
    let held = Arc::new(Barrier::new(2));
    let release = Arc::clone(&held);
    let origin = Origin::with(move |connection| {
        connection.request();
        release.wait();
        connection.answer("done");
    });
    let bind = free_address();
    let mut proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is in flight", || {
        proxy.report().servers[0].in_flight == 1
    });
    proxy.signal(rustix::process::Signal::TERM);
    eventually("nothing new is accepted", || {
        std::net::TcpStream::connect(bind).is_err()
    });
    held.wait();
    let response = client.response();
    assert_eq!(response.text(), "done");
    assert!(client.is_closed());
    assert!(proxy.child.wait().unwrap().success());
    assert_eq!(proxy.log_lines(1)[0]["status"], 200);
}

/// On a balancer the address is about to move: whoever comes now must come again, not be turned away.
#[test]
fn a_balancer_that_is_asked_to_end_leaves_new_clients_unanswered() {
    let held = Arc::new(Barrier::new(2));
    let release = Arc::clone(&held);
    let origin = Origin::with(move |connection| {
        connection.request();
        release.wait();
        connection.answer("done");
    });
    let directory = tempfile::tempdir().unwrap();
    let keeper = UnixListener::bind(directory.path().join("keeper.sock")).unwrap();
    let mut proxy = Proxy::start_in(directory);
    let bind = free_address();
    proxy.configure(&config(bind, &[origin.address]));
    let beats: Vec<_> = (0..2).map(|_| keeper.accept().unwrap().0).collect();
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is in flight", || {
        proxy.report().servers[0].in_flight == 1
    });
    proxy.signal(rustix::process::Signal::TERM);
    for mut beat in beats {
        // The keeper notices at once.
        beat.read_to_end(&mut Vec::new()).unwrap();
    }
    eventually("nothing new is answered", || {
        let soon = std::time::Duration::from_millis(100);
        let refused = std::net::TcpStream::connect_timeout(&bind, soon);
        refused.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
    });
    held.wait();
    assert_eq!(client.response().text(), "done");
    assert!(client.is_closed());
    drop(client);
    assert!(proxy.child.wait().unwrap().success());
}

#[test]
fn a_moved_access_log_is_opened_anew() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    assert_eq!(Client::connect(bind).get("/before").status, 200);
    proxy.log_lines(1);
    std::fs::rename(proxy.file("access.log"), proxy.file("old.log")).unwrap();
    proxy.signal(rustix::process::Signal::USR1);
    eventually("it is there again", || proxy.file("access.log").exists());
    assert_eq!(Client::connect(bind).get("/after").status, 200);
    assert_eq!(proxy.log_lines(1)[0]["path"], "/after");
}
