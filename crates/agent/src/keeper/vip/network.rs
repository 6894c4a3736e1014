//! The interface: packets received and sent on it, and its addresses.

use gaiola_core::vrrp::ADDRESS_LIFETIME;
use gaiola_model::Time;
use gaiola_os::netlink::{Lifetime, LinkWatch, Netlink, NetlinkError};
use gaiola_os::packet::{FrameSocket, GroupSocket, SynSocket, WideGroupSocket};
use gaiola_os::tcp;
use gaiola_wire::arp::{Arp, ETHERTYPE, Mac};
use gaiola_wire::ndp;
use gaiola_wire::vrrp::{self, Endpoints, Ipv4Packet, Key, Received, Rejected, wide};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The most SYNs that are forwarded at once, within the time that an advertisement may be late.
const MOST_PASSED_ON: usize = 4096;

/// The longest that resetting connections may delay the removal of an address, which the next holder waits for.
const LONGEST_RESET: Duration = Duration::from_millis(20);

/// Until packets to a new address are delivered: less than an interval between advertisements.
const DELIVERY_LIMIT: Duration = Duration::from_millis(50);
const DELIVERY_POLL: Duration = Duration::from_micros(500);

/// Interval between two attempts to open what messages over IPv6 need.
const WIDEN_INTERVAL: Duration = Duration::from_millis(200);

/// An open interface.
pub(super) struct Network {
    interface: String,
    address: IpAddr,
    index: u32,
    mac: Mac,
    running: bool,
    netlink: Netlink,
    links: LinkWatch,
    /// Where the server has an IPv4 address.
    narrow: Option<GroupSocket>,
    /// Where a VIP or the server has an IPv6 address.
    wide: Option<WideGroupSocket>,
    widen_at: Time,
    link_local: Option<IpAddr>,
    arp: FrameSocket,
    ndp: FrameSocket,
    /// Sockets with the captured SYNs, by VIP.
    kept: BTreeMap<IpAddr, SynSocket>,
}

/// The interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkError {
    #[error("{0}: {source}", source = std::error::Error::source(.0).map(ToString::to_string).unwrap_or_default())]
    Netlink(#[from] NetlinkError),
    #[error("{0} has no Ethernet address")]
    NotEthernet(String),
    #[error("cannot open a raw socket on {0}: {1}")]
    Socket(String, io::Error),
}

impl Network {
    /// Opens the interface of this name for a server with this address on it.
    pub(super) fn open(interface: &str, address: IpAddr) -> Result<Self, NetworkError> {
        let links = LinkWatch::open()?;
        let mut netlink = Netlink::open()?;
        let link = netlink.link(interface)?;
        let mac = link
            .mac
            .ok_or_else(|| NetworkError::NotEthernet(interface.into()))?;
        let socket = |error| NetworkError::Socket(interface.into(), error);
        let narrow = match address {
            IpAddr::V4(address) => Some(group_socket(interface, link.index, address)),
            IpAddr::V6(_) => None,
        };
        Ok(Self {
            interface: interface.into(),
            address,
            index: link.index,
            mac: Mac(mac),
            running: link.running,
            netlink,
            links,
            narrow: narrow.transpose().map_err(socket)?,
            wide: None,
            widen_at: Time::ZERO,
            link_local: None,
            arp: FrameSocket::open(link.index, ETHERTYPE).map_err(socket)?,
            ndp: FrameSocket::open(link.index, ndp::ETHERTYPE).map_err(socket)?,
            kept: BTreeMap::new(),
        })
    }

    /// Whether this is the interface of that name, with that address.
    pub(super) fn is(&self, interface: &str, address: IpAddr) -> bool {
        self.interface == interface && self.address == address
    }

    /// Opens what messages over IPv6 need, or closes it. Where that fails none is sent or heard, and it is tried again.
    pub(super) fn widen(&mut self, now: Time, is_wide: bool) {
        if !is_wide {
            self.wide = None;
            return;
        }
        if (self.wide.is_some() && self.link_local.is_some()) || now < self.widen_at {
            return;
        }
        self.widen_at = now + WIDEN_INTERVAL;
        if self.wide.is_none() {
            let (protocol, checksum) = (vrrp::PROTOCOL, wide::CHECKSUM_AT);
            let opened =
                WideGroupSocket::open(&self.interface, self.index, wide::GROUP, protocol, checksum);
            match opened {
                Ok(socket) => self.wide = Some(socket),
                Err(error) => tracing::warn!(%error, "cannot open a raw socket of IPv6"),
            }
        }
        let addresses = self.netlink.addresses(&self.interface).unwrap_or_default();
        let mut addresses = addresses.into_iter().map(|it| it.ip);
        self.link_local = addresses.find(is_link_local);
    }

    /// Reads the link again if one has changed; `Err`: the interface that was opened is gone.
    pub(super) fn refresh(&mut self) -> Result<(), NetworkError> {
        if !self.links.changed() {
            return Ok(());
        }
        let link = self.netlink.link(&self.interface)?;
        if link.index != self.index || link.mac != Some(self.mac.0) {
            *self = Self::open(&self.interface, self.address)?;
        }
        self.running = link.running;
        Ok(())
    }

    /// Whether it is up and has a carrier.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// Whether messages can be sent and received over IPv6.
    pub(super) fn is_wide(&self) -> bool {
        self.wide.is_some() && self.link_local.is_some()
    }

    /// The interface's link-local address; `None`: it has none yet, or needs none.
    pub(super) fn link_local(&self) -> Option<IpAddr> {
        self.link_local
    }

    /// The next packet in the queues; `None`: no more.
    pub(super) fn hear(&self, key: Option<&Key>) -> Option<Result<(IpAddr, Received), Rejected>> {
        let mut buffer = [0; 2048];
        if let Some(narrow) = &self.narrow {
            match narrow.receive(&mut buffer) {
                Ok(Some(packet)) => return Some(believe(packet, key)),
                Ok(None) => {}
                // Such as the interface going down, which the link watch reports as well.
                Err(error) => tracing::debug!(%error, "cannot receive"),
            }
        }
        match self.wide.as_ref()?.receive(&mut buffer) {
            Ok(received) => received.map(|(payload, source)| {
                let source = Some(IpAddr::V6(source));
                wide::decode(payload, source, key)
            }),
            Err(error) => {
                tracing::debug!(%error, "cannot receive over IPv6");
                None
            }
        }
    }

    /// Sends an encoded message to the group. A failure counts as loss on the way.
    pub(super) fn say(&self, payload: &[u8]) {
        let sent = self.narrow.as_ref().map(|narrow| narrow.send(payload));
        if let Some(Err(error)) = sent {
            tracing::debug!(%error, "cannot send");
        }
    }

    /// The same over IPv6, from the interface's link-local address.
    pub(super) fn say_wide(&self, payload: &[u8]) {
        let sent = self.wide.as_ref().map(|wide| wide.send(payload));
        if let Some(Err(error)) = sent {
            tracing::debug!(%error, "cannot send over IPv6");
        }
    }

    /// Announces to the neighbours that `vip` is here.
    pub(super) fn announce(&self, vip: IpAddr) {
        let sent = match vip {
            IpAddr::V4(vip) => {
                let mut both = Arp::announcements(vip, self.mac).into_iter();
                both.try_for_each(|arp| self.arp.send(&arp.encode()))
            }
            IpAddr::V6(vip) => self.ndp.send(&ndp::announcement(vip, self.mac)),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, %vip, "cannot announce");
        }
    }

    /// Captures the SYNs that arrive for `vip` from now on. If that fails, their clients retransmit them.
    pub(super) fn hold_back(&mut self, vip: IpAddr) {
        match SynSocket::open(&self.interface, self.index, vip) {
            Ok(socket) => {
                self.kept.insert(vip, socket);
            }
            Err(error) => tracing::warn!(%error, %vip, "cannot hold back new connections"),
        }
    }

    /// Forwards the captured SYNs to the server that has `vip` now.
    pub(super) fn pass_on(&mut self, vip: IpAddr) {
        let Some(kept) = self.kept.remove(&vip) else {
            return;
        };
        let mut passed_on = 0;
        let mut buffer = [0; 2048];
        while passed_on < MOST_PASSED_ON
            && let Ok(Some(packet)) = kept.receive(&mut buffer)
        {
            let sent = gaiola_wire::tcp::fill_in_checksum(packet).map(|()| kept.send(packet));
            if let Some(Err(error)) = sent {
                tracing::debug!(%error, %vip, "cannot forward a connection");
            }
            passed_on += 1;
        }
        tracing::info!(%vip, connections = passed_on, "forwarded held connections");
    }

    /// Whether an earlier keeper's lifetime of the address still runs.
    pub(super) fn holds(&mut self, vip: IpAddr, prefix: u8) -> bool {
        let addresses = self.netlink.addresses(&self.interface).unwrap_or_default();
        addresses
            .iter()
            .any(|it| it.ip == vip && it.prefix == prefix && it.expires)
    }

    /// Adds the address for its lifetime, or renews the lifetime.
    pub(super) fn add(&mut self, vip: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        let lifetime = Lifetime::Only(ADDRESS_LIFETIME);
        self.netlink
            .add_address_to(self.index, vip, prefix, lifetime)
    }

    /// Adds the address, as [`add`](Self::add), and waits until packets to it are delivered here. For an IPv6 address the kernel sees to that only after
    /// it has answered: what came in between would be lost.
    pub(super) fn take(&mut self, vip: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        self.add(vip, prefix)?;
        let until = Instant::now() + DELIVERY_LIMIT;
        while vip.is_ipv6() && !self.netlink.delivers(vip) && Instant::now() < until {
            std::thread::sleep(DELIVERY_POLL);
        }
        Ok(())
    }

    /// Removes the address, if present. Its connections are reset before, while their peers can still be reached: the next
    /// holder does not know them, and a peer that only waits for a response would never hear of it.
    pub(super) fn remove(&mut self, vip: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        self.reset_connections(vip);
        self.netlink
            .remove_address_from(self.index, vip, prefix)
            .map(drop)
    }

    /// Resets the connections of an address: again until there are none, since clients come back at once.
    fn reset_connections(&self, vip: IpAddr) {
        let until = Instant::now() + LONGEST_RESET;
        let mut all = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match tcp::reset_connections(vip, left) {
                Ok(0) => break,
                Ok(connections) => all += connections,
                Err(error) => {
                    tracing::debug!(%error, %vip, "cannot reset connections");
                    break;
                }
            }
        }
        if all > 0 {
            tracing::info!(%vip, connections = all, "reset connections");
        }
    }

    /// Adds the descriptors to poll.
    pub(super) fn descriptors<'a>(&'a self, all: &mut Vec<BorrowedFd<'a>>) {
        all.push(self.links.as_fd());
        all.extend(self.narrow.as_ref().map(AsFd::as_fd));
        all.extend(self.wide.as_ref().map(AsFd::as_fd));
    }
}

fn group_socket(interface: &str, index: u32, source: Ipv4Addr) -> io::Result<GroupSocket> {
    let (group, protocol, ttl) = (vrrp::GROUP, vrrp::PROTOCOL, vrrp::TTL);
    GroupSocket::open(interface, index, source, group, protocol, ttl)
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn believe(packet: &[u8], key: Option<&Key>) -> Result<(IpAddr, Received), Rejected> {
    let packet = Ipv4Packet::decode(packet)?;
    let received = vrrp::decode(packet.payload, packet.endpoints, packet.ttl, key)?;
    Ok((packet.endpoints.source.into(), received))
}

/// Decodes a message of the keeper at `from` that did not come in a packet of its own. Its seal proves where it is from.
pub(super) fn believe_message(
    message: &[u8],
    from: IpAddr,
    key: Option<&Key>,
) -> Result<(IpAddr, Received), Rejected> {
    let IpAddr::V4(source) = from else {
        // Over IPv6 a message says itself whose it is.
        return Err(Rejected::Malformed);
    };
    let endpoints = Endpoints {
        source,
        destination: vrrp::GROUP,
    };
    let received = vrrp::decode(message, endpoints, vrrp::TTL, key)?;
    Ok((from, received))
}
