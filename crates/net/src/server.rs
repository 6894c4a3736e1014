//! An HTTP/1.1 server for the other processes of the site: mutual TLS, and who asks is known by its certificate.

use crate::pki;
use gaiola_os::connection_limit::{ConnectionLimit, Permit};
use gaiola_os::serve::{Response, connection};
use hyper::Request;
use hyper::body::Incoming;
use rustls::ServerConfig;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The most connections at a time; for a further one, the longest idle one is closed.
const CONNECTIONS: usize = 128;
/// Timeout of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Wait after a connection could not be accepted, such as for lack of descriptors.
const AGAIN: Duration = Duration::from_millis(50);

/// Serves every connection of a listener with `answer`, without end: it gets the common name of the peer's certificate. `tls` is asked
/// with each connection, so that a new certificate is taken over. Runs within a `LocalSet`.
pub async fn serve<F>(
    listener: TcpListener,
    tls: impl Fn() -> Arc<ServerConfig>,
    answer: impl Fn(String, Request<Incoming>) -> F + 'static,
) where
    F: Future<Output = Response> + 'static,
{
    let (answer, limit) = (Rc::new(answer), ConnectionLimit::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let permit = limit.enter().await;
        tokio::task::spawn_local(secured(stream, tls(), permit, Rc::clone(&answer)));
    }
}

async fn secured<F>(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    permit: Permit,
    answer: Rc<impl Fn(String, Request<Incoming>) -> F>,
) where
    F: Future<Output = Response>,
{
    let accepting = TlsAcceptor::from(tls).accept(stream);
    // What does not speak TLS, or has no certificate of the site, is no error of ours.
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, accepting).await else {
        return;
    };
    let Some(peer) = peer(&stream) else { return };
    let served = connection(stream, |request| {
        permit.work();
        let answered = answer(peer.clone(), request);
        async {
            let answered = answered.await;
            permit.rest();
            answered
        }
    });
    tokio::select! {
        () = served => {}
        () = permit.dismissed() => {}
    }
}

fn peer(stream: &TlsStream<TcpStream>) -> Option<String> {
    let (_, connection) = stream.get_ref();
    pki::common_name(connection.peer_certificates()?.first()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, Request, Target};
    use crate::pki::{Authority, client_config, server_config};
    use std::net::IpAddr;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn who_asks_is_known_by_its_certificate_and_strangers_are_not_answered() {
        let folder = tempfile::tempdir().unwrap();
        let [site, other] = ["site", "other"].map(|name| folder.path().join(name));
        let own = Authority::create_or_load(&site.join("ca")).unwrap();
        let stranger = Authority::create_or_load(&other.join("ca")).unwrap();
        let address: [IpAddr; 1] = [[127, 0, 0, 1].into()];
        own.issue("machine a", &address, &site.join("a")).unwrap();
        own.issue("machine b", &address, &site.join("b")).unwrap();
        stranger
            .issue("machine a", &address, &other.join("a"))
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::tls(listener.local_addr().unwrap());
        let tls = server_config(&site.join("a")).unwrap();
        let serving = serve(
            listener,
            move || Arc::clone(&tls),
            |peer, _| async { gaiola_os::serve::text(hyper::StatusCode::OK, peer) },
        );
        let asking = async {
            let ask = |folder: std::path::PathBuf| {
                let client = Client::new(Some(client_config(&folder).unwrap()));
                let target = target.clone();
                async move { client.request(&target, &Request::get("/"), LIMIT).await }
            };
            let answer = ask(site.join("b")).await.unwrap();
            assert_eq!(answer.text(), "machine b\n");
            assert!(ask(other.join("a")).await.is_err());
        };
        tokio::task::LocalSet::new()
            .run_until(async {
                tokio::select! {
                    () = serving => {}
                    () = asking => {}
                }
            })
            .await;
    }
}
