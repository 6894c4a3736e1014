//! How a server gets its certificate: over the socket that its pid 1 has as standard input from whoever switched it on.
//!
//! The provider sends the certificate of the site's authority. A server whose files are good for it replies that it needs nothing;
//! otherwise it sends a request, signed by a key that never leaves the server, and gets the certificate. Each is one
//! message in one line, in the schema of the site's documents: the provider names it, and the server answers in the same.

use gaiola_model::schema::unnumbered;
use gaiola_net::pki::{Authority, Issued, Subject};
use gaiola_os::chain;
use gaiola_wire::document::{decode_message, encode_message};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Timeout of each message on the server's side.
const LIMIT: Duration = Duration::from_secs(10);
/// Timeout of the whole exchange on the provider's side: a server's disk may be slow to keep its new key, and nobody waits for
/// this but the server.
const PROVIDER_LIMIT: Duration = Duration::from_secs(60);
/// A longer message is rejected.
const MESSAGE_LIMIT: usize = 64 << 10;

/// The provider's first message.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    /// The certificate of the site's authority, in PEM.
    authority: String,
}

/// The server's reply.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    /// A request for a certificate, PKCS#10 in PEM; `None`: the server has one.
    request: Option<String>,
}

/// The provider's answer to a request.
#[derive(Debug, Serialize, Deserialize)]
struct CertificateReply {
    /// The certificate in PEM, or why there is none.
    issued: Result<String, String>,
}

/// Pid 1's side: keeps files that are good, or requests a certificate and writes it.
///
/// # Errors
/// If no certificate was issued in time, or a file cannot be written.
pub(super) fn obtain(subject: &Subject) -> io::Result<Issued> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    obtain_over(&mut Line::new(socket), subject)
}

fn obtain_over(line: &mut Line, subject: &Subject) -> io::Result<Issued> {
    let Offer { authority } = line.receive()?;
    let issued = if subject.is_certified(&authority) {
        line.send(&Reply { request: None })?;
        Issued::Kept
    } else {
        let request = subject.request().map_err(pki)?;
        line.send(&Reply {
            request: Some(request),
        })?;
        let CertificateReply { issued } = line.receive()?;
        let certificate = issued.map_err(io::Error::other)?;
        subject.accept(&authority, &certificate).map_err(pki)?;
        Issued::New
    };
    subject.own().map_err(pki)?;
    Ok(issued)
}

/// The provider's side: certifies the server `name` with `addresses`, if it needs it. `schema`: that of the site's documents, which
/// the server reads though its program may be older than the provider's.
///
/// # Errors
/// If the server sends anything but a request for this name and these addresses, or nothing in time. A server whose request is
/// rejected gets the reason.
pub async fn provide(
    (socket, schema): (UnixStream, u64),
    authority: &Authority,
    name: &str,
    addresses: &[IpAddr],
) -> io::Result<Issued> {
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixStream::from_std(socket)?;
    let providing = provide_over((socket, schema), authority, name, addresses);
    let done = tokio::time::timeout(PROVIDER_LIMIT, providing).await;
    done.unwrap_or_else(|_| {
        let seconds = PROVIDER_LIMIT.as_secs();
        let why = format!("the server sent no request within {seconds} s; see its log");
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}

async fn provide_over(
    (mut socket, schema): (tokio::net::UnixStream, u64),
    authority: &Authority,
    name: &str,
    addresses: &[IpAddr],
) -> io::Result<Issued> {
    let offer = Offer {
        authority: authority.certificate().into(),
    };
    socket.write_all(&encode(&offer, schema)?).await?;
    let mut message = Vec::new();
    let Reply { request } = loop {
        if let Some((reply, _)) = decode(&message)? {
            break reply;
        }
        if socket.read_buf(&mut message).await? == 0 {
            let why = "the server ended before it sent a request; see its log";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
    };
    let Some(request) = request else {
        return Ok(Issued::Kept);
    };
    let signed = authority.sign(name, addresses, &request);
    let issued = signed.as_ref().map(String::clone).map_err(|e| chain(e));
    socket
        .write_all(&encode(&CertificateReply { issued }, schema)?)
        .await?;
    signed.map(|_| Issued::New).map_err(pki)
}

/// Pid 1's end of the socket.
struct Line {
    socket: UnixStream,
    /// That of the last message, in which the next one is answered.
    schema: u64,
    deadline: Instant,
}

impl Line {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket: socket.into(),
            schema: unnumbered(),
            deadline: Instant::now() + LIMIT,
        }
    }

    fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        self.deadline = Instant::now() + LIMIT;
        self.socket.set_write_timeout(Some(self.rest()?))?;
        self.socket.write_all(&encode(message, self.schema)?)
    }

    fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        self.deadline = Instant::now() + LIMIT;
        let (mut message, mut bytes) = (Vec::new(), [0; 4096]);
        loop {
            if let Some((message, schema)) = decode(&message)? {
                self.schema = schema;
                return Ok(message);
            }
            self.socket.set_read_timeout(Some(self.rest()?))?;
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => message.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(late());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn rest(&self) -> io::Result<Duration> {
        let rest = self.deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(late());
        }
        Ok(rest)
    }
}

fn late() -> io::Error {
    let why = format!("none was issued within {} s", LIMIT.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, why)
}

fn encode(message: &impl Serialize, schema: u64) -> io::Result<Vec<u8>> {
    let mut line = encode_message(message, schema)?;
    line.push(b'\n');
    Ok(line)
}

/// The message and its schema, once its line is complete. Neither side sends a second one before it has got a reply.
fn decode<T: DeserializeOwned>(line: &[u8]) -> io::Result<Option<(T, u64)>> {
    match line.split_last() {
        Some((b'\n', message)) => match decode_message(message) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(io::Error::other(error)),
        },
        _ if line.len() > MESSAGE_LIMIT => Err(io::Error::other(format!(
            "a message is longer than {MESSAGE_LIMIT} bytes"
        ))),
        _ => Ok(None),
    }
}

fn pki(error: gaiola_net::pki::PkiError) -> io::Error {
    io::Error::other(chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::schema::SCHEMA;
    use std::fs;
    use std::path::Path;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 4, 1));

    /// Both sides of the exchange: a server that believes to be `name`, and a provider that has switched `db1` on.
    fn exchange(
        ca: &Path,
        server: &Path,
        name: &str,
        schema: u64,
    ) -> (io::Result<Issued>, io::Result<Issued>) {
        let authority = Authority::create_or_load(ca).unwrap();
        let subject = Subject::new(name, &[ADDRESS], server, None);
        let (theirs, ours) = UnixStream::pair().unwrap();
        let server =
            std::thread::spawn(move || obtain_over(&mut Line::new(theirs.into()), &subject));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let provided = runtime.block_on(provide((ours, schema), &authority, "db1", &[ADDRESS]));
        (server.join().unwrap(), provided)
    }

    #[test]
    fn a_server_gets_a_certificate_once_and_its_key_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, server) = (dir.path().join("ca"), dir.path().join("db1"));
        for (expected, schema) in [(Issued::New, SCHEMA - 1), (Issued::Kept, SCHEMA)] {
            let (obtained, provided) = exchange(&ca, &server, "db1", schema);
            assert_eq!((obtained.unwrap(), provided.unwrap()), (expected, expected));
        }
        let key = fs::read(server.join("key.pem")).unwrap();
        fs::remove_file(server.join("cert.pem")).unwrap();
        let (obtained, _) = exchange(&ca, &server, "db1", SCHEMA);
        assert_eq!(obtained.unwrap(), Issued::New);
        assert_eq!(fs::read(server.join("key.pem")).unwrap(), key);
        gaiola_net::pki::client_config(&server).unwrap();
    }

    #[test]
    fn a_server_that_requests_another_name_learns_why_it_gets_none() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, server) = (dir.path().join("ca"), dir.path().join("db2"));
        let (obtained, provided) = exchange(&ca, &server, "db2", SCHEMA);
        let why = obtained.unwrap_err().to_string();
        assert!(why.contains("not for db1, 10.77.4.1"), "{why}");
        assert_eq!(provided.unwrap_err().to_string(), why);
        assert!(!server.join("cert.pem").exists());
    }

    #[test]
    fn a_provider_that_is_gone_silent_or_garbled_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let subject = Subject::new("db1", &[ADDRESS], dir.path(), None);
        let (theirs, ours) = UnixStream::pair().unwrap();
        let mut line = Line::new(theirs.into());
        line.deadline = Instant::now() + Duration::from_millis(20);
        let error = obtain_over(&mut line, &subject).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");

        line.deadline = Instant::now() + LIMIT;
        (&ours).write_all(b"{\"authority\":1}\n").unwrap();
        assert!(obtain_over(&mut line, &subject).is_err());
        drop(ours);
        let error = obtain_over(&mut line, &subject).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
        assert!(!dir.path().join("key.pem").exists());
    }

    #[test]
    fn a_server_answers_in_the_schema_of_the_site() {
        let (theirs, ours) = UnixStream::pair().unwrap();
        let mut line = Line::new(theirs.into());
        for schema in 1..=SCHEMA {
            let authority = String::new();
            let offer = encode(&Offer { authority }, schema).unwrap();
            (&ours).write_all(&offer).unwrap();
            line.receive::<Offer>().unwrap();
            line.send(&Reply { request: None }).unwrap();
            let mut answer = [0; 4096];
            let length = (&ours).read(&mut answer).unwrap();
            let (_, answered) = decode::<Reply>(&answer[..length]).unwrap().unwrap();
            assert_eq!(answered, schema);
        }
    }

    #[test]
    fn an_endless_message_is_rejected() {
        let long = vec![b' '; MESSAGE_LIMIT + 1];
        assert!(decode::<Reply>(&long).is_err());
        assert!(decode::<Reply>(&long[1..]).unwrap().is_none());
    }
}
