//! Header fields, and the names known to the proxy.

use super::Span;

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Which field it is, if the proxy knows it.
    pub known: FieldName,
    /// Its name as sent.
    pub name: Span,
    /// Its value, without surrounding white space.
    pub value: Span,
    /// Offset after the CRLF that ends its line. The line begins at `name.start`.
    pub line_end: u32,
}

impl Field {
    /// The whole line, including its CRLF.
    pub fn line(&self) -> Span {
        Span {
            start: self.name.start,
            end: self.line_end,
        }
    }
}

/// The value of the first field of this name.
pub(super) fn first(fields: &[Field], name: FieldName) -> Option<Span> {
    fields
        .iter()
        .find(|field| field.known == name)
        .map(|field| field.value)
}

macro_rules! names {
    ($($variant:ident $text:literal,)*) => {
        /// The fields that framing, routing or forwarding depend on, and those that answering with files and compressing read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FieldName {
            $(#[doc = concat!("`", $text, "`.")] $variant,)*
            /// Any other.
            Other,
        }

        impl FieldName {
            /// The field of this name, in any case.
            pub fn of(name: &[u8]) -> Self {
                let Some(known) = candidate(name) else {
                    return Self::Other;
                };
                let text = known.text().as_bytes();
                // Fast path: nearly everybody writes names as we do.
                if name == text || name.eq_ignore_ascii_case(text) { known } else { Self::Other }
            }

            /// Its name as we write it; empty for [`Self::Other`].
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other => "",
                }
            }

            /// Every known name.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
        }
    };
}

names! {
    Host "Host",
    Connection "Connection",
    ContentLength "Content-Length",
    TransferEncoding "Transfer-Encoding",
    Expect "Expect",
    Upgrade "Upgrade",
    KeepAlive "Keep-Alive",
    Proxy "Proxy",
    ProxyConnection "Proxy-Connection",
    ProxyAuthenticate "Proxy-Authenticate",
    ProxyAuthorization "Proxy-Authorization",
    ProxyAuthenticationInfo "Proxy-Authentication-Info",
    Te "TE",
    Trailer "Trailer",
    Via "Via",
    Forwarded "Forwarded",
    XForwardedFor "X-Forwarded-For",
    XForwardedProto "X-Forwarded-Proto",
    XForwardedHost "X-Forwarded-Host",
    XRequestId "X-Request-ID",
    Traceparent "traceparent",
    Date "Date",
    Server "Server",
    Range "Range",
    IfRange "If-Range",
    IfMatch "If-Match",
    IfNoneMatch "If-None-Match",
    IfModifiedSince "If-Modified-Since",
    IfUnmodifiedSince "If-Unmodified-Since",
    AcceptEncoding "Accept-Encoding",
    ContentEncoding "Content-Encoding",
    ContentType "Content-Type",
    ContentRange "Content-Range",
    CacheControl "Cache-Control",
    ETag "ETag",
    Vary "Vary",
    Cookie "Cookie",
    SetCookie "Set-Cookie",
}

/// Longer than every known name.
const LENGTHS: usize = 32;

/// The one known name of each length, and first and last letter, as its index in [`FieldName::ALL`] plus one; 0 is none. So a
/// lookup compares a name with at most one other.
static CANDIDATES: [[u8; 32]; LENGTHS] = candidates();

const fn candidates() -> [[u8; 32]; LENGTHS] {
    let mut table = [[0; 32]; LENGTHS];
    let mut place = 0u8;
    while (place as usize) < FieldName::ALL.len() {
        let text = FieldName::ALL[place as usize].text().as_bytes();
        let slot = &mut table[text.len()][ends(text[0], text[text.len() - 1])];
        assert!(*slot == 0, "two names share their length and their ends");
        place += 1;
        *slot = place;
    }
    table
}

/// The same number for upper and lower case.
const fn ends(first: u8, last: u8) -> usize {
    ((first % 32 + last % 32) % 32) as usize
}

/// The only known name that this can be.
fn candidate(name: &[u8]) -> Option<FieldName> {
    let place = CANDIDATES.get(name.len())?[ends(*name.first()?, *name.last()?)];
    let place = usize::from(place).checked_sub(1)?;
    FieldName::ALL.get(place).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for &name in FieldName::ALL {
            assert_eq!(FieldName::of(name.text().as_bytes()), name);
            assert_eq!(FieldName::of(name.text().to_uppercase().as_bytes()), name);
        }
    }

    #[test]
    fn other_names_are_other() {
        for name in ["", "Hosts", "Accept", "Content_Length", "x-request-i"] {
            assert_eq!(FieldName::of(name.as_bytes()), FieldName::Other);
        }
    }
}
