//! The front door: copies TCP from a host's port to the site in turn, as DNS would spread its clients.
//!
//! It never retries and passes resets on, so that what a client sees here is what the site did.

use gaiola_os as os;
use gaiola_wire::proxy_protocol;
use rustix::net::RecvFlags;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
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

/// A client that is still sending when the site has ended is read from until it is silent for so long, and at most so long.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// One that may have more to send, for the site has said something within this time of its last bytes; and for how long.
const MOMENT: Duration = Duration::from_millis(200);
const BRIEF: (Duration, Duration) = (MOMENT, Duration::from_secs(1));
/// One to which something is on its way is reset once it has acknowledged that, or nothing more of it for this long.
const ACK_LIMIT: Duration = Duration::from_secs(1);

/// Serves until the listener fails.
///
/// # Errors
/// If connections can no longer be accepted.
pub async fn run(listener: TcpListener, targets: watch::Receiver<Targets>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MAXCONN));
    let mut turn = 0_usize;
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "the front door cannot accept a connection");
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

/// Copies both ways, half-closes included, until both have ended; an error resets both sides. A side that takes no more has
/// still said something: the other gets it.
async fn join(client: &TcpStream, mut site: TcpStream, proxy_protocol: bool) -> io::Result<()> {
    client.set_nodelay(true)?;
    site.set_nodelay(true)?;
    if proxy_protocol {
        let mut header = Vec::new();
        proxy_protocol::encode_v2(client.peer_addr()?, client.local_addr()?, &mut header);
        site.write_all(&header).await?;
    }
    let (up, down) = (Way::default(), Way::default());
    let copy_up = up.copy(client, &site, &down);
    let copy_down = down.copy(&site, client, &up);
    let ended = both((&up, copy_up), (&down, copy_down)).await;
    if ended.is_err() {
        reset(&site);
    }
    drop(site);
    match patience(client, &up, &down) {
        Some(patience) => read_on(client, patience).await,
        None if ended.is_err() => os::socket::acknowledged(client.as_fd(), ACK_LIMIT).await,
        None => {}
    }
    ended
}

/// For how long the client is read from before it is closed: it still sends, and may not have read the answer.
fn patience(client: &TcpStream, up: &Way, down: &Way) -> Option<(Duration, Duration)> {
    if up.is_over() || down.is_refused() {
        return None;
    }
    let answered = down.came.get()?;
    let was_answered =
        (up.came.get()).is_some_and(|sent| answered >= sent && sent.elapsed() < MOMENT);
    if up.is_refused() || has_unread(client) {
        Some(PATIENCE)
    } else {
        was_answered.then_some(BRIEF)
    }
}

fn has_unread(stream: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(
        rustix::net::recv(stream, &mut [0_u8][..], flags),
        Ok((1.., _))
    )
}

/// Until nothing more can come either way: both have ended, one has broken, or one has ended and takes no more.
async fn both(
    (up, copy_up): (&Way, impl Future<Output = io::Result<()>>),
    (down, copy_down): (&Way, impl Future<Output = io::Result<()>>),
) -> io::Result<()> {
    let (mut copy_up, mut copy_down) = (pin!(copy_up), pin!(copy_down));
    poll_fn(|cx| {
        for (way, copy) in [
            (up, copy_up.as_mut() as Pin<&mut dyn Future<Output = _>>),
            (down, copy_down.as_mut()),
        ] {
            if !way.is_over()
                && let Poll::Ready(ended) = copy.poll(cx)
            {
                way.over.set(true);
                ended?;
            }
        }
        let is_over =
            |one: &Way, other: &Way| one.is_over() && (other.is_over() || other.is_refused());
        if is_over(up, down) || is_over(down, up) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Copying one way.
#[derive(Default)]
struct Way {
    /// Why its sink takes no more, once it does not. What its source still sends is forgotten.
    refused: Cell<Option<io::ErrorKind>>,
    over: Cell<bool>,
    /// When the last bytes came.
    came: Cell<Option<Instant>>,
}

impl Way {
    fn is_refused(&self) -> bool {
        self.refused.get().is_some()
    }

    /// Whether nothing more comes from its source.
    fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Copies without a buffer while nothing is there to copy, until the source ends. `back` is the other way.
    async fn copy(&self, from: &TcpStream, to: &TcpStream, back: &Self) -> io::Result<()> {
        loop {
            from.readable().await?;
            let mut buffer = [0_u8; 16 * 1024];
            match from.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(_) if self.is_refused() => {}
                Ok(count) => {
                    self.came.set(Some(Instant::now()));
                    if let Err(error) = write_all(to, &buffer[..count]).await {
                        self.refused.set(Some(error.kind()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        // The system reports a reset once, and the writer has seen it. One that had ended before is a broken pipe.
        if back.refused.get() == Some(io::ErrorKind::ConnectionReset) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.is_refused() {
            Ok(())
        } else {
            rustix::net::shutdown(to, rustix::net::Shutdown::Write).or_else(already_gone)
        }
    }
}

/// Reads and forgets what the client still sends, until it ends or is silent for too long.
async fn read_on(client: &TcpStream, (silence, longest): (Duration, Duration)) {
    let all = async {
        let mut buffer = vec![0_u8; 64 * 1024];
        while tokio::time::timeout(silence, client.readable())
            .await
            .is_ok()
        {
            match client.try_read(&mut buffer) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {}
            }
        }
    };
    let _ = tokio::time::timeout(longest, all).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener as Listener, TcpStream as Stream};

    /// More than the system holds on the way.
    const BODY: usize = 60 << 20;

    /// A front door before a site that does this with its connections.
    fn before(site: impl Fn(Stream) + Send + 'static) -> SocketAddr {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.incoming().flatten().for_each(site));
        let door = Listener::bind("127.0.0.1:0").unwrap();
        door.set_nonblocking(true).unwrap();
        let address = door.local_addr().unwrap();
        // The threads end with the test's process.
        std::thread::spawn(move || {
            let targets = Targets {
                addresses: vec![(target, false)],
            };
            let (_sender, targets) = watch::channel(targets);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let serving = async { run(TcpListener::from_std(door)?, targets).await };
            tokio::task::LocalSet::new()
                .block_on(&runtime, serving)
                .unwrap();
        });
        address
    }

    /// What a client reads that sends all of this first.
    fn answered(door: SocketAddr, body: usize) -> (io::Result<()>, Vec<u8>, io::Result<usize>) {
        let mut client = Stream::connect(door).unwrap();
        let sent = client.write_all(&vec![7; body]);
        let mut all = Vec::new();
        let end = client.read_to_end(&mut all);
        (sent, all, end)
    }

    #[test]
    fn an_early_answer_reaches_a_client_that_is_still_sending() {
        let door = before(|mut site| {
            let mut head = [0; 100];
            site.read_exact(&mut head).unwrap();
            // Closed with bytes that nobody has read, which resets it.
            site.write_all(b"400").unwrap();
        });
        for _ in 0..6 {
            let (sent, all, _) = answered(door, BODY);
            sent.unwrap();
            assert_eq!(all, b"400");
        }
    }

    #[test]
    fn an_answer_that_ends_in_good_order_does_so_for_the_client() {
        let door = before(|mut site| {
            site.read_exact(&mut [0; 100]).unwrap();
            site.write_all(b"400").unwrap();
            site.shutdown(std::net::Shutdown::Write).unwrap();
            // Some of what comes is read, as by one who closes gently.
            site.read_exact(&mut [0; 100_000]).unwrap();
        });
        for _ in 0..6 {
            let (sent, all, end) = answered(door, BODY);
            sent.unwrap();
            assert_eq!(all, b"400");
            end.unwrap();
        }
    }

    #[test]
    fn what_a_client_says_before_it_leaves_arrives() {
        let (sender, said) = std::sync::mpsc::channel();
        let door = before(move |mut site| {
            // Nobody reads this.
            let _ = site.write_all(&[7; 100_000]);
            let mut all = Vec::new();
            let _ = site.read_to_end(&mut all);
            sender.send(all).unwrap();
        });
        let mut client = Stream::connect(door).unwrap();
        client.read_exact(&mut [0; 10]).unwrap();
        client.write_all(b"quit").unwrap();
        drop(client);
        assert_eq!(said.recv().unwrap(), b"quit");
    }

    #[test]
    fn a_reset_is_passed_on_at_once_to_a_client_that_waits() {
        let door = before(|mut site| {
            site.read_exact(&mut [0; 4]).unwrap();
            socket2::SockRef::from(&site)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        });
        let began = Instant::now();
        for _ in 0..12 {
            let (_, _, end) = answered(door, 4);
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        // A second for each would be longer.
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_reset_is_passed_on() {
        let door = before(|mut site| {
            site.read_exact(&mut [0; 4]).unwrap();
            site.write_all(b"half").unwrap();
            socket2::SockRef::from(&site)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        });
        let (_, all, end) = answered(door, 4);
        assert!(all.is_empty() || all == b"half");
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
