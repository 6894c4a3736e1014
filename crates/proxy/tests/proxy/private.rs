//! Connections to servers that hold somebody's session: nobody else's request goes there.

use super::harness::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Clients, at least one of which is served by the worker that served the one before.
const OTHERS: usize = 8;

/// A server that asks for this, and takes whoever proves who they are for the user of the whole connection. Counts its
/// open connections.
fn remembering(status: u16, challenge: &'static str) -> (Origin, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let origin = Origin::with(move |connection| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut user = None;
        while let Some(request) = connection.request() {
            let proof = request.field("Authorization");
            let name = proof.and_then(|proof| proof.rsplit(' ').next());
            user = name.map(str::to_owned).or(user);
            match &user {
                Some(user) => connection.answer(&format!("hello {user}")),
                None => connection.say(&format!(
                    "HTTP/1.1 {status} Who?\r\n{challenge}\r\nContent-Length: 0\r\n\r\n"
                )),
            };
        }
        counted.fetch_sub(1, Ordering::SeqCst);
    });
    (origin, open)
}

fn ask(client: &mut Client, fields: &str) -> Response {
    client.send(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.response()
}

#[test]
fn a_connection_that_knows_its_user_carries_nobody_elses_request() {
    for challenge in [
        "WWW-Authenticate: NTLM",
        "WWW-Authenticate: Basic realm=\"a, b\", Negotiate",
        "WWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate: NTLM",
    ] {
        let (origin, _) = remembering(401, challenge);
        let bind = free_address();
        let _proxy = Proxy::serving(&config(bind, &[origin.address]));
        let mut alice = Client::connect(bind);
        assert_eq!(ask(&mut alice, "").status, 401);
        let proof = "Authorization: NTLM alice\r\n";
        assert_eq!(ask(&mut alice, proof).text(), "hello alice");
        for _ in 0..OTHERS {
            assert_eq!(ask(&mut Client::connect(bind), "").status, 401);
        }
        assert_eq!(ask(&mut alice, "").text(), "hello alice", "{challenge}");
    }
}

#[test]
fn who_proves_it_unasked_is_known_alone_too() {
    let (origin, _) = remembering(401, "WWW-Authenticate: Basic realm=\"a\"");
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut alice = Client::connect(bind);
    let proof = "Authorization: Negotiate alice\r\n";
    assert_eq!(ask(&mut alice, proof).text(), "hello alice");
    for _ in 0..OTHERS {
        assert_eq!(ask(&mut Client::connect(bind), "").status, 401);
    }
}

#[test]
fn a_client_stays_with_the_server_that_knows_it() {
    let (first, _) = remembering(401, "WWW-Authenticate: NTLM");
    let (second, _) = remembering(401, "WWW-Authenticate: NTLM");
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[first.address, second.address]));
    let mut alice = Client::connect(bind);
    assert_eq!(ask(&mut alice, "").status, 401);
    let proof = "Authorization: NTLM alice\r\n";
    assert_eq!(ask(&mut alice, proof).text(), "hello alice");
    for _ in 0..10 {
        assert_eq!(ask(&mut alice, "").text(), "hello alice");
        alice.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(alice.response().text(), "hello alice");
    }
    assert_eq!(first.accepted() + second.accepted(), 1);
}

#[test]
fn a_private_connection_ends_with_its_client() {
    let (origin, open) = remembering(407, "Proxy-Authenticate: Basic realm=\"a\"");
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    for _ in 0..OTHERS {
        let mut client = Client::connect(bind);
        assert_eq!(ask(&mut client, "").status, 407);
        assert_eq!(ask(&mut client, "").status, 407);
    }
    assert_eq!(origin.accepted(), OTHERS, "each of them has its own");
    eventually("all are closed", || open.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_connection_that_was_asked_for_another_protocol_stays_with_who_asked() {
    let origin = Origin::start("s1");
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    for count in 1..=OTHERS {
        let mut client = Client::connect(bind);
        let asked = "Connection: upgrade\r\nUpgrade: other\r\n";
        assert_eq!(ask(&mut client, asked).status, 200);
        assert_eq!(ask(&mut client, "").status, 200);
        assert_eq!(origin.accepted(), count);
    }
}
