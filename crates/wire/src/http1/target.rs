//! Request targets and hosts (RFC 9112, section 3.2).

use super::scan;
use gaiola_model::http::{Method, RequestHead, Span, TargetForm};

/// Longest host and port: a name has 253 bytes at most (RFC 1035), a port 5.
const HOST_LIMIT: usize = 260;

/// Parses a target of visible ASCII into the head; `false` if it has no form that its method allows.
pub(super) fn parse(target: Span, bytes: &[u8], head: &mut RequestHead) -> bool {
    let text = target.of(bytes);
    head.target = target;
    if text.contains(&b'#') {
        return false;
    }
    let path_start = match text {
        [b'/', ..] => 0,
        b"*" if head.method == Method::Options => {
            head.form = TargetForm::Asterisk;
            0
        }
        _ => {
            let Some(authority) = authority(text) else {
                return false;
            };
            head.form = TargetForm::Absolute;
            head.host = Some(within(target, authority.clone()));
            authority.end
        }
    };
    let path_len = scan::run(&text[path_start..], |byte| byte != b'?');
    head.path = within(target, path_start..path_start + path_len);
    head.query = within(target, path_start + path_len..text.len());
    true
}

/// A piece of a piece.
fn within(outer: Span, inner: std::ops::Range<usize>) -> Span {
    let start = outer.start as usize;
    Span::new(start + inner.start, start + inner.end)
}

/// The range of host and port in a target in absolute form.
fn authority(text: &[u8]) -> Option<std::ops::Range<usize>> {
    let scheme = [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find(|scheme| {
            text.get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })?;
    let start = scheme.len();
    let end = start + scan::run(&text[start..], |byte| byte != b'/' && byte != b'?');
    is_host(&text[start..end]).then_some(start..end)
}

/// Whether this is a host (a name, an IPv4 address, or an IPv6 address in brackets) and an optional port.
pub(super) fn is_host(text: &[u8]) -> bool {
    if text.is_empty() || text.len() > HOST_LIMIT || !scan::is_host(text) {
        return false;
    }
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let close = scan::run(rest, |byte| byte != b']');
            let Some((address, after)) = rest.split_at_checked(close) else {
                return false;
            };
            if !is_ipv6(address) || after.is_empty() {
                return false;
            }
            (address, &after[1..])
        }
        _ => text.split_at(scan::run(text, |byte| byte != b':')),
    };
    let name_is_plain = text[0] == b'[' || !host.iter().any(|byte| matches!(byte, b'[' | b']'));
    !host.is_empty() && name_is_plain && is_port(port)
}

fn is_ipv6(address: &[u8]) -> bool {
    std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Nothing, or a colon and an optional 16-bit number.
fn is_port(text: &[u8]) -> bool {
    match text {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && digits
                    .iter()
                    .fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0'))
                    <= 65535
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn hosts_have_a_name_or_address_and_maybe_a_port() {
        for good in [
            "site",
            "site:80",
            "a.b-c.example:8080",
            "10.0.0.1",
            "[::1]",
            "[fe80::1]:443",
            "site:",
            "_x",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in [
            "",
            ":80",
            "a b",
            "a,b",
            "a@b",
            "a/b",
            "site:x",
            "site:99999",
            "site:1:2",
            "[::1",
            "[]",
            "[::1]x",
            "[site]",
            "a[b]",
            "::1",
            "a\u{e9}",
            "site:123456",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
