//! Shared limits: each proxy tells its peers what it has counted, and takes in what they tell.

use super::clock::since_epoch;
use super::limits::Limiter;
use super::supervisor::Supervisor;
use gaiola_model::proxy::{Most, Peers};
use gaiola_wire::peers::{MOST, Told, decode, encode};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

/// Between two times that counts are told.
const EVERY: Duration = Duration::from_millis(250);
/// A datagram that says it is older, or younger, is passed over.
const AGE: Duration = Duration::from_secs(10);
/// After the system refused to hear.
const BREATH: Duration = Duration::from_millis(10);
/// No datagram is longer.
const LONGEST: usize = 1500;
/// Between two lines of the log on the same trouble.
const SELDOM: Duration = Duration::from_secs(60);

/// Shares for ever, with whom the configuration in force says.
pub(super) async fn share(supervisor: Rc<Supervisor>) {
    let mut line: Option<Line> = None;
    let mut trouble = Trouble::default();
    loop {
        let next = Instant::now() + EVERY;
        let (config, limits) = supervisor.limits_in_force();
        let peers = config.as_ref().and_then(|config| config.peers.as_ref());
        let secret = config
            .as_ref()
            .and_then(|config| config.limit_secret.as_deref());
        let wanted = peers.zip(secret);
        if line.as_ref().map(|line| (&line.peers, &*line.secret)) != wanted {
            line = None; // closed before it is opened anew
            if let Some((peers, secret)) = wanted {
                match Line::open(peers, secret).await {
                    Ok(new) => line = Some(new),
                    Err(error) => {
                        trouble.tell(&format!("cannot hear peers at {}: {error}", peers.address))
                    }
                }
            }
        }
        let shared: Vec<_> = limits.into_iter().filter(is_shared).collect();
        let Some(line) = &mut line else {
            sleep_until(next).await;
            continue;
        };
        for limiter in &shared {
            line.tell(limiter).await;
        }
        tokio::select! {
            () = line.hear(&shared, &mut trouble) => {}
            () = sleep_until(next) => {}
        }
    }
}

fn is_shared(limiter: &Arc<Limiter>) -> bool {
    limiter.limit.shared && matches!(limiter.limit.most, Most::Rate { .. })
}

/// A socket that peers are heard at.
struct Line {
    peers: Peers,
    secret: String,
    socket: UdpSocket,
    /// Of what was sent last.
    stamp: u64,
    /// Of what each peer sent last.
    stamps: BTreeMap<SocketAddr, u64>,
}

impl Line {
    async fn open(peers: &Peers, secret: &str) -> std::io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::bind(peers.address).await?,
            peers: peers.clone(),
            secret: secret.into(),
            stamp: 0,
            stamps: BTreeMap::new(),
        })
    }

    /// Tells what was counted since the last time. What a peer does not get is lost: limits are let through rather than
    /// closed.
    async fn tell(&mut self, limiter: &Limiter) {
        let mut counts = Vec::new();
        limiter.export(&mut counts);
        for counts in counts.chunks(MOST) {
            let now = u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX);
            self.stamp = now.max(self.stamp + 1);
            let told = Told {
                stamp: self.stamp,
                limit: limiter.identity,
                counts: counts.to_vec(),
            };
            let datagram = encode(self.secret.as_bytes(), &told);
            for other in &self.peers.others {
                let _ = self.socket.send_to(&datagram, other).await;
            }
        }
    }

    /// Takes in what peers tell, for ever.
    async fn hear(&mut self, shared: &[Arc<Limiter>], trouble: &mut Trouble) {
        let mut buffer = [0; LONGEST];
        loop {
            // An error is one of an earlier datagram, of which a peer's system said that nobody is there.
            let Ok((length, from)) = self.socket.recv_from(&mut buffer).await else {
                tokio::time::sleep(BREATH).await;
                continue;
            };
            if !self.peers.others.contains(&from) {
                continue;
            }
            match decode(self.secret.as_bytes(), &buffer[..length]) {
                Ok(told) => self.take(from, &told, shared),
                Err(reason) => {
                    trouble.tell(&format!("a datagram of {from} is passed over: {reason}"))
                }
            }
        }
    }

    fn take(&mut self, from: SocketAddr, told: &Told, shared: &[Arc<Limiter>]) {
        let now = since_epoch();
        let age = Duration::from_nanos(told.stamp).abs_diff(now);
        let last = self.stamps.entry(from).or_default();
        if age > AGE || told.stamp <= *last {
            return;
        }
        *last = told.stamp;
        if let Some(limiter) = shared.iter().find(|limiter| limiter.identity == told.limit) {
            limiter.import(&told.counts, now);
        }
    }
}

/// What is told in the log now and then only.
#[derive(Default)]
struct Trouble(Option<Instant>);

impl Trouble {
    fn tell(&mut self, what: &str) {
        if self.0.is_none_or(|at| at.elapsed() > SELDOM) {
            self.0 = Some(Instant::now());
            tracing::warn!("not sharing limits with peers: {what}");
        }
    }
}
