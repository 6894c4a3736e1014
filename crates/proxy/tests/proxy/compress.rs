//! Responses compressed on their way to the client.

use super::harness::*;
use gaiola_model::ProxyConfig;
use gaiola_model::http::Coding;
use gaiola_model::proxy::{Compression, Mode};
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};

fn compressing(bind: SocketAddr, servers: &[SocketAddr]) -> ProxyConfig {
    let mut config = config(bind, servers);
    let Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!()
    };
    routes[0].compress = Some(Compression::default());
    config
}

fn reader<'a>(coding: Coding, bytes: impl Read + 'a) -> Box<dyn Read + 'a> {
    match coding {
        Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
        Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
    }
}

fn contents(coding: Coding, response: &Response) -> String {
    let mut contents = String::new();
    let mut reader = reader(coding, &response.body[..]);
    reader.read_to_string(&mut contents).unwrap();
    contents
}

fn page() -> String {
    (0..20_000).map(|line| format!("<p>{line}</p>\n")).collect()
}

/// A server that answers `/NAME` with these fields and a page: with its length, in chunks, or until it closes.
fn pages() -> Origin {
    Origin::with(|connection| {
        while let Some(request) = connection.request() {
            let page = page();
            let length = format!("Content-Length: {}\r\n\r\n{page}", page.len());
            let html = "Content-Type: text/html\r\nETag: \"v1\"\r\n";
            let rest = match request.path() {
                "/length" => format!("{html}{length}"),
                "/chunks" => {
                    let chunks = page.as_bytes().chunks(5000);
                    let chunk = |chunk: &[u8]| {
                        format!(
                            "{:x};x=y\r\n{}\r\n",
                            chunk.len(),
                            String::from_utf8_lossy(chunk)
                        )
                    };
                    let chunks: String = chunks.map(chunk).collect();
                    format!(
                        "{html}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\nX-Trailer: a\r\n\r\n"
                    )
                }
                "/close" => format!("{html}Connection: close\r\n\r\n{page}"),
                "/no-transform" => format!("{html}Cache-Control: no-transform\r\n{length}"),
                "/encoded" => format!("{html}Content-Encoding: x\r\n{length}"),
                "/image" => format!("Content-Type: image/png\r\n{length}"),
                "/short" => format!("{html}Content-Length: 2\r\n\r\nok"),
                path => panic!("{path}"),
            };
            let is_head = request.line.starts_with("HEAD");
            let head = rest.split_once("\r\n\r\n").unwrap().0;
            let text = if is_head {
                format!("{head}\r\n\r\n")
            } else {
                rest.clone()
            };
            connection.say(&format!("HTTP/1.1 200 OK\r\n{text}"));
            if request.path() == "/close" {
                return;
            }
        }
    })
}

fn ask(client: &mut Client, path: &str, accept: &str) -> Response {
    client.send(&format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\n\r\n"
    ));
    client.response()
}

#[test]
fn a_page_is_compressed_however_its_end_is_found() {
    let (origin, bind) = (pages(), free_address());
    let _proxy = Proxy::serving(&compressing(bind, &[origin.address]));
    for (accept, coding) in [
        ("gzip", Coding::Gzip),
        ("gzip;q=0.5, br", Coding::Brotli),
        ("gzip, br, zstd", Coding::Zstd),
    ] {
        let mut client = Client::connect(bind);
        for path in ["/length", "/chunks", "/close"] {
            let response = ask(&mut client, path, accept);
            assert_eq!(response.field("Content-Encoding"), Some(coding.token()));
            assert_eq!(response.field("Vary"), Some("Accept-Encoding"));
            assert_eq!(response.field("ETag"), Some("W/\"v1\""));
            assert_eq!(response.field("Content-Length"), None);
            assert!(response.body.len() < page().len() / 3, "{path}");
            assert!(contents(coding, &response) == page(), "{path} {accept}");
        }
    }
    // What the client accepts, the server is told too, so that it may compress by itself.
    let requests = origin.requests();
    assert_eq!(requests[0].field("Accept-Encoding"), Some("gzip"));
}

#[test]
fn what_must_not_be_compressed_comes_as_it_is() {
    let (origin, bind) = (pages(), free_address());
    let _proxy = Proxy::serving(&compressing(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    for path in ["/no-transform", "/encoded", "/image", "/short"] {
        let response = ask(&mut client, path, "gzip");
        assert!(response.field("Content-Length").is_some(), "{path}");
        assert_eq!(response.field("Vary"), None, "{path}");
    }
    let plain = client.get("/length");
    assert!(plain.text() == page());
    assert_eq!(plain.field("Vary"), Some("Accept-Encoding"));
    assert_eq!(plain.field("ETag"), Some("\"v1\""));
    client.send("HEAD /length HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = client.head();
    assert_eq!(head.field("Vary"), Some("Accept-Encoding"));
    assert_eq!(head.field("Content-Encoding"), None);
    client.send("GET /length HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert!(client.response().text() == page());
}

#[test]
fn a_stream_that_pauses_waits_in_no_compressor() {
    let pause = Arc::new(Barrier::new(2));
    let resume = Arc::clone(&pause);
    let origin = Origin::with(move |connection| {
        while connection.request().is_some() {
            connection.say(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            connection.say("9\r\ndata: 1\n\n\r\n");
            resume.wait();
            connection.say("9\r\ndata: 2\n\n\r\n0\r\n\r\n");
        }
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&compressing(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    for (accept, coding) in [
        ("gzip", Coding::Gzip),
        ("br", Coding::Brotli),
        ("zstd", Coding::Zstd),
    ] {
        client.send(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\n\r\n"
        ));
        assert_eq!(client.head().field("Content-Encoding"), Some(accept));
        let mut sent = Vec::new();
        // Read while the server waits.
        while contents_so_far(coding, &sent) != b"data: 1\n\n" {
            let size = usize::from_str_radix(&client.line(), 16).unwrap();
            sent.extend(client.exactly(size));
            client.line();
        }
        pause.wait();
        loop {
            let size = usize::from_str_radix(&client.line(), 16).unwrap();
            sent.extend(client.exactly(size));
            client.line();
            if size == 0 {
                break;
            }
        }
        assert_eq!(contents_so_far(coding, &sent), b"data: 1\n\ndata: 2\n\n");
    }
}

fn contents_so_far(coding: Coding, sent: &[u8]) -> Vec<u8> {
    let (mut contents, mut piece) = (Vec::new(), [0; 512]);
    let mut reader = reader(coding, sent);
    while let Ok(count @ 1..) = reader.read(&mut piece) {
        contents.extend_from_slice(&piece[..count]);
    }
    contents
}

#[test]
fn a_body_that_breaks_off_is_no_whole_one() {
    let origin = Origin::with(|connection| {
        connection.request();
        let html = "Content-Type: text/html\r\nContent-Length: 9000";
        connection.say(&format!(
            "HTTP/1.1 200 OK\r\n{html}\r\n\r\n{}",
            "x".repeat(5000)
        ));
    });
    let bind = free_address();
    let proxy = Proxy::serving(&compressing(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(client.head().field("Transfer-Encoding"), Some("chunked"));
    assert!(!client.rest().ends_with(b"0\r\n\r\n"));
    assert_eq!(proxy.log_lines(1)[0]["status"], 200);
}

#[test]
fn files_are_compressed_unless_a_part_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("page.html"), page()).unwrap();
    fs::write(directory.path().join("image.png"), page()).unwrap();
    let bind = free_address();
    let mut config = compressing(bind, &[free_address()]);
    let Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!()
    };
    routes[0].files = vec![directory.path().into()];
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    let plain = client.get("/page.html");
    assert_eq!(plain.field("Vary"), Some("Accept-Encoding"));
    let strong = plain.field("ETag").unwrap();
    for coding in Coding::ALL {
        let response = ask(&mut client, "/page.html", coding.token());
        assert!(contents(coding, &response) == page(), "{coding:?}");
        assert_eq!(response.field("ETag").unwrap(), format!("W/{strong}"));
        assert_eq!(response.field("Accept-Ranges"), None);
    }
    let with = format!("gzip\r\nIf-None-Match: W/{strong}");
    assert_eq!(ask(&mut client, "/page.html", &with).status, 304);
    let part = ask(&mut client, "/page.html", "gzip\r\nRange: bytes=0-9");
    assert_eq!((part.status, part.text()), (206, "<p>0</p>\n<"));
    assert_eq!(part.field("ETag"), Some(strong));
    let image = ask(&mut client, "/image.png", "gzip");
    assert_eq!(
        (image.field("Vary"), image.field("Content-Encoding")),
        (None, None)
    );
}
