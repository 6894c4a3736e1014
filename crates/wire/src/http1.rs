//! HTTP/1.1 on the wire (RFC 9112): bytes to heads, and where a chunked body ends.
//!
//! Everything on which two parsers might disagree is refused, because what one hop takes for a body another may take
//! for a request: both lengths or several, a transfer coding other than one final `chunked`, folded lines, white space
//! before a colon, line ends other than CRLF, control bytes, a `Host` that is missing, doubled or malformed.
//!
//! ```
//! use gaiola_model::http::{Framing, Method, RequestHead};
//! use gaiola_wire::http1::{Limits, Progress, parse_request};
//!
//! let bytes = b"POST /entries?x HTTP/1.1\r\nHost: site\r\nContent-Length: 2\r\n\r\n{}";
//! let mut head = RequestHead::default();
//! assert_eq!(parse_request(bytes, &mut head, &Limits::default()), Ok(Progress::Done));
//! assert_eq!((head.method, head.framing), (Method::Post, Framing::Length(2)));
//! assert_eq!(head.path(bytes), b"/entries");
//! assert_eq!(&bytes[head.len..], b"{}");
//! ```

mod chunks;
mod error;
mod fields;
mod request;
mod response;
mod scan;
mod target;

pub use chunks::{BadChunk, ChunkDecoder, Decoded, Part};
pub use error::{BadField, BadRequest, BadResponse};
pub use request::parse_request;
pub use response::parse_response;

/// Most bytes of a body or a chunk. A reader with signed numbers would take a larger length for another one.
const MOST_LENGTH: u64 = u64::MAX / 2;

/// How large a head may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a head, the blank line at its end included.
    pub head: usize,
    /// Most bytes of a request's target.
    pub target: usize,
    /// Most fields.
    pub fields: usize,
}

impl Default for Limits {
    /// 16 KiB, a target of 8 KiB, 100 fields.
    fn default() -> Self {
        Self {
            head: 16 * 1024,
            target: 8 * 1024,
            fields: 100,
        }
    }
}

/// How far parsing came. An error that more bytes could not mend is told as soon as it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head has not ended: read more and parse again from its first byte. Until then the head tells nothing.
    Partial,
    /// The head is whole.
    Done,
}
