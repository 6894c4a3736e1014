//! HTTP/1.1 heads as offsets into the buffer they were read into.
//!
//! A head owns none of its text: each [`Span`] is read with the buffer that was parsed, as long as its bytes have not
//! moved. Heads are reused, so in the steady state no request allocates.

mod coding;
mod field;

pub use coding::Coding;
pub use field::{Field, FieldName};

/// A piece of a buffer, from `start` to `end`, which is exclusive.
///
/// ```
/// use gaiola_model::http::Span;
///
/// assert_eq!(Span::new(4, 6).of(b"GET /a HTTP/1.1"), b"/a");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

impl Span {
    /// The piece `start..end`.
    ///
    /// # Panics
    /// If `end` does not fit in 32 bits: heads are bounded far below that.
    pub fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end, "a span from {start} back to {end}");
        let fit = |offset: usize| u32::try_from(offset).expect("a head of less than 4 GiB");
        Self {
            start: fit(start),
            end: fit(end),
        }
    }

    /// Its bytes in the buffer it was made from.
    ///
    /// # Panics
    /// If the buffer is shorter than the one it was made from.
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.range()]
    }

    /// As a range of offsets.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Number of bytes.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it has no bytes.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// A request's method (RFC 9110, section 9). CONNECT is never parsed: this is no forward proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET.
    #[default]
    Get,
    /// HEAD: its response never has a body.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
    /// TRACE.
    Trace,
    /// PATCH.
    Patch,
    /// Any other; its name is [`RequestHead::method_name`].
    Other,
}

impl Method {
    /// The method of this name; names are case-sensitive.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Whether doing it twice has the effect of doing it once (RFC 9110, section 9.2.2). [`Self::Other`] is unknown, so
    /// it is not.
    pub const fn is_idempotent(self) -> bool {
        match self {
            Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace => true,
            Self::Post | Self::Patch | Self::Other => false,
        }
    }
}

/// The protocol's version. The parser rejects all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// How the end of a body is found (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// This many bytes, possibly zero.
    Length(u64),
    /// Chunks, up to the last one and its trailers.
    Chunked,
    /// All bytes up to the end of the connection. Responses only.
    UntilClose,
}

impl Framing {
    /// Whether no byte of a body follows.
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// The form of a request's target (RFC 9112, section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TargetForm {
    /// `/path?query`.
    #[default]
    Origin,
    /// `http://host/path?query`, as sent to a proxy. `Host` is then ignored and replaced.
    Absolute,
    /// `*`, with OPTIONS only.
    Asterisk,
}

/// A request without its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The method's name as sent.
    pub method_name: Span,
    /// The target as sent.
    pub target: Span,
    /// The target's form.
    pub form: TargetForm,
    /// The target's path as sent, without the query; [`Self::path`] is never empty.
    pub path: Span,
    /// What follows the path in the target: `?` and the query, or nothing.
    pub query: Span,
    /// The version.
    pub version: Version,
    /// Host and port: from a target in absolute form, else from the `Host` field. `None` with HTTP/1.0 only.
    pub host: Option<Span>,
    /// All fields in the order they were sent.
    pub fields: Vec<Field>,
    /// How the body ends: never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether the client wants to send further requests on the connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether the client requests another protocol, such as `websocket`. Another version of HTTP (`h2c`) does not
    /// count: a tunnel of requests would bypass every rule.
    pub upgrade: bool,
    /// Bytes of the head, including an empty line sent before it and the blank line at its end.
    pub len: usize,
}

impl RequestHead {
    /// The path, at least `/` (or `*`).
    pub fn path<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        match self.path.of(buffer) {
            b"" => b"/",
            path => path,
        }
    }

    /// The value of the first field of this name.
    pub fn field<'a>(&self, name: FieldName, buffer: &'a [u8]) -> Option<&'a [u8]> {
        field::first(&self.fields, name).map(|value| value.of(buffer))
    }

    /// Resets it, but keeps its memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }
}

/// A response without its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// The version.
    pub version: Version,
    /// The status, 100 to 599.
    pub status: u16,
    /// The text after the status, possibly empty.
    pub reason: Span,
    /// All fields in the order they were sent.
    pub fields: Vec<Field>,
    /// How the body ends, given the request's method.
    pub framing: Framing,
    /// Whether the server takes further requests on the connection.
    pub keep_alive: bool,
    /// Whether it switches to another protocol: status 101.
    pub upgrade: bool,
    /// Bytes of the head, including the blank line at its end.
    pub len: usize,
}

impl ResponseHead {
    /// Whether another response to the same request follows (1xx, except 101).
    pub const fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// The value of the first field of this name.
    pub fn field<'a>(&self, name: FieldName, buffer: &'a [u8]) -> Option<&'a [u8]> {
        field::first(&self.fields, name).map(|value| value.of(buffer))
    }

    /// Resets it, but keeps its memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_head_keeps_its_memory() {
        let mut head = RequestHead::default();
        head.fields.reserve(20);
        head.keep_alive = true;
        let capacity = head.fields.capacity();
        head.clear();
        assert_eq!(head, RequestHead::default());
        assert_eq!(head.fields.capacity(), capacity);
    }

    #[test]
    fn a_target_without_a_path_asks_for_the_root() {
        let head = RequestHead {
            path: Span::new(11, 11),
            ..RequestHead::default()
        };
        assert_eq!(head.path(b"GET http://a HTTP/1.1"), b"/");
    }

    #[test]
    fn post_is_not_idempotent() {
        assert!(!Method::of(b"POST").is_idempotent());
        assert!(!Method::of(b"get").is_idempotent());
        assert!(Method::of(b"GET").is_idempotent());
    }
}
