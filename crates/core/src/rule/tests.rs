use super::*;
use gaiola_model::http::{Field, FieldName, RequestHead, Span};
use gaiola_model::proxy::{self, HeaderEdit, Most, User};
use std::net::IpAddr;

const BUFFER: &[u8] = b"GET /old/a%20b?x=1 HTTP/1.1\r\nHost: site:8080\r\nX-A: 1\r\n\r\n";

fn head() -> RequestHead {
    let find = |text: &[u8]| {
        let start = BUFFER.windows(text.len()).position(|window| window == text);
        Span::new(start.unwrap(), start.unwrap() + text.len())
    };
    let field = |known, name: &[u8], value: &[u8]| Field {
        known,
        name: find(name),
        value: find(value),
        line_end: find(value).end + 2,
    };
    RequestHead {
        method_name: find(b"GET"),
        target: find(b"/old/a%20b?x=1"),
        path: find(b"/old/a%20b"),
        query: find(b"?x=1"),
        host: Some(find(b"site:8080")),
        fields: vec![
            field(FieldName::Host, b"Host", b"site:8080"),
            field(FieldName::Other, b"X-A", b"1\r\n\r").shortened(),
        ],
        len: BUFFER.len(),
        ..RequestHead::default()
    }
}

trait Shortened {
    fn shortened(self) -> Self;
}

impl Shortened for Field {
    /// The value was looked for with its line's end.
    fn shortened(mut self) -> Self {
        self.value.end = self.value.start + 1;
        self.line_end = self.value.end + 2;
        self
    }
}

fn known(head: &RequestHead) -> Values<'_> {
    Values {
        head,
        buffer: BUFFER,
        client: [192, 0, 2, 7].into(),
        local: IpAddr::from([192, 0, 2, 1]),
        https: false,
        request_id: b"id1",
        server: "lb1",
    }
}

fn rules(rules: Vec<Rule>) -> Result<Rules, Vec<RuleError>> {
    let limits = [Limit::new("some", Most::Concurrent(1))];
    let route = Route {
        rules,
        ..Route::to("b")
    };
    Rules::new(&route, &limits)
}

fn set(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit::Set {
        name: name.into(),
        value: value.into(),
    }
}

fn redirect(to: &str, before: Option<proxy::Rewrite>) -> String {
    let mut all: Vec<_> = before.into_iter().map(Rule::Rewrite).collect();
    all.push(Rule::Redirect {
        status: 302,
        to: to.into(),
    });
    let (head, mut made) = (head(), Rewritten::default());
    for step in rules(all).unwrap().actions {
        match step {
            Action::Rewrite(rewrite) => rewrite.apply(&known(&head), &mut made).unwrap(),
            Action::Redirect(redirect) => {
                let to = redirect.to(&known(&head), &mut made).unwrap();
                return String::from_utf8(to.to_vec()).unwrap();
            }
            _ => unreachable!(),
        }
    }
    unreachable!()
}

fn rewrite(from: &str, to: &str) -> Option<proxy::Rewrite> {
    Some(proxy::Rewrite::Prefix {
        from: from.into(),
        to: to.into(),
    })
}

#[test]
fn a_redirect_says_what_is_known_of_the_request() {
    assert_eq!(
        redirect("https://{host}{path}{query}", None),
        "https://site/old/a%20b?x=1"
    );
    assert_eq!(
        redirect(
            "/{{{method}}}/{scheme}/{client}/{request_id}/{server}",
            None
        ),
        "/{GET}/http/192.0.2.7/id1/lb1"
    );
}

#[test]
fn a_request_without_a_host_is_for_the_address_it_came_to() {
    let mut head = head();
    head.host = None;
    let to = |local: &str| {
        let known = Values {
            local: local.parse().unwrap(),
            ..known(&head)
        };
        let Action::Redirect(redirect) = &rules(vec![Rule::to_https(308)]).unwrap().actions[0]
        else {
            unreachable!()
        };
        let mut made = Rewritten::default();
        String::from_utf8(redirect.to(&known, &mut made).unwrap().to_vec()).unwrap()
    };
    assert_eq!(to("192.0.2.1"), "https://192.0.2.1/old/a%20b?x=1");
    assert_eq!(to("2001:db8::1"), "https://[2001:db8::1]/old/a%20b?x=1");
}

#[test]
fn a_rewritten_path_is_the_path() {
    assert_eq!(
        redirect("{path}{query}", rewrite("/old", "/new/")),
        "/new/a%20b?x=1"
    );
    assert_eq!(redirect("{path}", rewrite("/old/", "/")), "/a%20b");
    assert_eq!(redirect("{path}", rewrite("/ol", "/")), "/old/a%20b");
    let regex = proxy::Rewrite::Regex {
        pattern: "^/(?P<first>[a-z]+)/".into(),
        to: "/${first}/v2/$1-".into(),
    };
    assert_eq!(redirect("{path}", Some(regex)), "/old/v2/old-a%20b");
    let evil = proxy::Rewrite::Regex {
        pattern: "^/old".into(),
        to: "//evil.example".into(),
    };
    assert_eq!(
        redirect("{path}", Some(evil)),
        "/evil.example/a%20b",
        "no other host"
    );
    for to in ["/\\evil.example", "\\/evil.example", "//\\/evil.example"] {
        let evil = proxy::Rewrite::Regex {
            pattern: "^/old".into(),
            to: to.into(),
        };
        assert_eq!(redirect("{path}", Some(evil)), "/evil.example/a%20b");
    }
    let evil = rewrite("/old", "/evil.example");
    assert_eq!(redirect("/{path}", evil), "/evil.example/a%20b");
    let meant = redirect("//cdn.example{path}", None);
    assert_eq!(meant, "//cdn.example/old/a%20b");
}

#[test]
fn another_spelling_of_a_path_is_rewritten_too() {
    let buffer = b"/x/../%6Fld/a%3Fb";
    let head = RequestHead {
        path: Span::new(0, buffer.len()),
        ..RequestHead::default()
    };
    let known = Values {
        buffer,
        ..known(&head)
    };
    let rule = Rule::Rewrite(rewrite("/old", "/new").unwrap());
    let Action::Rewrite(rewrite) = &rules(vec![rule]).unwrap().actions[0] else {
        unreachable!()
    };
    let mut made = Rewritten::default();
    rewrite.apply(&known, &mut made).unwrap();
    assert_eq!(made.path, b"/new/a%3Fb");
}

#[test]
fn a_path_that_grows_without_measure_is_refused() {
    let rule = Rule::Rewrite(proxy::Rewrite::Regex {
        pattern: "^.*$".into(),
        to: "$0".repeat(2000),
    });
    let (head, mut made) = (head(), Rewritten::default());
    let Action::Rewrite(rewrite) = &rules(vec![rule]).unwrap().actions[0] else {
        unreachable!()
    };
    assert_eq!(rewrite.apply(&known(&head), &mut made), Err(TooLong));
}

#[test]
fn fields_are_set_added_and_left_out() {
    let edits = [
        HeaderEdit::Add {
            name: "X-B".into(),
            value: "gone".into(),
        },
        set("x-b", "{client}"),
        HeaderEdit::Add {
            name: "X-B".into(),
            value: "2".into(),
        },
        HeaderEdit::Remove { name: "X-a".into() },
    ];
    let mut all: Vec<_> = edits.map(Rule::RequestHeader).into();
    all.push(Rule::Host("inner".into()));
    let (rules, head, mut made) = (rules(all).unwrap(), head(), Rewritten::default());
    rules.say(&known(&head), &mut made);
    let edit = rules.request_edit(&made);
    assert_eq!(edit.added, b"x-b: 192.0.2.7\r\nX-B: 2\r\n");
    let mut out = crate::forward::Outgoing::default();
    let hop = crate::forward::Hop {
        hidden_cookie: None,
        client: [192, 0, 2, 7].into(),
        trusted: false,
        tls: false,
        server: "lb1",
        request_id: b"id1",
        default_host: "",
        path: b"/new",
        host: &made.host,
        edit,
    };
    crate::forward::request(&head, BUFFER, &hop, &mut out);
    let sent = String::from_utf8(out.slices(BUFFER).collect::<Vec<_>>().concat()).unwrap();
    assert!(
        sent.starts_with("GET /new?x=1 HTTP/1.1\r\nx-b: 192.0.2.7\r\nX-B: 2\r\nHost: inner\r\n"),
        "{sent}"
    );
    assert!(
        !sent.contains("X-A") && sent.contains("X-Forwarded-Host: site:8080\r\n"),
        "{sent}"
    );
    let mut own = "HTTP/1.1 200 OK\r\nX-A: 1\r\nx-b: 2\r\nX-C: 3\r\n".to_owned();
    edit.apply(&mut own);
    assert_eq!(
        own,
        "HTTP/1.1 200 OK\r\nX-C: 3\r\nx-b: 192.0.2.7\r\nX-B: 2\r\n"
    );
}

#[test]
fn no_rule_changes_how_a_message_is_understood() {
    for name in [
        "Content-Length",
        "content_length",
        "Transfer-Encoding",
        "TRANSFER_ENCODING",
        "Connection",
        "Host",
        "Upgrade",
        "TE",
        "Trailer",
        "Keep-Alive",
        "Proxy-Connection",
        "Expect",
        "X-Forwarded-For",
        "X-Request-ID",
        "Via",
        "",
        "a b",
        "a:",
        "a\r\nb",
    ] {
        let edits = [set(name, "1"), HeaderEdit::Remove { name: name.into() }];
        for edit in edits {
            assert!(
                rules(vec![Rule::RequestHeader(edit.clone())]).is_err(),
                "{name}"
            );
            assert!(rules(vec![Rule::ResponseHeader(edit)]).is_err(), "{name}");
        }
    }
    for value in [
        "a\r\nX: 1",
        "a\0",
        " a",
        "\u{e9}",
        "{nothing}",
        "{client",
        "}",
    ] {
        assert!(
            rules(vec![Rule::ResponseHeader(set("X-A", value))]).is_err(),
            "{value}"
        );
    }
    for host in ["", "a b", "a/b", "{client}x y", "{path}"] {
        assert!(rules(vec![Rule::Host(host.into())]).is_err(), "{host}");
    }
}

#[test]
fn all_mistakes_are_reported() {
    let fixed = |status, body: &str| {
        Rule::Return(Fixed {
            status,
            content_type: "text/plain".into(),
            body: body.into(),
            needs: None,
        })
    };
    let user = |name: &str| User {
        name: name.into(),
        hash: String::new(),
    };
    let auth = |realm: &str, users| {
        Rule::Auth(BasicAuth {
            realm: realm.into(),
            users,
        })
    };
    let wrong = vec![
        Rule::Limit("none".into()),
        Rule::Redirect {
            status: 200,
            to: "/".into(),
        },
        Rule::Redirect {
            status: 301,
            to: "nowhere".into(),
        },
        Rule::Redirect {
            status: 301,
            to: "/a b".into(),
        },
        fixed(100, ""),
        fixed(204, "body"),
        fixed(200, &"x".repeat(BODY_LIMIT + 1)),
        Rule::Rewrite(proxy::Rewrite::Prefix {
            from: "a".into(),
            to: "/".into(),
        }),
        Rule::Rewrite(proxy::Rewrite::Regex {
            pattern: "(".into(),
            to: "/".into(),
        }),
        Rule::Rewrite(proxy::Rewrite::Regex {
            pattern: "a".into(),
            to: "/?".into(),
        }),
        auth("a\"b", vec![]),
        auth("", vec![user("a:b")]),
        auth("", vec![user("a"), user("a")]),
    ];
    let count = wrong.len();
    let mistakes = rules(wrong).err().unwrap();
    assert_eq!(mistakes.len(), count, "{mistakes:#?}");
    let right = vec![
        Rule::Limit("some".into()),
        Rule::Deny,
        Rule::to_https(308),
        fixed(204, ""),
        auth("A b", vec![user("a")]),
    ];
    assert_eq!(rules(right).unwrap().actions.len(), 5);
}

#[test]
fn what_came_by_https_is_not_sent_there_once_more() {
    let (head, ready) = (head(), rules(vec![Rule::to_https(301)]).unwrap());
    let Action::Redirect(redirect) = &ready.actions[0] else {
        unreachable!()
    };
    let by = |https| Values {
        https,
        ..known(&head)
    };
    assert!(redirect.is_there(&by(true)));
    assert!(!redirect.is_there(&by(false)));
    let elsewhere = Rule::Redirect {
        status: 301,
        to: "https://b{path}".into(),
    };
    let ready = rules(vec![elsewhere]).unwrap();
    assert!(
        matches!(&ready.actions[0], Action::Redirect(redirect) if !redirect.is_there(&by(true)))
    );
}

#[test]
fn strict_transport_security_is_said_by_https_alone() {
    let head = head();
    let ready = rules(vec![
        Rule::hsts(std::time::Duration::from_secs(1), ""),
        Rule::ResponseHeader(set("X-A", "{scheme}")),
    ]);
    let ready = ready.unwrap();
    for (https, said) in [
        (
            true,
            "X-A: https\r\nStrict-Transport-Security: max-age=1\r\n",
        ),
        (false, "X-A: http\r\n"),
    ] {
        let mut made = Rewritten::default();
        let known = Values {
            https,
            ..known(&head)
        };
        ready.say(&known, &mut made);
        assert_eq!(ready.response_edit(&made).added, said.as_bytes());
    }
}

#[test]
fn a_field_is_set_in_the_place_of_its_twin() {
    let head = head();
    let ready = rules(vec![
        Rule::RequestHeader(set("X_User", "a")),
        Rule::RequestHeader(set("X-User", "b")),
        Rule::ResponseHeader(set("X_User", "c")),
    ]);
    let (ready, mut made) = (ready.unwrap(), Rewritten::default());
    ready.say(&known(&head), &mut made);
    let edit = ready.request_edit(&made);
    assert_eq!(edit.added, b"X-User: b\r\n");
    assert!(edit.removed.iter().all(|name| **name == *b"x-user"));
    assert_eq!(*ready.response_edit(&made).removed[0], *b"x_user");
}
