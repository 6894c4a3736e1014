//! How a keeper's messages travel: sealed, by multicast or by UDP, and a second time through relays.

use super::network::{Network, believe_message};
use gaiola_core::vrrp::{Contact, Freshness, Surroundings};
use gaiola_model::Time;
use gaiola_model::keeper::{KeeperConfig, KeeperUdp};
use gaiola_model::vrrp::{Hello, Message, Ping, Stamp};
use gaiola_wire::vrrp::{
    self, Checksum, Datagram, Endpoints, Key, LONGEST_DATAGRAM, Received, Rejected, wide,
};
use rustix::net::sockopt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Interval between two attempts to open the UDP sockets.
const OPEN_INTERVAL: Duration = Duration::from_millis(500);

/// The most answers read from one relay at once; the rest waits for the next turn, after deadlines were met.
const MOST_SIGNS: usize = 32;

/// Traffic class of network control (RFC 2474: CS6).
const NETWORK_CONTROL: u8 = 0xc0;

/// A message from another keeper, or why it is not believed.
pub(super) type Heard = Result<(IpAddr, Received), Rejected>;

/// Says and hears messages.
pub(super) struct Voice {
    address: IpAddr,
    key: Option<Key>,
    freshness: Freshness,
    contact: Contact,
    udp: Option<KeeperUdp>,
    sockets: Option<Sockets>,
    open_at: Time,
    /// A relay's server refused a datagram, as a later one was sent.
    was_refused: bool,
    datagrams_first: bool,
}

/// Open UDP sockets.
struct Sockets {
    /// What others send on their own: messages.
    messages: UdpSocket,
    /// One for each relay, so that the kernel reports which one refuses.
    relays: Vec<UdpSocket>,
}

impl Voice {
    /// A keeper that has no configuration yet. `time_of_day` begins the stamps of its sealed messages, `first_ping` is random.
    pub(super) fn new(time_of_day: Stamp, first_ping: u64) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            key: None,
            freshness: Freshness::new(time_of_day),
            contact: Contact::new(first_ping),
            udp: None,
            sockets: None,
            open_at: Time::ZERO,
            was_refused: false,
            datagrams_first: false,
        }
    }

    /// Applies a new configuration.
    pub(super) fn configure(&mut self, now: Time, config: &KeeperConfig) {
        let key = config.key.as_deref();
        self.key = key.and_then(|key| Key::from_hex(key).ok());
        let udp = config.udp.clone().filter(|_| self.key.is_some());
        if (&self.udp, self.address) != (&udp, config.address) {
            self.sockets = None;
            self.open_at = now;
        }
        self.address = config.address;
        let around = Surroundings {
            relays: udp.as_ref().is_some_and(|udp| !udp.relays.is_empty()),
            balancers: udp.as_ref().is_some_and(|udp| udp.has_heir),
        };
        let interval = Duration::from_millis(config.interval_ms.into());
        self.contact.configure(now, around, interval);
        self.udp = udp;
    }

    /// Opens the sockets if they are not, and asks the relays whether they hear this server if that is due.
    pub(super) fn keep_contact(&mut self, now: Time) {
        self.open(now);
        if std::mem::take(&mut self.was_refused) {
            self.contact.refused(now);
        }
        if let Some(ping) = self.contact.ping(now) {
            self.send_to_relays(&Datagram::Ping(ping));
        }
    }

    /// Whether nobody hears this server.
    pub(super) fn is_cut_off(&self, now: Time) -> bool {
        // Without sockets it has not asked anybody.
        self.sockets.is_some() && self.contact.is_cut_off(now)
    }

    /// When to call [`keep_contact`](Self::keep_contact) and [`is_cut_off`](Self::is_cut_off) if nothing else happens first.
    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        let opens = self.udp.is_some() && self.sockets.is_none();
        let open = opens.then_some(self.open_at);
        self.contact
            .next_deadline(now)
            .into_iter()
            .chain(open)
            .min()
    }

    /// Adds the descriptors to poll.
    pub(super) fn descriptors<'a>(&'a self, all: &mut Vec<BorrowedFd<'a>>) {
        let Some(sockets) = &self.sockets else { return };
        all.push(sockets.messages.as_fd());
        all.extend(sockets.relays.iter().map(AsFd::as_fd));
    }

    /// Sends a message on every way. A failure counts as loss on the way.
    ///
    /// `is_wide`: it goes over IPv6, since its VIP or this server has an IPv6 address.
    pub(super) fn say(&mut self, network: &Network, message: &Message, is_wide: bool) {
        let stamp = self.freshness.stamp();
        match self.address {
            IpAddr::V4(source) if !is_wide && !wide::is_needed(message) => {
                let payload = self.narrow(message, source, stamp);
                // By multicast too: a keeper that does not know this balancer yet, or knows no UDP, hears it where the network passes it.
                network.say(&payload);
                self.send(&Datagram::Message(&payload));
            }
            _ => {
                let payload = self.wide(message, stamp);
                network.say_wide(&payload);
                self.send(&Datagram::Wide(&payload));
            }
        }
    }

    fn narrow(&self, message: &Message, source: Ipv4Addr, stamp: Stamp) -> Vec<u8> {
        let seal = self.key.as_ref().map(|key| (key, stamp));
        let endpoints = Endpoints {
            source,
            destination: vrrp::GROUP,
        };
        vrrp::encode(message, endpoints, Checksum::default(), seal)
    }

    fn wide(&self, message: &Message, stamp: Stamp) -> Vec<u8> {
        let router = self.address;
        let seal = |key| wide::Seal { key, stamp, router };
        wide::encode(message, self.key.as_ref().map(seal))
    }

    /// Sends by UDP, where that is configured.
    fn send(&mut self, datagram: &Datagram<'_>) {
        let Some(udp) = &self.udp else { return };
        if udp.unicast {
            self.send_to_balancers(udp, datagram);
        }
        self.send_to_relays(datagram);
    }

    /// The next message in the queues; `None`: no more.
    pub(super) fn hear(&mut self, network: &Network) -> Option<Heard> {
        // In turn: a flood on one way does not keep the other from being heard.
        self.datagrams_first = !self.datagrams_first;
        if self.datagrams_first {
            let heard = self.hear_datagram();
            return heard.or_else(|| network.hear(self.key.as_ref()));
        }
        let heard = network.hear(self.key.as_ref());
        heard.or_else(|| self.hear_datagram())
    }

    /// Whether a message is believed to be new: sealed ones are heard once. `Err`: it was heard before, and not just on another
    /// way.
    pub(super) fn is_new(
        &mut self,
        from: IpAddr,
        message: &Message,
        stamp: Option<Stamp>,
    ) -> Result<bool, &'static str> {
        let Some(stamp) = stamp else {
            // Only a sealed site sends hellos.
            return Ok(matches!(message, Message::Advertisement(_)));
        };
        if self.udp.is_some() && self.freshness.is_copy(from, message, stamp) {
            return Ok(false);
        }
        if !self.freshness.is_new(from, message, stamp) {
            return Err("heard before");
        }
        Ok(true)
    }

    /// Another balancer's hello.
    pub(super) fn note_hello(&mut self, now: Time, hello: &Hello) {
        if hello.hears(self.address) {
            self.contact.is_heard(now);
        }
    }

    fn open(&mut self, now: Time) {
        let Some(udp) = &self.udp else { return };
        if self.sockets.is_some() || now < self.open_at {
            return;
        }
        self.open_at = now + OPEN_INTERVAL;
        match Sockets::open(self.address, udp) {
            Ok(sockets) => self.sockets = Some(sockets),
            Err(error) => tracing::warn!(%error, "cannot open the keeper's UDP sockets"),
        }
    }

    /// Notes answers of relays, and refusals of their servers.
    pub(super) fn hear_relays(&mut self, now: Time) {
        let Some(sockets) = &self.sockets else { return };
        let mut buffer = [0; LONGEST_DATAGRAM + 1];
        for relay in &sockets.relays {
            let signs = std::iter::from_fn(|| sign(relay, &mut buffer));
            for sign in signs.take(MOST_SIGNS) {
                match sign {
                    Sign::Pong(ping) => self.contact.answered(now, ping),
                    Sign::Refusal => self.contact.refused(now),
                    Sign::Nothing => {}
                }
            }
        }
    }

    fn hear_datagram(&mut self) -> Option<Heard> {
        let sockets = self.sockets.as_ref()?;
        let mut buffer = [0; LONGEST_DATAGRAM + 1];
        let (datagram, sender) = receive(&sockets.messages, &mut buffer)?;
        let (from, message) = match datagram {
            Some(Datagram::Message(message)) => (sender, message),
            Some(Datagram::Relayed { from, message }) if self.is_relay(sender) => {
                (from.into(), message)
            }
            Some(Datagram::Wide(message)) => {
                return Some(wide::decode(message, None, self.key.as_ref()));
            }
            _ => return Some(Err(Rejected::Malformed)),
        };
        Some(believe_message(message, from, self.key.as_ref()))
    }

    fn is_relay(&self, sender: IpAddr) -> bool {
        let relays = self.udp.iter().flat_map(|udp| &udp.relays);
        relays.into_iter().any(|relay| relay.ip() == sender)
    }

    fn send_to_balancers(&self, udp: &KeeperUdp, datagram: &Datagram<'_>) {
        let Some(sockets) = &self.sockets else { return };
        let bytes = datagram.encode();
        for balancer in &udp.balancers {
            if let Err(error) = sockets.messages.send_to(&bytes, balancer) {
                tracing::debug!(%error, %balancer, "cannot send");
            }
        }
    }

    fn send_to_relays(&mut self, datagram: &Datagram<'_>) {
        let Some(sockets) = &self.sockets else { return };
        let bytes = datagram.encode();
        for relay in &sockets.relays {
            // An error may be that of an earlier datagram.
            if let Err(error) = relay.send(&bytes) {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    self.was_refused = true;
                    let _ = relay.send(&bytes);
                }
                tracing::debug!(%error, "cannot send to a relay");
            }
        }
    }
}

impl Sockets {
    fn open(address: IpAddr, udp: &KeeperUdp) -> io::Result<Self> {
        let open = |port| {
            let socket = UdpSocket::bind(SocketAddr::new(address, port))?;
            socket.set_nonblocking(true)?;
            match address {
                IpAddr::V4(_) => sockopt::set_ip_tos(&socket, NETWORK_CONTROL)?,
                IpAddr::V6(_) => sockopt::set_ipv6_tclass(&socket, NETWORK_CONTROL.into())?,
            }
            Ok::<_, io::Error>(socket)
        };
        let connect = |relay: &SocketAddr| {
            let socket = open(0)?;
            socket.connect(relay)?;
            Ok::<_, io::Error>(socket)
        };
        Ok(Self {
            messages: open(udp.port)?,
            // One without a route is not asked; the others are enough.
            relays: udp
                .relays
                .iter()
                .filter_map(|it| connect(it).ok())
                .collect(),
        })
    }
}

/// What a relay's socket reports.
enum Sign {
    Pong(Ping),
    /// The server's kernel answered: no relay runs there.
    Refusal,
    Nothing,
}

/// The next sign in the queue of a relay's socket.
fn sign(relay: &UdpSocket, buffer: &mut [u8]) -> Option<Sign> {
    match relay.recv(buffer) {
        Ok(length) => match Datagram::decode(&buffer[..length]) {
            Some(Datagram::Pong(ping)) => Some(Sign::Pong(ping)),
            _ => Some(Sign::Nothing),
        },
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Some(Sign::Refusal),
        // Such as "no route to host": each is reported once.
        Err(_) => Some(Sign::Nothing),
    }
}

/// The next datagram in the queue, `None` within: none of ours.
fn receive<'a>(socket: &UdpSocket, buffer: &'a mut [u8]) -> Option<(Option<Datagram<'a>>, IpAddr)> {
    let (length, sender) = socket.recv_from(buffer).ok()?;
    Some((Datagram::decode(&buffer[..length]), sender.ip()))
}
