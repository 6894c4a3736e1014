//! HTTPS at the balancers, with certificates from the site's file.

use gaiola_e2e::{Site, Who};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

const FILE: &str = r#"
[balancer]
tls = { certificates = "site.pem", hsts = "30d" }
[app]
servers = 1
run = "{run}"
"#;

/// Writes a self-signed certificate for this name, with its key, to `site.pem`.
fn certify(site: &Site, name: &str) {
    let file = site.folder().join("site.pem");
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-subj", &format!("/CN={name}"), "-out"])
        .arg(&file)
        .arg("-keyout")
        .arg(site.folder().join("site.pem.key"))
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    let whole = ["site.pem", "site.pem.key"]
        .map(|name| fs::read_to_string(site.folder().join(name)).unwrap());
    fs::write(&file, whole.concat()).unwrap();
    fs::remove_file(site.folder().join("site.pem.key")).unwrap();
}

/// The TLS output of a client at the front door.
fn certificate(site: &Site) -> String {
    let door = site.door().to_string();
    let asked = Command::new("openssl")
        .args(["s_client", "-connect", &door])
        .output()
        .unwrap();
    String::from_utf8_lossy(&asked.stdout).into_owned()
}

fn curl(site: &Site) -> String {
    let url = format!("https://{}/", site.door());
    let asked = Command::new("curl")
        .args(["-sik", "--max-time", "5", &url])
        .output()
        .unwrap();
    String::from_utf8_lossy(&asked.stdout).to_lowercase()
}

#[test]
fn a_site_with_certificates_is_served_over_https() {
    let site = Site::new(Who::caller(), "secure", FILE);
    certify(&site, "one.example");
    site.gaiola(&["up", "-d"]).expect(0, &["https://"]);
    let answer = curl(&site);
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(
        answer.contains("strict-transport-security: max-age=2592000\r\n"),
        "{answer}"
    );
    assert!(certificate(&site).contains("one.example"));

    // Port 80 redirects to it, and the other balancer resumes a session.
    let asked = site.gaiola(&[
        "exec",
        "app1",
        "--",
        "curl",
        "-si",
        "http://10.77.0.100/a?b=c",
    ]);
    asked.expect(0, &["308", "https://10.77.0.100/a?b=c"]);
    let say = |vip: &str, option: &str| {
        let request = format!("GET / HTTP/1.1\\r\\nHost: {vip}\\r\\nConnection: close\\r\\n\\r\\n");
        let file = site.base().join("switches/session");
        let file = file.display();
        let line = format!(
            "printf '{request}' | openssl s_client -connect {vip}:443 -ign_eof {option} {file}"
        );
        site.gaiola(&["exec", "app1", "--", "sh", "-c", &line])
    };
    say("10.77.0.100", "-sess_out").expect(0, &["New, TLSv1.3"]);
    say("10.77.0.101", "-sess_in").expect(0, &["Reused, TLSv1.3"]);

    // Only the balancers have the key.
    assert!(!site.state().join("releases/1/site.pem").exists());
    let copies: Vec<_> = fs::read_dir(site.state().join("certificates"))
        .unwrap()
        .collect();
    let [copy] = &copies[..] else {
        panic!("{copies:?}")
    };
    let key = copy.as_ref().unwrap().path().join("0/site.pem");
    assert_eq!(
        fs::metadata(key).unwrap().permissions().mode() & 0o777,
        0o600
    );

    site.gaiola(&["plan"]).expect(0, &[]);
    certify(&site, "two.example");
    site.gaiola(&["plan"])
        .expect(0, &["certificates change", "no connection is lost"]);
    site.gaiola(&["up", "-d"]).expect(0, &[]);
    assert!(certificate(&site).contains("two.example"));
    site.write("site.pem", "nothing of use");
    site.gaiola(&["up", "-d"])
        .expect(1, &["certificates cannot be served", "site.pem"]);
    assert!(curl(&site).starts_with("http/1.1 200"));

    certify(&site, "two.example");
    site.gaiola(&["drill", "kill", "lb1/proxy"])
        .expect(0, &["lb1/proxy: passed"]);
    only_clients_with_a_certificate(&site);
}

fn only_clients_with_a_certificate(site: &Site) {
    let (file, key) = ("client.pem", "client.key");
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-subj", "/CN=ann", "-out", file, "-keyout", key])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .current_dir(site.folder())
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    site.edit("hsts = \"30d\"", "client_ca = \"client.pem\"");
    site.gaiola(&["plan"]).expect(0, &["balancer: tls"]);
    site.gaiola(&["up", "-d"]).expect(0, &[]);
    let url = format!("https://{}/", site.door());
    let with = |own: &[&str]| {
        let asked = Command::new("curl")
            .args(["-sik", "--max-time", "5"])
            .args(own)
            .arg(&url)
            .current_dir(site.folder())
            .output();
        String::from_utf8_lossy(&asked.unwrap().stdout).into_owned()
    };
    assert_eq!(with(&[]), "");
    let answer = with(&["--cert", file, "--key", key]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
