//! A PROXY protocol header: no panic, the same result for any fragmentation, and encoding reverses decoding.

#![no_main]

use gaiola_fuzz::{assert_stands, split};
use gaiola_wire::proxy_protocol::{Carried, Progress, decode, encode_v1, encode_v2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((beginning, bytes)) = split(data) else {
        return;
    };
    let whole = decode(bytes);
    assert_stands(decode(beginning), &whole, &Ok(Progress::Partial));
    let Ok(Progress::Done(header)) = whole else {
        return;
    };
    assert!(header.len <= bytes.len());
    let Carried::Proxied {
        source,
        destination,
    } = header.carried
    else {
        return;
    };
    // IPv4 mapped into IPv6 is encoded as IPv4.
    let plain = |address: std::net::SocketAddr| address.ip().to_canonical() == address.ip();
    if !plain(source) || !plain(destination) {
        return;
    }
    for encode in [encode_v1, encode_v2] {
        let mut again = Vec::new();
        encode(source, destination, &mut again);
        let Ok(Progress::Done(read)) = decode(&again) else {
            panic!("{again:?} cannot be read");
        };
        assert_eq!(read.carried, header.carried);
    }
});
