//! A certificate: no panic, and only names that a certificate may have.

#![no_main]

use gaiola_wire::x509::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(certificate) = decode(data) else {
        return;
    };
    assert!(certificate.serial.len() <= 21 && !certificate.serial.starts_with(&[0]));
    for name in certificate
        .alternative_names
        .iter()
        .flat_map(|names| &names.dns)
    {
        assert!(name.is_ascii());
        assert_eq!(*name, name.to_ascii_lowercase());
    }
});
