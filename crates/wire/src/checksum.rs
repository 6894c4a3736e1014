//! The Internet checksum (RFC 1071).

use std::net::IpAddr;

/// The checksum of a payload; with both IP addresses and the protocol's number, of the pseudo-header in front of it too.
pub(crate) fn internet(payload: &[u8], pseudo_header: Option<((IpAddr, IpAddr), u8)>) -> u16 {
    let mut sum: u64 = 0;
    if let Some(((source, destination), protocol)) = pseudo_header {
        sum += address(source) + address(destination);
        sum += u64::from(protocol) + payload.len() as u64;
    }
    sum += words(payload);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to sixteen bits")
}

fn address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => words(&address.octets()),
        IpAddr::V6(address) => words(&address.octets()),
    }
}

fn words(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let whole: u64 = pairs
        .iter()
        .map(|&pair| u64::from(u16::from_be_bytes(pair)))
        .sum();
    let odd = rest.first().map_or(0, |&byte| u64::from(byte) << 8);
    whole + odd
}
