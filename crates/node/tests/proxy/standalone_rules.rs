//! Routes and rules of a file.

use super::harness::*;
use gaiola_node::worker::read_file;

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
    let secret = "Authorization: Basic YW5uOnNlY3JldA==\r\n"; // ann:secret
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
fn mistakes_that_the_proxy_alone_can_tell_have_their_line() {
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
    let told: Vec<&str> = error.lines().collect();
    for (line, said) in told.iter().zip([
        "3:17: the page for 503, ",
        "5:22: \"a:80\" is no host",
        "6:14: the regular expression \"(\" is not valid: unclosed group; ",
        "7:10: \"G T\" is no method",
        "8:12: \"X Y\" is no header field's name",
        "8:42: the regular expression \"[\" is not valid",
        "10:5: the regular expression \"a(\" is not valid",
        "11:5: the path \"b\" does not begin with a slash",
        "12:5: \"{cleint}\" has a variable \"cleint\"",
        "13:5: `Content-Length` is no rule's to change",
        "14:5: \"a b\" is no host",
        "15:5: \"nowhere\" is neither a path nor an address",
        "16:5: 305 is no redirect's status",
        "17:5: an answer with status 204 has no body",
        "21:9: the realm ",
        "22:10: the user ann: a password's hash begins with",
    ]) {
        let place = format!("{}:{said}", path.display());
        assert!(line.starts_with(&place), "{place} in {error}");
        assert!(line.contains("; "), "{line} has no hint");
    }
    assert!(!error.contains("secret"));
    assert_eq!(told.len(), 16, "{error}");
}
