//! VRRP version 3 over IPv4 (RFC 9568), and a seal of our own.
//!
//! VRRP has no authentication since RFC 3768: whoever can send on the network can take a VIP. With a [`Key`] every
//! advertisement carries a trailer of 40 bytes behind the addresses, and one without a good trailer is refused:
//!
//! ```text
//! | advertisement (RFC 9568, section 5.2) | stamp, 8 bytes | HMAC-SHA256, 32 bytes |
//! ```
//!
//! The HMAC covers both IPv4 addresses, the advertisement with a checksum of zero, and the stamp. The stamp only
//! grows ([`Stamp`]), and `core::vrrp::Freshness` refuses one that was seen before. What that does not cover: a
//! keeper that was just started remembers no stamps, so a recording of a router that is silent now is believed by it.

mod ipv4;
mod seal;

pub use ipv4::{Ipv4Packet, PROTOCOL};
pub use seal::{Key, KeyError};

use gaiola_model::vrrp::{Advertisement, Priority, Stamp, Vrid};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Where advertisements are sent to: all VRRP routers of the network.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// The TTL of every advertisement. No router passes a packet on without lowering it, so one that arrives with it was
/// sent on this network.
pub const TTL: u8 = 255;

const VERSION_AND_TYPE: u8 = 0x31;
const HEAD: usize = 8;

/// The two addresses of the IPv4 packet that carries an advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The sender's own address.
    pub source: Ipv4Addr,
    /// [`GROUP`], or one router's address.
    pub destination: Ipv4Addr,
}

/// What the checksum of an IPv4 advertisement covers. Both kinds are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The advertisement and a pseudo-header: what keepalived sends and, before version 2.3, insists on.
    #[default]
    WithPseudoHeader,
    /// The advertisement alone: RFC 9568, section 5.2.8.
    Plain,
}

/// A believable advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// What was said.
    pub advert: Advertisement,
    /// Its place among the sender's sealed ones; `None` without a key.
    pub stamp: Option<Stamp>,
}

/// Why a packet is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Rejected {
    /// Shorter than it says it is, or impossible values in it.
    #[error("malformed")]
    Malformed,
    /// It crossed a router, or pretends that it did not.
    #[error("wrong ttl")]
    Ttl,
    /// Another version of the protocol, such as VRRP 2.
    #[error("unknown version")]
    Version,
    /// Neither kind of checksum fits.
    #[error("wrong checksum")]
    Checksum,
    /// A key is set, and the trailer is missing or made with another key.
    #[error("wrong seal")]
    Seal,
}

/// Writes an advertisement as the payload of an IPv4 packet. An interval is rounded up to hundredths of a second and
/// kept within what the field can say.
///
/// # Panics
///
/// With more than 255 addresses.
///
/// ```
/// use gaiola_model::vrrp::{Advertisement, Priority, Vrid};
/// use gaiola_wire::vrrp::{self, Checksum, Endpoints};
///
/// let advert = Advertisement {
///     vrid: Vrid::new(1).unwrap(),
///     priority: Priority(200),
///     interval: std::time::Duration::from_millis(100),
///     vips: vec![[10, 77, 0, 100].into()],
/// };
/// let endpoints = Endpoints { source: [10, 77, 1, 1].into(), destination: vrrp::GROUP };
/// let payload = vrrp::encode(&advert, endpoints, Checksum::default(), None);
/// let received = vrrp::decode(&payload, endpoints, vrrp::TTL, None).unwrap();
/// assert_eq!(received.advert, advert);
/// ```
pub fn encode(
    advert: &Advertisement,
    endpoints: Endpoints,
    checksum: Checksum,
    seal: Option<(&Key, Stamp)>,
) -> Vec<u8> {
    let count = u8::try_from(advert.vips.len()).expect("at most 255 addresses");
    let interval = centiseconds(advert.interval).to_be_bytes();
    let mut payload = vec![
        VERSION_AND_TYPE,
        advert.vrid.get(),
        advert.priority.0,
        count,
        interval[0],
        interval[1],
        0,
        0,
    ];
    for vip in &advert.vips {
        payload.extend(vip.octets());
    }
    if let Some((key, stamp)) = seal {
        seal::append(&mut payload, endpoints, key, stamp);
    }
    let sum = match checksum {
        Checksum::WithPseudoHeader => ipv4::checksum(&payload, Some(endpoints)),
        Checksum::Plain => ipv4::checksum(&payload, None),
    };
    payload[6..HEAD].copy_from_slice(&sum.to_be_bytes());
    payload
}

/// Reads the payload of an IPv4 packet that arrived with this `ttl`. With a `key` only what is sealed with it passes;
/// without one a trailer is not looked at, so that a key can be given to one router after another.
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
    if head[0] != VERSION_AND_TYPE {
        return Err(Rejected::Version);
    }
    // A sum that includes its own field is zero where it fits.
    let fits = ipv4::checksum(payload, None) == 0 || ipv4::checksum(payload, Some(endpoints)) == 0;
    if !fits {
        return Err(Rejected::Checksum);
    }
    let end = HEAD + usize::from(head[3]) * 4;
    let advert = read(head, payload.get(HEAD..end).ok_or(Rejected::Malformed)?)?;
    let stamp = match key {
        Some(key) => Some(seal::check(payload, end, endpoints, key).ok_or(Rejected::Seal)?),
        None => None,
    };
    Ok(Received { advert, stamp })
}

fn read(head: &[u8; HEAD], addresses: &[u8]) -> Result<Advertisement, Rejected> {
    let interval = u16::from_be_bytes([head[4], head[5]]) & 0x0fff;
    if interval == 0 || addresses.is_empty() {
        return Err(Rejected::Malformed);
    }
    Ok(Advertisement {
        vrid: Vrid::new(head[1]).ok_or(Rejected::Malformed)?,
        priority: Priority(head[2]),
        interval: Duration::from_millis(u64::from(interval) * 10),
        vips: addresses
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&octets| octets.into())
            .collect(),
    })
}

fn centiseconds(interval: Duration) -> u16 {
    let rounded = interval.as_millis().div_ceil(10).clamp(1, 0x0fff);
    u16::try_from(rounded).expect("twelve bits")
}

#[cfg(test)]
mod tests;
