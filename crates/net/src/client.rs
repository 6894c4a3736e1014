//! A small HTTP/1.1 client for the site's own services: etcd, Patroni, agents and control sockets.
//!
//! Not for the data plane. Every wait has a deadline, every body a limit, and one idle connection per address is kept.

mod connection;
mod error;
mod process;
mod stream;
mod upload;

pub use connection::ConnectError;
pub use error::ClientError;
pub use hyper::Method;
pub use hyper::body::Bytes;
pub use hyper::header::{HeaderMap, HeaderName, HeaderValue};
pub use process::ProcessEnded;
pub use stream::Stream;
pub use upload::Writer;

use connection::{Connection, SentBody};
use error::InFlight;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest response body, and longest line of a stream, in bytes.
pub const MAX_BODY: usize = 16 << 20;
/// The most idle connections over all targets; beyond that the one that was idle longest is closed.
const MAX_IDLE: usize = 64;
/// An idle connection that was unused for this long is not reused.
const IDLE: Duration = Duration::from_secs(30);

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Plain TCP.
    Tcp(SocketAddr),
    /// TLS; the server's certificate must be for `name`.
    Tls {
        /// Where it listens.
        address: SocketAddr,
        /// A name or an address in its certificate.
        name: ServerName<'static>,
    },
    /// A Unix stream socket.
    Unix(PathBuf),
    /// A process that is started for each connection: its standard input and output carry it.
    Process {
        /// Its program and arguments.
        arguments: Vec<OsString>,
        /// What it leads to, for messages.
        name: String,
    },
}

impl Target {
    /// TLS with a server whose certificate names its address.
    pub fn tls(address: SocketAddr) -> Self {
        Self::Tls {
            address,
            name: ServerName::from(address.ip()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Tls { address, .. } => write!(f, "https://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Process { name, .. } => f.write_str(name),
        }
    }
}

/// An HTTP request.
#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Request {
    /// A request without a body. `path` may have a query and must be encoded.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// `GET path`.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// `PUT path`, for [`Client::upload`].
    pub fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    /// `POST path` with a JSON body.
    pub fn post(path: impl Into<String>, json: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, path).json(json)
    }

    /// The same with a JSON body.
    #[must_use]
    pub fn json(mut self, json: impl Into<Bytes>) -> Self {
        self.body = json.into();
        self.header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    /// Where it asks, with its query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same with one more header. A `Host` takes the place of the target's address.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn to_hyper(&self, target: &Target) -> Result<hyper::Request<Full<Bytes>>, hyper::http::Error> {
        self.with_body(target, Full::new(self.body.clone()))
    }

    fn with_body<B>(
        &self,
        target: &Target,
        body: B,
    ) -> Result<hyper::Request<B>, hyper::http::Error> {
        let host = match target {
            Target::Tcp(address) | Target::Tls { address, .. } => address.to_string(),
            Target::Unix(_) | Target::Process { .. } => "localhost".into(),
        };
        let mut request = hyper::Request::builder()
            .method(&self.method)
            .uri(&self.path);
        if !self.headers.iter().any(|(name, _)| name == HOST) {
            request = request.header(HOST, host);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(body)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, [`MAX_BODY`] bytes at most.
    pub body: Bytes,
}

impl Response {
    /// The body as text for people; invalid UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The client. Cloning is cheap and shares the idle connections.
#[derive(Clone)]
pub struct Client {
    tls: Option<Arc<ClientConfig>>,
    idle: Arc<Mutex<HashMap<Target, Idle>>>,
}

struct Idle {
    since: Instant,
    connection: Connection,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that speaks TLS with `tls`; without it, it rejects [`Target::Tls`].
    pub fn new(tls: Option<Arc<ClientConfig>>) -> Self {
        Self {
            tls,
            idle: Arc::default(),
        }
    }

    /// Sends `request` and reads the whole response, whatever its status; all within `timeout`.
    ///
    /// It is sent once. Only where the server closed an idle connection before anything was written to it, a new connection is
    /// tried.
    pub async fn request(
        &self,
        target: &Target,
        request: &Request,
        timeout: Duration,
    ) -> Result<Response, ClientError> {
        let in_flight = InFlight::new(target, request, timeout);
        let whole = async {
            let (head, connection) = self.send(target, &in_flight).await?;
            let response = whole(head, &in_flight).await?;
            self.keep(target, connection);
            Ok(response)
        };
        match tokio::time::timeout(timeout, whole).await {
            Ok(result) => result,
            Err(_) => Err(in_flight.timed_out()),
        }
    }

    /// Sends `request` with a body that `write` writes on a thread of its own, piece by piece, and reads the whole response; all within
    /// `timeout`. A response that comes before the body's end ends the body. Where `write` fails, no whole body was sent.
    ///
    /// # Errors
    /// `write`'s own, unless there is a response, or it failed since the connection did.
    pub async fn upload<E: Send + 'static>(
        &self,
        target: &Target,
        request: &Request,
        timeout: Duration,
        write: impl FnOnce(&mut Writer) -> Result<(), E> + Send + 'static,
    ) -> Result<Result<Response, ClientError>, E> {
        let in_flight = InFlight::new(target, request, timeout);
        let (body, mut writer) = upload::body();
        let writing = tokio::task::spawn_blocking(move || {
            let written = write(&mut writer);
            let was_taken = !writer.is_closed();
            writer.end(written.is_ok());
            written.map_err(|error| was_taken.then_some(error))
        });
        let whole = async {
            let mut connection = self.connect_for(target, &in_flight).await?;
            let message = in_flight.message_of(body)?;
            in_flight.sending();
            let head = connection.send(message).await;
            whole(
                head.map_err(|refused| in_flight.broken(refused.source))?,
                &in_flight,
            )
            .await
        };
        let sent = match tokio::time::timeout(timeout, whole).await {
            Ok(result) => result,
            Err(_) => Err(in_flight.timed_out()),
        };
        // The body is dropped: the thread ends with its next piece.
        match (sent, writing.await) {
            (Err(_), Ok(Err(Some(error)))) => Err(error),
            (sent, _) => Ok(sent),
        }
    }

    /// Sends `request` and streams the response's body; `timeout` is for its head alone.
    pub async fn stream(
        &self,
        target: &Target,
        request: &Request,
        timeout: Duration,
    ) -> Result<Stream, ClientError> {
        let in_flight = InFlight::new(target, request, timeout);
        let head = async {
            let mut connection = self.connect(target, &in_flight).await?;
            let message = in_flight.message()?;
            in_flight.sending();
            let head = connection.send(message).await;
            Ok((
                head.map_err(|refused| in_flight.broken(refused.source))?,
                connection,
            ))
        };
        match tokio::time::timeout(timeout, head).await {
            Ok(Ok((head, connection))) => Ok(Stream::new(target, request, head, connection)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(in_flight.timed_out()),
        }
    }

    /// Sends the request and reads the response's head, over an idle connection where there is one.
    async fn send(
        &self,
        target: &Target,
        in_flight: &InFlight<'_>,
    ) -> Result<(hyper::Response<Incoming>, Connection), ClientError> {
        let mut message = in_flight.message()?;
        if let Some(mut connection) = self.take_idle(target)
            && connection.is_ready().await
        {
            in_flight.sending();
            match connection.send(message).await {
                Ok(head) => return Ok((head, connection)),
                Err(refused) => match refused.unsent {
                    Some(unsent) => message = unsent,
                    None => return Err(in_flight.broken(refused.source)),
                },
            }
        }
        in_flight.connecting();
        let mut connection = self.connect(target, in_flight).await?;
        in_flight.sending();
        match connection.send(message).await {
            Ok(head) => Ok((head, connection)),
            Err(refused) => Err(in_flight.broken(refused.source)),
        }
    }

    async fn connect(
        &self,
        target: &Target,
        in_flight: &InFlight<'_>,
    ) -> Result<Connection, ClientError> {
        self.connect_for(target, in_flight).await
    }

    async fn connect_for<B: SentBody>(
        &self,
        target: &Target,
        in_flight: &InFlight<'_>,
    ) -> Result<Connection<B>, ClientError> {
        Connection::open(target, self.tls.as_ref())
            .await
            .map_err(|source| in_flight.unconnected(source))
    }

    fn take_idle(&self, target: &Target) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle.remove(target)?;
        (found.since.elapsed() < IDLE).then_some(found.connection)
    }

    fn keep(&self, target: &Target, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, kept| kept.since.elapsed() < IDLE);
        if idle.len() >= MAX_IDLE
            && let Some(oldest) = idle.iter().min_by_key(|(_, kept)| kept.since)
        {
            let oldest = oldest.0.clone();
            idle.remove(&oldest);
        }
        let since = Instant::now();
        idle.insert(target.clone(), Idle { since, connection });
    }
}

async fn whole(
    head: hyper::Response<Incoming>,
    in_flight: &InFlight<'_>,
) -> Result<Response, ClientError> {
    let (head, body) = head.into_parts();
    Ok(Response {
        status: head.status.as_u16(),
        headers: head.headers,
        body: read_body(body, in_flight).await?,
    })
}

async fn read_body(body: Incoming, in_flight: &InFlight<'_>) -> Result<Bytes, ClientError> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(in_flight.broken(*error)),
            Err(other) => {
                debug_assert!(other.is::<LengthLimitError>());
                Err(in_flight.too_large())
            }
        },
    }
}

#[cfg(test)]
mod tests;
