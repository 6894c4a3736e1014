use super::*;
use crate::client::{Client, Request as Asked, Target};
use crate::pki::{Authority, client_config, server_config};
use gaiola_os::serve::text;
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use hyper::StatusCode;
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

const LIMIT: Duration = Duration::from_secs(20);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);
const PATIENT: Limits = Limits {
    handshakes: (8, 4),
    handshake: NEVER,
    connections: (8, 2),
    silence: NEVER,
    request: NEVER,
};
/// An address of this host that is not the one that is connected to.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A site with two machines, `a`, which serves, and `b`.
struct Site {
    folder: TempDir,
    address: SocketAddr,
}

impl Site {
    fn certificate(&self, of: &str) -> PathBuf {
        self.folder.path().join(of)
    }

    async fn ask(&self, path: &str) -> Option<String> {
        self.ask_as("b", path).await
    }

    async fn ask_as(&self, machine: &str, path: &str) -> Option<String> {
        let client = Client::new(Some(client_config(&self.certificate(machine)).unwrap()));
        let target = Target::tls(self.address);
        let answer = client.request(&target, &Asked::get(path), LIMIT).await;
        Some(answer.ok()?.text())
    }

    async fn connect(&self, from: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Sends a request from elsewhere, and takes nothing of the response.
    async fn ask_and_be_silent(&self, path: &str) -> impl Sized + use<> {
        let tls = client_config(&self.certificate("b")).unwrap();
        let name = ServerName::from(self.address.ip());
        let stream = self.connect(ELSEWHERE).await;
        let mut stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }
}

/// Runs a test beside a server that answers with who asks, and `/slow` never. The second is the body's other end of each `/endless`.
async fn with_server<F: Future>(
    limits: Limits,
    test: impl FnOnce(Rc<Site>, Rc<RefCell<Vec<Sender<Bytes>>>>) -> F,
) {
    let folder = tempfile::tempdir().unwrap();
    let own = Authority::create_or_load(&folder.path().join("ca")).unwrap();
    let address: [IpAddr; 1] = [[127, 0, 0, 1].into()];
    for name in ["a", "b"] {
        let dir = folder.path().join(name);
        own.issue(&format!("machine {name}"), &address, &dir)
            .unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls = server_config(&folder.path().join("a")).unwrap();
    let address = listener.local_addr().unwrap();
    let bodies = Rc::<RefCell<Vec<_>>>::default();
    let opened = Rc::clone(&bodies);
    let answer = move |peer: String, request: Request<Incoming>| {
        let opened = Rc::clone(&opened);
        async move {
            match request.uri().path() {
                "/slow" => std::future::pending().await,
                "/endless" => {
                    let (sender, body) = Channel::new(1);
                    opened.borrow_mut().push(sender);
                    Response::new(body.boxed_unsync())
                }
                _ => text(StatusCode::OK, peer),
            }
        }
    };
    let serving = serve(listener, limits, move || Arc::clone(&tls), answer);
    let site = Rc::new(Site { folder, address });
    let test = async {
        tokio::select! {
            () = serving => {}
            _ = test(site, bodies) => {}
        }
    };
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn who_asks_is_known_by_its_certificate_and_strangers_are_not_answered() {
    with_server(Limits::default(), |site, _| async move {
        assert_eq!(site.ask("/").await.unwrap(), "machine b\n");
        let stranger = Authority::create_or_load(&site.certificate("other-ca")).unwrap();
        let address: [IpAddr; 1] = [[127, 0, 0, 1].into()];
        let dir = site.certificate("stranger");
        stranger.issue("machine b", &address, &dir).unwrap();
        assert!(site.ask_as("stranger", "/").await.is_none());
    })
    .await;
}

#[tokio::test]
async fn handshakes_that_do_not_go_on_keep_nobody_out() {
    with_server(PATIENT, |site, _| async move {
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(site.connect(ELSEWHERE).await);
            silent.push(site.connect(Ipv4Addr::LOCALHOST).await);
        }
        assert_eq!(site.ask("/").await.unwrap(), "machine b\n");
    })
    .await;
}

#[tokio::test]
async fn one_address_cannot_have_all_connections() {
    with_server(PATIENT, |site, _| async move {
        let mut busy = Vec::new();
        for _ in 0..2 {
            busy.push(site.ask_and_be_silent("/slow").await);
        }
        // These have shown their certificates, and wait for a place that another address does not need.
        let more = (0..3).map(|_| site.ask_and_be_silent("/"));
        for more in more {
            busy.push(more.await);
        }
        assert_eq!(site.ask("/").await.unwrap(), "machine b\n");
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_of_its_response_is_gone_after_a_while() {
    let limits = Limits {
        silence: Duration::from_millis(50),
        ..PATIENT
    };
    with_server(limits, |site, bodies| async move {
        let _silent = site.ask_and_be_silent("/endless").await;
        let sending = async {
            loop {
                let Some(mut sender) = bodies.borrow_mut().pop() else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let piece = Bytes::from(vec![0; 64 << 10]);
                while sender.send_data(piece.clone()).await.is_ok() {}
                return;
            }
        };
        timeout(LIMIT, sending).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_request_without_an_answer_is_broken_off() {
    let limits = Limits {
        request: Duration::from_millis(50),
        ..PATIENT
    };
    with_server(limits, |site, _| async move {
        let slow = timeout(LIMIT, site.ask("/slow")).await;
        assert_eq!(slow.unwrap(), None);
        assert_eq!(site.ask("/").await.unwrap(), "machine b\n");
    })
    .await;
}
