//! Version 2: a binary header.

use super::{BadHeader, Carried, Header, Progress};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length of the rest.
const FIXED: usize = 16;

/// Longest accepted remainder; all TLVs in use fit easily.
const LIMIT: usize = 4096;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

pub(super) fn decode(bytes: &[u8]) -> Result<Progress, BadHeader> {
    let command = bytes.get(12).copied();
    if command.is_some_and(|command| command != LOCAL && command != PROXY) {
        return Err(BadHeader::Version);
    }
    let Some(&[.., family, high, low]) = bytes.first_chunk::<FIXED>() else {
        return Ok(Progress::Partial);
    };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > LIMIT {
        return Err(BadHeader::Long);
    }
    let len = FIXED + rest;
    let addresses = match (command, family) {
        (Some(LOCAL), _) | (_, UNSPECIFIED | UNIX_STREAM) => 0,
        (_, TCP4) => 12,
        (_, TCP6) => 36,
        _ => return Err(BadHeader::Family),
    };
    if rest < addresses {
        return Err(BadHeader::Short);
    }
    let Some(rest) = bytes.get(FIXED..len) else {
        return Ok(Progress::Partial);
    };
    let carried = match addresses {
        12 => proxied::<4>(rest),
        36 => proxied::<16>(rest),
        _ => Some(Carried::Local),
    };
    let carried = carried.ok_or(BadHeader::Short)?;
    Ok(Progress::Done(Header { len, carried }))
}

/// Reads two addresses of `N` bytes and two ports.
fn proxied<const N: usize>(bytes: &[u8]) -> Option<Carried>
where
    IpAddr: From<[u8; N]>,
{
    let (source, bytes) = bytes.split_first_chunk::<N>()?;
    let (destination, bytes) = bytes.split_first_chunk::<N>()?;
    let (source_port, bytes) = bytes.split_first_chunk::<2>()?;
    let (destination_port, _) = bytes.split_first_chunk::<2>()?;
    let address = |ip: [u8; N], port| SocketAddr::new(ip.into(), u16::from_be_bytes(port));
    Some(Carried::Proxied {
        source: address(*source, *source_port),
        destination: address(*destination, *destination_port),
    })
}

pub(super) fn encode(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[PROXY, TCP4, 0, 12]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            out.extend_from_slice(&[PROXY, TCP6, 0, 36]);
            out.extend_from_slice(&sixteen(from).octets());
            out.extend_from_slice(&sixteen(to).octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

fn sixteen(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::to_ipv6_mapped(&ip),
        IpAddr::V6(ip) => ip,
    }
}

pub(super) fn encode_local(out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[LOCAL, UNSPECIFIED, 0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &len, rest].concat()
    }

    #[test]
    fn local_and_unspecified_connections_speak_for_themselves() {
        let mut local = Vec::new();
        encode_local(&mut local);
        for bytes in [
            local,
            header(LOCAL, TCP4, &[0; 12]),
            header(PROXY, UNSPECIFIED, b"tlv"),
            header(PROXY, UNIX_STREAM, &[0; 216]),
        ] {
            let done = Header {
                len: bytes.len(),
                carried: Carried::Local,
            };
            assert_eq!(decode(&bytes), Ok(Progress::Done(done)));
        }
    }

    #[test]
    fn tlvs_are_passed_over() {
        let bytes = header(
            PROXY,
            TCP4,
            b"\x01\x02\x03\x04\x05\x06\x07\x08\x00\x50\x01\xbb\x20\x00\x01x",
        );
        let done = Header {
            len: 32,
            carried: Carried::Proxied {
                source: "1.2.3.4:80".parse().unwrap(),
                destination: "5.6.7.8:443".parse().unwrap(),
            },
        };
        assert_eq!(decode(&bytes), Ok(Progress::Done(done)));
    }

    #[test]
    fn malformed_headers_are_refused() {
        let refused =
            |command, family, rest: &[u8]| decode(&header(command, family, rest)).unwrap_err();
        assert_eq!(refused(0x11, TCP4, &[0; 12]), BadHeader::Version);
        assert_eq!(refused(0x22, TCP4, &[0; 12]), BadHeader::Version);
        assert_eq!(refused(PROXY, 0x12, &[0; 12]), BadHeader::Family);
        assert_eq!(refused(PROXY, TCP4, &[0; 11]), BadHeader::Short);
        assert_eq!(refused(PROXY, TCP6, &[0; 35]), BadHeader::Short);
        assert_eq!(refused(PROXY, TCP4, &[0; LIMIT + 1]), BadHeader::Long);
    }
}
