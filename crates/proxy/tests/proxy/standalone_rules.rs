//! Routes and rules of a file.

mod trusted;

use super::harness::*;
use gaiola_proxy::read_file;

const FILE: &str = r#"
control = "proxy.sock"

[frontend.plain]
bind = "PLAIN"
rule = [{ redirect = "https" }]

[frontend.www]
bind = "WWW"
error_pages = { 503 = "sorry.html" }
rule = [{ set_response_header = "X-Frame-Options", value = "DENY" }]

[[frontend.www.route]]
host = "www.site.example"
rule = [{ redirect = "https://site.example{path}{query}", status = 301 }]

[[frontend.www.route]]
host = "staging.site.example"
rule = [{ auth = "staff" }]
backend = "app"

[[frontend.www.route]]
path_exact = "/login"
method = "POST"
rule = [{ limit = "logins" }]
backend = "app"

[[frontend.www.route]]
path = "/api"
rule = [{ strip = "/api" }, { set_header = "X-Client", value = "{client} {method}" }]
backend = "app"

[[frontend.www.route]]
path = "/shop"
rule = [{ return = 503 }]

[[frontend.www.route]]
path = "/public"
files = "."

[users.staff.user]
ann = "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols="

[limit.logins]
rate = "2/1d"

[backend.app.server]
a = "APP"
"#;

#[test]
fn a_file_says_what_becomes_of_each_request() {
    let (app, plain, www) = (Origin::start("app"), free_address(), free_address());
    let text = FILE
        .replace("PLAIN", &plain.to_string())
        .replace("WWW", &www.to_string())
        .replace("APP", &app.address.to_string());
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("sorry.html"), "<h1>later</h1>").unwrap();
    std::fs::write(directory.path().join("proxy.toml"), text).unwrap();
    let _proxy = Proxy::start_in(directory);
    let ask = |client: &mut Client, line: &str, host: &str, fields: &str| {
        client.send(&format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: 0\r\n\r\n"
        ));
        client.response()
    };
    let response = ask(&mut Client::connect(plain), "GET /a?b", "site.example", "");
    assert_eq!(response.status, 308);
    assert_eq!(response.field("Location"), Some("https://site.example/a?b"));
    let mut client = Client::connect(www);
    // ann:secret
    let secret = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
    let (site, staging) = ("site.example", "staging.site.example");
    for (line, host, fields, status) in [
        ("GET /a", "www.site.example", "", 301),
        ("GET /", staging, "", 401),
        ("GET /", staging, secret, 200),
        ("POST /login", site, "", 200),
        ("POST /login", site, "", 200),
        ("POST /login", site, "", 429),
        ("GET /login", site, "", 404),
        ("GET /api/users?id=1", site, "", 200),
        ("GET /shop/x", site, "", 503),
        ("GET /public/none", site, "", 404),
        ("GET /", site, "", 404),
    ] {
        let response = ask(&mut client, line, host, fields);
        assert_eq!(response.status, status, "{line} {host}");
        assert_eq!(response.field("X-Frame-Options"), Some("DENY"), "{line}");
        if status == 503 {
            assert_eq!(response.text(), "<h1>later</h1>");
        }
    }
    let requests = app.requests();
    let last = requests.last().unwrap();
    assert_eq!(last.path(), "/users?id=1");
    assert_eq!(last.field("X-Client"), Some("127.0.0.1 GET"));
}

#[test]
fn the_example_of_the_manual_is_valid() {
    let manual = include_str!("../../../../docs/proxy.md");
    let (_, section) = manual.split_once("## Routes and rules").unwrap();
    let (_, example) = section.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, example).unwrap();
    std::fs::write(directory.path().join("maintenance.html"), "later").unwrap();
    let config = read_file(&file).unwrap().config;
    assert_eq!(config.frontends.len(), 2);
}

#[test]
fn mistakes_that_only_the_proxy_can_find_have_their_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    let text = r#"[frontend.www]
bind = ":80"
error_pages = { 503 = "none.html" }
[[frontend.www.route]]
host = ["a.example", "a:80"]
path_regex = "("
method = "G T"
header = { "X Y" = true, X-Z = { regex = "[" } }
rule = [
  { rewrite_regex = "a(", to = "/" },
  { rewrite = "/a", to = "b" },
  { set_header = "X-A", value = "{cleint}" },
  { set_response_header = "Content-Length", value = "1" },
  { host = "a b" },
  { redirect = "nowhere" },
  { redirect = "/", status = 305 },
  { return = 204, body = "x" },
  { auth = "staff" },
]
[users.staff]
realm = "\"\""
user = { ann = "secret" }
"#;
    std::fs::write(&path, text).unwrap();
    let error = read_file(&path).unwrap_err().to_string();
    let reported: Vec<&str> = error.lines().collect();
    for (line, said) in reported.iter().zip([
        "3:17: the page for 503, ",
        "5:22: \"a:80\" is not a host",
        "6:14: the regular expression \"(\" is not valid: unclosed group; ",
        "7:10: \"G T\" is not a method",
        "8:12: \"X Y\" is not the name of a header field",
        "8:42: the regular expression \"[\" is not valid",
        "10:5: the regular expression \"a(\" is not valid",
        "11:5: the path \"b\" does not begin with a slash",
        "12:5: \"{cleint}\" has an unknown variable \"cleint\"",
        "13:5: `Content-Length` cannot be changed by a rule",
        "14:5: \"a b\" is not a host",
        "15:5: \"nowhere\" is neither a path nor a URL",
        "16:5: 305 is not a redirect status",
        "17:5: a response with status 204 cannot have a body",
        "21:9: the realm ",
        "22:10: the user ann: a password's hash begins with",
    ]) {
        let place = format!("{}:{said}", path.display());
        assert!(line.starts_with(&place), "{place} in {error}");
        assert!(line.contains("; "), "{line} has no hint");
    }
    assert!(!error.contains("secret"));
    assert_eq!(reported.len(), 16, "{error}");
}

/// What is reported of the file with these lines behind a frontend `www`.
fn reported(lines: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    let text = format!(
        "[backend.app.server]\na = \"10.0.0.1:80\"\n[frontend.www]\nbind = \":80\"\n{lines}\n"
    );
    std::fs::write(&path, text).unwrap();
    match read_file(&path) {
        Ok(_) => Vec::new(),
        Err(error) => {
            let name = format!("{}:", path.display());
            let reported = error.to_string();
            reported
                .lines()
                .map(|line| line.replace(&name, ""))
                .collect()
        }
    }
}

#[test]
fn a_route_that_no_request_reaches_is_reported() {
    let route = |lines: &str| format!("[[frontend.www.route]]\n{lines}\n");
    let catch_all = route("backend = \"app\"");
    let deny = route("path = \"/admin\"\nrule = [{ deny = true }]");
    assert_eq!(reported(&format!("{deny}{catch_all}")), [""; 0]);
    let said = reported(&format!("{catch_all}{deny}"));
    assert_eq!(
        said,
        [
            "7:1: no request comes here: the frontend's route 1 takes all of them before; move it before that one, or \
             leave it out"
        ]
    );
    let said = reported(&format!("backend = \"app\"\n{catch_all}"));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("5:1: no request comes here"),
        "{said:?}"
    );
    let names = |names: &str| format!("[[frontend.www.sni]]\nnames = {names}\nbackend = \"app\"\n");
    let tcp = "mode = \"tcp\"\nbackend = \"app\"\n";
    let (wide, narrow) = (
        names("\"*.a.example\""),
        names("[\"b.example\", \"www.a.example\"]"),
    );
    assert_eq!(reported(&format!("{tcp}{narrow}{wide}")), [""; 0]);
    let said = reported(&format!("{tcp}{wide}{narrow}"));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("11:23: no client comes here by \"www.a.example\""),
        "{said:?}"
    );
}

#[test]
fn text_that_would_be_sent_verbatim_is_reported_with_what_to_write() {
    for (rule, said) in [
        (
            r#"{ redirect = "https://$host$request_uri" }"#,
            "nginx's `$host` is {host} here",
        ),
        (
            r#"{ redirect = '/new/\1' }"#,
            "only the rule rewrite_regex has groups",
        ),
        (
            r#"{ set_header = "X-Real-IP", value = "%[src]" }"#,
            "HAProxy's `%[src]` is {client} here",
        ),
        (
            r#"{ set_header = "X-A", value = "{{client}}" }"#,
            "a variable has single braces",
        ),
        (
            r#"{ rewrite_regex = "^/x/(.*)", to = "/y/$1_big" }"#,
            "write `${1}_big`",
        ),
        (
            r#"{ rewrite_regex = "^/x/(.*)", to = "/y/$2" }"#,
            "the expression has no group `2`, only 1 numbered ones",
        ),
        (
            r#"{ rewrite_regex = "^/x/(.*)", to = '/y/\1' }"#,
            "a group is written `${1}` here",
        ),
        (
            r#"{ rewrite = "/x", to = "/y/$1" }"#,
            "the rest of the path is appended anyway",
        ),
    ] {
        let reported = reported(&format!("backend = \"app\"\nrule = [{rule}]"));
        assert_eq!(reported.len(), 1, "{rule} {reported:?}");
        assert!(
            reported[0].starts_with("6:11: ") && reported[0].contains(said),
            "{reported:?}"
        );
    }
    for (regex, said) in [
        ("^admin", "a path begins with `/`"),
        (r"^/a\\?x", "the query is not in it"),
        ("^/a;x", "without parameters"),
        ("^/%61", "decoded"),
    ] {
        let route = format!("[[frontend.www.route]]\npath_regex = \"{regex}\"\nbackend = \"app\"");
        let reported = reported(&route);
        assert_eq!(reported.len(), 1, "{regex} {reported:?}");
        assert!(reported[0].contains(said), "{reported:?}");
    }
}

#[test]
fn no_spelling_passes_by_a_rule_that_denies() {
    let (app, www) = (Origin::start("app"), free_address());
    let text = format!(
        "control = \"proxy.sock\"\n[frontend.www]\nbind = \"{www}\"\nbackend = \"app\"\n\
         [[frontend.www.route]]\npath = \"/admin\"\nrule = [{{ deny = true }}]\n\
         [backend.app.server]\na = \"{}\"\n",
        app.address
    );
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("proxy.toml"), text).unwrap();
    let _proxy = Proxy::start_in(directory);
    let mut client = Client::connect(www);
    for (path, status) in [
        ("/admin", 403),
        ("/admin;x=1", 403),
        ("/admin;x=1/users", 403),
        ("/;/admin", 403),
        ("/x/..;/admin", 403),
        ("/x/%2e%2e;a/admin", 403),
        ("/admin/..;/x", 403),
        ("/x\\..\\admin", 403),
        ("/x;jsessionid=1", 200),
        ("/admins", 200),
    ] {
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response().status, status, "{path}");
    }
    let asked: Vec<_> = app
        .requests()
        .iter()
        .map(|it| it.path().to_owned())
        .collect();
    assert_eq!(asked, ["/x;jsessionid=1", "/admins"]);
}

/// A proxy that serves a file with these lines, `APP` and `WWW` in them exchanged for addresses.
fn serving(lines: &str, app: &Origin) -> (Proxy, std::net::SocketAddr) {
    let www = free_address();
    let text = lines
        .replace("APP", &app.address.to_string())
        .replace("WWW", &www.to_string());
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "control = \"proxy.sock\"\n{text}\n[backend.app.server]\na = \"{}\"\n",
        app.address
    );
    std::fs::write(directory.path().join("proxy.toml"), text).unwrap();
    (Proxy::start_in(directory), www)
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: site\r\n{fields}\r\n")
}

#[test]
fn a_large_head_is_taken_where_a_route_allows_it() {
    let app = Origin::start("app");
    let lines = "[frontend.www]\nbind = \"WWW\"\nbackend = \"app\"\n[[frontend.www.route]]\npath = \"/large\"\n\
                 max_head = \"64KiB\"\nbackend = \"app\"\n";
    let (_proxy, www) = serving(lines, &app);
    let ask = |path: &str, length: usize| {
        let mut client = Client::connect(www);
        client.send(&get(path, &format!("X-A: {}\r\n", "a".repeat(length))));
        let response = client.response();
        if response.status == 200 {
            client.send(&get("/next", ""));
            assert_eq!(client.response().status, 200);
        }
        response.status
    };
    assert_eq!(ask("/large", 60_000), 200);
    assert_eq!(ask("/large", 66_000), 431);
    assert_eq!(ask("/small", 60_000), 431);
    assert_eq!(ask("/small", 14_000), 200);
    let first = &app.requests()[0];
    assert_eq!(first.field("X-A").map(str::len), Some(60_000));
    let reported = reported(
        "backend = \"app\"\n[[frontend.www.route]]\npath = \"/x\"\nmax_head = \"65KiB\"\nbackend = \"app\"",
    );
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert!(
        reported[0].contains("is more than the proxy reads; write at most 64KiB"),
        "{reported:?}"
    );
}

#[test]
fn every_answer_has_its_date() {
    let app = Origin::start("app");
    let lines = "[frontend.www]\nbind = \"WWW\"\nbackend = \"app\"\n[[frontend.www.route]]\npath = \"/ruled\"\n\
                 rule = [{ remove_response_header = \"Date\" }]\nbackend = \"app\"\n[[frontend.www.route]]\n\
                 path = \"/denied\"\nrule = [{ deny = true }]\n";
    let (_proxy, www) = serving(lines, &app);
    let mut client = Client::connect(www);
    for (path, has_date) in [("/", true), ("/denied", true), ("/ruled", false)] {
        let response = client.get(path);
        assert_eq!(response.field("Date").is_some(), has_date, "{path}");
    }
    let date = client.get("/").field("Date").unwrap().to_owned();
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
}

#[test]
fn what_goes_round_is_ended() {
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[bind]));
    assert_eq!(Client::connect(bind).get("/").status, 508);
}

#[test]
fn a_proxy_that_is_its_own_server_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    let text = "[frontend.www]\nbind = \":8080\"\nbackend = \"app\"\n[frontend.tcp]\nmode = \"tcp\"\nbind = \":8081\"\n\
                backend = \"www\"\n[backend.app.server]\na = \"127.0.0.1:8081\"\nb = \"127.0.0.1:8082\"\n\
                [backend.www.server]\na = \"127.0.0.1:8080\"\n";
    std::fs::write(&path, text).unwrap();
    let error = read_file(&path).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    assert!(
        lines[0].contains(":9:5: 127.0.0.1:8081 is the proxy itself"),
        "{error}"
    );
    assert!(
        lines[1].contains(":12:5: 127.0.0.1:8080 is the proxy itself"),
        "{error}"
    );
    let text = text.replace("127.0.0.1:8081", "127.0.0.1:8083");
    std::fs::write(&path, text).unwrap();
    read_file(&path).unwrap();
}

#[test]
fn a_request_that_may_go_no_further_ends_here() {
    let app = Origin::start("app");
    let (_proxy, www) = serving("[frontend.www]\nbind = \"WWW\"\nbackend = \"app\"\n", &app);
    let mut client = Client::connect(www);
    let mut ask = |method: &str, left: &str| {
        let fields = format!("Authorization: x\r\nMax-Forwards: {left}\r\n");
        client.send(&get("/a", &fields).replace("GET", method));
        client.response()
    };
    assert_eq!(ask("OPTIONS", "0").status, 204);
    let traced = ask("TRACE", "0");
    assert_eq!(traced.field("Content-Type"), Some("message/http"));
    assert_eq!(traced.text(), "TRACE /a HTTP/1.1\r\nHost: site\r\n\r\n");
    assert_eq!(ask("OPTIONS", "2").status, 200);
    assert_eq!(ask("GET", "0").status, 200);
    let left: Vec<_> = app
        .requests()
        .iter()
        .map(|it| it.field("Max-Forwards").unwrap().to_owned())
        .collect();
    assert_eq!(left, ["1", "0"]);
}
