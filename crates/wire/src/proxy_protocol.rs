//! The PROXY protocol, versions 1 and 2: a connection's first bytes carry the original addresses.
//!
//! Supports only TCP over IPv4 and IPv6. Everything after the addresses (the TLVs of version 2) is ignored.

mod v1;
mod v2;

use std::net::{IpAddr, SocketAddr};

/// Result of parsing the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The header is incomplete: read more and decode again from its first byte.
    Partial,
    /// The header is complete.
    Done(Header),
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the header; the client's own data begins after it.
    pub len: usize,
    /// The connection it describes.
    pub carried: Carried,
}

/// The connection that a header describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// The sender's own (a health check, for example), or one without TCP addresses: use the addresses of the socket.
    Local,
    /// A proxied one. Both addresses are of one family.
    Proxied {
        /// Client address.
        source: SocketAddr,
        /// The address the client connected to.
        destination: SocketAddr,
    },
}

/// An invalid header: the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHeader {
    /// The connection begins with something else.
    #[error("the connection does not begin with a PROXY protocol header")]
    Signature,
    /// A version 1 line that is too long or malformed.
    #[error("the PROXY protocol line is malformed")]
    Line,
    /// A version other than 2 after the signature of version 2, or an unknown command.
    #[error("the PROXY protocol version or command is not supported")]
    Version,
    /// An address family or transport other than those of TCP.
    #[error("the PROXY protocol address family is not supported")]
    Family,
    /// Shorter than its addresses.
    #[error("the PROXY protocol header is too short for its addresses")]
    Short,
    /// Longer than 4 KiB.
    #[error("the PROXY protocol header is too long")]
    Long,
}

/// Decodes the header at the beginning of a connection. The result depends on the bytes alone, not on how they arrived.
///
/// ```
/// use gaiola_wire::proxy_protocol::{Carried, Header, Progress, decode};
///
/// let line = b"PROXY TCP4 192.0.2.7 10.77.0.100 51000 80\r\nGET";
/// let carried = Carried::Proxied {
///     source: "192.0.2.7:51000".parse().unwrap(),
///     destination: "10.77.0.100:80".parse().unwrap(),
/// };
/// assert_eq!(decode(line), Ok(Progress::Done(Header { len: 43, carried })));
/// ```
///
/// # Errors
/// As soon as the bytes cannot become a header.
pub fn decode(bytes: &[u8]) -> Result<Progress, BadHeader> {
    let begins = |signature: &[u8]| {
        let seen = bytes.len().min(signature.len());
        bytes[..seen] == signature[..seen]
    };
    if begins(v1::SIGNATURE) {
        v1::decode(bytes)
    } else if begins(v2::SIGNATURE) {
        v2::decode(bytes)
    } else {
        Err(BadHeader::Signature)
    }
}

/// Appends a version 1 line.
pub fn encode_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let (source, destination) = one_family(source, destination);
    v1::encode(source, destination, out);
}

/// Appends a version 1 line for [`Carried::Local`].
pub fn encode_v1_local(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PROXY UNKNOWN\r\n");
}

/// Appends a version 2 header without TLVs: 28 bytes for IPv4, 52 for IPv6.
pub fn encode_v2(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let (source, destination) = one_family(source, destination);
    v2::encode(source, destination, out);
}

/// Appends a version 2 header for [`Carried::Local`].
pub fn encode_v2_local(out: &mut Vec<u8>) {
    v2::encode_local(out);
}

/// Both addresses as IPv4 if possible (IPv4-mapped IPv6 addresses count as IPv4), else both as IPv6.
fn one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let with_ip = |address: SocketAddr, ip: IpAddr| SocketAddr::new(ip, address.port());
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let (from, to) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V6(_)) => (from.to_ipv6_mapped().into(), to),
        (IpAddr::V6(_), IpAddr::V4(to)) => (from, to.to_ipv6_mapped().into()),
        _ => (from, to),
    };
    (with_ip(source, from), with_ip(destination, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn whole(bytes: &[u8]) -> Header {
        match decode(bytes) {
            Ok(Progress::Done(header)) => header,
            other => panic!("{other:?} of {bytes:?}"),
        }
    }

    fn v4() -> impl Strategy<Value = SocketAddr> {
        any::<(u32, u16)>().prop_map(|(ip, port)| (Ipv4Addr::from(ip), port).into())
    }

    fn v6() -> impl Strategy<Value = SocketAddr> {
        any::<(u128, u16)>().prop_map(|(ip, port)| (Ipv6Addr::from(ip), port).into())
    }

    proptest! {
        #[test]
        fn decode_undoes_encode_however_it_is_split(
            (source, destination) in prop_oneof![(v4(), v4()), (v6(), v6()), (v4(), v6())],
            rest in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            for encode in [encode_v1, encode_v2] {
                let mut bytes = Vec::new();
                encode(source, destination, &mut bytes);
                let len = bytes.len();
                bytes.extend_from_slice(&rest);
                let (source, destination) = one_family(source, destination);
                let carried = Carried::Proxied { source, destination };
                prop_assert_eq!(whole(&bytes), Header { len, carried });
                for end in 0..len {
                    prop_assert_eq!(decode(&bytes[..end]), Ok(Progress::Partial));
                }
            }
        }

        #[test]
        fn an_answer_stands_whatever_follows(bytes in proptest::collection::vec(any::<u8>(), 0..80), v2: bool) {
            let signature = if v2 { v2::SIGNATURE } else { v1::SIGNATURE };
            let bytes = [signature, &bytes].concat();
            let all = decode(&bytes);
            for end in 0..bytes.len() {
                let part = decode(&bytes[..end]);
                prop_assert!(part == Ok(Progress::Partial) || part == all, "{end}: {part:?}, then {all:?}");
            }
        }
    }

    #[test]
    fn other_protocols_are_refused_at_their_first_byte() {
        assert_eq!(decode(b"G"), Err(BadHeader::Signature));
        assert_eq!(decode(b"PROXI"), Err(BadHeader::Signature));
        assert_eq!(decode(b""), Ok(Progress::Partial));
    }

    #[test]
    fn two_families_become_one() {
        let mut bytes = Vec::new();
        let mapped = "[::ffff:192.0.2.1]:1".parse().unwrap();
        encode_v2(mapped, "192.0.2.2:2".parse().unwrap(), &mut bytes);
        assert_eq!(bytes.len(), 28);
    }
}
