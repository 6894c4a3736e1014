//! Routes, rules, users, limits and pages.

mod mistakes;

use super::*;
use gaiola_model::proxy::{
    Allowance, Conditions, CookieMatch, Fixed, HeaderEdit, HeaderMatch, LimitKey, Most, PathMatch,
    Presence, QueryMatch, Rewrite, Rule, User, ValueMatch,
};

const WHOLE: &str = r#"
limit_secret = "0123456789abcdef"

[users.staff]
realm = "Staging"
user = { ann = "$5$a", "bob b" = "$5$b" }

[limit.logins]
rate = "5/m"
by = "header:X-Name"
keys = 1000

[limit.each]
concurrent = 20

[limit.nets]
ipv6_prefix = 48
by = "network"
rate = "100/10s"

[limit.paths]
by = "path"
rate = "1/1d"

[frontend.www]
bind = ":80"
connection_limit = "nets"
error_pages = { 503 = "sorry.html", 404 = "/srv/404.html" }

[[frontend.www.rule]]
hsts = "365d"

[[frontend.www.rule]]
limit = "each"

[[frontend.www.route]]
host = ["a.example", "*.a.example"]
path = "/b"
method = "GET"
source = ["10.0.0.0/8", "192.0.2.7"]
max_body = "10MB"
max_head = "4KiB"
timeouts = { server = "5s", queue = "1s" }
backend = "app"
header = { X-Any = true, X-One = "one", X-Two = ["one", "two"], X-Re = { is = "one", regex = ["^a", "b$"] }, X-No = false }
query = { any = true, one = "1", two = ["1", "2"], no = false }
cookie = { id = true, no = false, kind = { regex = "^a" } }
rule = [
  { auth = "staff" },
  { limit = "logins" },
  { strip = "/b" },
  { rewrite = "/c", to = "/d" },
  { rewrite_regex = "^/e/(.*)", to = "/f/$1" },
  { host = "b.example" },
  { set_header = "X-A", value = "{client}" },
  { add_header = "X-A", value = "b" },
  { remove_header = "X-B" },
  { set_response_header = "X-C", value = "c" },
  { add_response_header = "X-C", value = "d" },
  { remove_response_header = "X-D" },
  { hsts = { max_age = "1h", include_subdomains = true, preload = true } },
]

[[frontend.www.route]]
path = ["/b", "/c"]
path_exact = "/d"
path_regex = "[.]php$"
rule = [{ deny = true }]

[[frontend.www.route]]
path_exact = "/e"
files = "public"

[[frontend.www.route]]
rule = [{ redirect = "https" }]
[[frontend.www.route]]
rule = [{ redirect = "https", status = 301 }]
[[frontend.www.route]]
rule = [{ redirect = "/x" }]
[[frontend.www.route]]
rule = [{ return = 204 }]
[[frontend.www.route]]
rule = [{ return = 503, body = "<p>", content_type = "text/html" }]

[frontend.plain]
bind = ":81"
rule = [{ redirect = "https" }]

[backend.app.server]
a = "10.0.0.1:80"
"#;

fn routes(file: &ProxyFile, frontend: usize) -> &[Route] {
    match &file.config.frontends[frontend].mode {
        Mode::Http { routes, .. } => routes,
        Mode::Tcp { .. } => unreachable!(),
    }
}

fn set(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit::Set {
        name: name.into(),
        value: value.into(),
    }
}

fn add(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit::Add {
        name: name.into(),
        value: value.into(),
    }
}

fn remove(name: &str) -> HeaderEdit {
    HeaderEdit::Remove { name: name.into() }
}

/// What every route of `www` begins with.
fn common() -> Vec<Rule> {
    vec![
        Rule::Hsts("max-age=31536000".into()),
        Rule::Limit("each".into()),
    ]
}

fn conditions() -> Conditions {
    let is = |value: &str| ValueMatch::Equals(value.into());
    let regex = |value: &str| ValueMatch::Regex(value.into());
    let header = |name: &str, wanted| HeaderMatch {
        name: name.into(),
        wanted,
    };
    let parameter = |name: &str, wanted| QueryMatch {
        name: name.into(),
        wanted,
    };
    let cookie = |name: &str, wanted| CookieMatch {
        name: name.into(),
        wanted,
    };
    let texts =
        |values: &[&str]| Presence::OneOf(values.iter().map(|value| (*value).into()).collect());
    Conditions {
        hosts: vec!["a.example".into(), "*.a.example".into()],
        paths: Vec::new(),
        methods: vec!["GET".into()],
        headers: vec![
            header("X-Any", Presence::Present),
            header("X-One", Presence::OneOf(vec![is("one")])),
            header("X-Two", Presence::OneOf(vec![is("one"), is("two")])),
            header(
                "X-Re",
                Presence::OneOf(vec![is("one"), regex("^a"), regex("b$")]),
            ),
            header("X-No", Presence::Absent),
        ],
        query: vec![
            parameter("any", Presence::Present),
            parameter("one", texts(&["1"])),
            parameter("two", texts(&["1", "2"])),
            parameter("no", Presence::Absent),
        ],
        cookies: vec![
            cookie("id", Presence::Present),
            cookie("no", Presence::Absent),
            cookie("kind", Presence::OneOf(vec![regex("^a")])),
        ],
        sources: ["10.0.0.0/8", "192.0.2.7/32"]
            .map(|network| network.parse().unwrap())
            .into(),
    }
}

#[test]
fn every_condition_and_allowance_is_read() {
    let file = load(WHOLE, &around()).unwrap();
    let routes = routes(&file, 0);
    assert_eq!(routes.len(), 9);
    assert_eq!(routes[0].path_prefix, "/b");
    assert_eq!(routes[0].when, conditions());
    assert_eq!(routes[0].backend.as_deref(), Some("app"));
    let allowance = Allowance {
        body: Some(10_000_000),
        head: Some(4096),
        response: Some(Duration::from_secs(5)),
        queue: Some(Duration::from_secs(1)),
    };
    assert_eq!(routes[0].allowance, allowance);
    let paths = [
        PathMatch::Prefix("/b".into()),
        PathMatch::Prefix("/c".into()),
        PathMatch::Exact("/d".into()),
        PathMatch::Regex("[.]php$".into()),
    ];
    assert_eq!(routes[1].path_prefix, "/");
    assert_eq!(routes[1].when.paths, paths);
    assert_eq!(routes[1].backend, None);
    assert_eq!(routes[2].when.paths, [PathMatch::Exact("/e".into())]);
    assert_eq!(routes[2].files, [Path::new("/etc/gaiola/public")]);
}

#[test]
fn every_rule_is_read_and_those_of_the_frontend_come_first() {
    let file = load(WHOLE, &around()).unwrap();
    let routes = routes(&file, 0);
    let user = |name: &str, hash: &str| User {
        name: name.into(),
        hash: hash.into(),
    };
    let auth = BasicAuth {
        realm: "Staging".into(),
        users: vec![user("ann", "$5$a"), user("bob b", "$5$b")],
    };
    let prefix = |from: &str, to: &str| {
        Rule::Rewrite(Rewrite::Prefix {
            from: from.into(),
            to: to.into(),
        })
    };
    let hsts = "max-age=3600; includeSubDomains; preload";
    let rules = [
        Rule::Auth(auth),
        Rule::Limit("logins".into()),
        prefix("/b", "/"),
        prefix("/c", "/d"),
        Rule::Rewrite(Rewrite::Regex {
            pattern: "^/e/(.*)".into(),
            to: "/f/$1".into(),
        }),
        Rule::Host("b.example".into()),
        Rule::RequestHeader(set("X-A", "{client}")),
        Rule::RequestHeader(add("X-A", "b")),
        Rule::RequestHeader(remove("X-B")),
        Rule::ResponseHeader(set("X-C", "c")),
        Rule::ResponseHeader(add("X-C", "d")),
        Rule::ResponseHeader(remove("X-D")),
        Rule::Hsts(hsts.into()),
    ];
    assert_eq!(routes[0].rules, [&common()[..], &rules].concat());
    assert_eq!(routes[1].rules, [&common()[..], &[Rule::Deny]].concat());
    let redirect = |status, to: &str| Rule::Redirect {
        status,
        to: to.into(),
    };
    let fixed = |status, content_type: &str, body: &str| {
        Rule::Return(Fixed {
            status,
            content_type: content_type.into(),
            body: body.into(),
            needs: None,
        })
    };
    let answers = [
        Rule::to_https(308),
        redirect(301, "https://{host}{path}{query}"),
        redirect(302, "/x"),
        fixed(204, "text/plain; charset=utf-8", ""),
        fixed(503, "text/html", "<p>"),
    ];
    for (route, answer) in routes[3..8].iter().zip(answers) {
        assert_eq!(route.rules, [&common()[..], &[answer]].concat());
    }
}

#[test]
fn what_no_route_takes_goes_through_the_rules_of_all() {
    let file = load(WHOLE, &around()).unwrap();
    let rest = |rules| Route {
        rules,
        ..Route::default()
    };
    assert_eq!(routes(&file, 0)[8], rest(common()));
    assert_eq!(routes(&file, 1), [rest(vec![Rule::to_https(308)])]);
}

#[test]
fn limits_and_pages_are_read() {
    let config = load(WHOLE, &around()).unwrap().config;
    assert_eq!(config.limit_secret.as_deref(), Some("0123456789abcdef"));
    let rate = |requests, seconds| Most::Rate {
        requests,
        window: Duration::from_secs(seconds),
    };
    let limits = [
        Limit {
            key: LimitKey::Header("X-Name".into()),
            keys: 1000,
            ..Limit::new("logins", rate(5, 60))
        },
        Limit::new("each", Most::Concurrent(20)),
        Limit {
            key: LimitKey::Network,
            ipv6_prefix: 48,
            ..Limit::new("nets", rate(100, 10))
        },
        Limit {
            key: LimitKey::Path,
            ..Limit::new("paths", rate(1, 86_400))
        },
    ];
    assert_eq!(config.limits, limits);
    let www = &config.frontends[0];
    assert_eq!(www.connection_limit.as_deref(), Some("nets"));
    let pages = [(404, "/srv/404.html"), (503, "/etc/gaiola/sorry.html")];
    assert_eq!(
        www.error_pages,
        pages.map(|(n, path)| (n, path.into())).into()
    );
}

#[test]
fn peers_share_rates() {
    let site =
        "[frontend.a]\nbind = ':80'\nbackend = 'b'\n[backend.b.server]\nb1 = '10.0.0.1:80'\n";
    let peers = "[peers]\naddress = '10.0.0.1:8405'\nothers = '10.0.0.2:8405'\n";
    let limit = "[limit.l]\nrate = '5/m'\nshared = true\n";
    let secret = "limit_secret = 'sixteen letters!!'\n";
    let config = load(&[secret, site, peers, limit].concat(), &around())
        .unwrap()
        .config;
    assert!(config.limits[0].shared);
    let peers_of = config.peers.unwrap();
    assert_eq!(peers_of.address, ([10, 0, 0, 1], 8405).into());
    assert_eq!(peers_of.others, [([10, 0, 0, 2], 8405).into()]);
    let concurrent = limit.replace("rate = '5/m'", "concurrent = 5");
    for (text, expected) in [
        (
            [site, peers, limit].concat(),
            "[peers] needs a `limit_secret`",
        ),
        (
            [secret, site, limit].concat(),
            "the limit \"l\" is shared, but there are no [peers]",
        ),
        (
            [secret, site, peers, &concurrent].concat(),
            "`shared` has no meaning with `concurrent`",
        ),
        (
            [secret, site, "[peers]\n"].concat(),
            "[peers] has no `address`",
        ),
    ] {
        let all = said(&text).join("\n");
        assert!(all.contains(expected), "{all}");
    }
}
