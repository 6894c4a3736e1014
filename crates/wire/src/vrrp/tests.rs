use super::*;
use proptest::prelude::*;

const ENDPOINTS: Endpoints = Endpoints {
    source: Ipv4Addr::new(10, 77, 1, 1),
    destination: GROUP,
};

fn advert() -> Message {
    Message::Advertisement(Advertisement {
        vrid: Vrid::new(51).unwrap(),
        priority: Priority(100),
        interval: Duration::from_millis(100),
        vips: vec![IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100))],
    })
}

fn hello(hears: Vec<IpAddr>) -> Message {
    Message::Hello(Hello {
        vrid: Vrid::new(51).unwrap(),
        priority: Priority(100),
        interval: Duration::from_millis(100),
        stands_by: true,
        hears,
    })
}

fn key(first: u8) -> Key {
    Key::from_hex(&format!("{first:02x}{}", "42".repeat(31))).unwrap()
}

#[test]
fn an_advertisement_has_the_layout_of_rfc_9568() {
    let payload = encode(&advert(), ENDPOINTS, Checksum::Plain, None);
    assert_eq!(payload[..6], [0x31, 51, 100, 1, 0x00, 10]);
    assert_eq!(payload[8..], [10, 77, 0, 100]);
    // 0x3133 + 0x6401 + 0x000a + 0x0a4d + 0x0064 = 0x9fef, and its complement.
    assert_eq!(payload[6..8], [0x60, 0x10]);
}

#[test]
fn a_hello_is_no_advertisement_to_others() {
    let payload = encode(&hello(vec![]), ENDPOINTS, Checksum::Plain, None);
    assert_eq!(payload[..6], [0x3f, 51, 100, 0, 0x80, 10]);
    let read = decode(&payload, ENDPOINTS, TTL, None);
    assert_eq!(read.unwrap().message, hello(vec![]));
}

#[test]
fn both_kinds_of_checksum_are_accepted_and_no_other() {
    for checksum in [Checksum::Plain, Checksum::WithPseudoHeader] {
        let payload = encode(&advert(), ENDPOINTS, checksum, None);
        assert_eq!(
            decode(&payload, ENDPOINTS, TTL, None).unwrap().message,
            advert()
        );
        let mut spoilt = payload.clone();
        spoilt[2] ^= 1;
        assert_eq!(
            decode(&spoilt, ENDPOINTS, TTL, None),
            Err(Rejected::Checksum)
        );
    }
}

#[test]
fn what_crossed_a_router_is_not_believed() {
    let payload = encode(&advert(), ENDPOINTS, Checksum::Plain, None);
    assert_eq!(decode(&payload, ENDPOINTS, 254, None), Err(Rejected::Ttl));
}

#[test]
fn version_2_is_distinguished_from_garbage() {
    let mut payload = encode(&advert(), ENDPOINTS, Checksum::Plain, None);
    payload[0] = 0x21;
    assert_eq!(
        decode(&payload, ENDPOINTS, TTL, None),
        Err(Rejected::Version)
    );
    assert_eq!(
        decode(&payload[..7], ENDPOINTS, TTL, None),
        Err(Rejected::Malformed)
    );
}

#[test]
fn with_a_key_only_what_is_sealed_with_it_passes() {
    let sealed = encode(
        &advert(),
        ENDPOINTS,
        Checksum::default(),
        Some((&key(1), Stamp(7))),
    );
    let plain = encode(&advert(), ENDPOINTS, Checksum::default(), None);
    let received = decode(&sealed, ENDPOINTS, TTL, Some(&key(1))).unwrap();
    assert_eq!(received.stamp, Some(Stamp(7)));
    assert_eq!(
        decode(&sealed, ENDPOINTS, TTL, Some(&key(2))),
        Err(Rejected::Seal)
    );
    assert_eq!(
        decode(&plain, ENDPOINTS, TTL, Some(&key(1))),
        Err(Rejected::Seal)
    );
    let elsewhere = Endpoints {
        source: Ipv4Addr::new(10, 77, 1, 9),
        ..ENDPOINTS
    };
    assert!(decode(&sealed, elsewhere, TTL, Some(&key(1))).is_err());
    assert!(decode(&sealed, ENDPOINTS, TTL, None).is_ok());
}

#[test]
fn an_address_cannot_be_moved_into_the_seal() {
    let sealed = encode(
        &advert(),
        ENDPOINTS,
        Checksum::Plain,
        Some((&key(1), Stamp(7))),
    );
    let mut fewer = sealed.clone();
    fewer[3] = 0;
    assert!(decode(&fewer, ENDPOINTS, TTL, Some(&key(1))).is_err());
    let mut more = sealed;
    more[3] = 2;
    assert!(decode(&more, ENDPOINTS, TTL, Some(&key(1))).is_err());
}

#[test]
fn the_ipv4_header_is_read_with_its_options() {
    let payload = encode(&advert(), ENDPOINTS, Checksum::default(), None);
    for options in [0u8, 4] {
        let length = 20 + usize::from(options) + payload.len();
        let mut packet = vec![0u8; 20 + usize::from(options)];
        packet[0] = 0x45 + options / 4;
        packet[3] = u8::try_from(length).unwrap();
        packet[8] = TTL;
        packet[9] = PROTOCOL;
        packet[12..16].copy_from_slice(&ENDPOINTS.source.octets());
        packet[16..20].copy_from_slice(&ENDPOINTS.destination.octets());
        packet.extend(&payload);
        packet.extend([0xaa; 6]);
        let read = Ipv4Packet::decode(&packet).unwrap();
        assert_eq!((read.endpoints, read.ttl), (ENDPOINTS, TTL));
        assert_eq!(read.payload, payload);
    }
}

proptest! {
    #[test]
    fn decode_undoes_encode(
        vrid in 1u8..,
        priority: u8,
        centiseconds in 1u64..0x1000,
        addresses in prop::collection::vec(any::<[u8; 4]>(), 0..=255),
        stamp: u64,
        [plain, sealed, is_hello, stands_by]: [bool; 4],
    ) {
        let vrid = Vrid::new(vrid).unwrap();
        let priority = Priority(priority);
        let interval = Duration::from_millis(centiseconds * 10);
        let addresses: Vec<IpAddr> = addresses.into_iter().map(IpAddr::from).collect();
        let message = if is_hello || addresses.is_empty() { Message::Hello(Hello { vrid, priority, interval, stands_by, hears: addresses }) } else { Message::Advertisement(Advertisement { vrid, priority, interval, vips: addresses }) };
        let key = sealed.then(|| key(9));
        let checksum = if plain { Checksum::Plain } else { Checksum::WithPseudoHeader };
        let seal = key.as_ref().map(|key| (key, Stamp(stamp)));
        let payload = encode(&message, ENDPOINTS, checksum, seal);
        let received = decode(&payload, ENDPOINTS, TTL, key.as_ref()).unwrap();
        prop_assert_eq!(received.message, message);
        prop_assert_eq!(received.stamp, sealed.then_some(Stamp(stamp)));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..128), sealed: bool) {
        let key = sealed.then(|| key(9));
        let _ = decode(&bytes, ENDPOINTS, TTL, key.as_ref());
        if let Ok(packet) = Ipv4Packet::decode(&bytes) {
            let _ = decode(packet.payload, packet.endpoints, packet.ttl, key.as_ref());
        }
    }
}
