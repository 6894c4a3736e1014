//! One HTTP/1.1 connection that knows whether any byte of an answer came.

use super::Course;
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

/// Bytes of a body that are kept; the rest is read and dropped.
const KEPT: usize = 64 * 1024;

/// A request that can be made again.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) path: String,
    /// A JSON body makes it a POST.
    pub(super) body: Option<String>,
    /// Whether the connection is to be closed after it.
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

    fn request(&self, door: SocketAddr) -> Result<Request<Full<Bytes>>, String> {
        let method = if self.body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let mut request = Request::builder()
            .method(method)
            .uri(self.path.as_str())
            .header("host", door.to_string())
            .header("user-agent", "gaiola-drill");
        if self.body.is_some() {
            request = request.header("content-type", "application/json");
        }
        if self.last {
            request = request.header("connection", "close");
        }
        request
            .body(Full::from(self.body.clone().unwrap_or_default()))
            .map_err(|error| format!("cannot ask for {:?}: {error}", self.path))
    }
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Its first 64 KiB.
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// `Err` names the status.
    pub(super) fn success(&self) -> Result<(), String> {
        match self.status {
            200..=299 => Ok(()),
            status => Err(format!("HTTP {status}")),
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// Nothing of the request was written.
    Unsent,
    /// It was written, at least in part, and not one byte came back.
    Silent(String),
    /// The answer broke off, or was none.
    Torn(String),
}

impl Broken {
    pub(super) fn in_words(self) -> String {
        match self {
            Self::Unsent => "connection closed before the request was written".into(),
            Self::Silent(why) | Self::Torn(why) => why,
        }
    }
}

/// A connection; closed when it is dropped.
pub(super) struct Connection {
    door: SocketAddr,
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
    /// Opens one. It waits as long as the kernel does: the caller sets the limit.
    pub(super) async fn open(course: &Course) -> Result<Self, String> {
        let door = course.door;
        let stream = connect(door, course.from).await;
        let stream = stream.map_err(|error| in_words(&error))?;
        stream.set_nodelay(true).map_err(|error| in_words(&error))?;
        let Some(tls) = &course.tls else {
            return Self::over(stream, door).await;
        };
        let tls = TlsConnector::from(Arc::clone(tls));
        let secure = tls.connect(door.ip().into(), stream).await;
        Self::over(secure.map_err(|error| in_words(&error))?, door).await
    }

    async fn over<S>(stream: S, door: SocketAddr) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let received = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            stream,
            received: received.clone(),
        };
        let (sender, connection) = http1::handshake(TokioIo::new(counted))
            .await
            .map_err(|error| describe(&error))?;
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Self {
            door,
            sender,
            received,
            driver,
        })
    }

    /// Whether the other side has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<Reply, Broken> {
        let request = ask.request(self.door).map_err(Broken::Torn)?;
        if self.sender.ready().await.is_err() {
            return Err(Broken::Unsent);
        }
        let before = self.received.load(Ordering::Relaxed);
        match self.sender.try_send_request(request).await {
            Ok(response) => read(response)
                .await
                .map_err(|error| Broken::Torn(describe(&error))),
            Err(error) if error.message().is_some() => Err(Broken::Unsent),
            Err(error) if self.received.load(Ordering::Relaxed) == before => {
                Err(Broken::Silent(describe(error.error())))
            }
            Err(error) => Err(Broken::Torn(describe(error.error()))),
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

/// A few words that the same failure always has, so that failures can be counted by them.
fn describe(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error);
    match cause.and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        Some(cause) => in_words(cause),
        None if error.is_incomplete_message() => {
            "connection closed before the answer was complete".into()
        }
        None => error.to_string(),
    }
}

fn in_words(error: &std::io::Error) -> String {
    error.kind().to_string()
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
