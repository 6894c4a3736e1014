//! Chunked bodies (RFC 9112, section 7.1): finds their end. The framing is forwarded unchanged.

use super::scan;

/// Most bytes of one chunk's extensions.
const EXTENSION_LIMIT: u16 = 1024;

/// Most bytes of the trailers together.
const TRAILER_LIMIT: u16 = 8192;

/// Most digits of a chunk's size.
const DIGITS_LIMIT: u8 = 16;

/// Follows a chunked body from its first byte to its last, however it is split.
///
/// ```
/// use gaiola_wire::http1::{ChunkDecoder, Decoded};
///
/// let mut chunks = ChunkDecoder::default();
/// assert_eq!(chunks.decode(b"5\r\nhel"), Ok(Decoded { taken: 6, done: false }));
/// assert_eq!(chunks.decode(b"lo\r\n0\r\n\r\nGET"), Ok(Decoded { taken: 9, done: true }));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkDecoder {
    state: State,
    data: u64,
}

/// How much of the given bytes belongs to the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// This many leading bytes belong to the body on the wire: sizes, data and trailers.
    pub taken: usize,
    /// The body ends with them.
    pub done: bool,
}

/// The kind of a run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Sizes, extensions, line ends or trailers.
    Framing,
    /// The content itself.
    Data,
}

/// A chunked body that cannot be parsed further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadChunk {
    /// A size is not a hexadecimal number of 63 bits.
    #[error("a chunk's size is malformed")]
    Size,
    /// A chunk's extensions are too long or have a control byte.
    #[error("a chunk's extension is malformed or too long")]
    Extension,
    /// A line does not end with CRLF, or a chunk's data is not followed by it.
    #[error("a chunk does not end with CRLF")]
    LineEnd,
    /// A trailer's line is malformed.
    #[error("a trailer is malformed")]
    Trailer,
    /// The trailers are too long.
    #[error("the trailers are too long")]
    TrailersTooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { size: u64, digits: u8 },
    Extension { size: u64, length: u16 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer { length: u16, place: TrailerState },
    Done,
}

/// Position within the trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrailerState {
    LineStart,
    Name,
    Value,
    LineLf,
    LastLf,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl ChunkDecoder {
    /// Takes the bytes that follow those of the previous call.
    ///
    /// # Errors
    /// The first fault; the bytes before it may not be what the sender meant as its body.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Decoded, BadChunk> {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_done() {
            taken += self.next_part(&bytes[taken..])?.1;
        }
        Ok(Decoded {
            taken,
            done: self.is_done(),
        })
    }

    /// Bytes of content so far, framing aside.
    pub fn data_taken(&self) -> u64 {
        self.data
    }

    /// Takes the next run of bytes of one kind, at least one byte unless there is none or the body has ended.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn next_part(&mut self, bytes: &[u8]) -> Result<(Part, usize), BadChunk> {
        if let State::Data { left } = self.state {
            let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.skip(taken as u64);
            return Ok((Part::Data, taken));
        }
        let mut taken = 0;
        while !matches!(self.state, State::Data { .. } | State::Done)
            && let Some(&byte) = bytes.get(taken)
        {
            self.state = self.state.after(byte)?;
            taken += 1;
        }
        Ok((Part::Framing, taken))
    }

    /// Whether the last chunk and the trailers have ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of the current chunk's data still to come; they need not be passed to `decode`.
    pub fn data_left(&self) -> u64 {
        match self.state {
            State::Data { left } => left,
            _ => 0,
        }
    }

    /// Records that `bytes` bytes of data passed without being decoded.
    ///
    /// # Panics
    /// If fewer than that are left in the chunk.
    pub fn skip(&mut self, bytes: u64) {
        let left = self.data_left();
        assert!(bytes <= left, "{bytes} bytes of a chunk with {left} left");
        self.data = self.data.saturating_add(bytes);
        match self.state {
            State::Data { .. } if bytes == left => self.state = State::DataCr,
            State::Data { .. } => self.state = State::Data { left: left - bytes },
            _ => {}
        }
    }
}

impl State {
    /// The state after one byte of framing.
    fn after(self, byte: u8) -> Result<Self, BadChunk> {
        match (self, byte) {
            (Self::Size { digits: 1.., size }, b'\r') => Ok(Self::SizeLf { size }),
            (Self::Size { digits: 1.., size }, b';') => Ok(Self::Extension { size, length: 0 }),
            (Self::Size { digits, size }, _) => size_digit(size, digits, byte),
            (Self::Extension { size, .. }, b'\r') => Ok(Self::SizeLf { size }),
            (Self::Extension { size, length }, _) => {
                if length == EXTENSION_LIMIT || scan::value(&[byte]) == 0 {
                    return Err(BadChunk::Extension);
                }
                let length = length + 1;
                Ok(Self::Extension { size, length })
            }
            (Self::SizeLf { size: 0 }, b'\n') => Ok(Self::Trailer {
                length: 0,
                place: TrailerState::LineStart,
            }),
            (Self::SizeLf { size }, b'\n') => Ok(Self::Data { left: size }),
            (Self::DataCr, b'\r') => Ok(Self::DataLf),
            (Self::DataLf, b'\n') => Ok(Self::default()),
            (Self::SizeLf { .. } | Self::DataCr | Self::DataLf, _) => Err(BadChunk::LineEnd),
            (Self::Trailer { length, place }, _) => trailer_byte(length, place, byte),
            (Self::Data { .. } | Self::Done, _) => Ok(self),
        }
    }
}

fn size_digit(size: u64, digits: u8, byte: u8) -> Result<State, BadChunk> {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        _ => return Err(BadChunk::Size),
    };
    let size = size << 4 | u64::from(digit);
    if digits == DIGITS_LIMIT || size > super::MOST_LENGTH {
        return Err(BadChunk::Size);
    }
    Ok(State::Size {
        size,
        digits: digits + 1,
    })
}

fn trailer_byte(length: u16, place: TrailerState, byte: u8) -> Result<State, BadChunk> {
    if length == TRAILER_LIMIT {
        return Err(BadChunk::TrailersTooLong);
    }
    let token = scan::token(&[byte]) == 1;
    let place = match (place, byte) {
        (TrailerState::LineStart, b'\r') => TrailerState::LastLf,
        (TrailerState::LineStart, _) if token => TrailerState::Name,
        (TrailerState::Name, b':') => TrailerState::Value,
        (TrailerState::Name, _) if token => TrailerState::Name,
        (TrailerState::Value, b'\r') => TrailerState::LineLf,
        (TrailerState::Value, _) if scan::value(&[byte]) == 1 => TrailerState::Value,
        (TrailerState::LineLf, b'\n') => TrailerState::LineStart,
        (TrailerState::LastLf, b'\n') => return Ok(State::Done),
        (TrailerState::LineLf | TrailerState::LastLf, _) => return Err(BadChunk::LineEnd),
        (TrailerState::LineStart | TrailerState::Name | TrailerState::Value, _) => {
            return Err(BadChunk::Trailer);
        }
    };
    let length = length + 1;
    Ok(State::Trailer { length, place })
}

#[cfg(test)]
mod tests;
