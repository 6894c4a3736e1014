//! Requests that two parsers could read differently.

use super::*;

/// Whatever two readers might take for different messages ends the connection, and of what was to be smuggled no server
/// sees a byte.
#[test]
fn no_form_of_smuggling_reaches_a_server() {
    const INNER: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let (origin, seen) = silent();
    let bind = free_address();
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let fields = [
        // Two lengths.
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 5, 0",
        "Content-Length: 0\r\nTransfer-encoding: identity",
        // One that some do not see.
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\r\n\tTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\r\r\nTransfer-Encoding: chunked",
        "X: y\0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: \0chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding:\n chunked",
        "Transfer\u{131}-Encoding: chunked",
        "Content-Length : 5",
        // One that some read otherwise.
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5;",
        "Content-Length: 5.0",
        "Content-Length: ",
        "Content-Length: 18446744073709551621",
        // Two hosts.
        "Host: b",
        "host: a",
    ];
    let heads = fields
        .iter()
        .map(|field| format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
    let lines = [
        "POST / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a/../b\r\n\r\n",
        "POST / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\nHost: a\n\n",
        "POST / HTTP/1.1\r\nHost: a\n\r\n",
        "POST  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /\tx HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\rHost: a\r\n\r\n",
        " POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / http/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.10\r\nHost: a\r\n\r\n",
        "POST / HTTP/0.9\r\nHost: a\r\n\r\n",
        "POST /\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "POST * HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST a HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "PO\0ST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let chunks = [
        "0x0\r\n\r\n",
        " 0\r\n\r\n",
        "+0\r\n\r\n",
        "-0\r\n\r\n",
        "0 \r\n\r\n",
        "0\n\n",
        "0\r\r\n\r\n",
        "\r\n0\r\n\r\n",
        ";x\r\n\r\n",
        "0;\0\r\n\r\n",
        "0;x\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nno trailer\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "10000000000000000\r\n",
        "00000000000000000\r\n\r\n",
    ];
    let bodies = chunks.iter().map(|body| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    });
    let all: Vec<_> = heads.chain(lines.map(String::from)).chain(bodies).collect();
    for outer in &all {
        println!("{outer:?}");
        let (status, mut client) = asked(bind, &format!("{outer}{INNER}"));
        assert!(matches!(status, 400 | 501 | 505), "{status}: {outer:?}");
        assert!(client.is_closed(), "{outer:?}");
    }
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert!(!seen.contains("smuggled"), "{seen}");
    for (outer, (status, reason)) in all.iter().zip(reasons(&proxy, all.len())) {
        assert!(
            !reason.is_empty(),
            "{status} without a reason for {outer:?}"
        );
    }
}

/// A server that ignores framing cannot be given a second request by a body.
#[test]
fn what_a_body_says_is_no_request() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = inner.len();
    client.send(&format!(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}\
         POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n\
         GET /3 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"
    ));
    for n in 1..=3 {
        assert!(client.response().text().contains(&format!("/{n} ")));
    }
    let paths: Vec<_> = origin
        .requests()
        .iter()
        .map(|r| r.path().to_owned())
        .collect();
    assert_eq!(paths, ["/1", "/2", "/3"]);
}
