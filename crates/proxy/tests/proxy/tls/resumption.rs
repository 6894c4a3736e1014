//! Keys that sessions are resumed with.

use super::*;

fn keys(bytes: &[u8]) -> ControlRequest {
    ControlRequest::TicketKeys(bytes.iter().map(|&byte| TicketKey([byte; 32])).collect())
}

#[test]
fn proxies_with_the_same_keys_resume_each_others_sessions() {
    let (authority, origin) = (Authority::new(), Origin::start("s1"));
    let site = authority.issue("site.pem", &["site.test"]);
    let binds = [free_address(), free_address()];
    let [one, other] = binds.map(|bind| {
        Proxy::serving(&tls_config(
            bind,
            &[origin.address],
            std::slice::from_ref(&site),
        ))
    });
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let wants = || authority.client(None, &[version]);
        // Each has its own keys, until they are given some.
        let client = wants();
        assert_eq!(kind(&client, binds[0]), HandshakeKind::Full);
        assert_eq!(kind(&client, binds[0]), HandshakeKind::Resumed);
        assert_eq!(kind(&client, binds[1]), HandshakeKind::Full);
        for proxy in [&one, &other] {
            assert_eq!(proxy.ask(&keys(&[1])), ControlReply::TicketKeys(1));
        }
        let client = wants();
        assert_eq!(kind(&client, binds[0]), HandshakeKind::Full);
        assert_eq!(kind(&client, binds[1]), HandshakeKind::Resumed);
        // A new key seals, the old one still opens.
        one.ask(&keys(&[2, 1]));
        assert_eq!(kind(&client, binds[0]), HandshakeKind::Resumed);
        other.ask(&keys(&[3]));
        assert_eq!(kind(&client, binds[1]), HandshakeKind::Full);
        for proxy in [&one, &other] {
            let byte = if std::ptr::eq(proxy, &one) { 4 } else { 5 };
            proxy.ask(&keys(&[byte]));
        }
    }
    assert!(matches!(one.ask(&keys(&[])), ControlReply::Refused(_)));
}
