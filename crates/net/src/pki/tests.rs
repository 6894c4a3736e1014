use super::certificate::{Names, valid_for};
use super::*;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 4, 1));

fn cert(dir: &Path) -> String {
    fs::read_to_string(dir.join(CERT)).unwrap()
}

#[test]
fn an_authority_outlives_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::create_or_load(dir.path()).unwrap();
    let again = Authority::create_or_load(dir.path()).unwrap();
    assert_eq!(first.certificate(), again.certificate());

    let server = dir.path().join("db1");
    assert_eq!(
        first.issue("db1", &[ADDRESS], &server).unwrap(),
        Issued::New
    );
    assert_eq!(
        again.issue("db1", &[ADDRESS], &server).unwrap(),
        Issued::Kept
    );
}

#[test]
fn a_lost_authority_key_is_named_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    Authority::create_or_load(dir.path()).unwrap();
    let before = fs::read(dir.path().join(CA)).unwrap();
    fs::remove_file(dir.path().join(CA_KEY)).unwrap();
    let error = Authority::create_or_load(dir.path()).unwrap_err();
    assert!(matches!(error, PkiError::KeyLost { .. }), "{error}");
    assert_eq!(fs::read(dir.path().join(CA)).unwrap(), before);
}

#[test]
fn keys_are_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create_or_load(dir.path()).unwrap();
    authority.issue("db1", &[ADDRESS], dir.path()).unwrap();
    for key in [CA_KEY, KEY] {
        let mode = fs::metadata(dir.path().join(key))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[test]
fn changed_addresses_a_torn_file_and_another_authority_bring_a_new_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create_or_load(&dir.path().join("ca")).unwrap();
    let server = dir.path().join("db1");
    authority.issue("db1", &[ADDRESS], &server).unwrap();
    let first = cert(&server);

    let more = [ADDRESS, "fd00::1".parse().unwrap()];
    assert_eq!(authority.issue("db1", &more, &server).unwrap(), Issued::New);
    assert_eq!(
        authority.issue("db1", &more, &server).unwrap(),
        Issued::Kept
    );
    assert_ne!(cert(&server), first);

    fs::write(server.join(KEY), "").unwrap();
    assert_eq!(authority.issue("db1", &more, &server).unwrap(), Issued::New);

    let other = Authority::create_or_load(&dir.path().join("other")).unwrap();
    assert_eq!(other.issue("db1", &more, &server).unwrap(), Issued::New);
}

#[test]
fn a_certificate_near_its_end_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create_or_load(dir.path()).unwrap();
    let names = Names::new("db1", &[ADDRESS]);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = names.params();
    valid_for(&mut params, 1);
    params.not_after = params.not_before + std::time::Duration::from_secs(30 * 24 * 3600);
    let ending = params.signed_by(&key, &authority.issuer).unwrap();
    assert_eq!(Names::of_lasting(ending.der()), None);
    let lasting = names.params().signed_by(&key, &authority.issuer);
    assert_eq!(Names::of_lasting(lasting.unwrap().der()), Some(names));
}

/// A server beside its authority, with a request.
fn site() -> (tempfile::TempDir, Authority, Subject, String) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create_or_load(&dir.path().join("ca")).unwrap();
    let server = Subject::new("db1", &[ADDRESS], &dir.path().join("db1"), None);
    let request = server.request().unwrap();
    (dir, authority, server, request)
}

fn rejection(authority: &Authority, request: &str) -> RequestError {
    match authority.sign("db1", &[ADDRESS], request) {
        Err(PkiError::Request { name, source }) if name == "db1" => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_names_its_server_and_the_same_key_serves_until_there_is_a_certificate() {
    let (dir, authority, server, request) = site();
    let key = fs::read(dir.path().join("db1").join(KEY)).unwrap();
    assert!(!server.is_certified(authority.certificate()));
    let certificate = authority.sign("db1", &[ADDRESS], &request).unwrap();
    let again = server.request().unwrap();
    assert!(authority.sign("db1", &[ADDRESS], &again).is_ok());
    server
        .accept(authority.certificate(), &certificate)
        .unwrap();
    assert!(server.is_certified(authority.certificate()));
    assert_eq!(fs::read(dir.path().join("db1").join(KEY)).unwrap(), key);
    assert!(!request.contains("PRIVATE") && !certificate.contains("PRIVATE"));
}

#[test]
fn a_request_for_another_name_or_address_is_rejected() {
    let (dir, authority, ..) = site();
    let other: IpAddr = "10.77.4.2".parse().unwrap();
    let cases: [(&str, &[IpAddr], &str); 4] = [
        ("db2", &[ADDRESS], "db2, 10.77.4.1, 127.0.0.1"),
        ("db1\n", &[ADDRESS], "db1\\n, 10.77.4.1, 127.0.0.1"),
        ("db1", &[other], "db1, 10.77.4.2, 127.0.0.1"),
        (
            "db1",
            &[ADDRESS, other],
            "db1, 10.77.4.1, 10.77.4.2, 127.0.0.1",
        ),
    ];
    for (name, addresses, expected) in cases {
        let subject = Subject::new(name, addresses, &dir.path().join("other"), None);
        match rejection(&authority, &subject.request().unwrap()) {
            RequestError::Names { requested, wanted } => {
                assert_eq!(requested, expected);
                assert_eq!(wanted, "db1, 10.77.4.1, 127.0.0.1");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_name_beside_the_addresses_is_rejected() {
    let (_dir, authority, ..) = site();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = Names::new("db1", &[ADDRESS]).request_params();
    let name = "site.example".try_into().unwrap();
    params.subject_alt_names.push(rcgen::SanType::DnsName(name));
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let rejected = rejection(&authority, &request);
    assert!(matches!(rejected, RequestError::Names { .. }), "{rejected}");
}

#[test]
fn a_tampered_request_is_rejected_wherever_it_was_changed() {
    let (_dir, authority, _, request) = site();
    let lines: Vec<&str> = request.lines().collect();
    for at in 1..lines.len() - 1 {
        let middle = lines[at].len() / 2;
        let changed = if lines[at][middle..].starts_with('A') {
            "B"
        } else {
            "A"
        };
        let mut tampered = lines[at].to_string();
        tampered.replace_range(middle..=middle, changed);
        let mut all = lines.clone();
        all[at] = &tampered;
        let rejected = authority.sign("db1", &[ADDRESS], &all.join("\n"));
        assert!(rejected.is_err(), "line {at}");
    }
    for garbage in [
        "",
        "-----BEGIN CERTIFICATE REQUEST-----",
        &request[..request.len() / 2],
    ] {
        let rejected = rejection(&authority, garbage);
        assert!(matches!(rejected, RequestError::Malformed(_)), "{rejected}");
    }
}

#[test]
fn a_request_that_another_key_has_signed_and_another_kind_of_key_are_rejected() {
    let (_dir, authority, ..) = site();
    let params = Names::new("db1", &[ADDRESS]).request_params();
    let large = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let request = params.serialize_request(&large).unwrap().pem().unwrap();
    assert!(matches!(rejection(&authority, &request), RequestError::Key));

    let [one, two] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
    let request = |key| params.serialize_request(key).unwrap().der().to_vec();
    let (of_one, of_two) = (request(&one), request(&two));
    // The key of the second in the request that the first has signed: both are points of 65 bytes, the first byte is 4.
    let point = |key: &KeyPair| rcgen::PublicKeyData::der_bytes(key).to_vec();
    let start = of_one
        .windows(65)
        .position(|window| window == point(&one))
        .unwrap();
    let mut swapped = of_one;
    swapped[start..start + 65].copy_from_slice(&point(&two));
    assert_ne!(swapped, of_two);
    let error = rcgen::CertificateSigningRequestParams::from_der(&swapped.clone().into());
    assert_eq!(
        error.unwrap_err(),
        rcgen::Error::InvalidCertificationRequestSignature
    );
}

#[test]
fn nothing_that_a_request_asks_for_is_granted_but_its_names() {
    let (_dir, authority, ..) = site();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params: CertificateParams = Names::new("db1", &[ADDRESS]).request_params();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let certificate = authority.sign("db1", &[ADDRESS], &request).unwrap();
    let der = parse(&certificate).unwrap().remove(0);
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!parsed.is_ca());
    assert!(!parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn a_certificate_of_another_authority_key_or_name_is_not_accepted() {
    let (dir, authority, server, request) = site();
    let ca = authority.certificate();
    let other = Authority::create_or_load(&dir.path().join("other")).unwrap();
    let other_key = Subject::new("db1", &[ADDRESS], &dir.path().join("other_key"), None);
    let namesake = Subject::new("db2", &[ADDRESS], &dir.path().join("db1"), None);
    let foreign = [
        other.sign("db1", &[ADDRESS], &request).unwrap(),
        authority
            .sign("db1", &[ADDRESS], &other_key.request().unwrap())
            .unwrap(),
        authority
            .sign("db2", &[ADDRESS], &namesake.request().unwrap())
            .unwrap(),
        String::new(),
    ];
    for certificate in foreign {
        let error = server.accept(ca, &certificate).unwrap_err();
        assert!(matches!(error, PkiError::NotRequested { .. }), "{error}");
    }
    assert!(!dir.path().join("db1").join(CERT).exists());
    let ours = authority.sign("db1", &[ADDRESS], &request).unwrap();
    server.accept(ca, &ours).unwrap();
    assert!(!server.is_certified(other.certificate()));
    assert!(!namesake.is_certified(ca));
}
