//! Routes, rules, users, limits and pages.

use super::*;
use gaiola_model::proxy::{
    Allowance, Conditions, CookieMatch, Fixed, HeaderEdit, HeaderMatch, LimitKey, Most, PathMatch,
    QueryMatch, Rewrite, Rule, User, ValueMatch, Wanted,
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
        |values: &[&str]| Wanted::OneOf(values.iter().map(|value| (*value).into()).collect());
    Conditions {
        hosts: vec!["a.example".into(), "*.a.example".into()],
        paths: Vec::new(),
        methods: vec!["GET".into()],
        headers: vec![
            header("X-Any", Wanted::Present),
            header("X-One", Wanted::OneOf(vec![is("one")])),
            header("X-Two", Wanted::OneOf(vec![is("one"), is("two")])),
            header(
                "X-Re",
                Wanted::OneOf(vec![is("one"), regex("^a"), regex("b$")]),
            ),
            header("X-No", Wanted::Absent),
        ],
        query: vec![
            parameter("any", Wanted::Present),
            parameter("one", texts(&["1"])),
            parameter("two", texts(&["1", "2"])),
            parameter("no", Wanted::Absent),
        ],
        cookies: vec![
            cookie("id", Wanted::Present),
            cookie("no", Wanted::Absent),
            cookie("kind", Wanted::OneOf(vec![regex("^a")])),
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
fn every_mistake_is_told_at_once() {
    let text = r#"
limit_secret = "short"
[users.staff]
[limit.a]
rate = "0/s"
by = "sauce"
[limit.b]
rate = "1/2d"
concurrent = 1
[limit.c]
by = "path"
concurrent = 1
[frontend.www]
bind = ":80"
connection_limit = "c"
error_pages = { 200 = "a", ok = "b" }
[[frontend.www.route]]
path = ["b", "/a//b", "/%62", "/b?c"]
max_body = "10"
header = { X-A = 5, X-B = {} }
rule = [{ deny = false }, { deny = true, limit = "a" }, { auth = "stuff" }, { limit = "x" }]
[[frontend.www.route]]
rule = [{ redirect = "/a", status = 200 }, { strip = "a" }, { rewrite = "/a" }, { set_header = "X-A" }, { hsts = "forever" }, { denny = true }]
[[frontend.www.route]]
rule = [{ auth = "staff" }]
[frontend.tcp]
mode = "tcp"
bind = ":81"
backend = "app"
rule = []
[[frontend.rest.rule]]
[backend.app.server]
a = "10.0.0.1:80"
"#;
    let told = [
        "2:16: `limit_secret` \"short\" can be guessed; take at least 16 characters, made by chance",
        "3:8: [users.staff] has no `user`; add user = { NAME = \"HASH\" }",
        "5:8: `rate` \"0/s\" allows no request at all; { deny = true } says so",
        "6:6: `by` \"sauce\" is not known; it is one of \"source\", \"network\", \"path\", \"header:NAME\"",
        "7:8: [limit.b] needs one of `rate` and `concurrent`; write rate = \"100/10s\" or concurrent = 20",
        "8:8: `rate` \"1/2d\" has a window that cannot be counted in; it is from 1s to 1d",
        "15:20: connections cannot be counted by the limit \"c\"; name one that is by = \"source\" or \"network\"",
        "16:17: `error_pages` has a page for \"200\"; write the status of an error, 400 to 599",
        "16:28: `error_pages` has a page for \"ok\"; write the status of an error, 400 to 599",
    ];
    let said = said(text);
    assert_eq!(said[..told.len()], told);
    for beginning in [
        "31:1: a [[frontend.rest.rule]] does nothing; it is one of deny,",
        "31:12: [frontend.rest] has no `bind`",
        "18:9: `path` \"b\" does not begin",
        "18:14: `path` \"/a//b\" takes no path",
        "18:23: `path` \"/%62\" contains `%`",
        "18:31: `path` \"/b?c\" contains '?'",
        "19:12: `max_body` \"10\" is not a size",
        "20:18: `X-A` is a number, but is to be a string",
        "20:21: [frontend.www.route.header.X-B] says no value",
        "21:11: a rule that denies nothing",
        "21:42: `limit` does not go with `deny`",
        "21:66: there is no list of users \"stuff\"; did you mean `staff`?",
        "21:87: there is no limit \"x\"; did you mean `a`?",
        "23:37: `status` is 200; it is from 300 to 399",
        "23:54: `strip` \"a\" does not begin",
        "23:61: [frontend.www.route.rule] has no `to`",
        "23:81: [frontend.www.route.rule] has no `value`",
        "23:114: `hsts` \"forever\" is not a number of days",
        "23:129: unknown key \"denny\" in [frontend.www.route.rule]; did you mean `deny`?",
        "24:1: a [[frontend.www.route]] leads nowhere; add backend",
        "30:1: `rule` has no meaning here; it belongs to mode = \"http\"",
    ] {
        let found = said.iter().any(|said| said.starts_with(beginning));
        assert!(found, "{beginning} is not in {said:#?}");
    }
}

#[test]
fn what_others_find_in_a_part_has_its_place() {
    let asked = std::cell::RefCell::new(Vec::new());
    let check = |part: Part<'_>| {
        let mut asked = asked.borrow_mut();
        match part {
            Part::Route(route) => asked.push(format!("{:?} {:?}", route.when.methods, route.rules)),
            Part::Page(status, path) => asked.push(format!("{status} {}", path.display())),
            _ => unreachable!("nothing else is in the file"),
        }
        vec!["this is\nwrong".to_owned()]
    };
    let around = Surroundings {
        check: &check,
        ..around()
    };
    let text = "[frontend.www]\nbind = ':80'\nerror_pages.503 = 'a'\n[[frontend.www.route]]\nmethod = ['A', 'B']\nrule = [{ strip = '/a' },\n{ deny = true }]";
    let errors = load(text, &around).unwrap_err();
    let places = errors.mistakes().iter();
    let places: Vec<_> = places
        .map(|mistake| (mistake.line, mistake.column, &*mistake.what))
        .collect();
    let what = "this is wrong";
    assert_eq!(
        places,
        [
            (3, 13, what),
            (5, 11, what),
            (5, 16, what),
            (6, 11, what),
            (7, 3, what)
        ]
    );
    assert_eq!(asked.borrow().len(), 5);
    assert!(asked.borrow().contains(&"[\"B\"] []".to_owned()));
    assert!(asked.borrow().contains(&"503 /etc/gaiola/a".to_owned()));
}

proptest! {
    #[test]
    fn no_change_of_a_good_file_panics(at in 0..WHOLE.len(), put in "[a-z0-9=\\[\\]\".{}/\n]{0,3}", cut in 0usize..5) {
        let end = (at + cut).min(WHOLE.len());
        let text = format!("{}{put}{}", &WHOLE[..at], &WHOLE[end..]);
        if let Err(errors) = load(&text, &around()) {
            prop_assert!(!errors.mistakes().is_empty());
        }
    }
}

#[test]
fn patterns_of_other_programs_are_told_with_what_to_write() {
    for (path, hint) in [
        (
            "/admin/*",
            "write path = \"/admin\", which takes all that lies below, too",
        ),
        ("/admin/**", "write path = \"/admin\""),
        ("/admin(/.*)?", "write path = \"/admin\""),
        ("/admin/.*$", "write path = \"/admin\""),
        ("/*", "write path = \"/\", which takes every path"),
        ("/adm*", "write path_regex = '^/adm[^/]*$'"),
        ("/*.php", "write path_regex = '^/[^/]*[.]php$'"),
        (
            "/users/:id/posts",
            "write path_regex = '^/users/[^/]+/posts$'",
        ),
        ("/users/{id}", "write path_regex = '^/users/[^/]+$'"),
        ("/users/<int:id>", "write path_regex = '^/users/[^/]+$'"),
        ("/(a|b)", "write path_regex = '^/(a|b)'"),
        ("/admin$", "write path_regex = '^/admin$'"),
        ("/a;x=1", "leave parameters such as `;x=1` out"),
        (r"/a\\b", "write path_regex = "),
    ] {
        for key in ["path", "path_exact"] {
            let text = format!("{SITE}[[frontend.a.route]]\n{key} = \"{path}\"\nbackend = 'b'\n");
            let said = said(&text);
            assert_eq!(said.len(), 1, "{path} {said:?}");
            assert!(said[0].contains(hint), "{path} {said:?}");
        }
    }
    for path in [
        "/wiki/Foo_(bar)",
        "/c++",
        "/$metadata",
        "/[id].js",
        "/v1/x:batch",
        "/ä b",
    ] {
        let text = format!("{SITE}[[frontend.a.route]]\npath = \"{path}\"\nbackend = 'b'\n");
        assert!(load(&text, &around()).is_ok(), "{path}");
    }
    for (line, told) in [
        ("method = '*'", "leave `method` out"),
        ("header = { X-A = '*' }", "write true for any value"),
        (
            "header = { User-Agent = 'curl/*' }",
            "write { regex = '^curl/' }",
        ),
        (
            "header = { User-Agent = ['x', '*bot*'] }",
            "write { regex = 'bot' }",
        ),
        (
            "cookie = { id = { is = '*.x' } }",
            "write { regex = '[.]x$' }",
        ),
        ("query = { a = '*' }", "write true for any value"),
        (
            "rule = [{ strip = '/api/*' }]",
            "write \"/api\": what follows it is kept",
        ),
        ("rule = [{ rewrite = '/a/*', to = '/b' }]", "write \"/a\""),
    ] {
        let text = format!("{SITE}[[frontend.a.route]]\npath = '/x'\n{line}\nbackend = 'b'\n");
        let said = said(&text);
        assert_eq!(said.len(), 1, "{line} {said:?}");
        assert!(said[0].contains(told), "{line} {said:?}");
    }
    let text =
        format!("{SITE}[[frontend.a.route]]\nheader = {{ Accept = 'text/*' }}\nbackend = 'b'\n");
    assert!(load(&text, &around()).is_ok());
}

const SITE: &str =
    "[backend.b.server]\nb1 = '10.0.0.1:80'\n[frontend.a]\nbind = ':80'\nbackend = 'b'\n";

#[test]
fn a_rule_that_leaves_something_open_or_is_never_come_to_is_told() {
    for (lines, told) in [
        (
            "path = '/admin/'\nrule = [{ deny = true }]",
            "`path` \"/admin/\" leaves \"/admin\" itself open; write \"/admin\", which takes both",
        ),
        (
            "path = '/x'\nrule = [{ redirect = '/y' }, { deny = true }]",
            "no request comes to this rule: one before it answers all of them",
        ),
    ] {
        let said = said(&format!("{SITE}[[frontend.a.route]]\n{lines}\n"));
        assert_eq!(said.len(), 1, "{lines} {said:?}");
        assert!(said[0].contains(told), "{said:?}");
    }
    let site = SITE.replace("bind = ':80'", "bind = ':80'\nrule = [{ return = 503 }]");
    let text = format!("{site}[[frontend.a.route]]\npath = '/x'\nrule = [{{ deny = true }}]\n");
    let told = said(&text).join("\n");
    assert!(
        told.contains("7:1: no request comes here: a rule of the frontend answers all"),
        "{told}"
    );
}

#[test]
fn what_came_by_https_is_not_sent_there_and_so_needs_a_backend() {
    let plain = "[frontend.a]\nbind = ':80'\nrule = [{ redirect = 'https' }]\n";
    assert!(load(plain, &around()).is_ok());
    let told = said(&format!("{plain}trust = '10.0.0.0/8'\n"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("add backend = \"NAME\", for requests that came by HTTPS"),
        "{told:?}"
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
            "the limit \"l\" is shared with nobody",
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

#[test]
fn a_method_in_small_letters_is_a_mistake() {
    let text = "[frontend.a]\nbind = ':80'\nbackend = 'b'\n[[frontend.a.route]]\nmethod = 'get'\nbackend = 'b'\n[backend.b.server]\nb1 = '10.0.0.1:80'\n";
    let all = said(text).join("\n");
    assert!(
        all.contains(
            "`method` \"get\" has small letters, which no method has; write it as \"GET\""
        ),
        "{all}"
    );
}
