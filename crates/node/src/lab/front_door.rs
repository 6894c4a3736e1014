//! The front door: copies TCP from a host's port to the site in turn, as DNS would spread its clients.
//!
//! It never retries and passes resets on, so that what a client sees here is what the site did.

use gaiola_wire::proxy_protocol;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Where the front door leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Addresses that take turns, each with whether it expects a connection to begin with a PROXY protocol header.
    pub addresses: Vec<(SocketAddr, bool)>,
}

/// Most connections at a time; further ones wait in the listen queue.
const MAXCONN: usize = 8192;
/// A target that does not accept within this time counts as unreachable; the client's connection is reset.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Serves until the listener fails.
///
/// # Errors
/// Where connections can no longer be accepted.
pub async fn run(listener: TcpListener, targets: watch::Receiver<Targets>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MAXCONN));
    let mut turn = 0_usize;
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!("front door: cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some((target, proxy_protocol)) = next_target(&targets.borrow(), &mut turn) else {
            reset(&client);
            continue;
        };
        tokio::task::spawn_local(async move {
            let _place = place;
            lead_in(client, target, proxy_protocol).await;
        });
    }
}

fn next_target(targets: &Targets, turn: &mut usize) -> Option<(SocketAddr, bool)> {
    *turn = turn.wrapping_add(1);
    let index = turn.checked_rem(targets.addresses.len())?;
    Some(targets.addresses[index])
}

async fn lead_in(client: TcpStream, target: SocketAddr, proxy_protocol: bool) {
    let connected = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(target)).await;
    let Ok(Ok(site)) = connected else {
        reset(&client);
        return;
    };
    if join(&client, site, proxy_protocol).await.is_err() {
        reset(&client);
    }
}

/// Copies both ways, half-closes included, until both have ended; an error resets both sides.
async fn join(client: &TcpStream, mut site: TcpStream, proxy_protocol: bool) -> io::Result<()> {
    client.set_nodelay(true)?;
    site.set_nodelay(true)?;
    if proxy_protocol {
        let mut header = Vec::new();
        proxy_protocol::encode_v2(client.peer_addr()?, client.local_addr()?, &mut header);
        site.write_all(&header).await?;
    }
    let copied = tokio::try_join!(copy(client, &site), copy(&site, client));
    copied.map(|_| ()).inspect_err(|_| reset(&site))
}

/// Copies one way without a buffer while nothing is there to copy.
async fn copy(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut buffer = [0_u8; 16 * 1024];
        match from.try_read(&mut buffer) {
            Ok(0) => {
                return rustix::net::shutdown(to, rustix::net::Shutdown::Write)
                    .or_else(already_gone);
            }
            Ok(count) => write_all(to, &buffer[..count]).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn already_gone(errno: rustix::io::Errno) -> io::Result<()> {
    if errno == rustix::io::Errno::NOTCONN {
        Ok(())
    } else {
        Err(errno.into())
    }
}

/// Makes the close that follows a reset.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
