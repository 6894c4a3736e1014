use super::*;
use proptest::prelude::*;

fn decode(bytes: &[u8]) -> Result<Decoded, BadChunk> {
    ChunkDecoder::default().decode(bytes)
}

/// The content, decoded in pieces of the given lengths, and how many bytes the body had.
fn content(bytes: &[u8], splits: &[usize]) -> (Vec<u8>, usize) {
    let (mut chunks, mut content, mut at) = (ChunkDecoder::default(), Vec::new(), 0);
    let mut lengths = splits.iter().copied().cycle();
    while !chunks.is_done() && at < bytes.len() {
        let end = bytes.len().min(at + lengths.next().unwrap().max(1));
        while at < end && !chunks.is_done() {
            let (part, taken) = chunks.next_part(&bytes[at..end]).unwrap();
            if part == Part::Data {
                content.extend_from_slice(&bytes[at..at + taken]);
            }
            at += taken;
        }
    }
    (content, at)
}

#[test]
fn a_body_ends_after_its_trailers() {
    let body = b"5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
    let (content, len) = content(&[body, b"next".as_slice()].concat(), &[1000]);
    assert_eq!(
        (content.as_slice(), len),
        (b"hello0123456789".as_slice(), body.len())
    );
}

#[test]
fn sizes_are_hexadecimal_numbers_alone() {
    for bad in [
        "\r\n",
        "x",
        "-1",
        "+1",
        " 1",
        "1 ",
        "0x1",
        "1\t",
        "g",
        "00000000000000000",
        "8000000000000000",
        ";",
    ] {
        assert_eq!(decode(bad.as_bytes()), Err(BadChunk::Size), "{bad:?}");
    }
    let mut chunks = ChunkDecoder::default();
    chunks.decode(b"7FFFFFFFFFFFFFFF\r\n").unwrap();
    assert_eq!(chunks.data_left(), u64::MAX / 2);
}

#[test]
fn every_line_ends_with_crlf() {
    for bad in [
        "1\rx",
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\rx",
        "0\r\n\rx",
        "0\r\nA: b\rx",
    ] {
        assert_eq!(decode(bad.as_bytes()), Err(BadChunk::LineEnd), "{bad:?}");
    }
    assert_eq!(decode(b"1\n"), Err(BadChunk::Size));
    assert_eq!(decode(b"1;a\n"), Err(BadChunk::Extension));
    assert_eq!(decode(b"0\r\nA: b\n"), Err(BadChunk::Trailer));
}

#[test]
fn trailers_are_fields() {
    for bad in ["A b: c", " A: b", "A : b", ": b", "A: \0", "A\r"] {
        let body = format!("0\r\n{bad}\r\n\r\n");
        assert_eq!(decode(body.as_bytes()), Err(BadChunk::Trailer), "{bad:?}");
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let extension = format!("1;{}", "a".repeat(2000));
    assert_eq!(decode(extension.as_bytes()), Err(BadChunk::Extension));
    let trailers = format!("0\r\n{}", "A: b\r\n".repeat(2000));
    assert_eq!(decode(trailers.as_bytes()), Err(BadChunk::TrailersTooLong));
}

#[test]
fn data_may_go_by_unseen() {
    let mut chunks = ChunkDecoder::default();
    chunks.decode(b"10\r\nab").unwrap();
    assert_eq!(chunks.data_left(), 14);
    chunks.skip(14);
    assert_eq!(
        chunks.decode(b"\r\n0\r\n\r\n"),
        Ok(Decoded {
            taken: 7,
            done: true
        })
    );
}

#[test]
fn nothing_is_taken_after_the_end() {
    let mut chunks = ChunkDecoder::default();
    chunks.decode(b"0\r\n\r\n").unwrap();
    assert_eq!(
        chunks.decode(b"GET"),
        Ok(Decoded {
            taken: 0,
            done: true
        })
    );
}

proptest! {
    #[test]
    fn decode_undoes_encode_however_it_is_split(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        splits in prop::collection::vec(1usize..20, 1..5),
    ) {
        let mut body = Vec::new();
        for piece in &pieces {
            body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            body.extend_from_slice(piece);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        let len = body.len();
        body.extend_from_slice(b"GET / HTTP/1.1\r\n");
        prop_assert_eq!(content(&body, &splits), (pieces.concat(), len));
    }

    #[test]
    fn a_fault_does_not_depend_on_how_bytes_arrive(bytes in "[0-2a;\r\n:]{0,40}", split in 0usize..40) {
        let bytes = bytes.as_bytes();
        let whole = decode(bytes);
        let (first, second) = bytes.split_at(split.min(bytes.len()));
        let mut chunks = ChunkDecoder::default();
        let parts = chunks.decode(first).and_then(|first| {
            let second = if first.done { Decoded { taken: 0, done: true } } else { chunks.decode(second)? };
            Ok(Decoded { taken: first.taken + second.taken, done: second.done })
        });
        prop_assert_eq!(parts, whole);
    }
}
