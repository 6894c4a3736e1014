//! Forwards a client's request to a server.

use super::way::{limits_forwards, max_forwards};
use super::{Edit, Match, Outgoing, is_listed, line, list, lists_fields, options, resembles};
use crate::cookie;
use gaiola_model::http::{Field, FieldName, Framing, RequestHead, Span, TargetForm, Version};
use ipnet::IpNet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// Longest request id that is kept.
const ID_LIMIT: usize = 128;

/// The hop before the server, as reported to it.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// Address of the sender.
    pub client: IpAddr,
    /// Whether the sender's claims about earlier hops are trusted.
    pub trusted: bool,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Our own name, for `Via`.
    pub server: &'a str,
    /// The request's id: the result of [`request_id`], or else a new one.
    pub request_id: &'a [u8],
    /// Sent as `Host` if an HTTP/1.0 client sent none.
    pub default_host: &'a str,
    /// Sent instead of the request's path, unless empty.
    pub path: &'a [u8],
    /// Sent as `Host` instead of the client's, unless empty.
    pub host: &'a [u8],
    /// How rules change the fields.
    pub edit: Edit<'a>,
    /// The name of a cookie to hide from the server.
    pub hidden_cookie: Option<&'a str>,
}

/// The id that a trusted sender gave the request, if it is fit to be forwarded and logged: visible ASCII, at most 128
/// bytes.
pub fn request_id<'a>(head: &RequestHead, buffer: &'a [u8], trusted: bool) -> Option<&'a [u8]> {
    head.field(FieldName::XRequestId, buffer).filter(|id| {
        trusted && (1..=ID_LIMIT).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
    })
}

/// Client address: the sender's, or the furthest that trusted senders name in `X-Forwarded-For`. If the last of these
/// entries is no address the result is 0.0.0.0: the sender's own address may have access that the client's does not.
pub fn client(head: &RequestHead, buffer: &[u8], sender: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|known| known.contains(address));
    let fields = head.fields.iter().rev();
    let mut earlier = fields
        .filter(|field| field.known == FieldName::XForwardedFor)
        .flat_map(|field| field.value.of(buffer).rsplit(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|address| !address.is_empty());
    let mut client = sender;
    while is_trusted(&client.to_canonical())
        && let Some(earlier) = earlier.next()
    {
        match address(earlier) {
            Some(address) => client = address,
            None => return IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
    client
}

/// An address as balancers write it: `192.0.2.5`, `192.0.2.5:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:443`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = match text.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?.0,
        None => match text.split_once(':') {
            Some((v4, port)) if !port.contains(':') => v4,
            _ => text,
        },
    };
    let (bare, _zone) = bare.split_once('%').unwrap_or((bare, ""));
    bare.parse().ok()
}

/// Whether the client used HTTPS: TLS here, or HTTPS according to a trusted sender's `X-Forwarded-Proto`.
pub fn is_https(head: &RequestHead, buffer: &[u8], tls: bool, trusted: bool) -> bool {
    let claimed = head.field(FieldName::XForwardedProto, buffer);
    match claimed
        .filter(|_| trusted)
        .and_then(|value| list(value).next())
    {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"https") => true,
        Some(scheme) if scheme.eq_ignore_ascii_case(b"http") => false,
        Some(_) | None => tls,
    }
}

/// Makes an id: 32 hexadecimal digits.
///
/// ```
/// let id = gaiola_core::forward::new_request_id(&mut fastrand::Rng::with_seed(1));
/// assert!(id.iter().all(u8::is_ascii_hexdigit));
/// ```
pub fn new_request_id(rng: &mut fastrand::Rng) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut chance = rng.u128(..);
    std::array::from_fn(|_| {
        let digit = DIGITS[usize::from(chance.to_le_bytes()[0] & 0xf)];
        chance >>= 4;
        digit
    })
}

/// Writes the request's head for the server to `out`, which is cleared first.
///
/// Removed are `Connection` and what it lists, `Keep-Alive`, `Proxy-*`, `Upgrade` if nothing is upgraded, and, from
/// untrusted senders, every field that claims to describe earlier hops. `X-Forwarded-For`, `-Proto`, `-Host`,
/// `X-Request-ID` and `Via` are added. The target is in origin form, the version HTTP/1.1; framing stays unchanged.
pub fn request(head: &RequestHead, buffer: &[u8], hop: &Hop<'_>, out: &mut Outgoing) {
    out.clear();
    request_line(head, hop, out);
    let lists_fields = lists_fields(&head.fields, buffer);
    let max_forwards = max_forwards(head, buffer);
    let is_dropped = |field: &Field| {
        (max_forwards.is_some() && limits_forwards(field, head, buffer))
            || (lists_fields && is_listed(field, &head.fields, buffer))
            || hop.edit.removes(field, buffer)
    };
    for field in &head.fields {
        if stays(field, head, buffer, hop) && !is_dropped(field) {
            match hop
                .hidden_cookie
                .filter(|_| field.known == FieldName::Cookie)
            {
                Some(name) => {
                    cookie::without(field, buffer, name).for_each(|piece| out.keep(piece))
                }
                None => out.keep(field.line()),
            }
        }
    }
    if !hop.edit.added.is_empty() {
        out.write(|text| text.extend_from_slice(hop.edit.added));
    }
    if let Some(left) = max_forwards {
        // Writing to a Vec cannot fail.
        out.write(|text| drop(write!(text, "Max-Forwards: {}\r\n", left.saturating_sub(1))));
    }
    add_host(head, buffer, hop, out);
    add_connection(head, buffer, out);
    add_hops(head, buffer, hop, out);
}

fn request_line(head: &RequestHead, hop: &Hop<'_>, out: &mut Outgoing) {
    let method = Span {
        start: head.method_name.start,
        end: head.target.start,
    };
    out.keep(method);
    match head.form {
        TargetForm::Origin | TargetForm::Absolute if !hop.path.is_empty() => {
            out.write(|text| text.extend_from_slice(hop.path));
            out.keep(head.query);
        }
        TargetForm::Origin | TargetForm::Asterisk => out.keep(head.target),
        TargetForm::Absolute => {
            if head.path.is_empty() {
                out.say(root(head));
            }
            out.keep(head.path);
            out.keep(head.query);
        }
    }
    match (head.version, head.fields.first()) {
        (Version::Http11, Some(first)) => out.keep(Span {
            start: head.target.end,
            end: first.name.start,
        }),
        _ => out.say(b" HTTP/1.1\r\n"),
    }
}

/// The target that an absolute form without a path stands for (RFC 9112, section 3.2.4).
fn root(head: &RequestHead) -> &'static [u8] {
    use gaiola_model::http::Method;
    if head.method == Method::Options && head.query.is_empty() {
        b"*"
    } else {
        b"/"
    }
}

/// Whether a field's line is forwarded unchanged, `Connection`'s list aside.
fn stays(field: &Field, head: &RequestHead, buffer: &[u8], hop: &Hop<'_>) -> bool {
    match field.known {
        FieldName::Connection
        | FieldName::KeepAlive
        | FieldName::Proxy
        | FieldName::ProxyConnection
        | FieldName::ProxyAuthenticate
        | FieldName::ProxyAuthenticationInfo
        | FieldName::ProxyAuthorization
        | FieldName::Te
        | FieldName::XForwardedFor => false,
        FieldName::Host => head.form != TargetForm::Absolute && hop.host.is_empty(),
        FieldName::Upgrade => head.upgrade,
        FieldName::Expect => {
            head.expects_continue || !field.value.of(buffer).eq_ignore_ascii_case(b"100-continue")
        }
        FieldName::Forwarded => hop.trusted,
        FieldName::XForwardedProto | FieldName::XForwardedHost => {
            hop.trusted && is_first(field, head)
        }
        FieldName::XRequestId => {
            is_first(field, head) && request_id(head, buffer, hop.trusted).is_some()
        }
        FieldName::Other => !misleads(field.name.of(buffer), hop.trusted),
        _ => true,
    }
}

/// Whether no field before it has the same name.
fn is_first(field: &Field, head: &RequestHead) -> bool {
    head.fields
        .iter()
        .find(|other| other.known == field.known)
        .is_some_and(|first| first.name == field.name)
}

/// Whether a field could be mistaken for one that we vouch for: names that differ from it only in `_`, which no
/// balancer writes and so the client did, and claims about earlier hops by an untrusted sender.
fn misleads(name: &[u8], trusted: bool) -> bool {
    let is = |wanted: &[u8]| resembles(name, wanted, Match::Whole);
    match name.first().map(u8::to_ascii_lowercase) {
        Some(b'c') => is(b"content-length"),
        Some(b't') => is(b"transfer-encoding"),
        Some(b'x') if trusted && !name.contains(&b'_') => false,
        Some(b'x') => {
            is(b"x-real-ip")
                || is(b"x-request-id")
                || resembles(name, b"x-forwarded-", Match::Beginning)
        }
        _ => false,
    }
}

/// Adds `Host` if none was kept: from a target in absolute form, or the default.
fn add_host(head: &RequestHead, buffer: &[u8], hop: &Hop<'_>, out: &mut Outgoing) {
    match (head.form, head.host) {
        _ if !hop.host.is_empty() => out.write(|text| line(text, b"Host: ", &[hop.host])),
        (TargetForm::Origin | TargetForm::Asterisk, Some(_)) => {}
        (_, Some(host)) => out.write(|text| line(text, b"Host: ", &[host.of(buffer)])),
        (_, None) => out.write(|text| line(text, b"Host: ", &[hop.default_host.as_bytes()])),
    }
}

/// Adds the fields for our connection to the server.
fn add_connection(head: &RequestHead, buffer: &[u8], out: &mut Outgoing) {
    let takes_trailers = head
        .field(FieldName::Te, buffer)
        .is_some_and(|te| list(te).any(|coding| coding.eq_ignore_ascii_case(b"trailers")))
        && options(&head.fields, buffer).any(|option| option.eq_ignore_ascii_case(b"te"));
    match (head.upgrade, takes_trailers) {
        (false, false) => {}
        (true, false) => out.say(b"Connection: upgrade\r\n"),
        (false, true) => out.say(b"Connection: TE\r\nTE: trailers\r\n"),
        (true, true) => out.say(b"Connection: upgrade, TE\r\nTE: trailers\r\n"),
    }
}

/// Adds the fields about earlier hops, and ends the head.
fn add_hops(head: &RequestHead, buffer: &[u8], hop: &Hop<'_>, out: &mut Outgoing) {
    let kept = |name| hop.trusted && head.field(name, buffer).is_some();
    out.write(|text| {
        text.extend_from_slice(b"X-Forwarded-For: ");
        let earlier = head
            .fields
            .iter()
            .filter(|field| hop.trusted && field.known == FieldName::XForwardedFor);
        for field in earlier.filter(|field| !field.value.is_empty()) {
            text.extend_from_slice(field.value.of(buffer));
            text.extend_from_slice(b", ");
        }
        write_address(text, hop.client.to_canonical());
        text.extend_from_slice(b"\r\n");
        if !kept(FieldName::XForwardedProto) {
            let proto: &[u8] = if hop.tls { b"https" } else { b"http" };
            line(text, b"X-Forwarded-Proto: ", &[proto]);
        }
        if let Some(host) = head.host.filter(|_| !kept(FieldName::XForwardedHost)) {
            line(text, b"X-Forwarded-Host: ", &[host.of(buffer)]);
        }
        if request_id(head, buffer, hop.trusted).is_none() {
            line(text, b"X-Request-ID: ", &[hop.request_id]);
        }
        let version: &[u8] = match head.version {
            Version::Http10 => b"1.0 ",
            Version::Http11 => b"1.1 ",
        };
        line(text, b"Via: ", &[version, hop.server.as_bytes()]);
        text.extend_from_slice(b"\r\n");
    });
    debug_assert_ne!(
        head.framing,
        Framing::UntilClose,
        "no request ends with its connection"
    );
}

/// Every request has one, so this is worth more code than `Display`.
fn write_address(text: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        // Writing to a Vec cannot fail.
        let _ = write!(text, "{address}");
        return;
    };
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push(b'.');
        }
        if octet >= 100 {
            text.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            text.push(b'0' + octet / 10 % 10);
        }
        text.push(b'0' + octet % 10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn addresses_are_written_as_they_are_displayed(address: IpAddr) {
            let mut text = Vec::new();
            write_address(&mut text, address);
            prop_assert_eq!(String::from_utf8(text).unwrap(), address.to_string());
        }
    }
}
