//! The second way of the VIP keepers' messages: every server that is no balancer answers balancers, and forwards their
//! messages to the others.
//!
//! A cut between the balancers alone then changes nothing. A relay need not be trusted: messages are sealed for their sender,
//! and a relay has no key. It runs on a thread of its own, since the agent may be busy for longer than an advertisement may be
//! late. Which balancers it serves, and how much, is decided by [`Relay`].

use crate::state::Boot;
use gaiola_core::topology;
use gaiola_core::vrrp::{LATEST, Relay};
use gaiola_model::{Placement, ServerName, Tier, Time};
use gaiola_wire::vrrp::{Datagram, LONGEST_DATAGRAM};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

/// Longest wait for a datagram: so long a changed order goes unnoticed.
const TURN: Duration = Duration::from_millis(50);
/// Interval between two attempts to open the socket.
const OPEN_INTERVAL: Duration = Duration::from_secs(1);

/// Where this server relays; `None`: it does not.
pub(super) fn socket_of(boot: &Boot) -> Option<SocketAddr> {
    let socket = boot.location.socket(boot.location.ports.agent);
    (boot.server.tier != Tier::Balancer).then_some(socket)
}

/// The keepers that this server relays between.
pub(super) fn keepers(placement: &Placement, server: ServerName) -> Vec<SocketAddr> {
    topology::relayed_keepers(placement, server)
}

/// The thread that relays; it ends when this is dropped.
pub struct RelayThread {
    keepers: Sender<Vec<SocketAddr>>,
    known: Vec<SocketAddr>,
}

impl RelayThread {
    /// Relays at this address and port. Nothing is accepted until keepers are named.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(at: SocketAddr) -> io::Result<Self> {
        let (keepers, changes) = mpsc::channel();
        let relay = std::thread::Builder::new().name("relay".into());
        relay.spawn(move || run(at, &changes))?;
        Ok(Self {
            keepers,
            known: Vec::new(),
        })
    }

    /// Relays between keepers that receive at these addresses.
    pub fn serve(&mut self, keepers: Vec<SocketAddr>) {
        if self.known != keepers {
            self.known.clone_from(&keepers);
            // The thread ends after this sender alone.
            let _ = self.keepers.send(keepers);
        }
    }
}

fn run(at: SocketAddr, changes: &Receiver<Vec<SocketAddr>>) {
    let mut relay = Relay::default();
    let mut complained = false;
    loop {
        match open(at) {
            Ok(socket) => return serve(&socket, relay, changes),
            Err(error) if !complained => {
                complained = true;
                tracing::warn!(%at, %error, "cannot relay between balancers yet");
            }
            Err(_) => {}
        }
        if !take_changes(&mut relay, changes) {
            return;
        }
        std::thread::sleep(OPEN_INTERVAL);
    }
}

fn open(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(at)?;
    socket.set_read_timeout(Some(TURN))?;
    Ok(socket)
}

/// Relays until the agent ends.
fn serve(socket: &UdpSocket, mut relay: Relay, changes: &Receiver<Vec<SocketAddr>>) {
    let began = Instant::now();
    let mut last_turn = Instant::now();
    let mut buffer = [0; LONGEST_DATAGRAM + 1];
    while take_changes(&mut relay, changes) {
        let received = socket.recv_from(&mut buffer);
        if last_turn.elapsed() > LATEST {
            discard(socket);
        } else if let Ok((length, from)) = received
            && relay.accepts(Time::from_start(began.elapsed()), from.ip())
        {
            treat(socket, &relay, from, &buffer[..length]);
        }
        last_turn = Instant::now();
    }
}

/// `false`: the agent ends.
fn take_changes(relay: &mut Relay, changes: &Receiver<Vec<SocketAddr>>) -> bool {
    loop {
        match changes.try_recv() {
            Ok(keepers) => *relay = Relay::new(keepers),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
}

/// This process slept: what waits may be too old.
fn discard(socket: &UdpSocket) {
    let mut byte = [0];
    if socket.set_nonblocking(true).is_ok() {
        while socket.recv_from(&mut byte).is_ok() {}
    }
    let _ = socket.set_nonblocking(false);
}

fn treat(socket: &UdpSocket, relay: &Relay, from: SocketAddr, bytes: &[u8]) {
    match Datagram::decode(bytes) {
        Some(Datagram::Ping(ping)) => send(socket, from, &Datagram::Pong(ping)),
        Some(Datagram::Message(message)) => {
            // Over IPv6 a message says itself whose it is.
            let IpAddr::V4(sender) = from.ip() else {
                return;
            };
            let relayed = Datagram::Relayed {
                from: sender,
                message,
            };
            pass_on(socket, relay, from, &relayed);
        }
        Some(Datagram::Wide(message)) => pass_on(socket, relay, from, &Datagram::Wide(message)),
        _ => {}
    }
}

fn pass_on(socket: &UdpSocket, relay: &Relay, from: SocketAddr, datagram: &Datagram<'_>) {
    for keeper in relay.others(from.ip()) {
        send(socket, keeper, datagram);
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, datagram: &Datagram<'_>) {
    if let Err(error) = socket.send_to(&datagram.encode(), to) {
        tracing::debug!(%error, %to, "cannot relay");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::vrrp::Ping;
    use std::net::Ipv4Addr;

    const LOCAL: [IpAddr; 3] = [
        IpAddr::V4(Ipv4Addr::new(127, 7, 1, 1)),
        IpAddr::V4(Ipv4Addr::new(127, 7, 1, 2)),
        IpAddr::V4(Ipv4Addr::new(127, 7, 1, 3)),
    ];

    fn keeper(at: IpAddr) -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((at, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn next(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 2000];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn it_answers_balancers_and_forwards_to_the_others_and_to_nobody_else() {
        let (one, at_one) = keeper(LOCAL[0]);
        let (other, at_other) = keeper(LOCAL[1]);
        let (stranger, _) = keeper(LOCAL[2]);
        let (_, at_relay) = keeper(LOCAL[2]);
        let mut relay = RelayThread::start(at_relay).unwrap();
        relay.serve(vec![at_one, at_other]);
        one.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        // Until the thread listens, the kernel refuses.
        let ping = Datagram::Ping(Ping(5)).encode();
        let mut buffer = [0; 100];
        let mut answers = |_: &u32| {
            let sent = one.send_to(&ping, at_relay);
            sent.and_then(|_| one.recv(&mut buffer)).is_ok()
        };
        assert!((0..200).any(|n| answers(&n)), "no answer");

        stranger.send_to(&ping, at_relay).unwrap();
        let message = Datagram::Message(b"from a stranger").encode();
        stranger.send_to(&message, at_relay).unwrap();
        let message = Datagram::Message(b"sealed").encode();
        one.send_to(&message, at_relay).unwrap();
        let relayed = Datagram::Relayed {
            from: Ipv4Addr::new(127, 7, 1, 1),
            message: b"sealed",
        };
        assert_eq!(next(&other), relayed.encode());
        let wide = Datagram::Wide(b"sealed by its sender").encode();
        one.send_to(&wide, at_relay).unwrap();
        assert_eq!(next(&other), wide);
        stranger.set_nonblocking(true).unwrap();
        assert!(stranger.recv(&mut buffer).is_err());
    }
}
