//! The beginning of a TLS connection: no panic, the same result for any fragmentation, and a name that a host may have.

#![no_main]

use gaiola_fuzz::{assert_stands, split};
use gaiola_wire::client_hello::{Progress, server_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((beginning, bytes)) = split(data) else {
        return;
    };
    let whole = server_name(bytes);
    assert_stands(server_name(beginning), &whole, &Ok(Progress::Partial));
    if let Ok(Progress::Done(Some(name))) = whole {
        assert!(!name.is_empty() && name.len() <= 253 && name.is_ascii());
        assert_eq!(name, name.to_ascii_lowercase());
    }
});
