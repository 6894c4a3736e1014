use super::*;
use gaiola_model::http::{Field, FieldName, Span};
use gaiola_model::proxy::{Conditions, CookieMatch, HeaderMatch, Presence, QueryMatch, ValueMatch};
use proptest::prelude::*;

/// A request put together by hand.
#[derive(Clone, Debug)]
struct Request {
    buffer: Vec<u8>,
    head: RequestHead,
    client: IpAddr,
}

impl Request {
    fn new(method: &str, host: &str, path: &str, query: &str, fields: &[(&str, &str)]) -> Self {
        let mut buffer = Vec::new();
        let mut put = |text: &str| {
            let start = buffer.len();
            buffer.extend_from_slice(text.as_bytes());
            Span::new(start, buffer.len())
        };
        let mut head = RequestHead {
            method_name: put(method),
            path: put(path),
            query: put(query),
            host: (!host.is_empty()).then(|| put(host)),
            ..RequestHead::default()
        };
        for (field, value) in fields {
            let (name, value) = (put(field), put(value));
            head.fields.push(Field {
                known: match *field {
                    "Cookie" => FieldName::Cookie,
                    _ => FieldName::Other,
                },
                name,
                value,
                line_end: value.end,
            });
        }
        Self {
            buffer,
            head,
            client: [192, 0, 2, 7].into(),
        }
    }

    fn get(host: &str, path: &str) -> Self {
        Self::new("GET", host, path, "", &[])
    }

    fn asked(&self) -> RouteInput<'_> {
        RouteInput {
            head: &self.head,
            buffer: &self.buffer,
            client: self.client,
        }
    }
}

fn find(routes: &[Route], request: &Request) -> Option<usize> {
    let table = Table::new(routes).unwrap();
    table.find(&request.asked(), &mut Vec::new()).unwrap()
}

fn below(prefix: &str) -> Route {
    Route {
        path_prefix: prefix.into(),
        ..Route::to("b")
    }
}

fn on(hosts: &[&str]) -> Route {
    let mut route = Route::to("b");
    route.when.hosts = hosts.iter().map(|host| (*host).into()).collect();
    route
}

#[test]
fn the_first_match_wins() {
    let request = Request::get("a", "/api");
    assert_eq!(find(&[below("/"), below("/api")], &request), Some(0));
    assert_eq!(find(&[below("/api"), below("/")], &request), Some(0));
    assert_eq!(find(&[below("/apis"), below("/")], &request), Some(1));
}

#[test]
fn a_prefix_ends_at_a_segment() {
    let routes = [below("/a/b"), below("/c/")];
    let find = |path| find(&routes, &Request::get("a", path));
    assert_eq!(find("/a/b/x"), Some(0));
    assert_eq!(find("/a/bc"), None);
    assert_eq!(find("/c/x"), Some(1));
    assert_eq!(find("/c"), None);
}

#[test]
fn the_root_takes_everything() {
    assert_eq!(find(&[below("/")], &Request::get("a", "*")), Some(0));
    assert_eq!(find(&[], &Request::get("a", "/")), None);
}

#[test]
fn another_spelling_of_a_path_does_not_pass_by() {
    for path in [
        "/%61dmin",
        "//admin",
        "/./admin",
        "/x/../admin/",
        "/x/%2e%2E/admin",
        "/admin%2fx",
        "/admin;x=1",
        "/admin;x=1/y",
        "/;/admin",
        "/;x=1/admin/",
        "/%61dmin;a;b",
        "/admin%3bx=1",
    ] {
        let routes = [below("/admin"), below("/")];
        assert_eq!(find(&routes, &Request::get("a", path)), Some(0), "{path}");
    }
}

#[test]
fn what_servers_read_in_several_ways_is_taken_by_no_route_that_only_one_of_them_sees() {
    let table = Table::new(&[below("/admin"), below("/")]).unwrap();
    let find = |path| {
        let request = Request::get("a", path);
        table.find(&request.asked(), &mut Vec::new())
    };
    for path in [
        "/x/..;/admin",
        "/x/..;a=b/admin",
        "/x/%2e%2e;/admin",
        "/x/..%3b/admin",
        "/admin/..;/x",
        "/x\\..\\admin",
        "/x%5c..%5cadmin",
        "/\\admin",
        "/admin%5cx",
        "/admin;x=%2f../y",
        "/x;%2f..;/admin",
    ] {
        assert_eq!(find(path), Err(Ambiguous), "{path}");
    }
    for (path, route) in [
        ("/x/..;/y", 1),
        ("/admin/.;/x", 0),
        ("/admin/a\\b", 0),
        ("/a;b=%2f/c", 1),
        ("/a;jsessionid=1", 1),
    ] {
        assert_eq!(find(path), Ok(Some(route)), "{path}");
    }
    let table = Table::new(&[below("/")]).unwrap();
    let request = Request::get("a", "/x/..;/admin");
    assert_eq!(table.find(&request.asked(), &mut Vec::new()), Ok(Some(0)));
}

#[test]
fn an_empty_path_is_the_root() {
    let mut root = below("/");
    root.when.paths = vec![PathMatch::Exact("/".into())];
    assert_eq!(find(&[root], &Request::get("a", "")), Some(0));
}

#[test]
fn hosts_are_compared_without_case_port_and_closing_dot() {
    let routes = [
        on(&["example.com", "[::1]"]),
        on(&["*.Example.com"]),
        on(&[]),
    ];
    for (host, route) in [
        ("Example.COM:8080", 0),
        ("example.com.", 0),
        ("[::1]:80", 0),
        ("[::1]", 0),
        ("a.example.com", 1),
        ("a.b.example.com", 1),
        ("badexample.com", 2),
        ("", 2),
    ] {
        assert_eq!(
            find(&routes, &Request::get(host, "/")),
            Some(route),
            "{host}"
        );
    }
}

#[test]
fn every_condition_must_hold() {
    let mut route = below("/api");
    route.when = Conditions {
        hosts: vec!["a".into()],
        paths: vec![
            PathMatch::Regex("[0-9]$".into()),
            PathMatch::Exact("/api/x".into()),
        ],
        methods: vec!["PUT".into(), "PATCH".into()],
        headers: vec![
            HeaderMatch {
                name: "X-There".into(),
                wanted: Presence::Present,
            },
            HeaderMatch {
                name: "accept".into(),
                wanted: Presence::OneOf(vec![
                    ValueMatch::Equals("x".into()),
                    ValueMatch::Regex("json$".into()),
                ]),
            },
        ],
        query: vec![QueryMatch {
            name: "page no".into(),
            wanted: Presence::OneOf(vec!["a+b".into()]),
        }],
        cookies: Vec::new(),
        sources: vec!["192.0.2.0/24".parse().unwrap()],
    };
    let (table, fields) = (
        Table::new(&[route]).unwrap(),
        [("x-there", ""), ("Accept", "text/json")],
    );
    let (query, path) = ("?z&page+no=a%2Bb", "/api/v1");
    let holds = |request: &Request| table.find(&request.asked(), &mut Vec::new()) == Ok(Some(0));
    let right = Request::new("PUT", "a", path, query, &fields);
    assert!(holds(&right));
    assert!(holds(&Request::new("PATCH", "a", "/api/x", query, &fields)));
    for wrong in [
        Request::new("PUT", "b", path, query, &fields),
        Request::new("put", "a", path, query, &fields),
        Request::new("PUT", "a", "/api/v", query, &fields),
        Request::new("PUT", "a", "/v1", query, &fields),
        Request::new("PUT", "a", path, "?page+no=a+b", &fields),
        Request::new("PUT", "a", path, "", &fields),
        Request::new("PUT", "a", path, query, &fields[..1]),
        Request::new("PUT", "a", path, query, &fields[1..]),
        Request {
            client: [192, 0, 3, 7].into(),
            ..right.clone()
        },
    ] {
        assert!(!holds(&wrong), "{wrong:?}");
    }
    let mapped = Request {
        client: "::ffff:192.0.2.9".parse().unwrap(),
        ..right
    };
    assert!(holds(&mapped));
}

#[test]
fn what_is_absent_can_be_asked_for() {
    let header = |wanted| Conditions {
        headers: vec![HeaderMatch {
            name: "x-kind".into(),
            wanted,
        }],
        ..Conditions::default()
    };
    let query = |wanted| Conditions {
        query: vec![QueryMatch {
            name: "a b".into(),
            wanted,
        }],
        ..Conditions::default()
    };
    let cookie = |wanted| Conditions {
        cookies: vec![CookieMatch {
            name: "id".into(),
            wanted,
        }],
        ..Conditions::default()
    };
    let takes = |when: Conditions, query: &str, fields: &[(&str, &str)]| {
        let route = Route {
            when,
            ..Route::to("b")
        };
        find(&[route], &Request::new("GET", "a", "/", query, fields)).is_some()
    };
    let is = |value: &str| Presence::OneOf(vec![ValueMatch::Equals(value.into())]);
    for (fields, absent, present, one) in [
        (&[("X-Other", "1")][..], true, false, false),
        (&[("X-KIND", "")], false, true, false),
        (&[("X-Kind", "2"), ("X-Kind", "1")], false, true, true),
    ] {
        assert_eq!(takes(header(Presence::Absent), "", fields), absent);
        assert_eq!(takes(header(Presence::Present), "", fields), present);
        assert_eq!(takes(header(is("1")), "", fields), one);
    }
    for (text, absent) in [
        ("", true),
        ("?a=b", true),
        ("?x&a+b", false),
        ("?a%20b=1", false),
    ] {
        assert_eq!(takes(query(Presence::Absent), text, &[]), absent, "{text}");
        assert_eq!(
            takes(query(Presence::Present), text, &[]),
            !absent,
            "{text}"
        );
    }
    for (fields, absent, present, one) in [
        (&[][..], true, false, false),
        (&[("X-Other", "id=1")], true, false, false),
        (&[("Cookie", "a=1; ID=1")], true, false, false),
        (&[("Cookie", "id=")], true, false, false),
        (
            &[("Cookie", "id=2"), ("Cookie", "a=2; id=\"1\"")],
            false,
            true,
            true,
        ),
    ] {
        assert_eq!(takes(cookie(Presence::Absent), "", fields), absent);
        assert_eq!(takes(cookie(Presence::Present), "", fields), present);
        assert_eq!(takes(cookie(is("1")), "", fields), one);
    }
}

#[test]
fn all_mistakes_are_reported_with_their_route() {
    let mut route = below("api");
    route.when.hosts = vec!["a b".into(), "*.".into(), "a:80".into()];
    route.when.methods = vec!["G T".into()];
    route.when.paths = vec![PathMatch::Regex("(".into())];
    route.when.headers = vec![HeaderMatch {
        name: ":".into(),
        wanted: Presence::OneOf(vec![ValueMatch::Regex("a{9999}{9999}".into())]),
    }];
    route.when.cookies = vec![CookieMatch {
        name: "a b".into(),
        wanted: Presence::Absent,
    }];
    let mistakes = Table::new(&[below("/"), route]).err().unwrap();
    assert_eq!(mistakes.len(), 9, "{mistakes:?}");
    assert!(mistakes.iter().all(|(route, _)| *route == 1));
}

/// What the conditions mean, without any arrangement.
fn linear(routes: &[Route], host: &str, path: &str, method: &str) -> Option<usize> {
    let leads = |prefix: &str, path: &str| {
        prefix == "/"
            || path.strip_prefix(prefix).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')
            })
    };
    routes.iter().position(|route| {
        let when = &route.when;
        let host_holds = |wanted: &String| match wanted.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix) && host.len() > suffix.len(),
            None => host == wanted,
        };
        let path_holds = |wanted: &PathMatch| match wanted {
            PathMatch::Exact(wanted) => path == wanted,
            PathMatch::Prefix(prefix) => leads(prefix, path),
            PathMatch::Regex(suffix) => path.ends_with(&suffix[..suffix.len() - 1]),
        };
        leads(&route.path_prefix, path)
            && (when.hosts.is_empty() || when.hosts.iter().any(host_holds))
            && (when.paths.is_empty() || when.paths.iter().any(path_holds))
            && (when.methods.is_empty() || when.methods.iter().any(|wanted| wanted == method))
    })
}

fn a_path() -> impl Strategy<Value = String> {
    // `-` and `.` lie before the slash in order, letters behind it.
    let segment = prop::sample::select(vec!["a", "b", "ab", "a-b", "a-", "-"]);
    let segments = prop::collection::vec(segment, 0..4);
    (segments, any::<bool>()).prop_map(|(segments, slash)| {
        let end = if slash && !segments.is_empty() {
            "/"
        } else {
            ""
        };
        format!("/{}{end}", segments.join("/"))
    })
}

fn a_host() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec!["a", "b", "ba"]);
    prop::collection::vec(label, 1..4).prop_map(|labels| labels.join("."))
}

fn a_route() -> impl Strategy<Value = Route> {
    let path = prop_oneof![
        a_path().prop_map(PathMatch::Exact),
        a_path().prop_map(PathMatch::Prefix),
        prop::sample::select(vec!["b$", "/a$", "-$"]).prop_map(|it| PathMatch::Regex(it.into())),
    ];
    let host = prop_oneof![a_host(), a_host().prop_map(|host| format!("*.{host}"))];
    let method = prop::sample::select(vec!["GET", "PUT"]).prop_map(String::from);
    (
        prop_oneof![3 => Just("/".to_owned()), 2 => a_path()],
        prop::collection::vec(host, 0..3),
        prop::collection::vec(path, 0..3),
        prop::collection::vec(method, 0..2),
    )
        .prop_map(|(path_prefix, hosts, paths, methods)| {
            let mut route = below(&path_prefix);
            (route.when.hosts, route.when.paths, route.when.methods) = (hosts, paths, methods);
            route
        })
}

proptest! {
    #[test]
    fn the_table_finds_what_a_walk_through_the_list_finds(
        routes in prop::collection::vec(a_route(), 0..40),
        requests in prop::collection::vec((a_host(), a_path(), prop::sample::select(vec!["GET", "PUT"])), 1..20),
    ) {
        let table = Table::new(&routes).unwrap();
        for (host, path, method) in requests {
            let request = Request::new(method, &host, &path, "", &[]);
            let found = table.find(&request.asked(), &mut Vec::new());
            prop_assert_eq!(found.unwrap(), linear(&routes, &host, &path, method), "{} {} {}", method, host, path);
        }
    }

    /// What is compared is the same however often it is made plain.
    #[test]
    fn a_normal_path_has_nothing_to_resolve(path in "/([a./]|%2[eEfF]|%61|%zz){0,12}") {
        let mut scratch = Vec::new();
        let plain = normal(path.as_bytes(), &mut scratch).to_vec();
        prop_assert!(plain.starts_with(b"/"), "{:?}", plain);
        let segments: Vec<_> = plain[1..].split(|&byte| byte == b'/').collect();
        let (last, others) = segments.split_last().unwrap();
        prop_assert!(others.iter().all(|segment| ![&b""[..], b".", b".."].contains(segment)), "{:?}", plain);
        prop_assert!(![&b"."[..], b".."].contains(last), "{:?}", plain);
    }
}
