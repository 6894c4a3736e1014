//! Messages over IPv6: those for IPv6 VIPs, and all of balancers that have IPv6 addresses.

use super::{ADVERTISEMENT, HEAD, HELLO, Key, Received, Rejected, read, seal, write};
use gaiola_model::vrrp::{Message, Stamp};
use std::net::{IpAddr, Ipv6Addr};

/// Destination of messages: all VRRP routers on the network.
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// Where the checksum is, which the kernel writes and verifies with the pseudo-header (RFC 9568, section 5.2.8).
pub const CHECKSUM_AT: u8 = 6;
const WIDTH: usize = 16;

/// How a message is sealed.
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    /// The site's key.
    pub key: &'a Key,
    /// The position among the sender's messages.
    pub stamp: Stamp,
    /// The sender's own address.
    pub router: IpAddr,
}

/// Whether a message has an address that fits into no message over IPv4.
pub fn is_needed(message: &Message) -> bool {
    let addresses = match message {
        Message::Advertisement(advert) => &advert.vips,
        Message::Hello(hello) => &hello.hears,
    };
    addresses.iter().any(IpAddr::is_ipv6)
}

/// Encodes a message as the payload of an IPv6 packet, with a checksum of zero.
///
/// # Panics
///
/// With more than 255 addresses.
///
/// ```
/// use gaiola_model::vrrp::{Advertisement, Message, Priority, Vrid};
/// use gaiola_wire::vrrp::wide;
///
/// let message = Message::Advertisement(Advertisement {
///     vrid: Vrid::new(1).unwrap(),
///     priority: Priority(200),
///     interval: std::time::Duration::from_millis(100),
///     vips: vec!["2001:db8::100".parse().unwrap()],
/// });
/// let payload = wide::encode(&message, None);
/// assert_eq!(payload.len(), 8 + 16);
/// let link_local = "fe80::1".parse().unwrap();
/// let (from, received) = wide::decode(&payload, Some(link_local), None).unwrap();
/// assert_eq!((from, received.message), (link_local, message));
/// ```
pub fn encode(message: &Message, seal: Option<Seal<'_>>) -> Vec<u8> {
    let mut payload = write(message, octets);
    if let Some(Seal { key, stamp, router }) = seal {
        payload.extend(octets(&router));
        seal::append(&mut payload, &GROUP.octets(), key, stamp);
    }
    payload
}

/// Decodes a message whose checksum the kernel has verified, if it came in a packet of its own, and says which router it is from: with a key the one
/// in the trailer, otherwise `sender`, the packet's source. Without both it is rejected.
///
/// # Errors
/// If it is malformed, or with a `key` not sealed by it.
pub fn decode(
    payload: &[u8],
    sender: Option<IpAddr>,
    key: Option<&Key>,
) -> Result<(IpAddr, Received), Rejected> {
    let head: &[u8; HEAD] = payload.first_chunk().ok_or(Rejected::Malformed)?;
    if head[0] != ADVERTISEMENT && head[0] != HELLO {
        return Err(Rejected::Version);
    }
    let end = HEAD + usize::from(head[3]) * WIDTH;
    let addresses = payload.get(HEAD..end).ok_or(Rejected::Malformed)?;
    let addresses = addresses.as_chunks::<WIDTH>().0.iter();
    let message = read(head, addresses.map(address).collect())?;
    let Some(key) = key else {
        let sender = sender.ok_or(Rejected::Seal)?;
        let stamp = None;
        return Ok((sender, Received { message, stamp }));
    };
    let router = payload.get(end..).and_then(<[u8]>::first_chunk::<WIDTH>);
    let router = address(router.ok_or(Rejected::Seal)?);
    let stamp = seal::check(payload, end + WIDTH, &GROUP.octets(), key);
    let stamp = Some(stamp.ok_or(Rejected::Seal)?);
    Ok((router, Received { message, stamp }))
}

fn octets(address: &IpAddr) -> [u8; WIDTH] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn address(octets: &[u8; WIDTH]) -> IpAddr {
    Ipv6Addr::from(*octets).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::vrrp::{Advertisement, Hello, Priority, Vrid};
    use proptest::prelude::*;
    use std::time::Duration;

    const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 1, 1));

    fn key(digit: &str) -> Key {
        Key::from_hex(&digit.repeat(32)).unwrap()
    }

    fn hello(hears: Vec<IpAddr>) -> Message {
        Message::Hello(Hello {
            vrid: Vrid::new(7).unwrap(),
            priority: Priority(200),
            interval: Duration::from_millis(100),
            stands_by: true,
            hears,
        })
    }

    fn sealed(message: &Message, key: &Key) -> Vec<u8> {
        let seal = Seal {
            key,
            stamp: Stamp(5),
            router: ROUTER,
        };
        encode(message, Some(seal))
    }

    #[test]
    fn an_advertisement_is_that_of_the_rfc() {
        let advert = Message::Advertisement(Advertisement {
            vrid: Vrid::new(51).unwrap(),
            priority: Priority(100),
            interval: Duration::from_secs(1),
            vips: vec!["fe80::51".parse().unwrap(), "2001:db8::51".parse().unwrap()],
        });
        let mut expected = vec![0x31, 51, 100, 2, 0, 100, 0, 0];
        expected.extend("fe80::51".parse::<Ipv6Addr>().unwrap().octets());
        expected.extend("2001:db8::51".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(encode(&advert, None), expected);
    }

    #[test]
    fn a_sealed_message_is_from_the_router_in_its_seal() {
        let message = hello(vec![ROUTER, "2001:db8::2".parse().unwrap()]);
        let payload = sealed(&message, &key("1"));
        let other = Some("fe80::9".parse().unwrap());
        for sender in [None, other] {
            let (from, received) = decode(&payload, sender, Some(&key("1"))).unwrap();
            assert_eq!((from, received.stamp), (ROUTER, Some(Stamp(5))));
            assert_eq!(received.message, message);
        }
        assert_eq!(
            decode(&payload, other, Some(&key("2"))),
            Err(Rejected::Seal)
        );
        assert_eq!(decode(&payload, None, None), Err(Rejected::Seal));
    }

    #[test]
    fn no_byte_but_the_checksum_can_be_changed() {
        let payload = sealed(&hello(vec![ROUTER]), &key("1"));
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            let is_checksum = at == 6 || at == 7;
            let read = decode(&changed, None, Some(&key("1")));
            assert_eq!(read.is_ok(), is_checksum, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn decoding_reverses_encoding(addresses in prop::collection::vec(any::<IpAddr>(), 0..9)) {
            let canonical: Vec<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
            let payload = encode(&hello(addresses), None);
            let (_, received) = decode(&payload, Some(ROUTER), None).unwrap();
            prop_assert_eq!(received.message, hello(canonical));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..128), keyed: bool) {
            let _ = decode(&bytes, Some(ROUTER), keyed.then(|| key("1")).as_ref());
        }
    }
}
