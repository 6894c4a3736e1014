//! Settings of a proxy's file at a site's balancers: names, routes, rules, limits counted together, sticky sessions.

use gaiola_e2e::{Site, Who};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

const FILE: &str = r#"
[balancer]
hosts = ["shop.example", "api.shop.example"]
aliases = "www.shop.example"
max_body = "1KiB"
error_pages = { 421 = "misdirected.html" }
sticky = { cookie = "SERVERID", http_only = true }
access_log = { format = "combined" }
rule = [{ set_response_header = "X-Frame-Options", value = "DENY" }]

[[balancer.route]]
path = "/admin"
rule = [{ auth = "staff" }]

[[balancer.route]]
path = "/login"
rule = [{ limit = "logins" }]

[balancer.limit.logins]
rate = "6/h"

[balancer.users.staff.user]
ann = "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA"

[web]
[app]
servers = 2
instances = 2
maxconn = 20
run = "{run}"

[app.health]
interval = "500ms"
"#;

/// As [`raw`], in lower case.
fn asked(site: &Site, host: &str, path: &str, further: &[&str]) -> String {
    raw(site, host, path, further).to_lowercase()
}

/// What curl prints of a request at the front door, its head first.
fn raw(site: &Site, host: &str, path: &str, further: &[&str]) -> String {
    let url = format!("http://{}{path}", site.door());
    let asked = Command::new("curl")
        .args(["-si", "--max-time", "5", "-H", &format!("Host: {host}")])
        .args(further)
        .arg(&url)
        .output()
        .expect("curl is installed");
    String::from_utf8_lossy(&asked.stdout).into_owned()
}

/// The status of a request from a server to one of the VIPs.
fn from_inside(site: &Site, vip: &str, path: &str) -> String {
    let url = format!("http://{vip}{path}");
    let only_status = ["-so", "/dev/null", "-w", "%{http_code}"];
    let host = ["-H", "Host: shop.example"];
    let curl = ["exec", "app1", "--", "curl"];
    let all: Vec<&str> = [&curl[..], &only_status, &host, &[&url]].concat();
    site.gaiola(&all).expect(0, &[]).stdout
}

#[test]
fn balancers_do_what_a_proxys_file_can_say() {
    let site = Site::new(Who::caller(), "edge", FILE);
    site.write("misdirected.html", "<p>Somebody else's</p>");
    site.write("public/index.html", "home");
    site.up();
    names_and_rules(&site);
    a_client_stays_at_its_instance(&site);
    limits_are_counted_together(&site);
    changes_are_told_and_lose_nothing(&site);
    mistakes_have_their_lines(&site);
    site.gaiola(&["drill", "kill", "lb1/proxy"])
        .expect(0, &["lb1/proxy: passed"]);
    site.down();
}

fn names_and_rules(site: &Site) {
    let page = asked(site, "shop.example", "/", &[]);
    assert!(
        page.starts_with("http/1.1 200") && page.contains("home"),
        "{page}"
    );
    assert_eq!(page.matches("x-request-id: ").count(), 1, "{page}");
    assert!(page.contains("x-frame-options: deny"), "{page}");
    let alias = asked(site, "www.shop.example", "/a?b=c", &[]);
    let target = "location: http://shop.example/a?b=c\r\n";
    assert!(
        alias.starts_with("http/1.1 308") && alias.contains(target),
        "{alias}"
    );
    let other = asked(site, "other.example", "/", &[]);
    assert!(
        other.starts_with("http/1.1 421") && other.contains("somebody else's"),
        "{other}"
    );
    let admin = |login: &[&str]| asked(site, "shop.example", "/admin", login);
    assert!(admin(&[]).starts_with("http/1.1 401"));
    assert!(admin(&["-u", "ann:secret"]).starts_with("http/1.1 200"));
    let large = "x".repeat(2000);
    let large = asked(site, "shop.example", "/api", &["-d", &large]);
    assert!(large.starts_with("http/1.1 413"), "{large}");
}

/// Also by the other balancer and the other web server: the front door takes turns.
fn a_client_stays_at_its_instance(site: &Site) {
    let first = raw(site, "shop.example", "/poll", &[]);
    let cookie = first.split("SERVERID=").nth(1).expect("a cookie");
    let value = cookie.split([';', '\r']).next().unwrap();
    let instance = |answer: &str| {
        let rest = answer.split("\"instance\"").nth(1).expect("its name");
        rest.split('"').nth(1).unwrap().to_string()
    };
    let cookie = format!("SERVERID={value}");
    for _ in 0..12 {
        let again = raw(site, "shop.example", "/poll", &["-b", &cookie]);
        assert_eq!(instance(&again), instance(&first), "{again}");
    }
}

fn limits_are_counted_together(site: &Site) {
    let (one, other) = ("10.77.0.100", "10.77.0.101");
    for _ in 0..6 {
        assert_eq!(from_inside(site, one, "/login"), "200");
    }
    assert_eq!(from_inside(site, one, "/login"), "429");
    site.wait_for("the other balancer knows", SOON, || {
        from_inside(site, other, "/login") == "429"
    });
    assert_eq!(from_inside(site, other, "/"), "200");
}

fn changes_are_told_and_lose_nothing(site: &Site) {
    site.gaiola(&["plan"]).expect(0, &[]);
    site.edit("rate = \"6/h\"", "rate = \"1000/h\"");
    site.gaiola(&["plan"])
        .expect(0, &["balancer: limit changed", "no connection is lost"]);
    site.up();
    assert_eq!(from_inside(site, "10.77.0.100", "/login"), "200");
    // Lines are written in batches.
    let file = site.state().join("servers/lb1/log/access.log");
    site.wait_for("the access log has its format", SOON, || {
        let log = std::fs::read_to_string(&file).unwrap_or_default();
        log.contains("\"GET /login HTTP/1.1\" 429 ")
    });
    let shown = site.gaiola(&["check", "--json"]).expect(0, &["\"***\""]);
    assert!(!shown.stdout.contains("$5$"), "{shown:?}");
}

fn mistakes_have_their_lines(site: &Site) {
    site.edit("path = \"/login\"", "path_regex = \"(\"");
    let said = site.gaiola(&["check"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("gaiola.toml:17:"), "{said:?}");
    site.edit("path_regex = \"(\"", "path = \"/login\"");
}
