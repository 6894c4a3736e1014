mod compress;
mod files;
mod reach;
mod rules;
mod words;

use super::*;
use gaiola_model::proxy::{
    Admin, Algorithm, Backend, Bind, Check, CheckKind, Frontend, Mode, OnMarkedDown, Refusal,
    Route, Server,
};
use proptest::prelude::*;

const WHOLE: &str = r#"
name = "edge1"
workers = 2
admin = "127.0.0.1:8404"
control = "proxy.sock"
access_log = "/var/log/proxy.log"
hard_stop_after = "30s"
take_over_limit = "1h"

[timeouts]
client = "20s"
connect = "3s"
http_body_rate = 50

[frontend.www]
bind = [":80", "[::]:80"]
maxconn = 100
trust = "10.0.0.0/8"
accept_proxy = ["10.0.0.1", "10.0.0.2"]
backend = "app"
timeouts = { http_request = "5s", http_body_rate = 0 }

[[frontend.www.route]]
path = "/static"
files = "public"
backend = "web"

[frontend.database]
mode = "tcp"
bind = "127.0.0.1:5432"
backend = "primary"
refusal = "postgres"
timeouts = { tunnel = "1h" }

[backend.web.server]
web1 = "10.0.1.1:80"

[backend.app]
balance = "leastconn"
check = "/up"
fallback = "web"
queue_size = 10
queue_when_down = true
timeouts = { server = "10s" }

[backend.app.server]
zeta = "zeta.example:3000"
alpha = { address = "10.0.2.1:3000", weight = 5, maxconn = 20, check_path = "/well", check_port = 3100, disabled = true }

[backend.primary]
on_marked_down = "shutdown-sessions"
check = { port = 8008, interval = "1s", rise = 1, fall = 1, timeout = "500ms" }
server = { db1 = "10.0.3.1:5432" }
"#;

fn around() -> Surroundings<'static> {
    Surroundings {
        directory: Path::new("/etc/gaiola"),
        host: "this-host",
        resolve: &|name| match name {
            "zeta.example:3000" => Ok(([10, 0, 2, 9], 3000).into()),
            _ => Err(ResolveError::Failed("no such host".into())),
        },
        check: &|_| Vec::new(),
    }
}

fn said(text: &str) -> Vec<String> {
    match load(text, &around()) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.mistakes().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn every_key_is_read() {
    let file = load(WHOLE, &around()).unwrap();
    let process = Process {
        workers: NonZeroUsize::new(2),
        admin: Some(([127, 0, 0, 1], 8404).into()),
        control: Some("/etc/gaiola/proxy.sock".into()),
        access_log: Some(PathBuf::from("/var/log/proxy.log").into()),
        hard_stop_after: Some(Duration::from_secs(30)),
        take_over_limit: Some(Duration::from_secs(3600)),
    };
    assert_eq!(file.process, process);
    let config = ProxyConfig {
        revision: Revision::default(),
        server: "edge1".into(),
        frontends: vec![www(), database()],
        backends: backends(),
        ..ProxyConfig::default()
    };
    assert_eq!(file.config, config);
}

fn client_timeouts() -> ClientTimeouts {
    ClientTimeouts {
        idle: Duration::from_secs(20),
        body_rate: 50,
        ..ClientTimeouts::default()
    }
}

fn server_timeouts() -> ServerTimeouts {
    ServerTimeouts {
        connect: Duration::from_secs(3),
        user: Duration::from_secs(10),
        ..ServerTimeouts::default()
    }
}

fn www() -> Frontend {
    let senders = ["10.0.0.1/32", "10.0.0.2/32"].map(|network| network.parse().unwrap());
    let bind = |address: &str| Bind {
        proxy_protocol_from: senders.to_vec(),
        ..Bind::new(address.parse::<SocketAddr>().unwrap())
    };
    Frontend {
        name: "www".into(),
        binds: vec![bind("0.0.0.0:80"), bind("[::]:80")],
        mode: Mode::Http {
            routes: vec![
                Route {
                    path_prefix: "/static".into(),
                    files: vec!["/etc/gaiola/public".into()],
                    ..Route::to("web")
                },
                Route::to("app"),
            ],
            trusted: vec!["10.0.0.0/8".parse().unwrap()],
        },
        maxconn: 100,
        timeouts: ClientTimeouts {
            request_head: Duration::from_secs(5),
            body_rate: 0,
            ..client_timeouts()
        },
        connection_limit: None,
        error_pages: Default::default(),
        pages: Default::default(),
        return_request_id: false,
    }
}

fn database() -> Frontend {
    Frontend {
        name: "database".into(),
        binds: vec![Bind::new(([127, 0, 0, 1], 5432))],
        mode: Mode::Tcp {
            backend: "primary".into(),
            refusal: Refusal::Postgres,
            sni: Vec::new(),
        },
        maxconn: 20_000,
        timeouts: ClientTimeouts {
            tunnel: Duration::from_secs(3600),
            ..client_timeouts()
        },
        connection_limit: None,
        error_pages: Default::default(),
        pages: Default::default(),
        return_request_id: false,
    }
}

fn backends() -> Vec<Backend> {
    let server = server_timeouts();
    let check = |kind, connect| Check {
        kind,
        port: None,
        host: None,
        headers: std::collections::BTreeMap::new(),
        status: Vec::new(),
        interval: Duration::from_secs(2),
        fast_interval: Duration::from_secs(2),
        connect,
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 3,
    };
    let web = Backend {
        timeouts: server.clone(),
        ..Backend::new("web", vec![Server::new("web1", ([10, 0, 1, 1], 80))])
    };
    let alpha = Server {
        weight: 5,
        maxconn: Some(20),
        check_path: Some("/well".into()),
        check_port: Some(3100),
        admin: Admin::Maint,
        ..Server::new("alpha", ([10, 0, 2, 1], 3000))
    };
    let zeta = Server::new("zeta", ([10, 0, 2, 9], 3000));
    let app = Backend {
        algorithm: Algorithm::LeastConn,
        check: Some(check(
            CheckKind::Http { path: "/up".into() },
            server.connect,
        )),
        fallback: Some("web".into()),
        timeouts: ServerTimeouts {
            response: Duration::from_secs(10),
            queue_size: 10,
            queue_when_down: true,
            ..server.clone()
        },
        ..Backend::new("app", vec![zeta, alpha])
    };
    let primary = Backend {
        on_marked_down: OnMarkedDown::ShutdownSessions,
        check: Some(Check {
            port: Some(8008),
            host: None,
            headers: std::collections::BTreeMap::new(),
            status: Vec::new(),
            interval: Duration::from_secs(1),
            fast_interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            rise: 1,
            fall: 1,
            ..check(CheckKind::Tcp, server.connect)
        }),
        timeouts: server,
        ..Backend::new("primary", vec![Server::new("db1", ([10, 0, 3, 1], 5432))])
    };
    vec![web, app, primary]
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = r#"
frontned = 1
[frontend.www]
bind = ["80", ":81", ":81"]
backend = "ap"
refusal = "close"
[frontend.tcp]
mode = "tcp"
[[frontend.tcp.route]]
path = "x"
[backend.app]
balance = "fastest"
check = "up"
timeouts = { connect = "0s", client = "1s" }
[backend.app.server]
a = "nowhere.example:80"
"b c" = "10.0.0.1:80"
d = { weight = 300 }
e = 5
[backend.empty]
"#;
    assert_eq!(
        said(text),
        [
            "2:1: unknown key \"frontned\"; did you mean `frontend`?",
            "4:9: `bind` \"80\" is not an address; write ADDRESS:PORT, such as \"0.0.0.0:80\", \"[::]:80\", or \":80\"",
            "4:22: 0.0.0.0:81 is bound twice; leave one of them out",
            "5:11: there is no backend \"ap\"; did you mean `app`?",
            "6:1: `refusal` has no meaning here; it belongs to mode = \"tcp\"",
            "7:11: [frontend.tcp] has no `bind`; add bind = \"0.0.0.0:80\"",
            "7:11: [frontend.tcp] has no `backend`; add backend = \"NAME\"",
            "9:16: `route` has no meaning here; it belongs to mode = \"http\"",
            "12:11: `balance` \"fastest\" is not known; it is one of \"roundrobin\", \"leastconn\", \"random\", \"first\", \"hash\"",
            "13:9: `check` \"up\" is not a check; write the path to request, such as \"/up\", or \"tcp\" or \"tls\"",
            "14:24: `connect` \"0s\" would expire at once; write a number and ms, s, m or h, at most 1h: \"500ms\", \"10s\"",
            "14:30: unknown key \"client\" in [backend.app.timeouts]; `client` belongs in [timeouts] or [frontend.NAME.timeouts]",
            "16:5: `a` \"nowhere.example:80\" cannot be looked up: no such host; write ADDRESS:PORT or HOST:PORT, such as \"10.0.0.1:3000\"",
            "17:1: the server's name \"b c\" is not a name; use 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `:` and `-`",
            "18:1: [backend.app.server.d] has no `address`; add address = \"10.0.0.1:3000\"",
            "18:16: `weight` is 300; it is from 0 to 256",
            "19:5: `e` is a number, but must be a string; write it as e = \"10.0.0.1:3000\"",
            "20:10: [backend.empty] has no servers; add [backend.empty.server] with lines NAME = \"ADDRESS:PORT\"",
        ]
    );
}

#[test]
fn what_is_proposed_for_a_number_is_understood() {
    let text = r#"
admin = 8404
control = true
[timeouts]
client = 500
connect = 1.5
server = 7200
[frontend.www]
bind = { address = 443 }
backend = "app"
trust = 10
mode = 1
[[frontend.www.route]]
path = 5
max_body = 1000
backend = "app"
rule = [{ hsts = 300 }, { set_header = "A", value = 5 }]
[backend.app]
balance = 1
check = 5
sticky = { cookie = "a", max_idle = 60, max_life = "5d" }
[backend.app.server]
a = 80
b = { address = 80 }
"#;
    let said = said(text);
    let hints: Vec<_> = said
        .iter()
        .map(|mistake| mistake.split_once("; ").unwrap().1)
        .collect();
    assert_eq!(
        hints,
        [
            "write it as admin = \":8404\"",
            "write it in quotes: control = \"true\"",
            "write it with its unit: client = \"500ms\" or \"500s\"",
            "write a number and ms, s, m or h, at most 1h: \"500ms\", \"10s\"",
            "write it with its unit: server = \"7200ms\"",
            "write it as address = \":443\"",
            "write it as trust = \"10.0.0.0/8\"",
            "it is one of \"http\", \"tcp\"",
            "write it as path = \"/api\"",
            "write it with its unit: max_body = \"1000B\"",
            "write it with its unit: hsts = \"300s\" or \"300d\"",
            "write it in quotes: value = \"5\"",
            "it is one of \"roundrobin\", \"leastconn\", \"random\", \"first\", \"hash\"",
            "write the path to request, such as \"/up\", or \"tcp\" or \"tls\"",
            "write it with its unit: max_idle = \"60s\"",
            "write a number and s, m or h, at most 9600h: \"30m\", \"8h\"",
            "write it as a = \"10.0.0.1:3000\"",
            "write it as address = \"10.0.0.1:3000\"",
        ]
    );
}

#[test]
fn a_file_without_a_frontend_serves_nothing() {
    assert_eq!(
        said(""),
        [
            "1:1: the file has no [frontend.NAME]; add [frontend.NAME] with bind = \"0.0.0.0:80\" and backend = \"NAME\""
        ]
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        let _ = load(&text, &around());
    }

    #[test]
    fn no_change_of_a_good_file_panics(at in 0..WHOLE.len(), put in "[a-z0-9=\\[\\]\".{}\n]{0,3}", cut in 0usize..5) {
        let end = (at + cut).min(WHOLE.len());
        let text = format!("{}{put}{}", &WHOLE[..at], &WHOLE[end..]);
        if let Err(errors) = load(&text, &around()) {
            prop_assert!(!errors.mistakes().is_empty());
        }
    }
}
