//! Routes, rules and limits, as a client sees them.

mod limits;
mod mistakes;

use super::harness::*;
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{
    Admin, Backend, BasicAuth, ControlReply, ControlRequest, Fixed, Frontend, HeaderEdit,
    HeaderMatch, Limit, LimitKey, Mode, Most, PathMatch, Peers, Presence, QueryMatch, Rewrite,
    Route, Rule, Server, User, ValueMatch,
};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// These routes, and the backend `app` with one server.
fn with_routes(bind: SocketAddr, app: &Origin, routes: Vec<Route>) -> ProxyConfig {
    let mut config = config(bind, &[app.address]);
    let Mode::Http { routes: all, .. } = &mut config.frontends[0].mode else {
        unreachable!()
    };
    *all = routes;
    config
}

fn with_rules(bind: SocketAddr, app: &Origin, rules: Vec<Rule>) -> ProxyConfig {
    let route = Route {
        rules,
        ..Route::to("app")
    };
    with_routes(bind, app, vec![route])
}

fn set(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit::Set {
        name: name.into(),
        value: value.into(),
    }
}

fn fixed(status: u16, body: &str) -> Rule {
    Rule::Return(Fixed {
        status,
        content_type: "text/x-fixed".into(),
        body: body.into(),
        needs: None,
    })
}

/// The log says why.
fn assert_reported(proxy: &Proxy, why: &str) {
    eventually(why, || {
        let lines = proxy.log_lines(1);
        let mut reasons = lines.iter().filter_map(|line| line["reason"].as_str());
        reasons.any(|reason| reason.contains(why))
    });
}

fn ask(client: &mut Client, method: &str, path: &str, fields: &str) -> Response {
    client.send(&format!(
        "{method} {path} HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n"
    ));
    client.response()
}

#[test]
fn an_answer_that_needs_a_backend_is_503_while_none_of_its_servers_is_up() {
    let (app, bind) = (Origin::start("app"), free_address());
    let needing = |path: &str, backend: &str| Route {
        path_prefix: path.into(),
        rules: vec![Rule::Return(Fixed {
            status: 200,
            content_type: "text/plain".into(),
            body: "ok".into(),
            needs: Some(backend.into()),
        })],
        ..Route::default()
    };
    let routes = vec![
        needing("/health", "app"),
        needing("/idle", "other"),
        Route::to("app"),
        Route::to("other"),
    ];
    let mut config = with_routes(bind, &app, routes);
    let drained = Server {
        admin: Admin::Maint,
        ..server("o1", app.address)
    };
    config.backends.push(Backend::new("other", vec![drained]));
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    assert_eq!(
        ask(&mut client, "GET", "/health", "Host: a\r\n").status,
        200
    );
    assert_eq!(ask(&mut client, "GET", "/idle", "Host: a\r\n").status, 503);
    assert_reported(&proxy, "no server of other is up");
}

#[test]
fn each_condition_leads_to_its_backend() {
    let (app, other, bind) = (Origin::start("app"), Origin::start("other"), free_address());
    let route = |set: &dyn Fn(&mut Route)| {
        let mut route = Route::to("other");
        set(&mut route);
        route
    };
    let routes = vec![
        route(&|route| route.when.hosts = vec!["other.example".into(), "*.other.example".into()]),
        route(&|route| {
            route.when.paths = vec![
                PathMatch::Exact("/exact".into()),
                PathMatch::Prefix("/below".into()),
                PathMatch::Regex(r"\.php$".into()),
            ];
        }),
        route(&|route| route.when.methods = vec!["PURGE".into()]),
        route(&|route| {
            route.when.headers = vec![HeaderMatch {
                name: "X-Kind".into(),
                wanted: Presence::OneOf(vec![
                    ValueMatch::Equals("this".into()),
                    ValueMatch::Regex("^that".into()),
                ]),
            }];
        }),
        route(&|route| {
            route.when.query = vec![QueryMatch {
                name: "kind".into(),
                wanted: Presence::OneOf(vec!["this one".into()]),
            }];
        }),
        route(&|route| {
            route.path_prefix = "/far".into();
            route.when.sources = vec!["192.0.2.0/24".parse().unwrap()];
        }),
        route(&|route| {
            route.path_prefix = "/near".into();
            route.when.sources = vec!["127.0.0.0/8".parse().unwrap()];
        }),
        Route::to("app"),
    ];
    let mut config = with_routes(bind, &app, routes);
    config
        .backends
        .push(Backend::new("other", vec![server("o1", other.address)]));
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    for (method, path, fields, expected) in [
        ("GET", "/", "Host: OTHER.example:80\r\n", "other"),
        ("GET", "/", "Host: a.other.example\r\n", "other"),
        ("GET", "/", "Host: another.example\r\n", "app"),
        ("GET", "/exact", "Host: a\r\n", "other"),
        ("GET", "/exact/", "Host: a\r\n", "app"),
        ("GET", "/x/../%65xact", "Host: a\r\n", "other"),
        ("GET", "/below/x", "Host: a\r\n", "other"),
        ("GET", "/belows", "Host: a\r\n", "app"),
        ("GET", "/x.php", "Host: a\r\n", "other"),
        ("GET", "/x.phps", "Host: a\r\n", "app"),
        ("PURGE", "/", "Host: a\r\n", "other"),
        ("GET", "/", "Host: a\r\nx-kind: this\r\n", "other"),
        (
            "GET",
            "/",
            "Host: a\r\nX-Kind: no\r\nX-Kind: that one\r\n",
            "other",
        ),
        ("GET", "/", "Host: a\r\nX-Kind: thistle\r\n", "app"),
        ("GET", "/?a&kind=this+one", "Host: a\r\n", "other"),
        ("GET", "/?kind=this%20one", "Host: a\r\n", "other"),
        ("GET", "/?kind=this", "Host: a\r\n", "app"),
        ("GET", "/far", "Host: a\r\n", "app"),
        ("GET", "/near", "Host: a\r\n", "other"),
    ] {
        let response = ask(&mut client, method, path, fields);
        let server = response.text().split(' ').next().unwrap();
        assert_eq!(server, expected, "{method} {path} {fields}");
    }
}

#[test]
fn redirects_fixed_answers_and_denials_keep_the_connection() {
    let (app, bind) = (Origin::start("app"), free_address());
    let at = |path: &str, rule: Rule| Route {
        path_prefix: path.into(),
        rules: vec![
            Rule::ResponseHeader(set("Strict-Transport-Security", "max-age=1")),
            rule,
        ],
        ..Route::to("app")
    };
    let to = |to: &str| Rule::Redirect {
        status: 302,
        to: to.into(),
    };
    let routes = vec![
        at("/tls", Rule::to_https(308)),
        at("/to", to("/elsewhere?from={path}")),
        at("/same", to("{path}")),
        at("/fixed", fixed(418, "short and stout")),
        at("/empty", fixed(204, "")),
        at("/denied", Rule::Deny),
        at("/", Rule::RequestHeader(set("X-Reached", "yes"))),
    ];
    let proxy = Proxy::serving(&with_routes(bind, &app, routes));
    let mut client = Client::connect(bind);
    for (path, status, field, why) in [
        (
            "/tls/x?y=1",
            308,
            Some(("Location", "https://site/tls/x?y=1")),
            "redirected by a rule",
        ),
        (
            "/to/x",
            302,
            Some(("Location", "/elsewhere?from=/to/x")),
            "redirected by a rule",
        ),
        (
            "/fixed",
            418,
            Some(("Content-Type", "text/x-fixed")),
            "answered by a rule",
        ),
        (
            "/empty",
            204,
            Some(("Content-Length", "none")),
            "answered by a rule",
        ),
        ("/denied", 403, None, "denied by a rule"),
    ] {
        let response = client.get(path);
        assert_eq!(response.status, status, "{path}");
        if let Some((name, value)) = field {
            assert_eq!(response.field(name).unwrap_or("none"), value);
        }
        assert_eq!(
            response.field("Strict-Transport-Security"),
            Some("max-age=1")
        );
        assert_eq!(response.field("Connection"), None);
        assert_reported(&proxy, why);
    }
    assert_eq!(
        client.get("//same//evil.example").field("Location"),
        Some("/same//evil.example")
    );
    client.send("HEAD /fixed HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().field("Content-Length"), Some("15"));
    assert_eq!(client.get("/").text(), "app GET / HTTP/1.1");
    assert_eq!(app.requests().len(), 1, "no other was passed on");
}

#[test]
fn fields_path_and_host_are_changed_on_the_way() {
    let bind = free_address();
    let app = Origin::with(|connection| {
        while connection.request().is_some() {
            connection
                .say("HTTP/1.1 200 OK\r\nServer: old\r\nX-Gone: 1\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let remove = |name: &str| HeaderEdit::Remove { name: name.into() };
    let rules = vec![
        Rule::Rewrite(Rewrite::Prefix {
            from: "/api".into(),
            to: "/".into(),
        }),
        Rule::Rewrite(Rewrite::Regex {
            pattern: "^/v([0-9]+)/".into(),
            to: "/version/$1/".into(),
        }),
        Rule::Host("inner.example".into()),
        Rule::RequestHeader(set("X-Client", "{client} of {host} for {path}")),
        Rule::RequestHeader(remove("Cookie")),
        Rule::ResponseHeader(set("Server", "{server}")),
        Rule::ResponseHeader(remove("x-gone")),
        Rule::ResponseHeader(HeaderEdit::Add {
            name: "X-Id".into(),
            value: "{request_id}".into(),
        }),
    ];
    let _proxy = Proxy::serving(&with_rules(bind, &app, rules));
    let mut client = Client::connect(bind);
    for (asked, got) in [
        ("/api/v2/a%20b?q=1", "/version/2/a%20b?q=1"),
        ("/api", "/"),
        ("/apis/v2/x", "/apis/v2/x"),
        ("/x/../api/v3/y", "/version/3/y"),
        ("http://site/api/v1/z?q", "/version/1/z?q"),
    ] {
        client.send(&format!(
            "GET {asked} HTTP/1.1\r\nHost: site\r\nCookie: a=b\r\nX-Client: me\r\nCookie: c\r\n\r\n"
        ));
        let response = client.response();
        assert_eq!(response.text(), "ok");
        assert_eq!(response.field("Server"), Some("lb1"));
        assert_eq!(response.field("X-Gone"), None);
        let request = app.requests().pop().unwrap();
        assert_eq!(request.path(), got);
        let path = got.split('?').next().unwrap();
        let forwarded = format!("127.0.0.1 of site for {path}");
        assert_eq!(request.field("X-Client"), Some(&*forwarded));
        assert_eq!(request.field("Cookie"), None);
        assert_eq!(request.field("Host"), Some("inner.example"));
        assert_eq!(request.field("X-Forwarded-Host"), Some("site"));
        assert_eq!(response.field("X-Id"), request.field("X-Request-ID"));
        let hosts = request.fields.iter().filter(|(name, _)| name == "Host");
        assert_eq!(hosts.count(), 1);
    }
}

#[test]
fn files_are_looked_for_under_the_rewritten_path() {
    let (app, bind) = (Origin::start("app"), free_address());
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.txt"), "file").unwrap();
    let mut config = with_rules(
        bind,
        &app,
        vec![
            Rule::Rewrite(Rewrite::Prefix {
                from: "/static".into(),
                to: "/".into(),
            }),
            Rule::ResponseHeader(set("Content-Type", "text/x-own")),
        ],
    );
    let Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!()
    };
    routes[0].files = vec![directory.path().into()];
    let _proxy = Proxy::serving(&config);
    let response = Client::connect(bind).get("/static/a.txt");
    assert_eq!(response.text(), "file");
    let types = response
        .fields
        .iter()
        .filter(|(name, _)| name == "Content-Type");
    assert_eq!(
        types.map(|(_, value)| &**value).collect::<Vec<_>>(),
        ["text/x-own"]
    );
}

#[test]
fn only_who_has_a_password_comes_in() {
    let (app, bind) = (Origin::start("app"), free_address());
    let hash = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    let auth = BasicAuth {
        realm: "The site".into(),
        users: vec![User {
            name: "ann".into(),
            hash: hash.into(),
        }],
    };
    let proxy = Proxy::serving(&with_rules(bind, &app, vec![Rule::Auth(auth)]));
    let mut client = Client::connect(bind);
    let response = client.get("/");
    assert_eq!(response.status, 401);
    assert_eq!(
        response.field("WWW-Authenticate"),
        Some("Basic realm=\"The site\", charset=\"UTF-8\"")
    );
    assert_reported(&proxy, "no entry: it has no name and password");
    // ann:wrong, then ann:secret twice: once compared, once remembered.
    for (field, status) in [
        ("YW5uOndyb25n", 401),
        ("YW5uOnNlY3JldA==", 200),
        ("YW5uOnNlY3JldA==", 200),
    ] {
        let fields = format!("Host: a\r\nAuthorization: Basic {field}\r\n");
        assert_eq!(ask(&mut client, "GET", "/", &fields).status, status);
    }
    assert_reported(&proxy, "no entry: its name or password is wrong");
    assert_eq!(app.requests().len(), 2);
}

#[test]
fn what_is_too_large_is_refused() {
    let (app, bind) = (Origin::start("app"), free_address());
    let mut route = Route::to("app");
    route.allowance.body = Some(10);
    route.allowance.head = Some(300);
    let proxy = Proxy::serving(&with_routes(bind, &app, vec![route]));
    let send = |text: &str| {
        let mut client = Client::connect(bind);
        client.send(text);
        client.response().status
    };
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    assert_eq!(
        send(&format!("{post}Content-Length: 10\r\n\r\n0123456789")),
        200
    );
    assert_eq!(
        send(&format!("{post}Content-Length: 11\r\n\r\n01234567890")),
        413
    );
    assert_reported(&proxy, "its body has 11 bytes, 10 are allowed");
    assert_eq!(
        send(&format!(
            "{post}Content-Length: 11\r\nExpect: 100-continue\r\n\r\n"
        )),
        413
    );
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    let ten = "1\r\n0\r\n".repeat(10);
    assert_eq!(send(&format!("{chunked}{ten}0\r\n\r\n")), 200);
    assert_eq!(send(&format!("{chunked}{ten}1\r\n0\r\n0\r\n\r\n")), 413);
    assert_reported(&proxy, "its body has more than 10 bytes");
    assert_eq!(
        send(&format!(
            "{post}X: {}\r\nContent-Length: 0\r\n\r\n",
            "x".repeat(300)
        )),
        431
    );
    assert_reported(&proxy, "300 are allowed");
    assert_eq!(
        app.requests()
            .iter()
            .filter(|request| request.body.len() == 10)
            .count(),
        2
    );
}

#[test]
fn a_route_has_its_own_patience() {
    let bind = free_address();
    let app = Origin::with(|connection| {
        connection.request();
        // It never answers.
        connection.request();
    });
    let mut route = Route::to("app");
    route.allowance.response = Some(Duration::from_millis(50));
    let proxy = Proxy::serving(&with_routes(bind, &app, vec![route]));
    let mut client = Client::connect(bind);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().status, 504);
    assert_reported(&proxy, "no response within 50 ms");
}

#[test]
fn a_route_has_its_own_time_in_the_queue() {
    let (held, bind) = (Arc::new(Barrier::new(2)), free_address());
    let release = Arc::clone(&held);
    let app = Origin::with(move |connection| {
        while connection.request().is_some() {
            release.wait();
            connection.answer("done");
        }
    });
    let mut hurried = Route {
        path_prefix: "/hurried".into(),
        ..Route::to("app")
    };
    hurried.allowance.queue = Some(Duration::from_millis(50));
    let mut config = with_routes(bind, &app, vec![hurried, Route::to("app")]);
    config.backends[0].servers[0].maxconn = Some(1);
    config.backends[0].timeouts.queue = LONG;
    let proxy = Proxy::serving(&config);
    let mut first = Client::connect(bind);
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is in flight", || {
        proxy.report().servers[0].in_flight == 1
    });
    assert_eq!(Client::connect(bind).get("/hurried").status, 503);
    held.wait();
    assert_eq!(first.response().text(), "done");
}
