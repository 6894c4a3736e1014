//! An Ethernet frame with an ARP message: no panic, and encoding reverses decoding.

#![no_main]

use gaiola_wire::arp::Arp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    if let Some(arp) = Arp::decode(frame) {
        assert_eq!(Arp::decode(&arp.encode()), Some(arp));
    }
});
