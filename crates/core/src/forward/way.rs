//! Limits on a request's hops: `Via` and `Max-Forwards`.

use super::list;
use gaiola_model::http::{Field, FieldName, Method, RequestHead};

/// Passes through here that make a loop. Proxies in a chain may share a name, but not this many.
const MOST_ROUNDS: usize = 5;

/// Whether the request loops: `Via` has our own name that often.
pub fn is_loop(head: &RequestHead, buffer: &[u8], server: &str) -> bool {
    let fields = head.fields.iter();
    let ways = fields.filter(|field| field.known == FieldName::Via);
    let hops = ways.flat_map(|field| list(field.value.of(buffer)));
    let is_ours = |hop: &&[u8]| {
        let mut words = hop
            .split(|&byte| byte == b' ')
            .filter(|word| !word.is_empty());
        words.nth(1) == Some(server.as_bytes())
    };
    hops.filter(is_ours).count() >= MOST_ROUNDS
}

/// How many more proxies OPTIONS or TRACE may pass (RFC 9110, section 7.6.2), if it says so.
pub fn max_forwards(head: &RequestHead, buffer: &[u8]) -> Option<u32> {
    let mut fields = head.fields.iter();
    let field = fields.find(|field| limits_forwards(field, head, buffer))?;
    std::str::from_utf8(field.value.of(buffer))
        .ok()?
        .parse()
        .ok()
}

/// Whether the field is such a limit.
pub(super) fn limits_forwards(field: &Field, head: &RequestHead, buffer: &[u8]) -> bool {
    matches!(head.method, Method::Options | Method::Trace)
        && field.known == FieldName::Other
        && field.name.of(buffer).eq_ignore_ascii_case(b"max-forwards")
}
