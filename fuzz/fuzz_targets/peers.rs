//! A datagram of a peer: no panic, and encoding reverses decoding. The input is sealed first, because random bytes never have a valid seal.

#![no_main]

use gaiola_wire::peers::{CountUpdate, MOST, decode, encode};
use libfuzzer_sys::fuzz_target;

const SECRET: &[u8] = b"secret";

fuzz_target!(|data: &[u8]| {
    assert!(decode(SECRET, data).is_err());
    let counts = data.as_chunks::<20>().0.iter().take(MOST);
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let counts = counts.map(|bytes| gaiola_model::proxy::Count {
        key: number(&bytes[..8]),
        window: number(&bytes[8..16]),
        more: number(&bytes[16..]) as u32,
    });
    let update = CountUpdate {
        stamp: data.len() as u64,
        limit: number(data.get(..8).unwrap_or_default()),
        counts: counts.collect(),
    };
    let bytes = encode(SECRET, &update);
    assert_eq!(decode(SECRET, &bytes).unwrap(), update);
});
