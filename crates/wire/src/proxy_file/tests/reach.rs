//! How clients and servers are reached: binds, TLS, names, servers, checks and the choice among servers.

mod mistakes;

use super::*;
use gaiola_model::proxy::{
    ClientCertificates, Ejection, HashKey, Observe, ProxyVersion, SameSite, Secret, ServerTls,
    SlowEjection, SniRoute, StartTls, Sticky, Tls, TlsVersion,
};

const EXAMPLE: &str = include_str!("../../../../../examples/proxy/proxy.toml");

const BINDS: &str = r#"
[frontend.site]
backend = "app"
accept_proxy = "10.0.0.1"
bind = [
    ":80",
    { address = "unix:/run/site.sock", permissions = "0660" },
    { address = ":443", accept_proxy = "10.0.0.2", tls = { certificates = ["a.pem", "/b"], min_version = "1.3" } },
]
[frontend.inner]
backend = "app"
bind = { address = ":444", tls = { certificates = "a.pem", client_ca = "ca.pem", alpn = "http/1.1" } }
[[frontend.outer.bind]]
address = "unix:/run/outer.sock"
[[frontend.outer.bind]]
address = ":445"
tls.certificates = "a.pem"
tls.client_ca = "ca.pem"
tls.client_certificate = "optional"
[frontend.outer]
backend = "app"
[frontend.names]
mode = "tcp"
bind = ":446"
backend = "app"
[[frontend.names.sni]]
names = ["One.example", "*.One.example"]
backend = "tls"
[[frontend.names.sni]]
names = "two.example"
backend = "app"
[backend.app.server]
s = "10.0.0.1:80"
[backend.tls.server]
s = "10.0.0.1:443"
"#;

/// A file whose only backend is this.
fn backend(text: &str) -> String {
    format!("[frontend.site]\nbind = ':80'\nbackend = 'app'\n[backend.app]\n{text}")
}

fn read(text: &str) -> ProxyConfig {
    load(text, &around()).unwrap().config
}

fn app(text: &str) -> Backend {
    read(&backend(text)).backends.remove(0)
}

#[test]
fn a_bind_may_have_more_to_say() {
    let frontends = read(BINDS).frontends;
    let from = |text: &str| vec![text.parse::<ipnet::IpNet>().unwrap()];
    let tcp = |port: u16| Bind::new(([0, 0, 0, 0], port));
    let unix = |path: &str| Bind::new(path.parse::<Address>().unwrap());
    let tls = |files: &[&str]| Tls::new(files.iter().map(Into::into).collect());
    let clients = |required| {
        Some(ClientCertificates {
            ca: "/etc/gaiola/ca.pem".into(),
            pem: None,
            required,
        })
    };
    let site = [
        Bind {
            proxy_protocol_from: from("10.0.0.1/32"),
            ..tcp(80)
        },
        Bind {
            proxy_protocol_from: from("10.0.0.1/32"),
            permissions: Some(0o660),
            ..unix("unix:/run/site.sock")
        },
        Bind {
            proxy_protocol_from: from("10.0.0.2/32"),
            tls: Some(Tls {
                min_version: TlsVersion::Tls13,
                ..tls(&["/etc/gaiola/a.pem", "/b"])
            }),
            ..tcp(443)
        },
    ];
    assert_eq!(frontends[0].binds, site);
    let inner = Bind {
        tls: Some(Tls {
            client: clients(true),
            alpn: vec!["http/1.1".into()],
            ..tls(&["/etc/gaiola/a.pem"])
        }),
        ..tcp(444)
    };
    assert_eq!(frontends[1].binds, [inner]);
    let outer = Bind {
        tls: Some(Tls {
            client: clients(false),
            ..tls(&["/etc/gaiola/a.pem"])
        }),
        ..tcp(445)
    };
    assert_eq!(frontends[2].binds, [unix("unix:/run/outer.sock"), outer]);
}

#[test]
fn what_the_process_listens_on_is_no_frontends() {
    let said = |keys: &str, bind: &str| {
        let text = format!(
            "{keys}\n[frontend.site]\nbind = '{bind}'\nbackend = 'app'\n[backend.app.server]\ns = '10.0.0.1:1'"
        );
        said(&text).join("\n")
    };
    assert_eq!(
        said("admin = ':80'", "10.0.0.1:80"),
        "1:9: `admin` is 0.0.0.0:80, and a frontend listens on 10.0.0.1:80; give it a port of its own"
    );
    assert_eq!(
        said("control = 'a.sock'", "unix:/etc/gaiola/a.sock"),
        "1:11: `control` is /etc/gaiola/a.sock, and a frontend listens there; give it a socket of its own"
    );
    for (admin, bind, refused) in [
        ("127.0.0.1:80", ":80", true),
        ("[::1]:80", "[::1]:80", true),
        ("[::]:80", ":80", true),
        (":80", "[::]:80", false),
        ("127.0.0.1:80", "127.0.0.2:80", false),
        (":80", ":81", false),
    ] {
        let said = said(&format!("admin = '{admin}'"), bind);
        assert_eq!(said.is_empty(), !refused, "{admin} {bind}: {said}");
    }
}

#[test]
fn a_backend_falls_back_to_others_and_two_may_stand_in_for_each_other() {
    let said = |a: &str, b: &str| {
        let text = format!(
            "[frontend.site]\nbind = ':80'\nbackend = 'a'\n[backend.a]\nfallback = '{a}'\nserver.s = '10.0.0.1:1'\n\
             [backend.b]\nfallback = '{b}'\nserver.s = '10.0.0.2:1'"
        );
        said(&text)
    };
    assert_eq!(said("b", "a"), [""; 0]);
    assert_eq!(
        said("b", "b"),
        ["8:12: [backend.b] falls back to itself; name another backend, or leave `fallback` out"]
    );
}

#[test]
fn names_that_tls_clients_ask_for_lead_to_backends() {
    let Mode::Tcp { sni, .. } = &read(BINDS).frontends[3].mode else {
        panic!("it is no TCP");
    };
    let route = |names: &[&str], backend: &str| SniRoute {
        names: names.iter().map(ToString::to_string).collect(),
        backend: backend.into(),
    };
    assert_eq!(
        *sni,
        [
            route(&["one.example", "*.one.example"], "tls"),
            route(&["two.example"], "app")
        ]
    );
}

#[test]
fn a_server_may_have_more_to_say() {
    let servers = app(r#"
[backend.app.server]
a = "unix:/run/a.sock"
b = { address = "10.0.0.1:1", send_proxy = "v1", tls = true, spare = true, cookie = "b" }
c = { address = "10.0.0.1:2", send_proxy = "v2", tls = { verify = false, host = "::1" }, weight = 0, drain = true }
d = { address = "10.0.0.1:3", tls = false, drain = true, disabled = true }
[backend.app.server.e]
address = "10.0.0.1:4"
tls = { ca = "ca.pem", sni = "e.example", host = "f.example", certificate = "own.pem", starttls = "postgres" }
"#)
    .servers;
    let tcp = |name: &str, port: u16| Server::new(name, ([10, 0, 0, 1], port));
    let wanted = [
        Server::new("a", "unix:/run/a.sock".parse::<Address>().unwrap()),
        Server {
            send_proxy: Some(ProxyVersion::V1),
            tls: Some(ServerTls::default()),
            spare: true,
            cookie: Some("b".into()),
            ..tcp("b", 1)
        },
        Server {
            send_proxy: Some(ProxyVersion::V2),
            tls: Some(ServerTls {
                verify: false,
                host: Some("::1".into()),
                ..ServerTls::default()
            }),
            weight: 0,
            admin: Admin::Drain,
            ..tcp("c", 2)
        },
        Server {
            admin: Admin::Maint,
            ..tcp("d", 3)
        },
        Server {
            tls: Some(ServerTls {
                verify: true,
                ca: Some("/etc/gaiola/ca.pem".into()),
                sni: Some("e.example".into()),
                host: Some("f.example".into()),
                certificate: Some("/etc/gaiola/own.pem".into()),
                key: None,
                starttls: Some(StartTls::Postgres),
                server_first: false,
            }),
            ..tcp("e", 4)
        },
    ];
    assert_eq!(servers, wanted);
}

#[test]
fn every_kind_of_check_can_be_written() {
    let patroni = |key: &str| CheckKind::Https {
        path: "/primary".into(),
        ca: "/etc/gaiola/ca.pem".into(),
        cert: "/etc/gaiola/own.pem".into(),
        key: key.into(),
    };
    let http = |path: &str| CheckKind::Http { path: path.into() };
    for (text, kind) in [
        ("'/up'", http("/up")),
        ("'tcp'", CheckKind::Tcp),
        ("'tls'", CheckKind::Tls),
        ("{}", CheckKind::Tcp),
        ("{ path = '/up' }", http("/up")),
        ("{ kind = 'http' }", http("/")),
        ("{ kind = 'http', path = '/up' }", http("/up")),
        ("{ kind = 'tcp' }", CheckKind::Tcp),
        ("{ kind = 'tls' }", CheckKind::Tls),
        (
            "{ kind = 'postgres', user = 'gaiola' }",
            CheckKind::Postgres {
                user: "gaiola".into(),
            },
        ),
        (
            "{ kind = 'patroni', path = '/primary', ca = 'ca.pem', certificate = 'own.pem' }",
            patroni("/etc/gaiola/own.pem"),
        ),
        (
            "{ kind = 'patroni', path = '/primary', ca = 'ca.pem', certificate = 'own.pem', key = '/k' }",
            patroni("/k"),
        ),
    ] {
        let app = app(&format!("check = {text}\nserver = {{ s = '10.0.0.1:80' }}"));
        assert_eq!(app.check.unwrap().kind, kind, "{text}");
    }
}

#[test]
fn every_choice_among_servers_can_be_written() {
    let hash = |key, bound| Algorithm::Hash { key, bound };
    let usual = Some(Algorithm::USUAL_BOUND);
    let uri = |query, depth| HashKey::Uri { query, depth };
    for (text, algorithm) in [
        ("", Algorithm::RoundRobin),
        ("balance = 'random'", Algorithm::Random),
        ("balance = 'first'", Algorithm::First),
        ("balance = 'hash'", hash(HashKey::Source, usual)),
        (
            "balance = 'hash'\nhash = { bound = 100 }",
            hash(HashKey::Source, Some(100)),
        ),
        (
            "balance = 'hash'\nhash = { on = 'source', bound = 'none' }",
            hash(HashKey::Source, None),
        ),
        (
            "balance = 'hash'\nhash = { on = 'uri' }",
            hash(uri(false, 0), usual),
        ),
        (
            "balance = 'hash'\nhash = { on = 'uri', query = true, depth = 2 }",
            hash(uri(true, 2), usual),
        ),
        (
            "balance = 'hash'\nhash = { on = 'header', name = 'X-User' }",
            hash(HashKey::Header("X-User".into()), usual),
        ),
        (
            "balance = 'hash'\nhash = { on = 'cookie', name = 'id' }",
            hash(HashKey::Cookie("id".into()), usual),
        ),
    ] {
        let app = app(&format!("{text}\nserver = {{ s = '10.0.0.1:80' }}"));
        assert_eq!(app.algorithm, algorithm, "{text}");
    }
}

#[test]
fn what_a_backend_does_with_its_servers_can_be_written() {
    let read = app(r#"
all_spares = true
slow_start = "30s"
slow_ejection = { factor = 300, after = "10s" }
ejection = { observe = "layer4", error_limit = 10, time = "2s", max_time = "1m", max_share = 50 }
check = { path = "/up", host = "www.example.org" }
server = { s = "10.0.0.1:80" }
[backend.app.sticky]
cookie = "id"
indirect = true
nocache = true
secure = true
http_only = true
key = "0123456789abcdef"
path = "/app"
domain = "example.org"
same_site = "none"
max_idle = "30m"
max_life = "48h"
"#);
    assert!(read.all_spares);
    assert_eq!(read.slow_start, Some(Duration::from_secs(30)));
    let ejection = SlowEjection {
        factor: 300,
        after: Duration::from_secs(10),
    };
    assert_eq!(read.slow_ejection, Some(ejection));
    let ejection = Ejection {
        observe: Observe::Layer4,
        error_limit: 10,
        time: Duration::from_secs(2),
        max_time: Duration::from_secs(60),
        max_share: 50,
    };
    assert_eq!(read.ejection, ejection);
    let host = read.check.unwrap().host;
    assert_eq!(host.as_deref(), Some("www.example.org"));
    let sticky = Sticky {
        cookie: "id".into(),
        indirect: true,
        nocache: true,
        key: Some(Secret("0123456789abcdef".into())),
        path: "/app".into(),
        domain: Some("example.org".into()),
        secure: true,
        http_only: true,
        same_site: Some(SameSite::None),
        max_idle: Some(Duration::from_secs(30 * 60)),
        max_life: Some(Duration::from_secs(48 * 3600)),
    };
    assert_eq!(read.sticky, Some(sticky));
    let least = app("sticky = { cookie = 'id' }\nserver = { s = '10.0.0.1:80' }");
    assert_eq!(least.sticky, Some(Sticky::new("id")));
}

#[test]
fn the_example_is_right() {
    let config = read(EXAMPLE);
    let [site] = &*config.frontends else {
        panic!("it has one frontend");
    };
    assert!(site.binds.iter().any(|bind| bind.tls.is_some()));
    let app = &config.backends[0];
    assert_eq!(app.servers.len(), 3);
    assert!(app.sticky.is_some() && app.check.is_some());
}

proptest! {
    #[test]
    fn no_change_of_the_example_panics(at in 0..EXAMPLE.len(), put in "[a-z0-9=\\[\\]\".{}\n]{0,3}", cut in 0usize..9) {
        let end = (at + cut).min(EXAMPLE.len());
        let text = format!("{}{put}{}", &EXAMPLE[..at], &EXAMPLE[end..]);
        if let Err(errors) = load(&text, &around()) {
            prop_assert!(!errors.mistakes().is_empty());
        }
    }
}
