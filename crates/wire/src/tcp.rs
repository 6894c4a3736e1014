//! A TCP segment in its IP packet, as received from a raw socket.

use crate::checksum;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

const PROTOCOL: u8 = 6;
/// Offset of the checksum in the TCP header, and the header's minimum length.
const CHECKSUM: usize = 16;
const SHORTEST_HEADER: usize = 20;

/// Fills in the checksum of a TCP segment to be forwarded. A segment from the same machine has none yet, since the
/// network card would have computed it. `None`: it is not a complete TCP segment.
///
/// ```
/// let mut packet = [0; 40];
/// packet[0] = 0x45; // IPv4 with a header of 20 bytes
/// packet[3] = 40;
/// packet[9] = 6; // TCP
/// assert_eq!(gaiola_wire::tcp::fill_in_checksum(&mut packet), Some(()));
/// assert_eq!(packet[36..38], [0xff, 0xe5]);
/// ```
pub fn fill_in_checksum(packet: &mut [u8]) -> Option<()> {
    let (addresses, segment) = match packet.first()? >> 4 {
        4 => over_ipv4(packet)?,
        6 => over_ipv6(packet)?,
        _ => return None,
    };
    let segment = packet.get_mut(segment)?;
    let field = CHECKSUM..CHECKSUM + 2;
    if segment.len() < SHORTEST_HEADER {
        return None;
    }
    segment[field.clone()].fill(0);
    let sum = checksum::internet(segment, Some((addresses, PROTOCOL)));
    segment[field].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Source and destination, and where the segment is.
type Segment = ((IpAddr, IpAddr), Range<usize>);

fn over_ipv4(packet: &[u8]) -> Option<Segment> {
    let head: &[u8; 20] = packet.first_chunk()?;
    let begin = usize::from(head[0] & 0x0f) * 4;
    let end = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let is_tcp = head[9] == PROTOCOL && begin >= head.len();
    let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
    is_tcp.then(|| ((address(12).into(), address(16).into()), begin..end))
}

/// Without extension headers, which no client's SYN has.
fn over_ipv6(packet: &[u8]) -> Option<Segment> {
    const HEAD: usize = 40;
    let head: &[u8; HEAD] = packet.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let address = |at: usize| head[at..].first_chunk::<16>().map(|it| Ipv6Addr::from(*it));
    let (source, destination) = (address(8)?, address(24)?);
    let is_tcp = head[6] == PROTOCOL;
    is_tcp.then(|| ((source.into(), destination.into()), HEAD..HEAD + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_syn_without_a_checksum_gets_one() {
        let text = "4500003c1c4640004006a5d50a4d02010a4d0064d8d40050a0b1c2d300000000a002fa\
                    f00000000002 0405b40402080a0102030400000000 01030307";
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let bytes = digits.chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).unwrap();
            u8::from_str_radix(pair, 16).unwrap()
        });
        let mut packet: Vec<u8> = bytes.collect();
        assert_eq!(packet.len(), 60);
        fill_in_checksum(&mut packet).unwrap();
        // A checksum over data that includes a correct checksum is zero.
        let addresses = ([10, 77, 2, 1].into(), [10, 77, 0, 100].into());
        assert_eq!(
            checksum::internet(&packet[20..], Some((addresses, PROTOCOL))),
            0
        );
    }

    #[test]
    fn a_segment_over_ipv6_gets_a_checksum_too() {
        let mut packet = vec![0; 60];
        packet[0] = 0x60;
        packet[5] = 20;
        packet[6] = PROTOCOL;
        packet[23] = 1;
        packet[39] = 2;
        packet[53] = 2;
        fill_in_checksum(&mut packet).unwrap();
        let addresses = ("::1".parse().unwrap(), "::2".parse().unwrap());
        assert_ne!(packet[56..58], [0, 0]);
        assert_eq!(
            checksum::internet(&packet[40..], Some((addresses, PROTOCOL))),
            0
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let mut bytes = bytes;
            let _ = fill_in_checksum(&mut bytes);
        }
    }
}
