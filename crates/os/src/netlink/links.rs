//! Links: bridges, veth pairs, and the state of a bridge's ports.

use super::{Netlink, NetlinkError, Result};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    LinkProtoInfoBridge,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;

/// Address of every bridge we make: locally administered. A bridge without its own takes the lowest one of its ports, and
/// changes it whenever that port comes or goes.
const BRIDGE_MAC: [u8; 6] = [0x02, b'g', b'a', b'i', b'o', b'l'];

/// Attribute of a bridge's port, and its values (`linux/if_link.h`, `linux/if_bridge.h`).
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const BR_STATE_DISABLED: u8 = 0;
const BR_STATE_FORWARDING: u8 = 3;

/// A link, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its Ethernet address; `None` where it has none.
    pub mac: Option<[u8; 6]>,
    /// Whether it is up and has a carrier.
    pub running: bool,
}

impl Netlink {
    /// Creates a bridge. It is down, and its Ethernet address stays the same when ports come and go.
    pub fn create_bridge(&mut self, name: &str) -> Result<()> {
        let mut link = named(name);
        link.attributes
            .push(LinkAttribute::Address(BRIDGE_MAC.to_vec()));
        link.attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
                InfoKind::Bridge,
            )]));
        self.create(|| format!("create the bridge {name}"), link)
    }

    /// Creates a veth pair: `host_name` here, and `peer_name` in the network namespace of process `pid`. Both are down.
    pub fn create_veth_to_pid(&mut self, host_name: &str, peer_name: &str, pid: u32) -> Result<()> {
        let mut peer = named(peer_name);
        peer.attributes.push(LinkAttribute::NetNsPid(pid));
        let mut link = named(host_name);
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let tried = || {
            format!(
                "create the link {host_name} to {peer_name} in the network namespace of process {pid}"
            )
        };
        self.create(tried, link)
    }

    /// Makes `name` a port of `bridge`.
    pub fn set_master(&mut self, name: &str, bridge: &str) -> Result<()> {
        let index = self.link_index(bridge)?;
        let mut link = named(name);
        link.attributes.push(LinkAttribute::Controller(index));
        self.change(
            || format!("make {name} a port of the bridge {bridge}"),
            0,
            RouteNetlinkMessage::SetLink(link),
        )
    }

    /// Sets a link up: the cable is plugged in.
    pub fn set_up(&mut self, name: &str) -> Result<()> {
        self.set_flag(name, LinkFlags::Up, "up")
    }

    /// Sets a link down: its veth peer loses its carrier, as if the cable were pulled.
    pub fn set_down(&mut self, name: &str) -> Result<()> {
        self.set_flag(name, LinkFlags::empty(), "down")
    }

    /// Makes a bridge's port forward frames, or drop all of them while its carrier stays: a partition. A port without a
    /// carrier cannot be set to forward, and forwards by itself once it has one.
    pub fn set_port_forwarding(&mut self, name: &str, forwarding: bool) -> Result<()> {
        let (state, word) = if forwarding {
            (BR_STATE_FORWARDING, "forwarding")
        } else {
            (BR_STATE_DISABLED, "disabled")
        };
        self.set_port(name, IFLA_BRPORT_STATE, state, word)
    }

    /// Isolates a bridge's port from the other isolated ones, and from no others: between two servers nothing passes while all
    /// others reach both.
    pub fn set_port_isolated(&mut self, name: &str, isolated: bool) -> Result<()> {
        let word = if isolated { "isolated" } else { "connected" };
        self.set_port(name, IFLA_BRPORT_ISOLATED, isolated.into(), word)
    }

    /// Sets an attribute of a bridge's port.
    fn set_port(&mut self, name: &str, attribute: u16, value: u8, word: &str) -> Result<()> {
        let mut port = LinkMessage::default();
        port.header.interface_family = AddressFamily::Bridge;
        port.header.index = self.link_index(name)?;
        port.attributes.push(LinkAttribute::ProtoInfoBridge(vec![
            LinkProtoInfoBridge::Other(DefaultNla::new(attribute, vec![value])),
        ]));
        self.change(
            || format!("set the bridge port {name} to {word}"),
            0,
            RouteNetlinkMessage::SetLink(port),
        )
    }

    /// The name of the link with this index; `None`: there is none.
    pub(super) fn link_name(&mut self, index: u32) -> Result<Option<String>> {
        let mut name = None;
        self.list(
            || format!("find the name of link {index}"),
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            |answer| {
                if let RouteNetlinkMessage::NewLink(message) = answer
                    && message.header.index == index
                {
                    name = message
                        .attributes
                        .into_iter()
                        .find_map(|attribute| match attribute {
                            LinkAttribute::IfName(name) => Some(name),
                            _ => None,
                        });
                }
            },
        )?;
        Ok(name)
    }

    /// Deletes a link, and with a veth its peer as well.
    pub fn delete_link(&mut self, name: &str) -> Result<()> {
        self.change(
            || format!("delete the link {name}"),
            0,
            RouteNetlinkMessage::DelLink(named(name)),
        )
    }

    /// The current state of a link; an error of kind `NotFound` where there is none of that name.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let tried = || format!("find the link {name}");
        let mut found = None;
        self.list(
            tried,
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            |answer| {
                if let RouteNetlinkMessage::NewLink(link) = answer
                    && has_name(&link, name)
                {
                    found = Some(parse(&link));
                }
            },
        )?;
        found.ok_or_else(|| NetlinkError {
            tried: tried(),
            source: io::Error::new(io::ErrorKind::NotFound, "there is no link of that name"),
        })
    }

    /// A link's index; an error of kind `NotFound` where there is none of that name.
    pub fn link_index(&mut self, name: &str) -> Result<u32> {
        self.link(name).map(|link| link.index)
    }

    /// Whether there is a link of this name.
    pub fn link_exists(&mut self, name: &str) -> Result<bool> {
        match self.link_index(name) {
            Ok(_) => Ok(true),
            Err(error) if error.reason() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create(&mut self, tried: impl FnOnce() -> String, link: LinkMessage) -> Result<()> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.change(tried, flags, RouteNetlinkMessage::NewLink(link))
    }

    fn set_flag(&mut self, name: &str, flags: LinkFlags, word: &str) -> Result<()> {
        let mut link = named(name);
        link.header.flags = flags;
        link.header.change_mask = LinkFlags::Up;
        self.change(
            || format!("set {name} {word}"),
            0,
            RouteNetlinkMessage::SetLink(link),
        )
    }
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.into()));
    link
}

fn has_name(link: &LinkMessage, name: &str) -> bool {
    link.attributes
        .iter()
        .any(|it| matches!(it, LinkAttribute::IfName(found) if found == name))
}

fn parse(link: &LinkMessage) -> Link {
    let mac = link.attributes.iter().find_map(|it| match it {
        LinkAttribute::Address(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    });
    Link {
        index: link.header.index,
        mac,
        running: link
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::Running),
    }
}
