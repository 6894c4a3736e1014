use super::*;
use gaiola_model::proxy::Secret;
use proptest::prelude::*;
use std::time::Duration;

const NOW: u64 = 1_700_000_000;

fn backend(sticky: Sticky) -> Backend {
    let server = |name: &str| Server::new(name, ([127, 0, 0, 1], 80));
    Backend {
        sticky: Some(sticky),
        ..Backend::new("app", vec![server("a"), server("b")])
    }
}

fn jar(sticky: Sticky) -> Jar {
    let backend = backend(sticky);
    assert_eq!(fault(&backend), None);
    Jar::new(&backend).unwrap()
}

fn signed() -> Sticky {
    Sticky {
        key: Some(Secret("0123456789abcdef".into())),
        ..Sticky::new("id")
    }
}

fn value(jar: &Jar, server: usize) -> Vec<u8> {
    let mut value = Vec::new();
    jar.write(server, NOW, NOW, &mut value);
    value
}

fn lines(jar: &Jar, server: usize, found: Option<Found>, now: u64) -> String {
    let mut lines = Vec::new();
    jar.set(server, found, now, &mut lines);
    String::from_utf8(lines).unwrap()
}

#[test]
fn a_cookie_names_the_server_it_was_written_for() {
    let dated = Sticky {
        max_idle: Some(Duration::from_secs(60)),
        ..signed()
    };
    for jar in [jar(Sticky::new("id")), jar(signed()), jar(dated)] {
        for server in [0, 1] {
            let found = jar.read(&value(&jar, server), NOW).unwrap();
            assert_eq!(found.server, server);
            assert_eq!(lines(&jar, server, Some(found), NOW), "");
            assert_ne!(lines(&jar, 1 - server, Some(found), NOW), "");
        }
    }
}

#[test]
fn what_was_not_signed_with_the_key_is_passed_over() {
    let (plain, signed_jar) = (jar(Sticky::new("id")), jar(signed()));
    assert_eq!(signed_jar.read(&value(&plain, 0), NOW), None);
    let other = Sticky {
        key: Some(Secret("another key of the site".into())),
        ..signed()
    };
    assert_eq!(signed_jar.read(&value(&jar(other), 0), NOW), None);
    let mut elsewhere = backend(signed());
    elsewhere.name = "other".into();
    let elsewhere = Jar::new(&elsewhere).unwrap();
    assert_eq!(signed_jar.read(&value(&elsewhere, 0), NOW), None);
    let good = value(&signed_jar, 0);
    for index in 0..good.len() {
        let mut changed = good.clone();
        changed[index] ^= 1;
        assert_eq!(signed_jar.read(&changed, NOW), None, "byte {index}");
    }
    assert_eq!(signed_jar.read(&good[..good.len() - 2], NOW), None);
}

#[test]
fn a_cookie_ends_when_it_is_old_or_was_not_used() {
    let jar = jar(Sticky {
        max_idle: Some(Duration::from_secs(10)),
        max_life: Some(Duration::from_secs(100)),
        ..signed()
    });
    let mut value = Vec::new();
    jar.write(1, NOW, NOW - 50, &mut value);
    let found = jar.read(&value, NOW + 10).unwrap();
    assert!(found.renew);
    assert_eq!(jar.read(&value, NOW + 11), None);
    let renewed = lines(&jar, 1, Some(found), NOW + 10);
    let dates = format!(".{:x}.{:x}.", NOW + 10, NOW - 50);
    assert!(renewed.contains(&dates), "{renewed}");
    let mut old = Vec::new();
    jar.write(1, NOW, NOW - 101, &mut old);
    assert_eq!(jar.read(&old, NOW), None);
}

#[test]
fn attributes_are_said() {
    let jar = jar(Sticky {
        nocache: true,
        domain: Some("site.example".into()),
        secure: true,
        http_only: true,
        same_site: Some(SameSite::Lax),
        ..Sticky::new("id")
    });
    let id = String::from_utf8(value(&jar, 0)).unwrap();
    let wanted = format!(
        "Set-Cookie: id={id}; Path=/; Domain=site.example; HttpOnly; Secure; SameSite=Lax\r\n\
         Cache-Control: private\r\n"
    );
    assert_eq!(lines(&jar, 0, None, NOW), wanted);
}

#[test]
fn the_value_does_not_disclose_the_server_unless_that_is_wanted() {
    let mut backend = backend(Sticky::new("id"));
    backend.servers[1].cookie = Some("b".into());
    let jar = Jar::new(&backend).unwrap();
    assert_eq!(value(&jar, 0).len(), 16);
    assert_eq!(value(&jar, 1), b"b");
    backend.servers[0].cookie = Some("b".into());
    assert!(fault(&backend).unwrap().contains("same cookie"));
}

#[test]
fn what_browsers_or_parsers_would_not_take_is_a_fault() {
    let faulty = [
        Sticky::new(""),
        Sticky::new("a b"),
        Sticky {
            path: "/;x".into(),
            ..Sticky::new("id")
        },
        Sticky {
            path: "app".into(),
            ..Sticky::new("id")
        },
        Sticky {
            domain: Some("a\r\nX: y".into()),
            ..Sticky::new("id")
        },
        Sticky {
            same_site: Some(SameSite::None),
            ..Sticky::new("id")
        },
        Sticky {
            key: Some(Secret("short".into())),
            ..Sticky::new("id")
        },
    ];
    for sticky in faulty {
        assert!(fault(&backend(sticky.clone())).is_some(), "{sticky:?}");
    }
}

proptest! {
    #[test]
    fn no_value_panics(value in proptest::collection::vec(any::<u8>(), 0..80)) {
        let dated = Sticky {
            max_life: Some(Duration::from_secs(1)),
            ..Sticky::new("id")
        };
        for jar in [jar(Sticky::new("id")), jar(dated), jar(signed())] {
            prop_assert_eq!(jar.read(&value, NOW), None);
        }
    }
}
