//! Whether a response is compressed on its way to the client, and how.

use crate::encoding::Accepted;
use gaiola_model::http::{Coding, Field, FieldName, Framing, Method, ResponseHead, Version};
use gaiola_model::proxy::Compression;

/// What becomes of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// How it is compressed.
    pub coding: Option<Coding>,
    /// Whether another client would get it otherwise: it has `Vary: Accept-Encoding`.
    pub varies: bool,
}

/// The client's side of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its request's method.
    pub method: Method,
    /// Its version: HTTP/1.0 knows no chunks, without which a length would have to be known first.
    pub version: Version,
    /// The codings that it accepts.
    pub accepted: Accepted,
}

/// What the decision depends on of a response.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Its status.
    pub status: u16,
    /// Its type, with parameters.
    pub content_type: Option<&'a [u8]>,
    /// Its length, if it is known.
    pub length: Option<u64>,
}

/// Decides for a response of a server. A part, what is compressed already, and what its sender forbids to be transformed
/// (RFC 9110, section 7.7) stay as they are.
pub fn decide(
    policy: &Compression,
    client: Client,
    head: &ResponseHead,
    buffer: &[u8],
) -> Decision {
    let has = |name| head.fields.iter().any(|field| field.known == name);
    let is_fixed = has(FieldName::ContentEncoding) || has(FieldName::ContentRange);
    if is_fixed || head.upgrade || head.fields.iter().any(|field| forbids(field, buffer)) {
        return Decision::default();
    }
    let contents = Contents {
        status: head.status,
        content_type: only(FieldName::ContentType, head, buffer),
        length: match head.framing {
            // A response to HEAD names the length of the body that it leaves out.
            Framing::None => written_length(head, buffer),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        },
    };
    let decision = decide_for(policy, client, contents);
    let coding = decision.coding.filter(|_| !head.framing.is_empty());
    Decision { coding, ..decision }
}

/// Decides for contents that are whole and not compressed.
pub fn decide_for(policy: &Compression, client: Client, contents: Contents<'_>) -> Decision {
    let varies = match contents.status {
        // The response that the client has was one that varies.
        304 => true,
        200..=599 if !matches!(contents.status, 204..=206) => {
            let length = contents.length.unwrap_or(u64::MAX);
            length >= policy.min_size.max(1)
                && contents.content_type.is_some_and(|is| fits(policy, is))
        }
        _ => false,
    };
    let may = varies
        && contents.status != 304
        && client.method != Method::Head
        && client.version == Version::Http11;
    let offered = || policy.codings.iter().map(|(coding, _)| *coding);
    let best = || client.accepted.best(&offered().collect::<Vec<_>>());
    Decision {
        coding: may.then(best).flatten(),
        varies,
    }
}

/// Whether the type is one of those that are compressed.
fn fits(policy: &Compression, content_type: &[u8]) -> bool {
    let mut parts = content_type.split(|&byte| byte == b';');
    let name = parts.next().unwrap_or_default().trim_ascii();
    let name = std::str::from_utf8(name).map(str::to_ascii_lowercase);
    name.is_ok_and(|name| policy.has_type(&name))
}

fn forbids(field: &Field, buffer: &[u8]) -> bool {
    field.known == FieldName::CacheControl && is_no_transform(field.value.of(buffer))
}

/// Whether a value of `Cache-Control` has `no-transform`.
pub fn is_no_transform(value: &[u8]) -> bool {
    let mut directives = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// The value of a field that is there once.
fn only<'a>(name: FieldName, head: &ResponseHead, buffer: &'a [u8]) -> Option<&'a [u8]> {
    let mut fields = head.fields.iter().filter(|field| field.known == name);
    let first = fields.next()?;
    fields.next().is_none().then(|| first.value.of(buffer))
}

fn written_length(head: &ResponseHead, buffer: &[u8]) -> Option<u64> {
    let written = only(FieldName::ContentLength, head, buffer)?;
    std::str::from_utf8(written).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(accept: &str) -> Client {
        Client {
            method: Method::Get,
            version: Version::Http11,
            accepted: Accepted::of([accept].into_iter()),
        }
    }

    fn decided(status: u16, fields: &[(&str, &str)], framing: Framing, client: Client) -> Decision {
        let mut buffer = Vec::new();
        let mut head = ResponseHead {
            status,
            framing,
            ..ResponseHead::default()
        };
        for (name, value) in fields {
            let start = buffer.len();
            buffer.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            let span = gaiola_model::http::Span::new;
            let value_at = start + name.len() + 2;
            head.fields.push(Field {
                known: FieldName::of(name.as_bytes()),
                name: span(start, start + name.len()),
                value: span(value_at, value_at + value.len()),
                line_end: u32::try_from(buffer.len()).unwrap(),
            });
        }
        decide(&Compression::default(), client, &head, &buffer)
    }

    const HTML: (&str, &str) = ("Content-Type", "Text/HTML; charset=utf-8");
    const LONG: Framing = Framing::Length(5000);
    const PLAIN: Decision = Decision {
        coding: None,
        varies: false,
    };
    const VARIES: Decision = Decision {
        coding: None,
        varies: true,
    };

    #[test]
    fn text_is_compressed_as_the_client_likes_best() {
        let of = |accept| decided(200, &[HTML], LONG, client(accept));
        let coding = |coding| Decision {
            coding: Some(coding),
            varies: true,
        };
        assert_eq!(of("gzip, deflate, br, zstd"), coding(Coding::Zstd));
        assert_eq!(of("gzip, br"), coding(Coding::Gzip));
        assert_eq!(of("gzip;q=0.9, br"), coding(Coding::Brotli));
        assert_eq!(of("gzip;q=0"), VARIES);
        assert_eq!(of(""), VARIES);
        let chunked = decided(404, &[HTML], Framing::Chunked, client("gzip"));
        assert_eq!(chunked, coding(Coding::Gzip));
        let until_close = decided(200, &[HTML], Framing::UntilClose, client("gzip"));
        assert_eq!(until_close, coding(Coding::Gzip));
    }

    #[test]
    fn what_must_not_be_compressed_is_not_and_does_not_vary() {
        let with = |field| decided(200, &[HTML, field], LONG, client("gzip"));
        assert_eq!(with(("Content-Encoding", "br")), PLAIN);
        assert_eq!(with(("Content-Encoding", "identity")), PLAIN);
        assert_eq!(with(("Cache-Control", "public, No-Transform")), PLAIN);
        assert_eq!(with(("Content-Range", "bytes 0-1/2")), PLAIN);
        assert_eq!(with(("Content-Type", "image/png")), PLAIN, "two types");
        for status in [101, 204, 205, 206] {
            let part = decided(status, &[HTML], Framing::None, client("gzip"));
            assert_eq!(part, PLAIN, "{status}");
        }
        let image = ("Content-Type", "image/png");
        assert_eq!(decided(200, &[image], LONG, client("gzip")), PLAIN);
        assert_eq!(decided(200, &[], LONG, client("gzip")), PLAIN);
        let short = decided(200, &[HTML], Framing::Length(1023), client("gzip"));
        assert_eq!(short, PLAIN);
    }

    #[test]
    fn responses_without_a_body_and_old_clients_are_told_that_it_varies() {
        assert_eq!(decided(304, &[], Framing::None, client("gzip")), VARIES);
        let head = Client {
            method: Method::Head,
            ..client("gzip")
        };
        let length = ("Content-Length", "5000");
        assert_eq!(decided(200, &[HTML, length], Framing::None, head), VARIES);
        let old = Client {
            version: Version::Http10,
            ..client("gzip")
        };
        assert_eq!(decided(200, &[HTML], LONG, old), VARIES);
    }
}
