//! The interface: packets received and sent on it, and its addresses.

use gaiola_core::vrrp::ADDRESS_LIFETIME;
use gaiola_os::netlink::{Lifetime, LinkWatch, Netlink, NetlinkError};
use gaiola_os::packet::{FrameSocket, GroupSocket, SynSocket};
use gaiola_os::tcp;
use gaiola_wire::arp::{Arp, ETHERTYPE, Mac};
use gaiola_wire::vrrp::{self, Endpoints, Ipv4Packet, Key, Received, Rejected};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// The most SYNs that are forwarded at once, within the time that an advertisement may be late.
const MOST_PASSED_ON: usize = 4096;

/// The longest that resetting connections may delay the removal of an address, which the next holder waits for.
const LONGEST_RESET: Duration = Duration::from_millis(50);

/// An open interface.
pub(super) struct Network {
    interface: String,
    address: Ipv4Addr,
    index: u32,
    mac: Mac,
    running: bool,
    netlink: Netlink,
    links: LinkWatch,
    adverts: GroupSocket,
    frames: FrameSocket,
    /// Sockets with the captured SYNs, by VIP.
    kept: BTreeMap<Ipv4Addr, SynSocket>,
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
    pub(super) fn open(interface: &str, address: Ipv4Addr) -> Result<Self, NetworkError> {
        let links = LinkWatch::open()?;
        let mut netlink = Netlink::open()?;
        let link = netlink.link(interface)?;
        let mac = link
            .mac
            .ok_or_else(|| NetworkError::NotEthernet(interface.into()))?;
        let socket = |error| NetworkError::Socket(interface.into(), error);
        let adverts = GroupSocket::open(
            interface,
            link.index,
            address,
            vrrp::GROUP,
            vrrp::PROTOCOL,
            vrrp::TTL,
        )
        .map_err(socket)?;
        let frames = FrameSocket::open(link.index, ETHERTYPE).map_err(socket)?;
        Ok(Self {
            interface: interface.into(),
            address,
            index: link.index,
            mac: Mac(mac),
            running: link.running,
            netlink,
            links,
            adverts,
            frames,
            kept: BTreeMap::new(),
        })
    }

    /// Whether this is the interface of that name, with that address.
    pub(super) fn is(&self, interface: &str, address: Ipv4Addr) -> bool {
        self.interface == interface && self.address == address
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

    /// The next packet in the queue; `None`: no more.
    pub(super) fn hear(&self, key: Option<&Key>) -> Option<Result<(Ipv4Addr, Received), Rejected>> {
        let mut buffer = [0; 2048];
        match self.adverts.receive(&mut buffer) {
            Ok(None) => None,
            Ok(Some(packet)) => Some(believe(packet, key)),
            // Such as the interface going down, which the link watch reports as well.
            Err(error) => {
                tracing::debug!(%error, "cannot receive");
                None
            }
        }
    }

    /// Sends an encoded message to the group. A failure counts as loss on the way.
    pub(super) fn say(&self, payload: &[u8]) {
        if let Err(error) = self.adverts.send(payload) {
            tracing::debug!(%error, "cannot send");
        }
    }

    /// Announces to the neighbours that `vip` is here.
    pub(super) fn announce(&self, vip: Ipv4Addr) {
        for arp in Arp::announcements(vip, self.mac) {
            if let Err(error) = self.frames.send(&arp.encode()) {
                tracing::debug!(%error, %vip, "cannot announce");
            }
        }
    }

    /// Captures the SYNs that arrive for `vip` from now on. If that fails, their clients retransmit them.
    pub(super) fn hold_back(&mut self, vip: Ipv4Addr) {
        match SynSocket::open(&self.interface, vip) {
            Ok(socket) => {
                self.kept.insert(vip, socket);
            }
            Err(error) => tracing::warn!(%error, %vip, "cannot hold back new connections"),
        }
    }

    /// Forwards the captured SYNs to the server that has `vip` now.
    pub(super) fn pass_on(&mut self, vip: Ipv4Addr) {
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
    pub(super) fn holds(&mut self, vip: Ipv4Addr, prefix: u8) -> bool {
        let addresses = self.netlink.addresses(&self.interface).unwrap_or_default();
        addresses
            .iter()
            .any(|it| it.ip == IpAddr::V4(vip) && it.prefix == prefix && it.expires)
    }

    /// Adds the address for its lifetime, or renews the lifetime.
    pub(super) fn add(&mut self, vip: Ipv4Addr, prefix: u8) -> Result<(), NetlinkError> {
        let lifetime = Lifetime::Only(ADDRESS_LIFETIME);
        self.netlink
            .add_address_to(self.index, vip.into(), prefix, lifetime)
    }

    /// Removes the address, if present. Its connections are reset before, while their peers can still be reached: the next
    /// holder does not know them, and a peer that only waits for a response would never hear of it.
    pub(super) fn remove(&mut self, vip: Ipv4Addr, prefix: u8) -> Result<(), NetlinkError> {
        match tcp::reset_connections(vip.into(), LONGEST_RESET) {
            Ok(0) => {}
            Ok(connections) => tracing::info!(%vip, connections, "reset connections"),
            Err(error) => tracing::debug!(%error, %vip, "cannot reset connections"),
        }
        self.netlink
            .remove_address_from(self.index, vip.into(), prefix)
            .map(drop)
    }

    /// Adds the descriptors to poll.
    pub(super) fn descriptors<'a>(&'a self, all: &mut Vec<BorrowedFd<'a>>) {
        all.extend([self.adverts.as_fd(), self.links.as_fd()]);
    }
}

fn believe(packet: &[u8], key: Option<&Key>) -> Result<(Ipv4Addr, Received), Rejected> {
    let packet = Ipv4Packet::decode(packet)?;
    let received = vrrp::decode(packet.payload, packet.endpoints, packet.ttl, key)?;
    Ok((packet.endpoints.source, received))
}

/// Decodes a message of the keeper at `from` that did not come in a packet of its own. Its seal proves where it is from.
pub(super) fn believe_message(
    message: &[u8],
    from: Ipv4Addr,
    key: Option<&Key>,
) -> Result<(Ipv4Addr, Received), Rejected> {
    let endpoints = Endpoints {
        source: from,
        destination: vrrp::GROUP,
    };
    let received = vrrp::decode(message, endpoints, vrrp::TTL, key)?;
    Ok((from, received))
}
