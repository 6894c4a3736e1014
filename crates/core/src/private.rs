//! Connections to servers that hold one client's state, and so must not carry other clients' requests (HAProxy: private).
//!
//! NTLM, and Negotiate if it carries NTLM or a server that treats it alike, authenticates the client once per connection,
//! not once per request (RFC 4559, section 6): later requests on the connection count as that user's.

use gaiola_model::http::{Field, RequestHead, ResponseHead};

/// Prefixes of the names of such schemes, including those Microsoft added later: `Negotiate`, `Nego2`, `NTLM`.
const SCHEMES: [&[u8]; 2] = [b"nego", b"ntlm"];

/// Whether the connection is private from this request on: it authenticates the client, or requests another protocol.
///
/// ```
/// use gaiola_core::private;
/// use gaiola_model::http::RequestHead;
///
/// assert!(!private::by_request(&RequestHead::default(), b""));
/// ```
pub fn by_request(head: &RequestHead, buffer: &[u8]) -> bool {
    head.upgrade || names_scheme(&head.fields, buffer, b"authorization")
}

/// Whether the connection is private from this response on: it requests such authentication, alone or among other
/// schemes, or comes from a proxy.
pub fn by_response(head: &ResponseHead, buffer: &[u8]) -> bool {
    match head.status {
        401 => names_scheme(&head.fields, buffer, b"www-authenticate"),
        407 => true,
        _ => false,
    }
}

/// Whether a field of this name has a challenge, or credentials, of such a scheme. Commas within quotes separate, too:
/// at worst a connection is private without need, never shared by mistake.
fn names_scheme(fields: &[Field], buffer: &[u8], name: &[u8]) -> bool {
    let is_such = |part: &[u8]| {
        let part = part.trim_ascii();
        let begins = |scheme: &&[u8]| {
            let beginning = part.get(..scheme.len());
            beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(scheme))
        };
        SCHEMES.iter().any(begins)
    };
    let mut named = fields
        .iter()
        .filter(|field| field.name.len() == name.len())
        .filter(|field| field.name.of(buffer).eq_ignore_ascii_case(name));
    named.any(|field| {
        let value = field.value.of(buffer);
        value.split(|&byte| byte == b',').any(is_such)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::http::{FieldName, Span};

    /// Parses these lines as fields.
    fn fields(text: &str) -> Vec<Field> {
        let mut start = 0;
        let mut fields = Vec::new();
        for line in text.split_inclusive("\r\n") {
            let colon = line.find(": ").unwrap();
            fields.push(Field {
                known: FieldName::of(&line.as_bytes()[..colon]),
                name: Span::new(start, start + colon),
                value: Span::new(start + colon + 2, start + line.len() - 2),
                line_end: u32::try_from(start + line.len()).unwrap(),
            });
            start += line.len();
        }
        fields
    }

    fn response(status: u16, text: &str) -> bool {
        let head = ResponseHead {
            status,
            fields: fields(text),
            ..ResponseHead::default()
        };
        by_response(&head, text.as_bytes())
    }

    fn request(upgrade: bool, text: &str) -> bool {
        let head = RequestHead {
            upgrade,
            fields: fields(text),
            ..RequestHead::default()
        };
        by_request(&head, text.as_bytes())
    }

    #[test]
    fn a_challenge_that_binds_is_found_among_others() {
        for fields in [
            "WWW-Authenticate: NTLM\r\n",
            "WWW-Authenticate: NTLM TlRMTVNTUAACAAAA\r\n",
            "www-authenticate: negotiate\r\n",
            "WWW-Authenticate: Nego2\r\n",
            "WWW-Authenticate: Basic realm=\"a, b\", NTLM\r\n",
            "WWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate: Negotiate\r\n",
        ] {
            assert!(response(401, fields), "{fields}");
        }
        assert!(response(407, "Proxy-Authenticate: Basic\r\n"));
    }

    #[test]
    fn others_bind_nothing() {
        for fields in [
            "",
            "WWW-Authenticate: Basic realm=\"ntlm\"\r\n",
            "WWW-Authenticate: Bearer\r\n",
            "X-Authenticate: NTLM\r\n",
        ] {
            assert!(!response(401, fields), "{fields}");
        }
        assert!(!response(200, "WWW-Authenticate: NTLM\r\n"));
    }

    #[test]
    fn credentials_bind_before_they_are_asked_for() {
        assert!(request(false, "Authorization: Negotiate YII=\r\n"));
        assert!(request(false, "authorization: ntlm TlRM\r\n"));
        assert!(request(true, "Upgrade: websocket\r\n"));
        assert!(!request(false, "Authorization: Basic YTpi\r\n"));
        assert!(!request(false, "Authorization: Bearer ntlm\r\n"));
    }
}
