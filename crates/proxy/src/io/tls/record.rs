//! Text in records of TLS.

use crate::io::Buffer;
use rustls::unbuffered::EncryptError;
use std::io::{self, IoSlice};

/// Plaintext bytes in one record.
const RECORD_LEN: usize = 16 * 1024;

/// Size of a record beyond its plaintext, including a key update that may have to precede it.
const OVERHEAD: usize = 256;

/// Encrypts as much of the pieces as there is room for, in as few records as possible, and returns the number of bytes.
pub(super) fn encipher(
    pieces: &[IoSlice<'_>],
    outgoing: &mut Buffer,
    mut encrypt: impl FnMut(&[u8], &mut [u8]) -> Result<usize, EncryptError>,
) -> io::Result<usize> {
    let mut pieces = pieces.iter().map(|piece| &**piece);
    let mut piece: &[u8] = &[];
    let mut gathered = None;
    let mut written = 0;
    while outgoing.space().len() >= RECORD_LEN + OVERHEAD {
        while piece.is_empty() {
            match pieces.next() {
                Some(next) => piece = next,
                None => return Ok(written),
            }
        }
        let text = if piece.len() >= RECORD_LEN || pieces.len() == 0 {
            let (text, rest) = piece.split_at(piece.len().min(RECORD_LEN));
            piece = rest;
            text
        } else {
            let buffer = gathered.get_or_insert_with(Buffer::take);
            buffer.clear();
            gather(&mut piece, &mut pieces, buffer);
            buffer.filled()
        };
        let count = encrypt(text, outgoing.space()).map_err(io::Error::other)?;
        outgoing.advance(count);
        written += text.len();
    }
    Ok(written)
}

/// Fills the buffer with the rest of a piece and with the pieces after it.
fn gather<'a>(
    piece: &mut &'a [u8],
    pieces: &mut impl Iterator<Item = &'a [u8]>,
    buffer: &mut Buffer,
) {
    loop {
        let count = piece.len().min(buffer.space().len());
        buffer.space()[..count].copy_from_slice(&piece[..count]);
        buffer.advance(count);
        *piece = &piece[count..];
        if !piece.is_empty() {
            return;
        }
        match pieces.next() {
            Some(next) => *piece = next,
            None => return,
        }
        // A long piece that would be split anyway gets a record of its own, without a copy.
        if piece.len() >= RECORD_LEN / 2 && piece.len() > buffer.space().len() {
            return;
        }
    }
}

/// Appends bytes to a long buffer.
pub(super) fn append(buffer: &mut Option<Buffer>, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let buffer = buffer.get_or_insert_with(Buffer::take_long);
    let room = buffer.space().get_mut(..bytes.len()).ok_or_else(too_long)?;
    room.copy_from_slice(bytes);
    buffer.advance(bytes.len());
    Ok(())
}

pub(super) fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message of TLS is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_written_is_in_the_records_in_order() {
        let mut rng = fastrand::Rng::with_seed(7);
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        for _ in 0..500 {
            let pieces: Vec<_> = (0..rng.usize(0..8))
                .map(|_| {
                    let longest = if rng.bool() { 100 } else { 2 * RECORD_LEN };
                    let (start, len) = (rng.usize(0..50_000), rng.usize(0..longest));
                    IoSlice::new(&bytes[start..start + len])
                })
                .collect();
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            let mut outgoing = Buffer::take_long();
            let (mut text, mut records) = (Vec::new(), 0);
            let written = encipher(&pieces, &mut outgoing, |part, into| {
                assert!(!part.is_empty() && part.len() <= RECORD_LEN);
                assert!(into.len() >= part.len() + OVERHEAD);
                text.extend_from_slice(part);
                records += 1;
                Ok(part.len() + OVERHEAD)
            });
            assert_eq!(written.unwrap(), text.len());
            assert!(all.starts_with(&text));
            // Only lack of room leaves anything over, and no record is needlessly small.
            assert!(text.len() == all.len() || outgoing.space().len() < RECORD_LEN + OVERHEAD);
            assert!(records <= 1 + 2 * text.len() / (RECORD_LEN / 2));
        }
    }

    #[test]
    fn a_head_and_a_long_body_are_two_records() {
        let (head, body) = ([1; 300], [2; RECORD_LEN - 100]);
        let pieces = [&head[..100], &head[100..], &body].map(IoSlice::new);
        let mut sizes = Vec::new();
        encipher(&pieces, &mut Buffer::take_long(), |part, _| {
            sizes.push(part.len());
            Ok(part.len())
        })
        .unwrap();
        assert_eq!(sizes, [300, RECORD_LEN - 100]);
    }
}
