//! Error pages, and mistakes in a configuration.

use super::*;

#[test]
fn errors_have_pages() {
    let (app, bind) = (Origin::start("app"), free_address());
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("403.html");
    std::fs::write(&page, "<h1>no</h1>").unwrap();
    let mut config = with_rules(bind, &app, vec![Rule::Deny]);
    config.frontends[0].error_pages.insert(403, page.clone());
    let proxy = Proxy::serving(&config);
    std::fs::remove_file(&page).unwrap();
    let response = Client::connect(bind).get("/");
    assert_eq!((response.status, response.text()), (403, "<h1>no</h1>"));
    assert_eq!(
        response.field("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    config.revision.0 += 1;
    let refused = proxy.ask(&ControlRequest::Configure(Box::new(config)));
    assert!(matches!(refused, ControlReply::Refused(reason) if reason.contains("403.html")));
}

#[test]
fn all_mistakes_of_a_configuration_are_reported_at_once() {
    let (app, bind) = (Origin::start("app"), free_address());
    let user = User {
        name: "ann".into(),
        hash: "secret".into(),
    };
    let auth = BasicAuth {
        realm: String::new(),
        users: vec![user],
    };
    let mut config = with_rules(
        bind,
        &app,
        vec![
            Rule::RequestHeader(set("Transfer-Encoding", "chunked")),
            Rule::ResponseHeader(set("Content-Length", "1")),
            Rule::Limit("none".into()),
            Rule::Auth(auth),
        ],
    );
    let Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!()
    };
    routes[0].when.hosts = vec!["not a host".into()];
    config.limits = vec![Limit::new("some", Most::Concurrent(0))];
    let reply = Proxy::start().ask(&ControlRequest::Configure(Box::new(config)));
    let ControlReply::Refused(reason) = reply else {
        panic!("{reply:?}");
    };
    for mistake in [
        "limit some: it allows no request",
        "frontend site: route 1: `Transfer-Encoding` is no rule's to change",
        "`Content-Length` is no rule's to change",
        "there is no limit none",
        "the user ann: a password's hash begins with",
        "\"not a host\" is no host",
    ] {
        assert!(reason.contains(mistake), "{mistake} in {reason}");
    }
    assert!(!reason.contains("secret"));
}
