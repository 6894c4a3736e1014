//! What `[balancer]` has in the words of a proxy's file.

use super::*;
use gaiola_model::config::BalancerProxy;
use gaiola_model::proxy::{Algorithm, Most, PathMatch, Route, Rule};

/// The settings of `[balancer]` with these lines, where every file has the contents `page`.
fn proxy_of(lines: &str) -> Result<BalancerProxy, Vec<String>> {
    let text = format!("site = 'a'\n[app]\nrun = 'x'\n[balancer]\n{lines}");
    let around = Surroundings {
        read: Some(&|_| Ok("page".into())),
        ..Surroundings::default()
    };
    match load_in(&text, &around) {
        Ok(config) => Ok(config.balancer.unwrap().proxy),
        Err(errors) => Err(errors.mistakes().iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn routes_and_rules_are_those_of_a_proxys_file_without_a_backend() {
    let read = proxy_of(
        r#"
max_body = "10MB"
rule = [{ set_response_header = "X-Frame-Options", value = "DENY" }]
[[balancer.route]]
path = "/login"
method = "POST"
rule = [{ limit = "logins" }]
[[balancer.route]]
host = "staging.example"
timeouts = { server = "2m" }
rule = [{ auth = "staff" }]
[balancer.limit.logins]
rate = "5/m"
[balancer.limit.open]
concurrent = 5
[balancer.users.staff.user]
ann = "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA"
"#,
    )
    .unwrap();
    assert_eq!(read.max_body, Some(10_000_000));
    assert!(matches!(&read.rules[..], [Rule::ResponseHeader(_)]));
    let [login, staging]: &[Route; 2] = read.routes[..].try_into().unwrap();
    assert_eq!(login.path_prefix, "/login");
    assert_eq!(login.rules, [Rule::Limit("logins".into())]);
    assert!(
        login
            .when
            .paths
            .iter()
            .all(|path| *path != PathMatch::Exact("/".into()))
    );
    assert_eq!(staging.when.hosts, ["staging.example"]);
    assert_eq!(staging.allowance.response, Some(Duration::from_secs(120)));
    assert!(read.routes.iter().all(|route| route.backend.is_none()));
    // A rate is counted for all balancers together.
    let [logins, open] = &read.limits[..] else {
        panic!("{:?}", read.limits)
    };
    assert!(logins.shared && matches!(logins.most, Most::Rate { .. }));
    assert!(!open.shared && read.shares_limits());
    let alone = proxy_of("[balancer.limit.logins]\nrate = '5/m'\nshared = false").unwrap();
    assert!(!alone.shares_limits());
}

#[test]
fn hashes_of_passwords_are_not_shown() {
    let users = "rule = [{ auth = 'staff' }]\nsticky = { cookie = 'S', key = 'sixteen bytes or more' }\n\
                 [balancer.users.staff.user]\nann = '$5$saltsalt$hash'";
    let read = proxy_of(users).unwrap();
    assert!(
        serde_json::to_string(&read)
            .unwrap()
            .contains("$5$saltsalt")
    );
    let shown = serde_json::to_string(&read.without_secrets()).unwrap();
    assert!(
        !shown.contains("$5$") && !shown.contains("sixteen"),
        "{shown}"
    );
}

#[test]
fn what_chooses_an_instance_is_said_as_of_a_backend() {
    let read = proxy_of(
        "balance = 'hash'\nhash = { on = 'cookie', name = 'sid' }\nslow_start = '30s'\n\
         sticky = { cookie = 'SERVERID', http_only = true }\n\
         timeouts = { tunnel = '50m', server = '2m', queue = '1s' }",
    )
    .unwrap();
    assert!(matches!(read.algorithm, Some(Algorithm::Hash { .. })));
    assert_eq!(read.slow_start, Some(Duration::from_secs(30)));
    assert!(read.sticky.unwrap().http_only);
    let client = read.client_timeouts.unwrap();
    assert_eq!(client.tunnel, Duration::from_secs(3000));
    let server = read.server_timeouts.unwrap();
    assert_eq!(
        (server.response, server.queue),
        (Duration::from_secs(120), Duration::from_secs(1))
    );
    assert!(proxy_of("").unwrap().is_usual());
}

#[test]
fn files_that_settings_name_are_part_of_them() {
    let read = proxy_of("error_pages = { 503 = 'busy.html', 404 = 'gone.txt' }").unwrap();
    let pages = read.error_pages;
    assert_eq!(pages[&503].content_type, "text/html; charset=utf-8");
    assert_eq!(
        (&*pages[&404].content_type, &*pages[&404].body),
        ("text/plain; charset=utf-8", "page")
    );
    let text = "site = 'a'\n[app]\nrun = 'x'\n[balancer.tls]\ncertificates = 'a.pem'\n\
                min_version = '1.3'\nclient_ca = 'ca.pem'\nclient_certificate = 'optional'";
    let around = Surroundings {
        read: Some(&|_| Ok("PEM".into())),
        ..Surroundings::default()
    };
    let tls = load_in(text, &around)
        .unwrap()
        .balancer
        .unwrap()
        .tls
        .unwrap();
    let clients = tls.clients.unwrap();
    assert_eq!((clients.pem.as_str(), clients.required), ("PEM", false));
    assert_eq!(tls.min_version, gaiola_model::proxy::TlsVersion::Tls13);
}

#[test]
fn balancers_log_to_their_own_file_or_to_syslog() {
    use gaiola_model::proxy_file::{Facility, LogFormat, LogTarget};
    let log = |written: &str| {
        let read = proxy_of(&format!("access_log = {written}"));
        read.map(|read| read.access_log.unwrap())
    };
    let own = log("{ format = 'combined' }").unwrap();
    assert_eq!((own.to, own.format), (None, LogFormat::Combined));
    let syslog = log("{ to = 'syslog:10.0.0.9:514', format = 'httplog', facility = 'local3' }");
    let syslog = syslog.unwrap();
    let facility = Facility::of("local3").unwrap();
    let to = LogTarget::Udp("10.0.0.9:514".parse().unwrap(), facility);
    assert_eq!(syslog.to, Some(to));
    let text = serde_json::to_string(&syslog).unwrap();
    assert_eq!(
        serde_json::from_str::<gaiola_model::config::BalancerLog>(&text).unwrap(),
        syslog
    );
    assert!(log("'syslog:/dev/log'").unwrap().to.is_some());
    for wrong in [
        "'access.log'",
        "'stdout'",
        "{ facility = 'local1' }",
        "'syslog:loghost:514'",
    ] {
        assert_eq!(log(wrong).unwrap_err().len(), 1, "{wrong}");
    }
}

#[test]
fn the_names_of_a_site_are_served_or_redirected() {
    let read = proxy_of("hosts = ['Shop.example', '*.shop.example']\naliases = 'www.shop.example'");
    let read = read.unwrap();
    assert_eq!(read.hosts, ["shop.example", "*.shop.example"]);
    assert_eq!(read.aliases, ["www.shop.example"]);
    assert_eq!(read.host(), Some("shop.example"));
}

#[test]
fn mistakes_in_them_have_their_lines() {
    for (lines, mistake) in [
        (
            "rule = [{ limit = 'logins' }]",
            r#"5: there is no limit "logins"; add [balancer.limit.NAME] of this name"#,
        ),
        (
            "hosts = '*.shop.example'",
            r#"5: the first of `hosts` is "*.shop.example", which is no name; begin with the site's own name, such as "www.example.org""#,
        ),
        (
            "aliases = 'www.shop.example'",
            r#"5: `aliases` are redirected, but [balancer] has no `hosts`; add hosts = ["www.example.org"], the first of which clients are redirected to"#,
        ),
        (
            "hosts = ['a.example', 'http://b.example']",
            r#"5: `hosts` "http://b.example" is not"#,
        ),
        (
            "[[balancer.route]]\npath = '/x'\nbackend = 'app'",
            "7: `backend` has no meaning here; requests that its rules do not answer go to the web tier, or to the app tier without one",
        ),
        (
            "[[balancer.route]]\npath = '/x'\ntimeouts = { queue = '1s' }",
            "7: `queue` has no meaning here; instances are waited for",
        ),
        (
            "timeouts = { connect = '1s' }",
            r#"5: unknown key "connect" in [balancer.timeouts]; known here: http_request, "#,
        ),
        (
            "[balancer.limit.logins]\nby = 'source'",
            "5: [balancer.limit.logins] needs one of `rate` and `concurrent`; write rate = \"100/10s\" or concurrent = 20",
        ),
        (
            "sticky = { indirect = true }",
            r#"5: [balancer.sticky] has no `cookie`; add cookie = "SERVERID""#,
        ),
    ] {
        let said = proxy_of(lines).unwrap_err();
        let (line, rest) = said[0].split_once(':').unwrap();
        let rest = rest.split_once(' ').unwrap().1;
        let first = format!("{line}: {rest}");
        assert!(said.len() == 1 && first.starts_with(mistake), "{said:?}");
    }
}

#[test]
fn settings_have_room_in_the_sites_documents() {
    let text = "site = 'a'\n[app]\nrun = 'x'\n[balancer]\nerror_pages = { 503 = 'busy.html' }";
    let around = Surroundings {
        read: Some(&|_| Ok("x".repeat(200_000))),
        ..Surroundings::default()
    };
    let errors = load_in(text, &around).unwrap_err();
    let said = errors.mistakes()[0].to_string();
    assert!(
        said.contains("bytes, error pages included; they are 131072 at most"),
        "{said}"
    );
}

#[test]
fn an_alias_that_takes_the_sites_own_name_is_refused() {
    for (hosts, alias) in [
        ("shop.example", "Shop.Example"),
        ("www.shop.example", "*.shop.example"),
    ] {
        let text = format!(
            "site = 's'\n[balancer]\nhosts = ['{hosts}']\naliases = ['{alias}']\n[app]\nrun = 'x'"
        );
        let said = said(&text);
        assert!(
            said.len() == 1 && said[0].contains("is in `hosts` and in `aliases`"),
            "{said:?}"
        );
    }
    let other = "site = 's'\n[balancer]\nhosts = ['shop.example', '*.shop.example']\naliases = ['www.shop.example']\n[app]\nrun = 'x'";
    assert!(load(other).is_ok());
}

#[test]
fn how_often_and_how_long_an_instance_is_asked_has_bounds() {
    for (key, value) in [
        ("interval", "1ms"),
        ("interval", "1h"),
        ("timeout", "60s"),
        ("timeout", "1ms"),
    ] {
        let text = format!("site = 's'\n[app]\nrun = 'x'\nhealth = {{ {key} = '{value}' }}");
        let said = said(&text);
        assert!(
            said.len() == 1 && said[0].contains("is out of range"),
            "{said:?}"
        );
    }
}
