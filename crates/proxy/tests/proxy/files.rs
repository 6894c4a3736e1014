//! Static files before a backend.

use super::harness::*;
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::Mode;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

fn config_with_files(bind: SocketAddr, app: SocketAddr, roots: &[&Path]) -> ProxyConfig {
    let mut config = config(bind, &[app]);
    let Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!()
    };
    routes[0].files = roots.iter().map(|root| root.to_path_buf()).collect();
    config
}

#[test]
fn files_come_first_and_the_rest_goes_on_to_the_backend() {
    let directory = tempfile::tempdir().unwrap();
    let (new, old) = (directory.path().join("new"), directory.path().join("old"));
    for (root, name) in [
        (&new, "index.html"),
        (&old, "index.html"),
        (&old, "old.css"),
    ] {
        fs::create_dir_all(root).unwrap();
        fs::write(
            root.join(name),
            root.file_name().unwrap().as_encoded_bytes(),
        )
        .unwrap();
    }
    fs::create_dir(new.join("sub")).unwrap();
    fs::write(new.join("sub/index.html"), "sub").unwrap();
    fs::write(directory.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", new.join("link")).unwrap();
    let (origin, bind) = (Origin::start("app"), free_address());
    let proxy = Proxy::serving(&config_with_files(bind, origin.address, &[&new, &old]));
    let mut client = Client::connect(bind);
    let index = client.get("/");
    assert_eq!((index.status, index.text()), (200, "new"));
    assert_eq!(
        index.field("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    assert!(index.field("Date").is_some());
    assert_eq!(client.get("/old.css").text(), "old");
    assert_eq!(client.get("/sub").field("Location"), Some("/sub/"));
    assert_eq!(client.get("/sub/").text(), "sub");
    for path in [
        "/api/entries",
        "/../secret",
        "/%2e%2e/secret",
        "/sub/..%2f..%2fsecret",
        "/link",
    ] {
        assert_eq!(client.get(path).text(), format!("app GET {path} HTTP/1.1"));
    }
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().text(), "app POST / HTTP/1.1");
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().field("Content-Length"), Some("3"));
    assert_eq!(client.get("/").text(), "new");
    assert_eq!(proxy.log_lines(1)[0]["backend"], "files");
}

#[test]
fn conditions_and_ranges_hold() {
    let directory = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(directory.path().join("big.bin"), &bytes).unwrap();
    let bind = free_address();
    let config = config_with_files(bind, free_address(), &[directory.path()]);
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    let whole = client.get("/big.bin");
    assert!(whole.status == 200 && whole.body == bytes);
    let etag = whole.field("ETag").unwrap();
    let changed = whole.field("Last-Modified").unwrap();
    let mut ask = |fields: &str| {
        client.send(&format!("GET /big.bin HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        client.response()
    };
    assert_eq!(ask(&format!("If-None-Match: {etag}\r\n")).status, 304);
    assert_eq!(
        ask(&format!("If-Modified-Since: {changed}\r\n")).status,
        304
    );
    let part = ask(&format!(
        "Range: bytes=100000-2099999\r\nIf-Range: {etag}\r\n"
    ));
    assert_eq!(part.status, 206);
    assert_eq!(
        part.field("Content-Range"),
        Some("bytes 100000-2099999/3000000")
    );
    assert!(part.body == bytes[100_000..2_100_000]);
    assert_eq!(ask("Range: bytes=3000000-\r\n").status, 416);
    assert_eq!(
        ask("Range: bytes=0-1\r\nIf-Range: \"other\"\r\n")
            .body
            .len(),
        bytes.len()
    );
}

#[test]
fn a_dead_backend_leaves_the_files_served() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("page.html"), "page").unwrap();
    let bind = free_address();
    let proxy = Proxy::serving(&config_with_files(
        bind,
        free_address(),
        &[directory.path()],
    ));
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/page.html").text(), "page");
    assert_eq!(client.get("/api").status, 503);
    assert_eq!(client.get("/page.html").text(), "page");
    assert_eq!(proxy.admin("/readyz").status, 200);
    assert!(
        proxy.log_lines(3)[1]["reason"]
            .as_str()
            .unwrap()
            .contains("connection refused")
    );
}

#[test]
fn a_missing_file_gets_another_one_or_a_page_and_the_rest_goes_to_the_backend() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["index.html", "404.html", "app.3f2a9c1b.js"] {
        fs::write(directory.path().join(name), name).unwrap();
    }
    let (origin, bind) = (Origin::start("app"), free_address());
    let text = format!(
        r#"
        [frontend.www]
        bind = "{bind}"
        [[frontend.www.route]]
        path = "/app"
        files = "."
        try = "/index.html"
        cache_control = {{ fingerprinted = "public, max-age=31536000, immutable", "*.html" = "no-cache" }}
        backend = "app"
        rule = [{{ strip = "/app" }}]
        [[frontend.www.route]]
        files = "."
        not_found = "404.html"
        [backend.app.server]
        a = "{}"
        "#,
        origin.address
    );
    let path = directory.path().join("proxy.toml");
    fs::write(&path, text).unwrap();
    let file = gaiola_proxy::read_file(&path).unwrap();
    let _proxy = Proxy::serving(&file.config);
    let mut client = Client::connect(bind);
    let page = client.get("/app/inbox/7");
    assert_eq!((page.status, page.text()), (200, "index.html"));
    assert_eq!(page.field("Cache-Control"), Some("no-cache"));
    let script = client.get("/app/app.3f2a9c1b.js");
    let immutable = "public, max-age=31536000, immutable";
    assert_eq!(script.field("Cache-Control"), Some(immutable));
    client.send("POST /app/inbox HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().text(), "app POST /inbox HTTP/1.1");
    let missing = client.get("/no");
    assert_eq!((missing.status, missing.text()), (404, "404.html"));
    assert_eq!(missing.field("Cache-Control"), None);
    client.send("HEAD /no HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head();
    assert_eq!(
        (head.status, head.field("Content-Length")),
        (404, Some("8"))
    );
}

#[test]
fn a_tag_is_that_of_the_contents_and_holds_for_conditions() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
    for root in [&one, &two] {
        fs::create_dir(root).unwrap();
        fs::write(root.join("a.css"), "same").unwrap();
    }
    let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
    let old = fs::File::options().write(true).open(one.join("a.css"));
    old.unwrap().set_modified(past).unwrap();
    let etag = |root: &Path| {
        let bind = free_address();
        let _proxy = Proxy::serving(&config_with_files(bind, free_address(), &[root]));
        let mut client = Client::connect(bind);
        let etag = client.get("/a.css").field("ETag").unwrap().to_owned();
        let mut ask = |field: &str| {
            client.send(&format!(
                "GET /a.css HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"
            ));
            client.response().status
        };
        assert_eq!(ask(&format!("If-None-Match: {etag}")), 304);
        assert_eq!(ask(&format!("If-Match: {etag}")), 200);
        assert_eq!(ask("If-Match: \"other\""), 412);
        assert_eq!(
            ask("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"),
            412
        );
        etag
    };
    assert_eq!(etag(&one), etag(&two));
    fs::write(two.join("a.css"), "other").unwrap();
    assert_ne!(etag(&one), etag(&two));
}

#[test]
fn a_compressed_file_beside_a_file_is_served_to_those_who_accept_it() {
    let directory = tempfile::tempdir().unwrap();
    for name in [
        "app.js",
        "app.js.gz",
        "app.js.br",
        "plain.css",
        "old.js",
        "old.js.gz",
    ] {
        fs::write(directory.path().join(name), format!("<{name}>")).unwrap();
    }
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    let old = fs::File::options()
        .write(true)
        .open(directory.path().join("old.js.gz"));
    old.unwrap().set_modified(past).unwrap();
    let bind = free_address();
    let mut config = config_with_files(bind, free_address(), &[directory.path()]);
    let Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!()
    };
    routes[0].file_options.precompressed = true;
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    let mut ask = |path: &str, fields: &str| {
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        client.response()
    };
    let accept = |value: &str| format!("Accept-Encoding: {value}\r\n");
    let brotli = ask("/app.js", &accept("gzip, br"));
    assert_eq!(brotli.text(), "<app.js.br>");
    assert_eq!(brotli.field("Content-Encoding"), Some("br"));
    assert_eq!(brotli.field("Vary"), Some("Accept-Encoding"));
    let script = "text/javascript; charset=utf-8";
    assert_eq!(brotli.field("Content-Type"), Some(script));
    let gzip = ask("/app.js", &accept("gzip, br;q=0.5, zstd"));
    assert_eq!(gzip.text(), "<app.js.gz>", "there is no .zst");
    let plain = ask("/app.js", "");
    assert_eq!(
        (plain.text(), plain.field("Content-Encoding")),
        ("<app.js>", None)
    );
    assert_eq!(plain.field("Vary"), Some("Accept-Encoding"));
    assert_eq!(
        ask("/app.js", &accept("gzip;q=0, identity")).text(),
        "<app.js>"
    );
    assert_eq!(ask("/plain.css", &accept("gzip")).text(), "<plain.css>");
    assert_eq!(ask("/old.js", &accept("gzip")).text(), "<old.js>");
    // Each representation has its own tag, and ranges are its own.
    let tags = [&brotli, &gzip, &plain].map(|response| response.field("ETag").unwrap());
    assert!(tags[0] != tags[1] && tags[1] != tags[2]);
    let known = format!("{}If-None-Match: {}\r\n", accept("br"), tags[0]);
    let same = ask("/app.js", &known);
    assert_eq!(
        (same.status, same.field("Vary")),
        (304, Some("Accept-Encoding"))
    );
    let part = ask("/app.js", &(accept("br") + "Range: bytes=8-9\r\n"));
    assert_eq!((part.status, part.text()), (206, "br"));
    assert_eq!(part.field("Content-Range"), Some("bytes 8-9/11"));
    let itself = ask("/app.js.gz", &accept("gzip"));
    assert_eq!(itself.field("Content-Encoding"), None);
}
