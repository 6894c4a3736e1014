//! VRRP version 3 over IPv4 and IPv6 (RFC 9568), with a seal of our own.
//!
//! VRRP has no authentication since RFC 3768: anybody who can send on the network can take a VIP. With a [`Key`] every
//! advertisement carries a trailer of 40 bytes after the addresses, and one without a valid trailer is rejected:
//!
//! ```text
//! | advertisement (RFC 9568, section 5.2) | stamp, 8 bytes | HMAC-SHA256, 32 bytes |
//! ```
//!
//! A sealed site's routers also send [`Hello`], which has the same form under its own type (15, which RFC 9568 requires
//! other routers to discard): the addresses are those of the routers that the sender hears, and the first of the four
//! reserved bits is set while it stands by.
//!
//! The HMAC covers both IPv4 addresses, the advertisement with a checksum of zero, and the stamp. Stamps only grow
//! ([`Stamp`]), and `core::vrrp::Freshness` rejects one that was seen before. One gap remains: a keeper that has just
//! started remembers no stamps, so it accepts a recording of a router that is silent now.
//!
//! **Over IPv6** ([`wide`]) all addresses in a message have 16 bytes, those of IPv4 as `::ffff:a.b.c.d`. Packets come from link-local addresses, by which
//! nobody knows a router of a sealed site. So its trailer begins with the sender's own address, and the HMAC covers this one in place of the packet's
//! addresses. The kernel writes and verifies the checksum.
//!
//! Over UDP ([`Datagram`]) the same sealed payload goes to other balancers and to relays: as if it were in a packet from its
//! sender to [`GROUP`], whoever it is sent to.

mod datagram;
mod ipv4;
mod seal;
pub mod wide;

pub use datagram::{Datagram, LONGEST as LONGEST_DATAGRAM};
pub use ipv4::{Ipv4Packet, PROTOCOL};
pub use seal::{Key, KeyError};

use gaiola_model::vrrp::{Advertisement, Hello, Message, Priority, Stamp, Vrid};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Destination of advertisements: all VRRP routers on the network.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// The TTL of every advertisement. Routers lower it when they forward a packet, so one that arrives with it was sent on
/// this network.
pub const TTL: u8 = 255;

/// Version 3 in the upper half, the type in the lower.
const ADVERTISEMENT: u8 = 0x31;
const HELLO: u8 = 0x3f;
const HEAD: usize = 8;

/// One of the four bits beside the interval.
const STANDS_BY: u16 = 0x8000;
const INTERVAL: u16 = 0x0fff;

/// The two addresses of the IPv4 packet that carries an advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The sender's own address.
    pub source: Ipv4Addr,
    /// [`GROUP`], or one router's address.
    pub destination: Ipv4Addr,
}

/// What the checksum of an IPv4 advertisement covers. Both variants are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The advertisement and a pseudo-header: what keepalived sends and, before version 2.3, requires.
    #[default]
    WithPseudoHeader,
    /// The advertisement alone: RFC 9568, section 5.2.8.
    Plain,
}

/// A valid message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// Its position among the sender's sealed messages; `None` without a key.
    pub stamp: Option<Stamp>,
}

/// Why a packet is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Rejected {
    /// Shorter than its own length fields, or impossible values.
    #[error("malformed")]
    Malformed,
    /// It crossed a router, or pretends that it did not.
    #[error("wrong ttl")]
    Ttl,
    /// Another version of the protocol, such as VRRP 2.
    #[error("unknown version")]
    Version,
    /// Neither variant of the checksum is correct.
    #[error("wrong checksum")]
    Checksum,
    /// A key is set, and the trailer is missing or made with another key.
    #[error("wrong seal")]
    Seal,
}

/// Encodes a message as the payload of an IPv4 packet. The interval is rounded up to hundredths of a second and clamped
/// to the field's range.
///
/// # Panics
///
/// With more than 255 addresses, or one of IPv6.
///
/// ```
/// use gaiola_model::vrrp::{Advertisement, Message, Priority, Vrid};
/// use gaiola_wire::vrrp::{self, Checksum, Endpoints};
///
/// let message = Message::Advertisement(Advertisement {
///     vrid: Vrid::new(1).unwrap(),
///     priority: Priority(200),
///     interval: std::time::Duration::from_millis(100),
///     vips: vec![[10, 77, 0, 100].into()],
/// });
/// let endpoints = Endpoints { source: [10, 77, 1, 1].into(), destination: vrrp::GROUP };
/// let payload = vrrp::encode(&message, endpoints, Checksum::default(), None);
/// let received = vrrp::decode(&payload, endpoints, vrrp::TTL, None).unwrap();
/// assert_eq!(received.message, message);
/// ```
pub fn encode(
    message: &Message,
    endpoints: Endpoints,
    checksum: Checksum,
    seal: Option<(&Key, Stamp)>,
) -> Vec<u8> {
    let narrow = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => panic!("an IPv6 address goes over IPv6 alone"),
    };
    let mut payload = write(message, narrow);
    if let Some((key, stamp)) = seal {
        seal::append(&mut payload, &covered(endpoints), key, stamp);
    }
    let sum = match checksum {
        Checksum::WithPseudoHeader => ipv4::checksum(&payload, Some(endpoints)),
        Checksum::Plain => ipv4::checksum(&payload, None),
    };
    payload[6..HEAD].copy_from_slice(&sum.to_be_bytes());
    payload
}

/// Decodes the payload of an IPv4 packet that arrived with this `ttl`. With a `key` only messages sealed with it are
/// accepted; without one a trailer is ignored, so that a key can be given to one router after another.
pub fn decode(
    payload: &[u8],
    endpoints: Endpoints,
    ttl: u8,
    key: Option<&Key>,
) -> Result<Received, Rejected> {
    if ttl != TTL {
        return Err(Rejected::Ttl);
    }
    let head: &[u8; HEAD] = payload.first_chunk().ok_or(Rejected::Malformed)?;
    if head[0] != ADVERTISEMENT && head[0] != HELLO {
        return Err(Rejected::Version);
    }
    // A checksum over data that includes a correct checksum is zero.
    let fits = ipv4::checksum(payload, None) == 0 || ipv4::checksum(payload, Some(endpoints)) == 0;
    if !fits {
        return Err(Rejected::Checksum);
    }
    let end = HEAD + usize::from(head[3]) * 4;
    let addresses = payload.get(HEAD..end).ok_or(Rejected::Malformed)?;
    let addresses = addresses.as_chunks::<4>().0.iter();
    let message = read(head, addresses.map(|&octets| octets.into()).collect())?;
    let covered = covered(endpoints);
    let stamp = match key {
        Some(key) => Some(seal::check(payload, end, &covered, key).ok_or(Rejected::Seal)?),
        None => None,
    };
    Ok(Received { message, stamp })
}

/// What a seal covers of the packet's addresses.
fn covered(endpoints: Endpoints) -> Vec<u8> {
    let Endpoints {
        source,
        destination,
    } = endpoints;
    [source.octets(), destination.octets()].concat()
}

/// The message without a checksum.
fn write<const WIDTH: usize>(message: &Message, octets: fn(&IpAddr) -> [u8; WIDTH]) -> Vec<u8> {
    let (kind, vrid, priority, interval, addresses) = match message {
        Message::Advertisement(it) => {
            let interval = centiseconds(it.interval);
            (ADVERTISEMENT, it.vrid, it.priority, interval, &it.vips)
        }
        Message::Hello(it) => {
            let stands_by = if it.stands_by { STANDS_BY } else { 0 };
            let interval = centiseconds(it.interval) | stands_by;
            (HELLO, it.vrid, it.priority, interval, &it.hears)
        }
    };
    let count = u8::try_from(addresses.len()).expect("at most 255 addresses");
    let [high, low] = interval.to_be_bytes();
    let mut payload = vec![kind, vrid.get(), priority.0, count, high, low, 0, 0];
    payload.extend(addresses.iter().flat_map(octets));
    payload
}

fn read(head: &[u8; HEAD], addresses: Vec<IpAddr>) -> Result<Message, Rejected> {
    let field = u16::from_be_bytes([head[4], head[5]]);
    let vrid = Vrid::new(head[1]).ok_or(Rejected::Malformed)?;
    let priority = Priority(head[2]);
    let interval = Duration::from_millis(u64::from(field & INTERVAL) * 10);
    match head[0] {
        _ if interval.is_zero() => Err(Rejected::Malformed),
        HELLO => Ok(Message::Hello(Hello {
            vrid,
            priority,
            interval,
            stands_by: field & STANDS_BY != 0,
            hears: addresses,
        })),
        _ if addresses.is_empty() => Err(Rejected::Malformed),
        _ => Ok(Message::Advertisement(Advertisement {
            vrid,
            priority,
            interval,
            vips: addresses,
        })),
    }
}

fn centiseconds(interval: Duration) -> u16 {
    let rounded = interval.as_millis().div_ceil(10).clamp(1, 0x0fff);
    u16::try_from(rounded).expect("twelve bits")
}

#[cfg(test)]
mod tests;
