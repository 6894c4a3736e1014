//! What a trusted balancer in front says of the client.

use super::*;

const TRUSTING: &str = r#"
access_log = "access.log"
[frontend.www]
bind = "WWW"
trust = "127.0.0.0/8"
backend = "app"
rule = [{ hsts = "1d" }, { set_header = "X-Scheme", value = "{scheme}" }, { remove_header = "X-Secret" }]
[[frontend.www.route]]
path = "/safe"
rule = [{ redirect = "https" }]
backend = "app"
[[frontend.www.route]]
path = "/limited"
rule = [{ limit = "each" }]
backend = "app"
[[frontend.www.route]]
path = "/inside"
source = "127.0.0.0/8"
backend = "app"
[[frontend.www.route]]
path = "/inside"
rule = [{ deny = true }]
[limit.each]
rate = "1/1d"
"#;

#[test]
fn the_client_is_whom_a_trusted_balancer_names() {
    let app = Origin::start("app");
    let (proxy, www) = serving(TRUSTING, &app);
    let mut client = Client::connect(www);
    let mut status = |path: &str, whose: &str| {
        client.send(&get(path, &format!("X-Forwarded-For: {whose}\r\n")));
        client.response().status
    };
    for (path, whose, expected) in [
        ("/limited", "192.0.2.5:4711", 200),
        ("/limited", "192.0.2.6:4711", 200),
        ("/limited", "192.0.2.5:4712", 429),
        ("/limited", "[2001:db8::1]:443", 200),
        ("/limited", "2001:db8::2", 429),
        ("/limited", "2001:db8:0:1::2", 200),
        ("/inside", "192.0.2.5:4711", 403),
        ("/inside", "unknown", 403),
    ] {
        assert_eq!(status(path, whose), expected, "{path} {whose}");
    }
    client.send(&get("/inside", ""));
    assert_eq!(client.response().status, 200);
    let lines = proxy.log_lines(9);
    assert_eq!(lines[2]["status"], 429);
    assert_eq!(lines[2]["client"], "192.0.2.5");
    assert_eq!(lines[2]["sender"], "127.0.0.1");
    assert_eq!(lines[4]["client"], "2001:db8::2");
    assert_eq!(lines[8]["client"], "127.0.0.1");
    assert_eq!(lines[8].get("sender"), None);
}

#[test]
fn a_trusted_balancer_says_whether_the_client_came_by_https() {
    let app = Origin::start("app");
    let (_proxy, www) = serving(TRUSTING, &app);
    let mut client = Client::connect(www);
    let mut ask = |path: &str, proto: &str| {
        client.send(&get(path, &format!("X-Forwarded-Proto: {proto}\r\n")));
        let response = client.response();
        (
            response.status,
            response
                .field("Strict-Transport-Security")
                .map(str::to_owned),
        )
    };
    let said = Some("max-age=86400".to_owned());
    assert_eq!(ask("/safe", "http"), (308, None));
    assert_eq!(ask("/safe", "https"), (200, said.clone()));
    assert_eq!(ask("/x", "https"), (200, said));
    assert_eq!(ask("/x", "http"), (200, None));
    let schemes = app.requests();
    let schemes: Vec<_> = schemes
        .iter()
        .map(|it| it.field("X-Scheme").unwrap())
        .collect();
    assert_eq!(schemes, ["https", "https", "http"]);
}

#[test]
fn no_twin_of_a_field_passes_by_who_speaks_of_it() {
    let app = Origin::start("app");
    let (_proxy, www) = serving(TRUSTING, &app);
    let mut client = Client::connect(www);
    client.send(&get(
        "/",
        "X_Forwarded_For: 1\r\nX_Real_IP: 2\r\nX-Secret: 3\r\nX_Secret: 4\r\nX_Scheme: 5\r\nX_Other: 6\r\n",
    ));
    assert_eq!(client.response().status, 200);
    let request = app.requests().remove(0);
    for name in [
        "X_Forwarded_For",
        "X_Real_IP",
        "X-Secret",
        "X_Secret",
        "X_Scheme",
    ] {
        assert_eq!(request.field(name), None, "{name}");
    }
    assert_eq!(request.field("X_Other"), Some("6"));
    assert_eq!(request.field("X-Scheme"), Some("http"));
}
