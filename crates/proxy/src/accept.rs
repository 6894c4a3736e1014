//! From a listening socket to a session.

use super::client::{Client, Open, Origin};
use super::counters::Unasked;
use super::handshake::Handshake;
use super::io::{Buffer, Fault, Stream};
use super::orders::FrontendShare;
use super::worker::Worker;
use super::{io, session, tcp};
use gaiola_model::proxy::{self, Address, Mode};
use gaiola_os as os;
use gaiola_wire::client_hello;
use gaiola_wire::proxy_protocol::{self, Carried, Progress};
use rustix::net::{SocketAddrAny, SocketFlags};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

/// Pause after accept failed for lack of the system's own resources (file descriptors, memory).
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Accepts until `done`, then whatever is still in the backlog.
pub(super) async fn run(worker: Rc<Worker>, socket: OwnedFd, bind: Rc<Address>, done: Rc<Notify>) {
    let socket = match os::socket::watch(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, %bind, "cannot poll a listener"),
    };
    let accepting = async {
        loop {
            tokio::select! {
                ready = socket.readable() => {
                    let Ok(mut ready) = ready else { return };
                    accept_all(&worker, socket.get_ref(), &bind).await;
                    ready.clear_ready();
                }
                () = done.notified() => return accept_all(&worker, socket.get_ref(), &bind).await,
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        never = make_room(&worker, &bind) => match never {},
    }
}

/// Closes idle connections of this bind when others wait for room, on whichever worker. Never returns.
async fn make_room(worker: &Worker, bind: &Rc<Address>) -> Infallible {
    loop {
        let serving = worker.serving();
        let share = serving
            .frontend(bind)
            .map(|(frontend, _)| Arc::clone(&serving.of(frontend).0.share));
        drop(serving);
        let reconfigured = worker.wake.notified();
        let crowded = async {
            match &share {
                Some(share) => {
                    let crowded = share.crowded();
                    worker
                        .sessions
                        .close_idle(bind, || share.takes_close_request());
                    crowded.await;
                }
                None => pending().await,
            }
        };
        tokio::select! {
            () = crowded => {}
            () = reconfigured => {}
        }
    }
}

/// Accepts what is in the backlog, as far as the frontend's maxconn allows.
async fn accept_all(worker: &Rc<Worker>, socket: &OwnedFd, bind: &Rc<Address>) {
    loop {
        let serving = worker.serving();
        let (share, limit) = match serving.frontend(bind) {
            Some((frontend, _)) => {
                let (frontend, config) = serving.of(frontend);
                (Arc::clone(&frontend.share), config.maxconn)
            }
            // The frontend has just been removed: what is in the backlog is refused, like later connections.
            None => return,
        };
        if !share.try_open(limit) {
            worker.log_full(&share, limit);
            share.open_when_room(limit).await;
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match rustix::net::acceptfrom_with(socket, flags) {
            Ok((socket, peer)) => begin(worker, socket, peer, bind, share),
            Err(rustix::io::Errno::AGAIN) => return share.close(),
            Err(error) => {
                share.close();
                if !is_the_clients(error) {
                    worker.log_unaccepted(bind, error);
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}

/// Errors of that one connection, which has already gone.
fn is_the_clients(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(
        error,
        Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM
    )
}

fn begin(
    worker: &Rc<Worker>,
    socket: OwnedFd,
    peer: Option<SocketAddrAny>,
    bind: &Rc<Address>,
    share: Arc<FrontendShare>,
) {
    let stream = match **bind {
        Address::Tcp(_) => TcpStream::from_std(socket.into()).map(|tcp| Stream::Tcp(tcp.into())),
        Address::Unix(_) => UnixStream::from_std(socket.into()).map(Stream::Unix),
    };
    let Ok(stream) = stream else {
        return share.close();
    };
    let (peer, local) = addresses(&stream, bind, peer);
    let count = worker.local(local);
    count.add(1);
    share.accept();
    let open = Open {
        share,
        local: count,
    };
    let client = Box::new(Client {
        stream,
        early: None,
        origin: Origin {
            address: peer.ip(),
            port: peer.port(),
            ends: None,
            local,
            bind: Rc::clone(bind),
            server_name: None,
            activity: worker.sessions.enter(peer, bind),
            open,
        },
    });
    tokio::task::spawn_local(talk(Rc::clone(worker), client));
}

/// The client's address, and the local address it connected to.
fn addresses(stream: &Stream, bind: &Address, peer: Option<SocketAddrAny>) -> (SocketAddr, IpAddr) {
    let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let (Some(tcp), Address::Tcp(bind)) = (stream.plain(), bind) else {
        return ((Ipv4Addr::LOCALHOST, 0).into(), none);
    };
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    let local = if bind.ip().is_unspecified() {
        tcp.stream()
            .local_addr()
            .map_or(bind.ip(), |local| local.ip())
    } else {
        bind.ip()
    };
    (peer.unwrap_or((none, 0).into()), local)
}

async fn talk(worker: Rc<Worker>, mut client: Box<Client>) {
    let serving = worker.serving();
    let Some((index, bind)) = serving.frontend(&client.origin.bind) else {
        let (peer, bind) = (client.origin.address, &client.origin.bind);
        return worker.log_closed(peer, bind, "nothing is served here any more");
    };
    let (_, frontend) = serving.of(index);
    let limit = frontend.timeouts.request_head;
    let mut senders = bind.proxy_protocol_from.iter();
    if senders.any(|sender| sender.contains(&client.origin.address)) {
        let header = tokio::time::timeout(limit, read_header(&mut client)).await;
        let header = header.unwrap_or(Err(HeaderError::Late(limit)));
        if let Err(error) = header {
            let reason = error.to_string();
            return worker.close_unasked(&client.origin, Unasked::Header, &reason);
        }
    }
    let Some(_held) = serving.admit(index, client.origin.address) else {
        return worker.refuse(&client.origin);
    };
    if goes_by_name(frontend) {
        let named = match tokio::time::timeout(limit, read_name(&mut client)).await {
            Ok(named) => named.map_err(|fault| format!("no ClientHello: {fault}")),
            Err(_) => Err(late("its ClientHello", limit)),
        };
        if let Err(reason) = named {
            return worker.close_unasked(&client.origin, Unasked::Name, &reason);
        }
    }
    let is_http = is_http(frontend);
    let tls = worker.tls(&client.origin.bind);
    let mut handshake = tls.map(|settings| Handshake::new(settings, limit));
    let (may_be_plain, server_first) = match &bind.tls {
        Some(tls) => (tls.optional && is_http, tls.server_first && !is_http),
        None => (false, false),
    };
    drop(serving);
    if may_be_plain && speaks_plainly(&mut client, limit).await {
        handshake = None;
    }
    if server_first && let Some(handshake) = handshake {
        return tcp::serve_first(&worker, client, handshake).await;
    }
    // These futures are large; a connection should hold memory for one only while it runs.
    if let Some(handshake) = handshake
        && !Box::pin(handshake.encrypt(&mut client, &worker)).await
    {
        return;
    }
    if is_http {
        client.origin.activity.rest();
        session::serve(&worker, client).await;
    } else {
        Box::pin(tcp::serve(&worker, client)).await;
    }
}

/// Waits for the client's first byte, and returns whether it begins no TLS. A client that sends none is left to the session, which
/// knows how long to wait.
async fn speaks_plainly(client: &mut Client, limit: Duration) -> bool {
    const HANDSHAKE: u8 = 22;
    let mut buffer = client.early.take().unwrap_or_default();
    if buffer.is_empty() {
        let ready = poll_fn(|cx| client.stream.poll_read_ready(cx));
        if !matches!(tokio::time::timeout(limit, ready).await, Ok(Ok(()))) {
            return true;
        }
        buffer = Buffer::take();
        if tokio::time::timeout(limit, io::read(&mut client.stream, &mut buffer))
            .await
            .is_err()
        {
            return true;
        }
    }
    let is_plain = buffer.filled().first() != Some(&HANDSHAKE);
    client.early = Some(buffer).filter(|buffer| !buffer.is_empty());
    is_plain
}

fn late(what: &str, limit: Duration) -> String {
    format!("{what} was not there within {} ms", limit.as_millis())
}

const fn is_http(frontend: &proxy::Frontend) -> bool {
    matches!(frontend.mode, Mode::Http { .. })
}

fn goes_by_name(frontend: &proxy::Frontend) -> bool {
    matches!(&frontend.mode, Mode::Tcp { sni, .. } if !sni.is_empty())
}

/// Reads enough to learn the server name. All of it is kept and forwarded.
async fn read_name(client: &mut Client) -> Result<(), Fault> {
    let mut buffer = client.early.take().unwrap_or_else(Buffer::take);
    loop {
        match client_hello::server_name(buffer.filled()) {
            Ok(client_hello::Progress::Partial) if !buffer.is_full() => {
                io::read(&mut client.stream, &mut buffer).await?;
            }
            Ok(client_hello::Progress::Done(name)) => {
                client.origin.server_name = name;
                break;
            }
            // Another protocol, or a client whose TLS the server will reject.
            Ok(client_hello::Progress::Partial) | Err(_) => break,
        }
    }
    client.early = Some(buffer).filter(|buffer| !buffer.is_empty());
    Ok(())
}

/// Why a connection has no usable PROXY header.
#[derive(Debug, thiserror::Error)]
enum HeaderError {
    #[error("no PROXY protocol header: {0}")]
    None(io::Fault),
    #[error("an endless header")]
    Endless,
    #[error(transparent)]
    Malformed(proxy_protocol::BadHeader),
    #[error("{}", late("its PROXY protocol header", *.0))]
    Late(Duration),
}

/// Reads the mandatory PROXY header.
async fn read_header(client: &mut Client) -> Result<(), HeaderError> {
    let mut buffer = Buffer::take();
    loop {
        let read = io::read(&mut client.stream, &mut buffer).await;
        read.map_err(HeaderError::None)?;
        match proxy_protocol::decode(buffer.filled()) {
            Ok(Progress::Done(header)) => {
                if let Carried::Proxied {
                    source,
                    destination,
                } = header.carried
                {
                    client.origin.address = source.ip();
                    client.origin.port = source.port();
                    client.origin.activity.is_of(source);
                    client.origin.ends = Some((source, destination));
                }
                buffer.consume(header.len);
                buffer.compact();
                client.early = Some(buffer).filter(|rest| !rest.is_empty());
                return Ok(());
            }
            Ok(Progress::Partial) if buffer.is_full() => return Err(HeaderError::Endless),
            Ok(Progress::Partial) => {}
            Err(error) => return Err(HeaderError::Malformed(error)),
        }
    }
}
