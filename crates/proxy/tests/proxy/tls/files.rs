//! The files that certificates are read from.

use super::*;

#[test]
fn every_mistake_in_certificate_files_is_reported() {
    let (authority, bind) = (Authority::new(), free_address());
    let good = authority.issue("good.pem", &["site.test"]);
    let other = authority.issue("other.pem", &["site.test"]);
    let read = |file: &Path| std::fs::read_to_string(file).unwrap();
    let (cert, key) = (read(&good), read(&other));
    let (cert, key) = (
        cert.split_once("-----BEGIN PRIVATE").unwrap().0,
        key.split_once("-----END CERTIFICATE-----").unwrap().1,
    );
    let write = |name: &str, text: &str| {
        let file = authority.file(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let files = [
        authority.file("missing.pem"),
        write("text.pem", "hello"),
        write("keyless.pem", cert),
        write("mixed.pem", &format!("{cert}{key}")),
        good.clone(),
    ];
    write("good.pem.ocsp", "not DER");
    let mut config = tls_config(bind, &[], &files);
    let proxy = Proxy::start();
    let reason = refused(&proxy, &config);
    for part in [
        "missing.pem cannot be used: there is no such file",
        "text.pem cannot be used: there is no certificate",
        "keyless.pem.key",
        "mixed.pem cannot be used: the key is not the certificate's",
        "good.pem.ocsp cannot be used",
    ] {
        assert!(reason.contains(part), "{part:?} is not in {reason:?}");
    }
    // The key may stand beside its certificate.
    write(
        "keyless.pem.key",
        read(&good)
            .split_once("-----END CERTIFICATE-----")
            .unwrap()
            .1,
    );
    let tls = config.frontends[0].binds[0].tls.as_mut().unwrap();
    tls.certificates = vec![files[2].clone()];
    proxy.configure(&config);
    assert!(authority.any().connect(bind, "site.test").is_ok());
}

#[test]
fn new_certificates_are_for_new_connections() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let file = authority.issue("site.pem", &["site.test"]);
    let old = leaf_of(&file);
    let mut config = tls_config(bind, &[origin.address], std::slice::from_ref(&file));
    let proxy = Proxy::serving(&config);
    let wants = authority.any();
    let mut first = wants.connect(bind, "site.test").unwrap();
    assert_eq!(get(&mut first, "/").unwrap().0, 200);
    authority.issue("site.pem", &["site.test"]);
    config.revision.0 += 1;
    proxy.configure(&config);
    assert_eq!(get(&mut first, "/").unwrap().0, 200);
    let second = authority.any().connect(bind, "site.test").unwrap();
    assert!(leaf(&second) == leaf_of(&file) && leaf(&second) != old);
}
