//! One HTTP/1.1 connection, and the task that drives it.

use super::process::Process;
use super::{Bytes, Target};
use http_body_util::Full;
use hyper::Response;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// TCP keepalive: silence before the first probe, and the interval between two probes.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// TCP user timeout: data that the peer does not acknowledge for this long ends the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a request that a connection sends.
pub(super) trait SentBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
}

impl<B> SentBody for B where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
}

/// Why no connection is open.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket or the TLS handshake failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The target uses TLS, and this client was made without a certificate.
    #[error("the client has no certificate for mutual TLS")]
    NoCertificate,
    /// HTTP did not begin.
    #[error("HTTP/1.1 could not begin")]
    Http(#[from] hyper::Error),
}

/// An open connection; dropping it closes it at once.
pub(super) struct Connection<B = Full<Bytes>> {
    sender: SendRequest<B>,
    task: JoinHandle<()>,
}

/// A request without a response.
pub(super) struct Refused<B> {
    /// The request, if none of it was written.
    pub(super) unsent: Option<hyper::Request<B>>,
    pub(super) source: hyper::Error,
}

impl<B: SentBody> Connection<B> {
    pub(super) async fn open(
        target: &Target,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, ConnectError> {
        match target {
            Target::Tcp(address) => Self::start(connect(*address).await?).await,
            Target::Unix(path) => Self::start(UnixStream::connect(path).await?).await,
            Target::Process { arguments, .. } => Self::start(Process::start(arguments)?).await,
            Target::Tls { address, name } => {
                let tls = tls.ok_or(ConnectError::NoCertificate)?;
                let socket = connect(*address).await?;
                let connector = TlsConnector::from(tls.clone());
                Self::start(connector.connect(name.clone(), socket).await?).await
            }
        }
    }

    /// Whether it can take a request now. Never blocks on the peer.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    pub(super) async fn send(
        &mut self,
        message: hyper::Request<B>,
    ) -> Result<Response<Incoming>, Box<Refused<B>>> {
        self.sender
            .try_send_request(message)
            .await
            .map_err(|mut error| {
                Box::new(Refused {
                    unsent: error.take_message(),
                    source: error.into_error(),
                })
            })
    }

    async fn start(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, ConnectError> {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        // The request that waits for a response gets this error too; here it adds nothing.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, task })
    }
}

impl<B> Drop for Connection<B> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE)
        .with_retries(2);
    options.set_tcp_keepalive(&keepalive)?;
    options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(socket)
}
