//! The TLS handshake with a client.

use super::check::in_words;
use super::client::Client;
use super::io::{Buffer, Side, Stream, TlsStream};
use super::worker::Worker;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

/// A TLS handshake with a client that is to come.
pub(super) struct Handshake {
    settings: Arc<ServerConfig>,
    /// How long it may take.
    pub(super) limit: Duration,
}

impl Handshake {
    pub(super) const fn new(settings: Arc<ServerConfig>, limit: Duration) -> Self {
        Self { settings, limit }
    }

    /// Performs it; `false` if it failed, which is logged.
    pub(super) async fn encrypt(self, client: &mut Client, worker: &Worker) -> bool {
        let encrypted = encrypt(client, self.settings, self.limit, worker).await;
        if let Some(stream) = encrypted {
            (client.stream, client.early) = (Stream::Tls(stream), None);
            return true;
        }
        false
    }
}

/// Performs the TLS handshake; `None` if it failed.
async fn encrypt(
    client: &Client,
    settings: Arc<ServerConfig>,
    limit: Duration,
    worker: &Worker,
) -> Option<Box<TlsStream>> {
    let Stream::Tcp(tcp) = &client.stream else {
        // The supervisor lets no other bind have TLS.
        return None;
    };
    let side = UnbufferedServerConnection::new(settings).map(Side::Server);
    let early = client.early.as_ref().map_or(&[][..], Buffer::filled);
    let handshake = TlsStream::handshake(tcp.clone(), side.ok()?, early);
    let failed = match tokio::time::timeout(limit, handshake).await {
        Ok(Ok(stream)) => {
            worker.handshakes().record(stream.is_resumed());
            return Some(stream);
        }
        Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => "the client has left".into(),
        Ok(Err(error)) => in_words(error),
        Err(_) => format!("it was not over within {} ms", limit.as_millis()),
    };
    worker.handshakes().failed.add(1);
    let failed = format!("the TLS handshake failed: {failed}");
    worker.log_closed(client.origin.address, &client.origin.bind, &failed);
    None
}
