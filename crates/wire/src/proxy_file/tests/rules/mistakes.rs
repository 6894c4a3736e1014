//! Mistakes in routes and rules.

use super::*;
#[test]
fn every_mistake_is_reported_at_once() {
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
    let expected = [
        "2:16: `limit_secret` \"short\" can be guessed; use at least 16 characters, chosen at random",
        "3:8: [users.staff] has no `user`; add user = { NAME = \"HASH\" }",
        "5:8: `rate` \"0/s\" allows no request at all; write { deny = true } for that",
        "6:6: `by` \"sauce\" is not known; it is one of \"source\", \"network\", \"path\", \"header:NAME\"",
        "7:8: [limit.b] needs one of `rate` and `concurrent`; write rate = \"100/10s\" or concurrent = 20",
        "8:8: `rate` \"1/2d\" has a window out of range; it is from 1s to 1d",
        "15:20: connections cannot be counted by the limit \"c\"; name one that is by = \"source\" or \"network\"",
        "16:17: `error_pages` has a page for \"200\"; write the status of an error, 400 to 599",
        "16:28: `error_pages` has a page for \"ok\"; write the status of an error, 400 to 599",
    ];
    let said = said(text);
    assert_eq!(said[..expected.len()], expected);
    for beginning in [
        "31:1: a [[frontend.rest.rule]] does nothing; it is one of deny,",
        "31:12: [frontend.rest] has no `bind`",
        "18:9: `path` \"b\" does not begin",
        "18:14: `path` \"/a//b\" matches no path",
        "18:23: `path` \"/%62\" contains `%`",
        "18:31: `path` \"/b?c\" contains '?'",
        "19:12: `max_body` \"10\" is not a size",
        "20:18: `X-A` is a number, but must be a string",
        "20:21: [frontend.www.route.header.X-B] has no value",
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
fn patterns_of_other_programs_are_reported_with_what_to_write() {
    for (path, hint) in [
        (
            "/admin/*",
            "write path = \"/admin\", which also matches everything below it",
        ),
        ("/admin/**", "write path = \"/admin\""),
        ("/admin(/.*)?", "write path = \"/admin\""),
        ("/admin/.*$", "write path = \"/admin\""),
        ("/*", "write path = \"/\", which matches every path"),
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
        ("/a;x=1", "remove parameters such as `;x=1`"),
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
    for (line, expected) in [
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
            "write \"/api\": the rest of the path is kept",
        ),
        ("rule = [{ rewrite = '/a/*', to = '/b' }]", "write \"/a\""),
    ] {
        let text = format!("{SITE}[[frontend.a.route]]\npath = '/x'\n{line}\nbackend = 'b'\n");
        let said = said(&text);
        assert_eq!(said.len(), 1, "{line} {said:?}");
        assert!(said[0].contains(expected), "{line} {said:?}");
    }
    let text =
        format!("{SITE}[[frontend.a.route]]\nheader = {{ Accept = 'text/*' }}\nbackend = 'b'\n");
    assert!(load(&text, &around()).is_ok());
}

const SITE: &str =
    "[backend.b.server]\nb1 = '10.0.0.1:80'\n[frontend.a]\nbind = ':80'\nbackend = 'b'\n";

#[test]
fn a_rule_that_leaves_something_open_or_is_never_come_to_is_reported() {
    for (lines, expected) in [
        (
            "path = '/admin/'\nrule = [{ deny = true }]",
            "`path` \"/admin/\" does not match \"/admin\" itself; write \"/admin\", which matches both",
        ),
        (
            "path = '/x'\nrule = [{ redirect = '/y' }, { deny = true }]",
            "no request reaches this rule: an earlier one answers all of them",
        ),
    ] {
        let said = said(&format!("{SITE}[[frontend.a.route]]\n{lines}\n"));
        assert_eq!(said.len(), 1, "{lines} {said:?}");
        assert!(said[0].contains(expected), "{said:?}");
    }
    let site = SITE.replace("bind = ':80'", "bind = ':80'\nrule = [{ return = 503 }]");
    let text = format!("{site}[[frontend.a.route]]\npath = '/x'\nrule = [{{ deny = true }}]\n");
    let found = said(&text).join("\n");
    assert!(
        found.contains("7:1: no request reaches this: a rule of the frontend answers all"),
        "{found}"
    );
}

#[test]
fn what_came_by_https_is_not_sent_there_and_so_needs_a_backend() {
    let plain = "[frontend.a]\nbind = ':80'\nrule = [{ redirect = 'https' }]\n";
    assert!(load(plain, &around()).is_ok());
    let found = said(&format!("{plain}trust = '10.0.0.0/8'\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("add backend = \"NAME\", for requests that came by HTTPS"),
        "{found:?}"
    );
}

#[test]
fn a_method_in_small_letters_is_a_mistake() {
    let text = "[frontend.a]\nbind = ':80'\nbackend = 'b'\n[[frontend.a.route]]\nmethod = 'get'\nbackend = 'b'\n[backend.b.server]\nb1 = '10.0.0.1:80'\n";
    let all = said(text).join("\n");
    assert!(
        all.contains(
            "`method` \"get\" has lower-case letters, which no method has; write it as \"GET\""
        ),
        "{all}"
    );
}
