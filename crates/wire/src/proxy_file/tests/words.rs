//! HAProxy's words, and what is proposed for them.

use super::*;

const FRONTEND: &str = "[frontend.www]";
const ROUTE: &str = "[[frontend.www.route]]";
const BACKEND: &str = "[backend.app]";
const SERVER: &str = "[backend.app.server.a]";

/// A section, a line in it, and the end of what is said of it.
const PROPOSALS: &[(&str, &str, &str)] = &[
    (
        "",
        "maxconn = 5",
        "; `maxconn` belongs in [frontend.NAME] or [backend.NAME.server.NAME]",
    ),
    (
        "",
        "nbthread = 4",
        "; HAProxy's `nbthread` is `workers` at the top of the file",
    ),
    (
        "[global]",
        "",
        "; HAProxy's `global` is keys at the top of the file: workers, access_log, control",
    ),
    (
        "[timeouts]",
        "timeout_client = '5s'",
        "; HAProxy's `timeout client` is `client` of [timeouts]",
    ),
    (
        "[timeouts]",
        "HTTP-Request = '5s'",
        "; did you mean `http_request`?",
    ),
    (
        "[timeouts]",
        "'timeout http-request' = '5s'",
        "is `http_request` of [timeouts]",
    ),
    (
        FRONTEND,
        "default_backend = 'app'",
        "is `backend` of [frontend.NAME]",
    ),
    (
        FRONTEND,
        "http-request = 'deny'",
        "; HAProxy's `http-request` is a [[frontend.NAME.rule]], or a `rule` of a route",
    ),
    (
        FRONTEND,
        "http_request = '5s'",
        "; `http_request` belongs in [timeouts] or [frontend.NAME.timeouts]",
    ),
    (
        FRONTEND,
        "bind = ':443 ssl crt a.pem'",
        "; write { address = \":443\" } and other keys beside it",
    ),
    (
        ROUTE,
        "path_beg = '/api'",
        "; HAProxy's `path_beg` is `path` of a route, which takes whole segments",
    ),
    (
        ROUTE,
        "Path_Reg = '^/api'",
        "; HAProxy's `path_reg` is `path_regex` of a route",
    ),
    (
        BACKEND,
        "maxconn = 5",
        "; `maxconn` belongs in [frontend.NAME] or [backend.NAME.server.NAME]",
    ),
    (
        BACKEND,
        "cookie = 'A'",
        "; `cookie` belongs in [frontend.NAME.route] or [backend.NAME.sticky] or [backend.NAME.server.NAME]",
    ),
    (
        BACKEND,
        "balance = 'source'",
        "is not known; HAProxy's `source` is balance = \"hash\" of [backend.NAME]",
    ),
    (
        BACKEND,
        "balance = 'static-rr'",
        "is balance = \"roundrobin\" of [backend.NAME]",
    ),
    (
        BACKEND,
        "leastconn = true",
        "is balance = \"leastconn\" of [backend.NAME]",
    ),
    (
        BACKEND,
        "option = 'httpchk'",
        "is said by keys of the frontend or backend; docs/proxy.md has a table of them",
    ),
    (
        BACKEND,
        "option httpchk GET /up",
        "is `check` of [backend.NAME], such as \"/up\"",
    ),
    (
        BACKEND,
        "  timeout connect 5s",
        "; HAProxy's `timeout connect` is `connect` of [timeouts]",
    ),
    (
        BACKEND,
        "check = { inter = '2s' }",
        "; HAProxy's `inter` is `interval` of [backend.NAME.check]",
    ),
    (
        BACKEND,
        "server.a = '10.0.0.1:80 check inter 2s'",
        "; write { address = \"10.0.0.1:80\" } and other keys beside it",
    ),
    (
        SERVER,
        "inter = '2s'",
        "; HAProxy's `inter` is `interval` of [backend.NAME.check]",
    ),
    (
        SERVER,
        "backup = true",
        "; HAProxy's `backup` is `spare` of a server",
    ),
    (
        SERVER,
        "send-proxy-v2 = true",
        "; HAProxy's `send-proxy-v2` is send_proxy = \"v2\" of a server",
    ),
];

#[test]
fn haproxys_words_are_answered_with_ours() {
    let check = |text: &str, hint: &str| {
        let said = said(text);
        let found = said.iter().any(|mistake| mistake.ends_with(hint));
        assert!(found, "{hint:?} is not said of {text:?}, but {said:#?}");
    };
    for (section, line, hint) in PROPOSALS {
        check(&format!("{section}\n{line}\n"), hint);
    }
    check(
        "# haproxy.cfg\n\nlisten www\n  bind *:80\n",
        "; HAProxy's `listen` is [frontend.NAME] and [backend.NAME]",
    );
}

#[test]
fn a_line_without_its_quotes_is_none_of_haproxys() {
    for (section, line) in [
        ("[frontend.www]", "backend = app"),
        ("[backend.app.server.a]", "cookie = a1"),
        ("[frontend.www]", "  source = 10.0.0.0/8"),
        ("[backend.app]", "balance=leastconn"),
        ("[frontend.www]", "bind = ':443"),
        ("", "[backend"),
    ] {
        let said = said(&format!("{section}\n{line}\n"));
        let hint = "; see https://toml.io for how values are written";
        assert!(
            said.iter().any(|mistake| mistake.ends_with(hint)),
            "{said:#?}"
        );
        assert_eq!(WORDS.foreign_line(line), None, "{line}");
    }
    // A `=` further on is no key's.
    let line = "http-request deny if { path /a=b }";
    assert!(WORDS.foreign_line(line).is_some());
}

#[test]
fn every_word_of_haproxys_in_the_documentation_is_known() {
    let page = include_str!("../../../../../docs/proxy.md");
    let (_, table) = page
        .split_once("| in `haproxy.cfg` | here |\n| --- | --- |\n")
        .unwrap();
    let rows: Vec<_> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() > 20);
    for row in rows {
        let theirs = row.split('|').nth(1).unwrap();
        for word in theirs.split('`').skip(1).step_by(2) {
            assert!(WORDS.foreign_line(word).is_some(), "{word}");
        }
    }
}
