//! One HTTP/1.1 connection that knows whether any byte of a response arrived.

use super::Course;
use super::error::RequestError;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

/// How much of a body is stored; the rest is read and dropped.
const KEPT: usize = 64 * 1024;

/// A request that can be repeated.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) path: String,
    /// A JSON body makes it a POST.
    pub(super) body: Option<String>,
    /// Whether the connection should close after it.
    pub(super) last: bool,
}

impl Ask {
    pub(super) fn get(path: &str) -> Self {
        Self {
            path: path.into(),
            body: None,
            last: false,
        }
    }

    fn request(&self, host: &str) -> Result<Request<Full<Bytes>>, RequestError> {
        let method = if self.body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let mut request = Request::builder()
            .method(method)
            .uri(self.path.as_str())
            .header("host", host)
            .header("user-agent", "gaiola-drill");
        if self.body.is_some() {
            request = request.header("content-type", "application/json");
        }
        if self.last {
            request = request.header("connection", "close");
        }
        request
            .body(Full::from(self.body.clone().unwrap_or_default()))
            .map_err(|why| RequestError::Path {
                path: self.path.clone(),
                why,
            })
    }
}

/// A complete response.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// The body's first 64 KiB.
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// `Err` names the status.
    pub(super) fn success(&self) -> Result<(), RequestError> {
        match self.status {
            200..=299 => Ok(()),
            status => Err(RequestError::Status(status)),
        }
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum Broken {
    /// Nothing of the request was written.
    Unsent,
    /// It was written, at least in part, but no byte of a response arrived.
    Silent(RequestError),
    /// The response broke off or was malformed.
    Torn(RequestError),
}

impl From<Broken> for RequestError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Unsent => Self::Unsent,
            Broken::Silent(why) | Broken::Torn(why) => why,
        }
    }
}

/// A connection; closed when it is dropped.
pub(super) struct Connection {
    /// The `Host` of its requests.
    host: String,
    sender: SendRequest<Full<Bytes>>,
    received: Arc<AtomicU64>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Opens a connection. It waits as long as the kernel does: the caller sets a timeout.
    pub(super) async fn open(course: &Course) -> Result<Self, RequestError> {
        let door = course.door;
        let host = course.host.clone().unwrap_or_else(|| door.to_string());
        let stream = connect(door, course.from).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &course.tls else {
            return Self::over(stream, host).await;
        };
        let tls = TlsConnector::from(Arc::clone(tls));
        let secure = tls.connect(door.ip().into(), stream).await?;
        Self::over(secure, host).await
    }

    async fn over<S>(stream: S, host: String) -> Result<Self, RequestError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let received = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            stream,
            received: received.clone(),
        };
        let (sender, connection) = http1::handshake(TokioIo::new(counted)).await?;
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Self {
            host,
            sender,
            received,
            driver,
        })
    }

    /// Whether the peer has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request and reads the whole response.
    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<Reply, Broken> {
        let request = ask.request(&self.host).map_err(Broken::Torn)?;
        if self.sender.ready().await.is_err() {
            return Err(Broken::Unsent);
        }
        let before = self.received.load(Ordering::Relaxed);
        match self.sender.try_send_request(request).await {
            Ok(response) => read(response)
                .await
                .map_err(|error| Broken::Torn(error.into())),
            Err(error) if error.message().is_some() => Err(Broken::Unsent),
            Err(error) if self.received.load(Ordering::Relaxed) == before => {
                Err(Broken::Silent(error.into_error().into()))
            }
            Err(error) => Err(Broken::Torn(error.into_error().into())),
        }
    }
}

async fn connect(door: SocketAddr, from: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let Some(from) = from else {
        return TcpStream::connect(door).await;
    };
    let socket = match from {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind((from, 0).into())?;
    socket.connect(door).await
}

async fn read(response: Response<Incoming>) -> Result<Reply, hyper::Error> {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut kept = Vec::with_capacity(
        usize::try_from(body.size_hint().lower()).map_or(KEPT, |size| size.min(KEPT)),
    );
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            let room = KEPT - kept.len();
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    Ok(Reply { status, body: kept })
}

/// Counts the bytes that arrive.
struct Counted<S> {
    stream: S,
    received: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let came = buffer.filled().len() - before;
        self.received.fetch_add(came as u64, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
