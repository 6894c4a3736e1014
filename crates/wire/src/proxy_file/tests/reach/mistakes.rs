//! Mistakes in binds, servers and backends.

use super::*;
#[test]
fn mistakes_of_binds_are_reported_at_once() {
    let text = r#"
[frontend.a]
backend = "app"
bind = [5, "unix:a", ":1", { address = ":1", permissions = "660" }, { adress = ":2" }]
[frontend.b]
backend = "app"
[[frontend.b.bind]]
address = "unix:/b"
permissions = "rw"
tls = { certificates = [], min_version = "1.1", client_certificate = "optional", alpn = ["h2"] }
[[frontend.b.bind]]
address = ":4"
tls = {}
[frontend.c]
mode = "tcp"
bind = []
backend = "app"
[[frontend.c.sni]]
names = ["a.b", "A.B", "*b", "10.0.0.1"]
backend = "ap"
[[frontend.c.sni]]
[frontend.d]
mode = "tcp"
bind = { address = ":5", tls = { certificates = "a" } }
backend = "app"
sni = [{ names = "a", backend = "app" }]
[backend.app.server]
s = "10.0.0.1:80"
"#;
    assert_eq!(
        said(text),
        [
            "4:9: `bind` is a number, but must be a string or a table; write it as bind = \":80\", or [\":80\"]",
            "4:12: `bind` \"unix:a\" cannot be used: the path of a Unix socket must be absolute; write `unix:` and the whole path, such as \"unix:/run/app.sock\"",
            "4:40: 0.0.0.0:1 is bound twice; leave one of them out",
            "4:46: `permissions` has no meaning here; only a Unix socket has permissions",
            "4:69: [frontend.a.bind] has no `address`; add address = \":443\"",
            "4:71: unknown key \"adress\" in [frontend.a.bind]; did you mean `address`?",
            "9:15: `permissions` \"rw\" are not permissions; write three octal digits for owner, group and others: \"660\"",
            "10:1: `tls` has no meaning here; TLS is served on TCP only",
            "10:24: `certificates` is empty; write it as certificates = [\"site.pem\"]",
            "10:42: `min_version` \"1.1\" is not known; it is one of \"1.2\", \"1.3\"",
            "10:49: `client_certificate` has no meaning here; it needs client_ca = \"FILE\"",
            "10:90: `alpn` \"h2\" is not known; it is one of \"http/1.1\"",
            "13:1: [frontend.b.bind.tls] has no `certificates`; add certificates = \"site.pem\"",
            "16:8: `bind` is empty; write it as bind = \":80\", or [\":80\"]",
            "19:17: the name \"a.b\" is listed twice; leave one of them out: the first one wins",
            "19:24: `names` \"*b\" is not a host name; write it as \"www.example.org\", or \"*.example.org\" for all below",
            "19:30: `names` \"10.0.0.1\" is not a host name; write it as \"www.example.org\", or \"*.example.org\" for all below",
            "20:11: there is no backend \"ap\"; did you mean `app`?",
            "21:1: [frontend.c.sni] has no `names`; add names = [\"www.example.org\"]",
            "21:1: [frontend.c.sni] has no `backend`; add backend = \"NAME\"",
            "26:1: `sni` has no meaning here; a bind with `tls` ends TLS, so that no server name is left to choose by",
        ]
    );
}

#[test]
fn mistakes_of_servers_are_reported_at_once() {
    let text = r#"
[frontend.a]
bind = ":1"
backend = "app"
[backend.app]
check = "postgres"
balance = "random"
hash = { on = "header", query = true, bound = 99 }
slow_ejection = { factor = 100 }
sticky = { cookie = "a b", path = "app", domain = ";", same_site = "none", key = "short", max_idle = "1500ms" }
[backend.app.server]
a = { address = "unix:/a", tls = true, cookie = "a" }
b = { address = "unix:b", cookie = "a", send_proxy = "v3" }
c = { address = "10.0.0.1:80", cookie = "a;", tls = { verify = false, ca = "ca", sni = "10.0.0.1", host = "a b" } }
[backend.two]
check = { kind = "tcp", path = "/", user = "a", key = "k" }
balance = "hash"
hash = { on = "source", name = "a", bound = "all" }
server = { s = "10.0.0.1:80" }
[backend.three]
check = { kind = "patroni" }
server = { s = "unix:/s" }
[backend.four]
check = { kind = "postgres", user = "" }
hash = {}
server = { s = "unix:/s" }
sticky = {}
"#;
    assert_eq!(
        said(text),
        [
            "6:9: `check` \"postgres\" is not a check; write it as { kind = \"postgres\", user = \"NAME\" }",
            "8:1: [backend.app.hash] has no `name`; add name = \"NAME\"",
            "8:1: `hash` has no meaning here; it belongs to balance = \"hash\"",
            "8:25: `query` has no meaning here; it belongs to on = \"uri\"",
            "8:47: `bound` is 99; it is from 100 to 10000",
            "9:1: [backend.app.slow_ejection] has no `after`; add after = \"10s\"",
            "9:28: `factor` is 100; it is from 101 to 10000",
            "10:21: `cookie` is not a name for a cookie; use letters, digits, `-` and `_`",
            "10:35: `path` is not a path for a cookie; it begins with `/` and has no space, `;` or `\\`",
            "10:51: `domain` is not valid in a cookie; write it as \"example.org\"",
            "10:68: `same_site` is \"none\" without `secure`, and browsers refuse such a cookie; add secure = true",
            "10:82: `key` is shorter than 16 bytes; make one with `openssl rand -hex 16`",
            "10:102: `max_idle` \"1500ms\" is not whole seconds; write a number and s, m or h, at most 9600h: \"30m\", \"8h\"",
            "12:17: unix:/a cannot use TLS; only servers on TCP can use TLS",
            "13:17: `address` \"unix:b\" cannot be used: the path of a Unix socket must be absolute; write `unix:` and the whole path, such as \"unix:/run/app.sock\"",
            "13:36: the cookie \"a\" belongs to another server; give each server its own",
            "13:54: `send_proxy` \"v3\" is not known; it is one of \"v1\", \"v2\"",
            "14:41: `cookie` \"a;\" cannot be a cookie's value; use letters, digits, `-` and `_`",
            "14:71: `ca` has no meaning here; with verify = false nothing is checked",
            "14:88: `sni` \"10.0.0.1\" is not a host name; write it as \"www.example.org\"",
            "14:107: `host` \"a b\" is not a host name; write it as \"www.example.org\"",
            "16:25: `path` has no meaning here; it belongs to kind = \"http\" or \"patroni\"",
            "16:37: `user` has no meaning here; it belongs to kind = \"postgres\"",
            "16:49: `key` has no meaning here; it belongs to kind = \"patroni\"",
            "18:25: `name` has no meaning here; it belongs to on = \"header\" or \"cookie\"",
            "18:45: `bound` \"all\" is not a bound; write a number of percent from 100 to 10000, or \"none\"",
            "21:1: [backend.three.check] has no `path`; add path = \"/primary\"",
            "21:1: [backend.three.check] has no `ca`; add ca = \"ca.pem\"",
            "21:1: [backend.three.check] has no `certificate`; add certificate = \"own.pem\"",
            "22:16: unix:/s cannot use TLS; only servers on TCP can use TLS",
            "24:37: `user` \"\" is not a user name; write 1 to 63 bytes, none of them zero",
            "25:1: `hash` has no meaning here; it belongs to balance = \"hash\"",
            "27:1: [backend.four.sticky] has no `cookie`; add cookie = \"SERVERID\"",
        ]
    );
}

#[test]
fn what_only_http_has_is_no_part_of_tcp() {
    let text = r#"
[frontend.db]
mode = "tcp"
bind = ":1"
backend = "db"
sni = [{ names = "a.b", backend = "named" }]
[frontend.www]
bind = ":2"
backend = "web"
[backend.db]
balance = "hash"
sticky = { cookie = "id" }
fallback = "other"
server = { s = "10.0.0.1:80" }
[backend.db.hash]
on = "uri"
[backend.named]
balance = "hash"
hash = { on = "header", name = "x" }
server = { s = "10.0.0.1:80" }
[backend.other]
fallback = "db"
balance = "hash"
hash = { on = "source" }
slow_ejection = { factor = 300, after = "10s" }
server = { s = "10.0.0.1:80" }
[backend.web]
balance = "hash"
hash = { on = "cookie", name = "x" }
sticky = { cookie = "id" }
slow_ejection = { factor = 300, after = "10s" }
server = { s = "10.0.0.1:80" }
"#;
    let hint = "[frontend.db] is mode = \"tcp\" and sends here: take it out, or give that frontend another backend";
    assert_eq!(
        said(text),
        [
            format!("12:1: `sticky` has no meaning in TCP; {hint}"),
            format!("15:13: `hash` on a request has no meaning in TCP; {hint}"),
            format!("19:1: `hash` on a request has no meaning in TCP; {hint}"),
            format!("25:1: `slow_ejection` has no meaning in TCP; {hint}"),
        ]
    );
}
