//! OCSP responses beside a certificate.

use super::*;

/// A value in DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let len = u8::try_from(content.len()).unwrap();
    let head = if len < 128 {
        vec![tag, len]
    } else {
        vec![tag, 0x81, len]
    };
    [head, content].concat()
}

/// An OCSP response that says that the certificate with this serial number is good (RFC 6960, section 4.2.1). Nobody
/// checks its signature here.
fn good(serial: &[u8], until: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    let time = |text| der(0x18, &[text]);
    let sha256 = der(SEQUENCE, &[b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01"]);
    let (hash, serial) = (der(0x04, &[&[7; 32]]), der(0x02, &[serial]));
    let id = der(SEQUENCE, &[&sha256, &hash, &hash, &serial]);
    let next = der(0xa0, &[&time(until)]);
    let single = der(
        SEQUENCE,
        &[&id, b"\x80\x00", &time(b"20260101000000Z"), &next],
    );
    let responder = der(0xa2, &[&der(0x04, &[&[7; 20]])]);
    let all = der(SEQUENCE, &[&single]);
    let data = der(SEQUENCE, &[&responder, &time(b"20260101000000Z"), &all]);
    let basic = der(SEQUENCE, &[&data, &sha256, b"\x03\x02\x00\x00"]);
    let kind = b"\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x01";
    let bytes = der(SEQUENCE, &[kind, &der(0x04, &[&basic])]);
    der(SEQUENCE, &[b"\x0a\x01\x00", &der(0xa0, &[&bytes])])
}

/// The serial number of a certificate.
fn serial(certificate: &[u8]) -> Vec<u8> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    parsed.raw_serial().to_vec()
}

#[test]
fn an_ocsp_response_beside_the_certificate_is_stapled_while_it_holds() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let serial = serial(&leaf_of(&site));
    let staple = |response: &[u8]| {
        std::fs::write(authority.file("site.pem.ocsp"), response).unwrap();
    };
    let (holds, held) = (
        good(&serial, b"20991231235959Z"),
        good(&serial, b"20260102000000Z"),
    );
    staple(&holds);
    let mut config = tls_config(bind, &[origin.address], &[site]);
    let proxy = Proxy::serving(&config);
    assert_eq!(stapled(bind), holds);
    config.revision.0 += 1;
    staple(&held);
    proxy.configure(&config);
    assert_eq!(stapled(bind), b"");
    for (response, why) in [
        (
            good(b"\x01\x02", b"20991231235959Z"),
            "it is of another certificate",
        ),
        (
            b"\x30\x03\x0a\x01\x06".to_vec(),
            "an error of the authority: Unauthorized",
        ),
        (b"not DER".to_vec(), "it is no OCSP response in DER"),
    ] {
        config.revision.0 += 1;
        staple(&response);
        match proxy.ask(&ControlRequest::Configure(Box::new(config.clone()))) {
            ControlReply::Refused(reason) => {
                assert!(
                    reason.contains("site.pem.ocsp cannot be used: "),
                    "{reason}"
                );
                assert!(reason.contains(why), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What is stapled to the certificate that a client gets.
fn stapled(bind: SocketAddr) -> Vec<u8> {
    #[derive(Debug)]
    struct Seen(std::sync::Mutex<Vec<u8>>, rustls::crypto::CryptoProvider);
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    impl ServerCertVerifier for Seen {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            ocsp: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            *self.0.lock().unwrap() = ocsp.to_vec();
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.1.signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let seen = Arc::new(Seen(Default::default(), provider.clone()));
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    let mut client = Wants(config.into()).connect(bind, "site.test").unwrap();
    assert_eq!(get(&mut client, "/").unwrap().0, 200);
    let seen = seen.0.lock().unwrap();
    seen.clone()
}
