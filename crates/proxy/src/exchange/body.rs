//! Finds the end of a body.

use gaiola_model::http::Framing;
use gaiola_wire::http1::{BadChunk, ChunkDecoder, Part};

/// The rest of a body.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked(ChunkDecoder),
    /// Everything up to the end of the connection.
    UntilClose,
}

impl Body {
    /// A body before its first byte.
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(ChunkDecoder::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Whether it has ended. One that ends with its connection never does.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::UntilClose => false,
        }
    }

    /// How many of these bytes belong to the body.
    ///
    /// # Errors
    /// The chunks are malformed.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        match self {
            Self::Length(left) => {
                let taken = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(chunks) => chunks.decode(bytes).map(|decoded| decoded.taken),
            Self::UntilClose => Ok(bytes.len()),
        }
    }

    /// Takes the next run of these bytes, and says whether they are contents or the framing of chunks. There is at least one
    /// byte unless there are none or the body has ended.
    ///
    /// # Errors
    /// The chunks are malformed.
    pub(super) fn next_part(&mut self, bytes: &[u8]) -> Result<(Part, usize), BadChunk> {
        match self {
            Self::Chunked(chunks) => chunks.next_part(bytes),
            Self::Length(_) | Self::UntilClose => Ok((Part::Data, self.take(bytes)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_body_is_not_taken() {
        let mut body = Body::new(Framing::Length(3));
        assert_eq!(body.take(b"ab"), Ok(2));
        assert!(!body.is_done());
        assert_eq!(body.take(b"cGET /"), Ok(1));
        assert!(body.is_done());
        let mut body = Body::new(Framing::Chunked);
        assert_eq!(body.take(b"1\r\na\r\n0\r\n\r\nGET /"), Ok(11));
        assert!(body.is_done());
    }

    #[test]
    fn no_body_is_done_at_once() {
        assert!(Body::new(Framing::None).is_done());
        assert!(!Body::new(Framing::UntilClose).is_done());
    }
}
