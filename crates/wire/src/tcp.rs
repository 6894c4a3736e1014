//! A TCP segment in its IPv4 packet, as received from a raw socket.

use crate::checksum;
use std::net::Ipv4Addr;

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
    let head: [u8; 20] = *packet.first_chunk()?;
    let begin = usize::from(head[0] & 0x0f) * 4;
    let end = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let is_tcp = head[0] >> 4 == 4 && head[9] == PROTOCOL && begin >= head.len();
    let segment = packet.get_mut(begin..end).filter(|_| is_tcp)?;
    let field = CHECKSUM..CHECKSUM + 2;
    if segment.len() < SHORTEST_HEADER {
        return None;
    }
    segment[field.clone()].fill(0);
    let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
    let sum = checksum::internet(segment, Some(((address(12), address(16)), PROTOCOL)));
    segment[field].copy_from_slice(&sum.to_be_bytes());
    Some(())
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

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let mut bytes = bytes;
            let _ = fill_in_checksum(&mut bytes);
        }
    }
}
