//! The hash key of a request.

use super::hash;
use crate::cookie;
use gaiola_model::http::{FieldName, RequestHead};
use gaiola_model::proxy::HashKey;
use std::net::IpAddr;

/// Hash of the configured part of a request, the same in every process; `None` if the request lacks that part. For a
/// connection without a request (TCP) only the client address is known.
pub fn key(what: &HashKey, client: IpAddr, request: Option<(&RequestHead, &[u8])>) -> Option<u64> {
    if *what == HashKey::Source {
        return Some(match client.to_canonical() {
            IpAddr::V4(address) => hash::of(&[&address.octets()]),
            IpAddr::V6(address) => hash::of(&[&address.octets()]),
        });
    }
    let (head, buffer) = request?;
    match what {
        HashKey::Source => None,
        HashKey::Uri { query, depth } => {
            let path = beginning(head.path(buffer), *depth);
            let query = if *query { head.query.of(buffer) } else { b"" };
            Some(hash::of(&[path, query]))
        }
        HashKey::Header(name) => {
            let known = FieldName::of(name.as_bytes());
            let mut fields = head.fields.iter().filter(|field| field.known == known);
            let field = fields.find(|field| {
                let name = name.as_bytes();
                field.name.of(buffer).eq_ignore_ascii_case(name)
            })?;
            of_value(field.value.of(buffer))
        }
        HashKey::Cookie(name) => of_value(cookie::find(head, buffer, name)?),
    }
}

/// An empty value is no key.
fn of_value(value: &[u8]) -> Option<u64> {
    (!value.is_empty()).then(|| hash::of(&[value]))
}

/// A path up to the slash that ends the `depth`th directory; all of it for 0.
fn beginning(path: &[u8], depth: u16) -> &[u8] {
    if depth == 0 {
        return path;
    }
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    match slashes.map(|(at, _)| at).nth(depth.into()) {
        Some(end) => &path[..end],
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::http::{Field, Span};

    /// A request of these lines, read without `wire`.
    fn read(path: &str, lines: &[(&str, &str)]) -> (RequestHead, Vec<u8>) {
        let mut buffer = path.as_bytes().to_vec();
        let query = path.find('?').unwrap_or(path.len());
        let mut head = RequestHead {
            path: Span::new(0, query),
            query: Span::new(query, path.len()),
            ..RequestHead::default()
        };
        for (name, value) in lines {
            let start = buffer.len();
            buffer.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            let value_start = start + name.len() + 2;
            head.fields.push(Field {
                known: FieldName::of(name.as_bytes()),
                name: Span::new(start, start + name.len()),
                value: Span::new(value_start, value_start + value.len()),
                line_end: u32::try_from(buffer.len()).unwrap(),
            });
        }
        (head, buffer)
    }

    fn of(what: &HashKey, path: &str, lines: &[(&str, &str)]) -> Option<u64> {
        let (head, buffer) = read(path, lines);
        key(what, [10, 0, 0, 1].into(), Some((&head, &buffer)))
    }

    #[test]
    fn an_address_is_the_same_in_both_of_its_forms() {
        let of = |text: &str| key(&HashKey::Source, text.parse().unwrap(), None);
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn a_uri_counts_as_far_as_is_said() {
        let uri = |query, depth| HashKey::Uri { query, depth };
        let same = |what: HashKey, one, other| of(&what, one, &[]) == of(&what, other, &[]);
        assert!(same(uri(false, 0), "/a/b?x=1", "/a/b?x=2"));
        assert!(!same(uri(true, 0), "/a/b?x=1", "/a/b?x=2"));
        assert!(!same(uri(false, 0), "/a/b", "/a/c"));
        assert!(same(uri(false, 1), "/a/b", "/a/c"));
        assert!(!same(uri(false, 2), "/a/b", "/a/c"));
        assert!(same(uri(false, 2), "/a/b/c", "/a/b"));
    }

    #[test]
    fn a_header_or_cookie_that_is_missing_or_empty_is_no_key() {
        let header = HashKey::Header("X-User".into());
        assert_eq!(of(&header, "/", &[("X-Other", "a")]), None);
        assert_eq!(of(&header, "/", &[("X-User", "")]), None);
        assert!(of(&header, "/", &[("x-user", "a")]).is_some());
        let known = HashKey::Header("host".into());
        assert!(of(&known, "/", &[("Host", "a")]).is_some());
        let cookie = HashKey::Cookie("id".into());
        assert_eq!(of(&cookie, "/", &[("Cookie", "xid=1; i=2")]), None);
        assert_eq!(
            of(&cookie, "/", &[("Cookie", "a=b"), ("Cookie", "c=d; id=7")]),
            of(&cookie, "/", &[("Cookie", "id=\"7\"")])
        );
    }
}
