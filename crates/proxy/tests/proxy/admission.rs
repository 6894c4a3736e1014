//! Handing an address over without a failed request.

use super::harness::*;
use gaiola_model::proxy::Admission;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_millis(200);

#[test]
fn a_closing_address_ends_each_connection_with_its_response() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/").field("Connection"), None);
    proxy.admit(bind.ip(), Admission::Close, Duration::ZERO);
    let response = client.get("/");
    assert_eq!(
        (response.status, response.field("Connection")),
        (200, Some("close"))
    );
    assert!(client.is_closed());
    assert_eq!(
        Client::connect(bind).get("/").field("Connection"),
        Some("close")
    );
    proxy.admit(bind.ip(), Admission::Accept, Duration::ZERO);
    assert_eq!(Client::connect(bind).get("/").field("Connection"), None);
}

#[test]
fn a_refused_address_answers_nothing_new_and_ends_what_it_has() {
    let (origin, held) = Origin::holding();
    let bind = free_address();
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let (mut idle, mut new, mut busy) = (
        Client::connect(bind),
        Client::connect(bind),
        Client::connect(bind),
    );
    assert_eq!(idle.get("/").status, 200);
    busy.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("all are there", || proxy.report().connections == 3);
    proxy.admit(bind.ip(), Admission::Refuse, Duration::ZERO);
    assert!(idle.is_closed());
    drop(idle);
    // One is busy, one has asked nothing yet.
    eventually("two are left", || proxy.report().connections == 2);
    assert_eq!(proxy.admit(bind.ip(), Admission::Refuse, SOON), 2);
    let error = TcpStream::connect_timeout(&bind, SOON).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::TimedOut,
        "neither accepted nor refused"
    );
    let response = new.get("/");
    assert_eq!(
        (response.status, response.field("Connection")),
        (200, Some("close"))
    );
    held.wait();
    assert_eq!(busy.response().text(), "done");
    assert_eq!(proxy.admit(bind.ip(), Admission::Refuse, LONG), 0);
    proxy.admit(bind.ip(), Admission::Accept, Duration::ZERO);
    assert_eq!(Client::connect(bind).get("/").status, 200);
}

#[test]
fn other_addresses_go_on() {
    let (origin, port) = (Origin::start("s1"), WildPort::reserve());
    let bind = ([0, 0, 0, 0], port.number()).into();
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let on = |last| (IpAddr::from([127, 0, 0, last]), bind.port());
    proxy.admit(on(7).0, Admission::Refuse, SOON);
    assert_eq!(
        Client::connect(on(8).into()).get("/").field("Connection"),
        None
    );
    assert!(TcpStream::connect_timeout(&on(7).into(), SOON).is_err());
}

#[test]
fn an_address_is_served_again_when_the_process_that_handed_it_over_has_ended() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    proxy.admit(bind.ip(), Admission::Refuse, SOON);
    assert!(TcpStream::connect_timeout(&bind, SOON).is_err());
    eventually("it is served again", || {
        TcpStream::connect_timeout(&bind, SOON).is_ok()
    });
    assert_eq!(Client::connect(bind).get("/").field("Connection"), None);
}

/// As a balancer does that gives its address away and gets it back. Clients whose SYN is left unanswered send it again.
#[test]
fn a_hand_over_fails_no_request() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let done = Arc::new(AtomicBool::new(false));
    let served: Arc<[AtomicUsize; 8]> = Arc::default();
    let load: Vec<_> = (0..served.len())
        .map(|index| {
            let (done, served) = (Arc::clone(&done), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut client = Client::connect(bind);
                while !done.load(Ordering::SeqCst) {
                    let response = client.get("/");
                    assert_eq!(response.status, 200);
                    served[index].fetch_add(1, Ordering::SeqCst);
                    if response.field("Connection") == Some("close") {
                        client = Client::connect(bind);
                    }
                }
            })
        })
        .collect();
    let each_is_served = |more: usize| {
        let before: Vec<_> = served.iter().map(|n| n.load(Ordering::SeqCst)).collect();
        eventually("each client is served", || {
            let mut now = before.iter().zip(served.iter());
            now.all(|(before, n)| n.load(Ordering::SeqCst) >= before + more)
        });
    };
    for _ in 0..4 {
        each_is_served(20);
        proxy.admit(bind.ip(), Admission::Close, Duration::ZERO);
        // The agent gives clients two seconds for what is awaited here: until each has been asked to connect again. One
        // that has not may send its next request while its idle connection is being closed. The first response counted
        // may have been written before the order came, the second was not.
        each_is_served(2);
        assert_eq!(proxy.admit(bind.ip(), Admission::Refuse, LONG), 0);
        proxy.admit(bind.ip(), Admission::Accept, Duration::ZERO);
    }
    done.store(true, Ordering::SeqCst);
    load.into_iter().for_each(|client| client.join().unwrap());
}
