//! Version 1: a line of text.

use super::{BadHeader, Carried, Header, Progress};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// Longest line, including its CRLF.
const LIMIT: usize = 107;

pub(super) fn decode(bytes: &[u8]) -> Result<Progress, BadHeader> {
    let window = &bytes[..bytes.len().min(LIMIT)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        return if window.len() == LIMIT {
            Err(BadHeader::Line)
        } else {
            Ok(Progress::Partial)
        };
    };
    let carried = line(&window[..end]).ok_or(BadHeader::Line)?;
    Ok(Progress::Done(Header {
        len: end + 1,
        carried,
    }))
}

/// Parses a line without its line feed.
fn line(line: &[u8]) -> Option<Carried> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('\r')?;
    if text == "PROXY UNKNOWN" || text.starts_with("PROXY UNKNOWN ") {
        return Some(Carried::Local);
    }
    let mut words = text.split(' ');
    let mut next = || words.next();
    let (_, family) = (next()?, next()?);
    let (from, to) = (next()?, next()?);
    let (source, destination) = match family {
        "TCP4" => (ip::<Ipv4Addr>(from)?, ip::<Ipv4Addr>(to)?),
        "TCP6" => (ip::<Ipv6Addr>(from)?, ip::<Ipv6Addr>(to)?),
        _ => return None,
    };
    let source = SocketAddr::new(source, port(next()?)?);
    let destination = SocketAddr::new(destination, port(next()?)?);
    next().is_none().then_some(Carried::Proxied {
        source,
        destination,
    })
}

fn ip<A: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<A>().ok().map(Into::into)
}

/// Digits only, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text == "0" || text.starts_with(|first: char| ('1'..='9').contains(&first));
    plain.then(|| text.parse().ok()).flatten()
}

pub(super) fn encode(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "PROXY {family} {from} {to} {} {}\r\n",
        source.port(),
        destination.port()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_connections_are_local() {
        for text in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ff::1 :: 1 2\r\n"] {
            let header = Header {
                len: text.len(),
                carried: Carried::Local,
            };
            assert_eq!(decode(text.as_bytes()), Ok(Progress::Done(header)));
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        for text in [
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            "PROXY TCP4 ::1 ::2 1 2\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(decode(text.as_bytes()), Err(BadHeader::Line), "{text:?}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let long = [SIGNATURE, &[b'a'; LIMIT]].concat();
        assert_eq!(decode(&long[..LIMIT - 1]), Ok(Progress::Partial));
        assert_eq!(decode(&long), Err(BadHeader::Line));
    }
}
