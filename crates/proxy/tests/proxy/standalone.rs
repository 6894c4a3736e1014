//! A proxy by itself, with its file.

use super::authority::Authority;
use super::harness::*;
use super::{streams, tls};
use gaiola_proxy::read_file;
use rustix::process::Signal;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

fn file(bind: SocketAddr, server: SocketAddr) -> String {
    format!(
        "name = 'edge1'\nworkers = 2\ncontrol = 'proxy.sock'\naccess_log = 'access.log'\n\
         [frontend.www]\nbind = '{bind}'\nbackend = 'app'\n[backend.app.server]\ns = '{server}'\n"
    )
}

fn asked(client: &mut Client) -> String {
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.response().text().to_owned()
}

fn serving(text: &str) -> Proxy {
    start(tempfile::tempdir().unwrap(), text)
}

/// A proxy that serves this file: orders are answered once it does.
fn start(directory: tempfile::TempDir, text: &str) -> Proxy {
    std::fs::write(directory.path().join("proxy.toml"), text).unwrap();
    let proxy = Proxy::start_in(directory);
    proxy.report();
    proxy
}

#[test]
fn a_file_is_served_and_read_again_without_losing_a_connection() {
    let (first, second) = (Origin::start("first"), Origin::start("second"));
    let bind = free_address();
    let proxy = serving(&file(bind, first.address));
    let mut client = Client::connect(bind);
    let before = asked(&mut client);
    assert_eq!(before, asked(&mut Client::connect(bind)));
    std::fs::write(proxy.file("proxy.toml"), file(bind, second.address)).unwrap();
    proxy.signal(Signal::HUP);
    eventually("the other server answers", || asked(&mut client) != before);
    assert_eq!(proxy.report().revision.0, 1);
}

#[test]
fn a_file_with_a_mistake_changes_nothing() {
    let origin = Origin::start("first");
    let bind = free_address();
    let proxy = serving(&file(bind, origin.address));
    let before = asked(&mut Client::connect(bind));
    let bad = file(bind, origin.address).replace("backend = 'app'", "backend = 'ap'");
    std::fs::write(proxy.file("proxy.toml"), bad).unwrap();
    proxy.signal(Signal::HUP);
    // A good file later shows that the bad one has been passed over.
    std::fs::write(proxy.file("proxy.toml"), file(bind, origin.address)).unwrap();
    proxy.signal(Signal::HUP);
    eventually("the file was read again", || proxy.report().revision.0 >= 1);
    assert_eq!(asked(&mut Client::connect(bind)), before);
}

/// A proxy with a file, beside which each of these certificates has a copy.
fn serving_with(authority: &Authority, certificates: &[&str], text: &str) -> Proxy {
    let directory = tempfile::tempdir().unwrap();
    for name in certificates {
        std::fs::copy(authority.file(name), directory.path().join(name)).unwrap();
    }
    let text = text.replace("DIRECTORY", directory.path().to_str().unwrap());
    let text = format!("control = 'proxy.sock'\naccess_log = 'access.log'\n{text}");
    start(directory, &text)
}

#[test]
fn binds_of_every_kind_are_served_as_the_file_says() {
    let (authority, origin) = (Authority::new(), Origin::start("s1"));
    let site = authority.issue("site.pem", &["site.test"]);
    let [plain, secure, named] = [(); 3].map(|()| free_address());
    let proxy = serving_with(
        &authority,
        &["site.pem"],
        &format!(
            "[frontend.site]\nbackend = 'app'\nbind = ['{plain}',\n\
             {{ address = 'unix:DIRECTORY/site.sock', permissions = '620' }},\n\
             {{ address = '{secure}', tls = {{ certificates = 'site.pem' }} }}]\n\
             [frontend.named]\nmode = 'tcp'\nbind = '{named}'\nbackend = 'app'\n\
             sni = [{{ names = '*.test', backend = 'site' }}]\n\
             [backend.site.server]\ns1 = '{secure}'\n\
             [backend.app.server]\ns1 = '{}'\n",
            origin.address
        ),
    );
    let answer = "s1 GET /a HTTP/1.1";
    assert_eq!(Client::connect(plain).get("/a").text(), answer);
    let socket = proxy.file("site.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o620);
    assert!(streams::ask(&socket).ends_with(answer));
    for address in [secure, named] {
        let mut client = authority.any().connect(address, "site.test").unwrap();
        assert!(tls::leaf(&client) == tls::leaf_of(&site));
        assert_eq!(
            tls::get(&mut client, "/a").unwrap(),
            (200, answer.as_bytes().to_vec())
        );
    }
    // Whoever speaks no TLS asks for no name.
    assert_eq!(Client::connect(named).get("/a").text(), answer);
    let proto = |request: &Request| request.field("X-Forwarded-Proto").map(String::from);
    let received: Vec<_> = origin.requests().iter().map(proto).collect();
    let received: Vec<_> = received.iter().map(Option::as_deref).collect();
    let (http, https) = (Some("http"), Some("https"));
    assert_eq!(received, [http, http, https, https, None]);
}

#[test]
fn certificates_are_read_again_with_the_file() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let old = tls::leaf_of(&authority.issue("site.pem", &["site.test"]));
    let proxy = serving_with(
        &authority,
        &["site.pem"],
        &format!(
            "[frontend.site]\nbackend = 'app'\n\
             bind = {{ address = '{bind}', tls = {{ certificates = 'site.pem' }} }}\n\
             [backend.app.server]\ns1 = '{}'\n",
            origin.address
        ),
    );
    let shown = || tls::leaf(&authority.any().connect(bind, "site.test").unwrap());
    let mut client = authority.any().connect(bind, "site.test").unwrap();
    assert!(tls::leaf(&client) == old);
    let site = authority.issue("site.pem", &["site.test"]);
    std::fs::copy(&site, proxy.file("site.pem")).unwrap();
    assert!(shown() == old);
    proxy.signal(Signal::HUP);
    eventually("the new one is shown", || shown() == tls::leaf_of(&site));
    // Who was connected stays so.
    assert_eq!(tls::get(&mut client, "/").unwrap().0, 200);
}

#[test]
fn servers_are_reached_and_chosen_as_the_file_says() {
    let authority = Authority::new();
    authority.issue("s.pem", &["s.test"]);
    authority.issue("own.pem", &["proxy.test"]);
    let origins = ["one", "two"].map(Origin::start);
    let (front, inner) = (free_address(), [free_address(), free_address()]);
    let mut text = format!(
        "[frontend.front]\nbind = '{front}'\nbackend = 'app'\n\
         [backend.app]\nbalance = 'hash'\nhash = {{ on = 'header', name = 'X-User' }}\ncheck = 'tls'\n\
         sticky = {{ cookie = 'at', indirect = true, key = '0123456789abcdef', max_idle = '8h' }}\n"
    );
    for (index, (bind, origin)) in inner.iter().zip(&origins).enumerate() {
        text += &format!(
            "[backend.app.server.s{index}]\naddress = '{bind}'\ncookie = 's{index}'\nsend_proxy = 'v2'\n\
             tls = {{ ca = 'ca', sni = 's.test', certificate = 'own.pem' }}\n\
             [[frontend.inner{index}.bind]]\naddress = '{bind}'\naccept_proxy = '127.0.0.1'\n\
             tls = {{ certificates = 's.pem', client_ca = 'ca' }}\n\
             [frontend.inner{index}]\nbackend = 'inner{index}'\n\
             [backend.inner{index}.server]\ns = '{}'\n",
            origin.address
        );
    }
    let proxy = serving_with(&authority, &["ca", "s.pem", "own.pem"], &text);
    eventually("both are up", || {
        let report = proxy.report();
        !report.servers.is_empty() && report.servers.iter().all(|server| server.up)
    });
    let mut client = Client::connect(front);
    let mut ask = |user: usize, more: &str| {
        client.send(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n{more}\r\n"
        ));
        client.response()
    };
    let answers: Vec<_> = (0..64).map(|user| ask(user, "")).collect();
    for (user, answer) in answers.iter().enumerate() {
        assert_eq!(ask(user, "").text(), answer.text(), "the key decides");
    }
    let cookie_of = |name: &str| {
        let answer = answers
            .iter()
            .find(|answer| answer.text().starts_with(name));
        let cookie = answer.unwrap().field("Set-Cookie").unwrap();
        cookie.split(';').next().unwrap().to_owned()
    };
    for (index, name) in ["one", "two"].into_iter().enumerate() {
        let cookie = cookie_of(name);
        assert!(cookie.starts_with(&format!("at=s{index}.")), "{cookie}");
        for user in 0..8 {
            let answer = ask(user, &format!("Cookie: {cookie}\r\n"));
            assert!(answer.text().starts_with(name), "the cookie decides");
        }
    }
    let mut requests = origins.iter().flat_map(Origin::requests);
    assert!(requests.all(|request| request.field("Cookie").is_none()));
}

#[test]
fn what_is_wrong_with_a_named_file_has_the_place_where_it_is_named() {
    let authority = Authority::new();
    authority.issue("good.pem", &["s.test"]);
    authority.issue("other.pem", &["s.test"]);
    let read = |name: &str| std::fs::read_to_string(authority.file(name)).unwrap();
    let write = |name: &str, text: &str| std::fs::write(authority.file(name), text).unwrap();
    let (good, other) = (read("good.pem"), read("other.pem"));
    let key = |text: &str| text[text.find("-----BEGIN PRIVATE").unwrap()..].to_owned();
    write("alone.pem", &good.replace(&key(&good), ""));
    write("mixed.pem", &good.replace(&key(&good), &key(&other)));
    write("text.pem", "no certificate");
    let file = authority.file("proxy.toml");
    let said = |text: &str| {
        std::fs::write(&file, text).unwrap();
        match read_file(&file) {
            Ok(_) => Vec::new(),
            Err(error) => error.to_string().lines().map(str::to_owned).collect(),
        }
    };
    let names = |certificates: &str, ca: &str, own: &str| {
        format!(
            "frob = 1\n[frontend.site]\nbackend = 'app'\n\
             bind = {{ address = ':443', tls = {{ certificates = {certificates},\n client_ca = '{ca}' }} }}\n\
             [backend.app]\ncheck = {{ kind = 'patroni', path = '/', ca = '{ca}',\n certificate = '{own}' }}\n\
             [backend.app.server]\ns1 = {{ address = '10.0.0.1:443', tls = {{ ca = '{ca}',\n certificate = '{own}' }} }}\n"
        )
    };
    let good = names("'good.pem'", "ca", "good.pem").replace("frob = 1\n", "");
    assert_eq!(said(&good), [""; 0]);
    let bad = names(
        "['gone.pem', 'alone.pem',\n'mixed.pem']",
        "text.pem",
        "mixed.pem",
    );
    let received = said(&bad);
    let expected = [
        ("1:1", "unknown key \"frob\""),
        ("4:52", "gone.pem cannot be used: there is no such file"),
        ("4:64", "alone.pem cannot be used: there is no private key"),
        ("5:1", "mixed.pem cannot be used: the key is not"),
        ("6:14", "text.pem cannot be used: there is no certificate"),
        ("8:46", "text.pem cannot be used: there is no certificate"),
        ("9:16", "mixed.pem cannot be used: the key is not"),
        ("11:47", "text.pem cannot be used: there is no certificate"),
        ("12:16", "mixed.pem cannot be used: the key is not"),
    ];
    assert_eq!(received.len(), expected.len(), "{received:#?}");
    for (received, (place, what)) in received.iter().zip(expected) {
        let fits = received.contains(&format!("proxy.toml:{place}: ")) && received.contains(what);
        assert!(fits, "{received} is not at {place}: {what}");
    }
}

#[test]
fn a_changed_mode_of_a_unix_socket_is_taken_with_the_file() {
    let (origin, directory) = (Origin::start("s1"), tempfile::tempdir().unwrap());
    let socket = directory.path().join("site.sock");
    let text = |permissions: &str| {
        format!(
            "control = 'proxy.sock'\n[frontend.site]\nbackend = 'app'\n\
             bind = {{ address = 'unix:{}', permissions = '{permissions}' }}\n\
             [backend.app.server]\ns1 = '{}'\n",
            socket.display(),
            origin.address
        )
    };
    let proxy = start(directory, &text("620"));
    let mode = || std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o620);
    std::fs::write(proxy.file("proxy.toml"), text("666")).unwrap();
    proxy.signal(Signal::HUP);
    eventually("it has the new mode", || mode() == 0o666);
    assert!(streams::ask(&socket).ends_with("s1 GET /a HTTP/1.1"));
}

#[test]
fn what_is_under_way_has_as_long_as_the_file_says() {
    let (origin, barrier) = Origin::holding();
    let bind = free_address();
    let text = format!("hard_stop_after = '10ms'\n{}", file(bind, origin.address));
    let mut proxy = serving(&text);
    let mut client = Client::connect(bind);
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the server has it", || origin.accepted() > 0);
    proxy.signal(Signal::TERM);
    assert!(proxy.child.wait().unwrap().success());
    assert_eq!(client.rest(), b"");
    drop((origin, barrier));
}
