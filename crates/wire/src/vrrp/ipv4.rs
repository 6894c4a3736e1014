//! The part of IPv4 that a raw socket needs: the header in front of an advertisement, and the checksum.

use super::{Endpoints, Rejected};
use std::net::Ipv4Addr;

/// VRRP's IPv4 protocol number.
pub const PROTOCOL: u8 = 112;

/// An IPv4 packet as a raw socket receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Packet<'a> {
    /// Source and destination.
    pub endpoints: Endpoints,
    /// The remaining time to live.
    pub ttl: u8,
    /// Its payload.
    pub payload: &'a [u8],
}

impl<'a> Ipv4Packet<'a> {
    /// Decodes a packet whose header checksum the kernel has verified. Options are skipped, and bytes beyond the
    /// packet's own length are ignored.
    pub fn decode(packet: &'a [u8]) -> Result<Self, Rejected> {
        let head: &[u8; 20] = packet.first_chunk().ok_or(Rejected::Malformed)?;
        let begin = usize::from(head[0] & 0x0f) * 4;
        let end = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let whole = head[0] >> 4 == 4 && head[9] == PROTOCOL && begin >= head.len();
        if !whole {
            return Err(Rejected::Malformed);
        }
        Ok(Self {
            endpoints: Endpoints {
                source: Ipv4Addr::new(head[12], head[13], head[14], head[15]),
                destination: Ipv4Addr::new(head[16], head[17], head[18], head[19]),
            },
            ttl: head[8],
            payload: packet.get(begin..end).ok_or(Rejected::Malformed)?,
        })
    }
}

/// The checksum of a payload, including a pseudo-header if given.
pub(super) fn checksum(payload: &[u8], pseudo_header: Option<Endpoints>) -> u16 {
    let addresses = pseudo_header.map(|it| (it.source.into(), it.destination.into()));
    crate::checksum::internet(payload, addresses.map(|it| (it, PROTOCOL)))
}
