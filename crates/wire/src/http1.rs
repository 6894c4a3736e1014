//! HTTP/1.1 on the wire (RFC 9112): parses heads, and finds the end of a chunked body.
//!
//! Everything on which two parsers might disagree is rejected, because what one hop takes for a body another may take for a
//! request: both lengths or several, a transfer coding other than one final `chunked`, folded lines, white space before a
//! colon, line ends other than CRLF, control bytes, a `Host` that is missing, duplicated or malformed.
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

/// Most bytes of a body or a chunk. A peer with signed numbers would misread a larger length.
const MOST_LENGTH: u64 = u64::MAX / 2;

/// Size limits of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a head, including the blank line at its end.
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

/// Parser progress. An error that more bytes could not fix is reported as soon as it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head is incomplete: read more and parse again from its first byte. Until then the head's contents are
    /// undefined.
    Partial,
    /// The head is complete.
    Done,
}
