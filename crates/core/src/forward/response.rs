//! Forwards a server's response to the client.

use super::{Edit, Outgoing, is_listed, line, list, lists_fields};
use crate::compression::Decision;
use crate::cookie;
use gaiola_model::http::{Coding, Field, FieldName, Framing, ResponseHead, Span, Version};

/// What the response to the client depends on besides the server's.
#[derive(Clone, Copy, Debug)]
pub struct ResponseContext<'a> {
    /// The client's HTTP version.
    pub client: Version,
    /// Whether the client and we want to keep the client's connection.
    pub keep_alive: bool,
    /// Our own name, for `Via`.
    pub server: &'a str,
    /// How rules change the fields of the final response.
    pub edit: Edit<'a>,
    /// The time in `Date` format, for a response without one.
    pub date: &'a [u8],
    /// Whole lines that are added.
    pub lines: &'a [u8],
    /// The name of a cookie that only we may set.
    pub own_cookie: Option<&'a str>,
    /// Whether `lines` have an `X-Request-ID`, in place of the server's.
    pub own_request_id: bool,
    /// Whether its body is compressed on its way. If it is, the body that follows the head has chunks.
    pub compressed: Decision,
}

/// What follows for the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Whether it may take another request after the body; the client was informed.
    pub keep_alive: bool,
    /// The body is chunked and the client does not know chunks (HTTP/1.0): only the chunks' data are forwarded, and the
    /// connection is closed after them.
    pub unchunk: bool,
}

/// Writes the response's head for the client to `out`, which is cleared first.
///
/// Removed are `Connection` and what it lists, `Keep-Alive`, `Proxy-*`, and `Upgrade` unless it is the response to an
/// upgrade or demands one; `Via` is added, whether the connection is closed, and a missing `Date` (RFC 9110, section
/// 6.6.1).
pub fn response(
    head: &ResponseHead,
    buffer: &[u8],
    answer: &ResponseContext<'_>,
    out: &mut Outgoing,
) -> Sent {
    let sent = Sent {
        keep_alive: answer.keep_alive
            && match head.framing {
                Framing::None | Framing::Length(_) => true,
                Framing::Chunked => answer.client == Version::Http11,
                Framing::UntilClose => false,
            },
        unchunk: head.framing == Framing::Chunked && answer.client == Version::Http10,
    };
    out.clear();
    status_line(head, out);
    let lists_fields = lists_fields(&head.fields, buffer);
    for field in &head.fields {
        let is_ours = field.known == FieldName::SetCookie
            && answer
                .own_cookie
                .is_some_and(|name| cookie::is_set(field.value.of(buffer), name));
        let is_ours = is_ours
            || field.known == FieldName::XRequestId && answer.own_request_id && !head.is_interim();
        let is_listed = lists_fields && is_listed(field, &head.fields, buffer);
        let is_removed = !head.is_interim() && answer.edit.removes(field, buffer);
        if !stays(field, head, sent) || is_ours || is_listed || is_removed {
            continue;
        }
        match answer.compressed.coding {
            Some(_) if describes_bytes(field, buffer) => {}
            Some(_) if field.known == FieldName::ETag => {
                out.write(|text| weak_etag(field.value.of(buffer), text));
            }
            _ => out.keep(field.line()),
        }
    }
    let varies = !names_encoding(head, buffer, answer.edit);
    if answer.compressed.varies && varies {
        out.say(b"Vary: Accept-Encoding\r\n");
    }
    if let Some(coding) = answer.compressed.coding {
        out.say(match coding {
            Coding::Brotli => b"Content-Encoding: br\r\nTransfer-Encoding: chunked\r\n",
            Coding::Zstd => b"Content-Encoding: zstd\r\nTransfer-Encoding: chunked\r\n",
            Coding::Gzip => b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        });
    }
    if !head.is_interim() {
        if !answer.edit.added.is_empty() {
            out.write(|text| text.extend_from_slice(answer.edit.added));
        }
        out.say(connection(head, answer.client, sent));
        let dates = |field: &Field| field.known == FieldName::Date;
        let says_date = head.fields.iter().any(dates) || answer.edit.speaks_of(b"date");
        out.write(|text| {
            if !says_date && head.status >= 200 {
                line(text, b"Date: ", &[answer.date]);
            }
            text.extend_from_slice(answer.lines);
            let version = match head.version {
                Version::Http10 => "1.0 ",
                Version::Http11 => "1.1 ",
            };
            for part in ["Via: ", version, answer.server, "\r\n\r\n"] {
                text.extend_from_slice(part.as_bytes());
            }
        });
    } else {
        out.say(b"\r\n");
    }
    sent
}

/// Whether a field is no longer true once the body is compressed: its length, its framing, its ranges and digests.
fn describes_bytes(field: &Field, buffer: &[u8]) -> bool {
    const OTHERS: [&[u8]; 5] = [
        b"accept-ranges",
        b"content-md5",
        b"digest",
        b"content-digest",
        b"repr-digest",
    ];
    match field.known {
        FieldName::ContentLength | FieldName::TransferEncoding | FieldName::Trailer => true,
        FieldName::Other => {
            let name = field.name.of(buffer);
            OTHERS.iter().any(|other| name.eq_ignore_ascii_case(other))
        }
        _ => false,
    }
}

/// Other bytes have another strong tag, but the contents are equivalent (RFC 9110, section 8.8.1).
fn weak_etag(value: &[u8], text: &mut Vec<u8>) {
    let prefix: &[u8] = if value.starts_with(b"W/") { b"" } else { b"W/" };
    line(text, b"ETag: ", &[prefix, value]);
}

/// Whether `Vary` already names `Accept-Encoding`, or everything.
fn names_encoding(head: &ResponseHead, buffer: &[u8], edit: Edit<'_>) -> bool {
    let fields = head.fields.iter();
    let varies =
        fields.filter(|field| field.known == FieldName::Vary && !edit.removes(field, buffer));
    varies
        .flat_map(|field| list(field.value.of(buffer)))
        .any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
}

/// Our own version, then status and reason as received. The space between them is required even without a reason (RFC
/// 9112, section 4).
fn status_line(head: &ResponseHead, out: &mut Outgoing) {
    const VERSION_LEN: u32 = 8;
    const STATUS_END: u32 = 12;
    let start = match head.version {
        Version::Http11 => 0,
        Version::Http10 => {
            out.say(b"HTTP/1.1");
            VERSION_LEN
        }
    };
    let end = match head.fields.first() {
        _ if head.reason.start == STATUS_END => STATUS_END,
        Some(first) => first.name.start,
        None => head.reason.end,
    };
    out.keep(Span { start, end });
    match end {
        STATUS_END => out.say(b" \r\n"),
        _ if head.fields.is_empty() => out.say(b"\r\n"),
        _ => {}
    }
}

/// Whether a field's line is forwarded unchanged, `Connection`'s list aside.
fn stays(field: &Field, head: &ResponseHead, sent: Sent) -> bool {
    match field.known {
        FieldName::Connection
        | FieldName::KeepAlive
        | FieldName::Proxy
        | FieldName::ProxyConnection
        | FieldName::ProxyAuthenticate
        | FieldName::ProxyAuthenticationInfo
        | FieldName::ProxyAuthorization
        | FieldName::Te => false,
        FieldName::Upgrade => speaks_of_upgrade(head),
        FieldName::TransferEncoding => !sent.unchunk && may_have_length(head),
        FieldName::Trailer => !sent.unchunk,
        FieldName::ContentLength => may_have_length(head),
        _ => true,
    }
}

/// Whether the response may have a length, including that of the body that HEAD or 304 leave out (RFC 9110, section
/// 8.6).
fn may_have_length(head: &ResponseHead) -> bool {
    !matches!(head.status, 100..=199 | 204)
}

/// 101 Switching Protocols, or 426 Upgrade Required.
fn speaks_of_upgrade(head: &ResponseHead) -> bool {
    matches!(head.status, 101 | 426)
}

fn connection(head: &ResponseHead, client: Version, sent: Sent) -> &'static [u8] {
    match (speaks_of_upgrade(head), sent.keep_alive, client) {
        (true, _, _) if head.upgrade => b"Connection: upgrade\r\n",
        (true, true, _) => b"Connection: upgrade\r\n",
        (true, false, _) => b"Connection: upgrade, close\r\n",
        (false, false, _) => b"Connection: close\r\n",
        (false, true, Version::Http10) => b"Connection: keep-alive\r\n",
        (false, true, Version::Http11) => b"",
    }
}
