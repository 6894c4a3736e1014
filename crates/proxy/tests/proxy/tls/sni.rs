//! Routes by the name in a ClientHello.

use super::*;

/// A TCP frontend on `bind` that leads to one of two sites with TLS, `one.test` and all below `two.test`; what asks for
/// another one goes to a server that says hello.
fn by_name(authority: &Authority, bind: SocketAddr) -> (ProxyConfig, [PathBuf; 2]) {
    let sites = [free_address(), free_address()];
    let files = [
        authority.issue("one.pem", &["one.test"]),
        authority.issue("two.pem", &["*.two.test"]),
    ];
    let hello = Origin::with(|connection| {
        connection.say("hello");
    });
    let app = Origin::start("s1");
    let mut config = config(bind, &[app.address]);
    let mut front = tcp_frontend(bind, "hello", Default::default());
    let Mode::Tcp { sni, .. } = &mut front.mode else {
        unreachable!("it was just made");
    };
    for (index, (name, site)) in ["one.test", "*.two.test"]
        .into_iter()
        .zip(sites)
        .enumerate()
    {
        let backend_name = format!("site{index}");
        sni.push(SniRoute {
            names: vec![name.into()],
            backend: backend_name.clone(),
        });
        let mut frontend = http_frontend(site, "app");
        frontend.name = backend_name.clone();
        frontend.binds[0].tls = Some(Tls::new(vec![files[index].clone()]));
        config.frontends.push(frontend);
        config
            .backends
            .push(backend(&backend_name, vec![server("s1", site)]));
    }
    config.frontends[0] = Frontend {
        name: "front".into(),
        ..front
    };
    config
        .backends
        .push(backend("hello", vec![server("s1", hello.address)]));
    (config, files)
}

#[test]
fn a_connection_goes_where_the_name_that_it_asks_for_leads() {
    let (authority, bind) = (Authority::new(), free_address());
    let (config, files) = by_name(&authority, bind);
    let _proxy = Proxy::serving(&config);
    let wants = authority.any();
    for (name, file) in [("one.test", &files[0]), ("www.two.test", &files[1])] {
        let mut client = wants.connect(bind, name).unwrap();
        assert!(leaf(&client) == leaf_of(file), "{name}");
        assert_eq!(get(&mut client, "/").unwrap().0, 200);
    }
    assert!(wants.connect(bind, "three.test").is_err());
    let mut plain = Client::connect(bind);
    plain.send("no TLS");
    assert_eq!(plain.exactly(5), b"hello");
}

#[test]
fn the_name_decides_as_well_where_tls_ends_here() {
    let (authority, bind) = (Authority::new(), free_address());
    let (mut config, _) = by_name(&authority, bind);
    let own = authority.issue("own.pem", &["one.test", "three.test"]);
    config.frontends[0].binds[0].tls = Some(Tls::new(vec![own]));
    let inner = Origin::with(|connection| {
        connection.say("one");
    });
    config.backends[1].servers[0].address = inner.address.into();
    let _proxy = Proxy::serving(&config);
    let wants = authority.any();
    for (name, answer) in [("one.test", "one"), ("three.test", "hello")] {
        let mut client = wants.connect(bind, name).unwrap();
        let mut said = vec![0; answer.len()];
        client.read_exact(&mut said).unwrap();
        assert_eq!(said, answer.as_bytes(), "{name}");
    }
}

#[test]
fn a_client_that_says_nothing_is_not_waited_for_long() {
    let (authority, bind) = (Authority::new(), free_address());
    let (mut config, _) = by_name(&authority, bind);
    config.frontends[0].timeouts.request_head = std::time::Duration::from_millis(200);
    let _proxy = Proxy::serving(&config);
    assert_eq!(Client::connect(bind).rest(), b"");
    let mut endless = Client::connect(bind);
    // A record that is never whole; what came of it is passed on to nobody.
    endless
        .stream
        .write_all(b"\x16\x03\x01\x3f\xff\x01")
        .unwrap();
    assert_eq!(endless.rest(), b"");
}
