//! Shared limits: each proxy sends its counts to its peers, and adds the counts it receives.

use super::clock::since_epoch;
use super::limits::Limiter;
use super::supervisor::Supervisor;
use gaiola_model::proxy::{Most, Peers};
use gaiola_wire::peers::{CountUpdate, MOST, Rejected, decode, encode};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

/// Interval at which counts are sent.
const EVERY: Duration = Duration::from_millis(250);
/// Datagrams with a time further off than this, in the past or future, are ignored.
const AGE: Duration = Duration::from_secs(10);
/// Pause after receiving failed.
const RETRY_DELAY: Duration = Duration::from_millis(10);
/// Longest datagram.
const LONGEST: usize = 1500;
/// Interval between two log lines about peers.
const SELDOM: Duration = Duration::from_secs(60);

/// Exchanges counts with the peers of the current configuration. Never returns.
pub(super) async fn share(supervisor: Rc<Supervisor>) {
    let mut line: Option<Line> = None;
    let mut log = SeldomLog::default();
    loop {
        let next = Instant::now() + EVERY;
        if supervisor.orders().leaving {
            // The other process receives what the peers send.
            line = None;
            supervisor.until_leaving(false).await;
        }
        let (config, limits) = supervisor.limits_in_force();
        let peers = config.as_ref().and_then(|config| config.peers.as_ref());
        let secret = config
            .as_ref()
            .and_then(|config| config.limit_secret.as_deref());
        let wanted = peers.zip(secret);
        if line.as_ref().map(|line| (&line.peers, &*line.secret)) != wanted {
            // Closed before it is opened again.
            line = None;
            let handed = supervisor.endpoints.borrow_mut().peers.take();
            if let Some((peers, secret)) = wanted {
                match Line::open(peers, secret, handed, &supervisor).await {
                    Ok(new) => line = Some(new),
                    Err(source) => log.warn(&PeerError::Bind {
                        address: peers.address,
                        source,
                    }),
                }
            }
        }
        let shared: Vec<_> = limits.into_iter().filter(is_shared).collect();
        let Some(line) = &mut line else {
            sleep_until(next).await;
            continue;
        };
        for limiter in &shared {
            line.send(limiter).await;
        }
        tokio::select! {
            () = line.receive(&shared, &mut log) => {}
            () = sleep_until(next) => {}
        }
    }
}

fn is_shared(limiter: &Arc<Limiter>) -> bool {
    limiter.limit.shared && matches!(limiter.limit.most, Most::Rate { .. })
}

/// The socket for exchanging datagrams with peers.
struct Line {
    peers: Peers,
    secret: String,
    socket: UdpSocket,
    /// The stamp sent last.
    stamp: u64,
    /// The stamp last received from each peer.
    stamps: BTreeMap<SocketAddr, u64>,
}

impl Line {
    /// Opens it, with the socket of the process that this one took over from if that has the same address.
    async fn open(
        peers: &Peers,
        secret: &str,
        handed: Option<(SocketAddr, OwnedFd)>,
        supervisor: &Supervisor,
    ) -> std::io::Result<Self> {
        let socket = match handed.filter(|(address, _)| *address == peers.address) {
            Some((_, socket)) => UdpSocket::from_std(socket.into())?,
            None => UdpSocket::bind(peers.address).await?,
        };
        let copy = socket.as_fd().try_clone_to_owned()?;
        supervisor.endpoints.borrow_mut().peers = Some((peers.address, copy));
        Ok(Self {
            socket,
            peers: peers.clone(),
            secret: secret.into(),
            stamp: 0,
            stamps: BTreeMap::new(),
        })
    }

    /// Sends what was counted since the last time. What a peer misses is lost: limits err on the side of admitting.
    async fn send(&mut self, limiter: &Limiter) {
        let mut counts = Vec::new();
        limiter.export(&mut counts);
        for counts in counts.chunks(MOST) {
            let now = u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX);
            self.stamp = now.max(self.stamp + 1);
            let message = CountUpdate {
                stamp: self.stamp,
                limit: limiter.identity,
                counts: counts.to_vec(),
            };
            let datagram = encode(self.secret.as_bytes(), &message);
            for other in &self.peers.others {
                let _ = self.socket.send_to(&datagram, other).await;
            }
        }
    }

    /// Adds the counts that peers send. Never returns.
    async fn receive(&mut self, shared: &[Arc<Limiter>], log: &mut SeldomLog) {
        let mut buffer = [0; LONGEST];
        loop {
            // An error belongs to an earlier datagram: the peer's system reported that nothing listens there.
            let Ok((length, from)) = self.socket.recv_from(&mut buffer).await else {
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            };
            if !self.peers.others.contains(&from) {
                continue;
            }
            match decode(self.secret.as_bytes(), &buffer[..length]) {
                Ok(message) => self.take(from, &message, shared),
                Err(source) => log.warn(&PeerError::Datagram { from, source }),
            }
        }
    }

    fn take(&mut self, from: SocketAddr, message: &CountUpdate, shared: &[Arc<Limiter>]) {
        let now = since_epoch();
        let age = Duration::from_nanos(message.stamp).abs_diff(now);
        let last = self.stamps.entry(from).or_default();
        if age > AGE || message.stamp <= *last {
            return;
        }
        *last = message.stamp;
        if let Some(limiter) = shared
            .iter()
            .find(|limiter| limiter.identity == message.limit)
        {
            limiter.import(&message.counts, now);
        }
    }
}

/// Why limits are not shared with all peers.
#[derive(Debug, thiserror::Error)]
enum PeerError {
    #[error("cannot receive at {address}")]
    Bind {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("ignored a datagram of {from}")]
    Datagram { from: SocketAddr, source: Rejected },
}

/// A log of troubles that repeat themselves: one in a while is written.
#[derive(Default)]
struct SeldomLog(Option<Instant>);

impl SeldomLog {
    fn warn(&mut self, trouble: &PeerError) {
        if self.0.is_none_or(|at| at.elapsed() > SELDOM) {
            self.0 = Some(Instant::now());
            let error = gaiola_os::chain(trouble);
            tracing::warn!(error, "not sharing limits with a peer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_of_a_newer_format_names_the_proxy_that_is_too_old() {
        let source = decode(b"secret", b"gaiola\x00\x02").unwrap_err();
        let from = ([192, 0, 2, 1], 4711).into();
        assert_eq!(
            gaiola_os::chain(&PeerError::Datagram { from, source }),
            "ignored a datagram of 192.0.2.1:4711: this proxy is too old: the sender's format is version 2, \
             and it reads up to version 1"
        );
    }
}
