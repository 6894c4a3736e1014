//! A VRRP packet as a raw socket returns it: no panic, a key accepts nothing unsealed, and a decoded packet is encoded to
//! the same bytes again. The same for a datagram.

#![no_main]

use gaiola_wire::vrrp::{Checksum, Datagram, Ipv4Packet, Key, decode, encode, wide};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(datagram) = Datagram::decode(data) {
        assert_eq!(datagram.encode(), data);
    }
    let key = Key::from_hex("000102030405060708090a0b0c0d0e0f").expect("a key");
    let router = std::net::Ipv4Addr::LOCALHOST.into();
    assert!(wide::decode(data, None, Some(&key)).is_err());
    if let Ok((_, received)) = wide::decode(data, Some(router), None) {
        let again = wide::encode(&received.message, None);
        let read = wide::decode(&again, Some(router), None);
        assert_eq!(read.map(|(_, read)| read.message), Ok(received.message));
    }
    let Ok(packet) = Ipv4Packet::decode(data) else {
        return;
    };
    let mut payload = packet.payload.to_vec();
    correct_checksum(&mut payload);
    for payload in [packet.payload, &payload] {
        assert!(decode(payload, packet.endpoints, packet.ttl, Some(&key)).is_err());
        let Ok(received) = decode(payload, packet.endpoints, packet.ttl, None) else {
            continue;
        };
        let again = encode(&received.message, packet.endpoints, Checksum::Plain, None);
        let read = decode(&again, packet.endpoints, packet.ttl, None);
        assert_eq!(read.map(|read| read.message), Ok(received.message));
    }
});

/// A random checksum is seldom right, so the code after its check would not be reached.
fn correct_checksum(payload: &mut [u8]) {
    if payload.len() < 8 {
        return;
    }
    payload[6..8].fill(0);
    let words = payload.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    payload[6..8].copy_from_slice(&(!folded).to_be_bytes()[2..]);
}
