//! Neighbour Discovery (RFC 4861): the announcement that moves an IPv6 VIP.

use crate::arp::Mac;
use crate::checksum;
use std::net::Ipv6Addr;

/// IPv6's EtherType.
pub const ETHERTYPE: u16 = 0x86dd;
/// Length of the announcement's Ethernet frame.
pub const FRAME: usize = ETHERNET + IPV6 + ADVERTISEMENT;

const ETHERNET: usize = 14;
const IPV6: usize = 40;
const ADVERTISEMENT: usize = 32;
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// The neighbours replace what they know.
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// The Ethernet frame of an unsolicited advertisement that `vip` is at `mac`, to all nodes of the network (RFC 4861, section 7.2.6).
///
/// ```
/// use gaiola_wire::arp::Mac;
/// use gaiola_wire::ndp::announcement;
///
/// let frame = announcement("2001:db8::100".parse().unwrap(), Mac([2, 0, 0, 0, 0, 1]));
/// assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
/// ```
pub fn announcement(vip: Ipv6Addr, mac: Mac) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let (ethernet, packet) = frame.split_at_mut(ETHERNET);
    ethernet[..6].copy_from_slice(&ALL_NODES_MAC.0);
    ethernet[6..12].copy_from_slice(&mac.0);
    ethernet[12..].copy_from_slice(&ETHERTYPE.to_be_bytes());
    let (head, message) = packet.split_at_mut(IPV6);
    head[0] = 0x60;
    head[5] = u8::try_from(ADVERTISEMENT).expect("a small constant");
    head[6] = ICMPV6;
    // Routers lower it, so the neighbours know that it was sent on their network.
    head[7] = 255;
    head[8..24].copy_from_slice(&vip.octets());
    head[24..].copy_from_slice(&ALL_NODES.octets());
    message[0] = NEIGHBOUR_ADVERTISEMENT;
    message[4] = OVERRIDE;
    message[8..24].copy_from_slice(&vip.octets());
    message[24] = TARGET_LINK_LAYER_ADDRESS;
    message[25] = 1;
    message[26..].copy_from_slice(&mac.0);
    let addresses = (vip.into(), ALL_NODES.into());
    let sum = checksum::internet(message, Some((addresses, ICMPV6)));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_overrides_what_neighbours_know() {
        let vip: Ipv6Addr = "2001:db8::100".parse().unwrap();
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        let frame = announcement(vip, mac);
        let message = &frame[ETHERNET + IPV6..];
        assert_eq!(message[..2], [136, 0]);
        assert_eq!(message[4..8], [0x20, 0, 0, 0], "override, unsolicited");
        assert_eq!(message[8..24], vip.octets());
        assert_eq!(message[26..], mac.0);
        let addresses = (vip.into(), ALL_NODES.into());
        assert_eq!(checksum::internet(message, Some((addresses, ICMPV6))), 0);
    }
}
