//! A chunked body: no panic, and the same end for any fragmentation.

#![no_main]

use gaiola_fuzz::split;
use gaiola_wire::http1::{BadChunk, ChunkDecoder, Decoded};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((beginning, bytes)) = split(data) else {
        return;
    };
    let whole = ChunkDecoder::default().decode(bytes);
    assert_eq!(in_two(beginning, &bytes[beginning.len()..]), whole);
    if let Ok(decoded) = whole {
        assert!(decoded.done || decoded.taken == bytes.len());
    }
});

fn in_two(first: &[u8], second: &[u8]) -> Result<Decoded, BadChunk> {
    let mut chunks = ChunkDecoder::default();
    let before = chunks.decode(first)?;
    let after = chunks.decode(second)?;
    Ok(Decoded {
        taken: before.taken + after.taken,
        done: after.done,
    })
}
