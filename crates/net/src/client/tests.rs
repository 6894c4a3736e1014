//! The client against small servers that do one thing wrong at a time.

use super::*;
use crate::pki::{self, Authority};
use std::net::{IpAddr, Ipv4Addr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

const LONG: Duration = Duration::from_secs(20);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Reads one request without a body; `None` at the end of the connection.
async fn read_head(io: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

async fn listen() -> (TcpListener, Target) {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap());
    (listener, target)
}

#[tokio::test]
async fn one_connection_serves_one_request_after_another() {
    let (listener, target) = listen().await;
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        for body in ["one", "two"] {
            let head = read_head(&mut socket).await.unwrap();
            assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{body}");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let client = Client::new(None);
    for body in ["one", "two"] {
        let answer = client.request(&target, &Request::get("/x"), LONG).await;
        assert_eq!(answer.unwrap().text(), body);
    }
    server.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_the_server_closed_costs_no_request() {
    let (listener, target) = listen().await;
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_head(&mut socket).await.unwrap();
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            socket.write_all(answer).await.unwrap();
        }
    });
    let client = Client::new(None);
    for _ in 0..20 {
        let answer = client.request(&target, &Request::get("/"), LONG).await;
        assert_eq!(answer.unwrap().status, 204);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn silence_ends_in_an_error_that_says_what_was_tried() {
    let (_listener, target) = listen().await;
    let short = Duration::from_millis(50);
    let client = Client::new(None);
    let error = client
        .request(&target, &Request::get("/slow"), short)
        .await
        .unwrap_err();
    assert!(error.was_sent(), "{error}");
    assert_eq!(
        error.to_string(),
        format!("{target} did not answer GET /slow within 50ms")
    );
}

#[tokio::test]
async fn a_refused_connection_is_known_not_to_have_carried_anything() {
    let (listener, target) = listen().await;
    drop(listener);
    let client = Client::new(None);
    let error = client
        .request(&target, &Request::get("/"), LONG)
        .await
        .unwrap_err();
    assert!(!error.was_sent(), "{error}");
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let (listener, target) = listen().await;
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_head(&mut socket).await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while socket.write_all(&[b'x'; 65536]).await.is_ok() {}
    });
    let error = Client::new(None)
        .request(&target, &Request::get("/"), LONG)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn lines_of_a_stream_come_one_by_one_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_head(&mut socket).await.unwrap();
        socket
            .write_all(b"HTTP/1.1 200 OK\r\n\r\none\ntw")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        socket.write_all(b"o\nthree").await.unwrap();
    });
    let mut stream = Client::new(None)
        .stream(&Target::Unix(path), &Request::get("/"), LONG)
        .await
        .unwrap();
    let mut lines = Vec::new();
    while let Some(line) = stream.next_line(LONG).await.unwrap() {
        lines.push(String::from_utf8(line).unwrap());
    }
    assert_eq!(lines, ["one", "two", "three"]);
}

fn shell(script: &str) -> Target {
    Target::Process {
        arguments: ["sh", "-c", script].map(Into::into).to_vec(),
        name: "the machine m1".into(),
    }
}

#[tokio::test]
async fn a_process_carries_requests_over_its_pipes() {
    let answer = "HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\n";
    let script = format!(
        "for body in one two; do while read -r l && [ \"$l\" != \"$(printf '\\r')\" ]; do :; done; printf '{answer}'$body; done"
    );
    let (target, client) = (shell(&script), Client::new(None));
    for body in ["one", "two"] {
        let answer = client.request(&target, &Request::get("/x"), LONG).await;
        assert_eq!(answer.unwrap().text(), body);
    }
}

#[tokio::test]
async fn a_process_that_ends_without_an_answer_says_why() {
    let target = shell("echo 'banner' >&2; echo 'no such site' >&2; exec >&-; sleep 0.05; exit 7");
    let error = Client::new(None)
        .request(&target, &Request::get("/x"), LONG)
        .await
        .unwrap_err();
    let ended = error.process_ended().unwrap();
    assert_eq!(
        (ended.code, ended.to_string().as_str()),
        (Some(7), "no such site")
    );
    let none = Target::Process {
        arguments: vec!["/nonexistent/program".into()],
        name: "the machine m1".into(),
    };
    let request = Request::get("/x");
    let error = Client::new(None).request(&none, &request, LONG).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "cannot connect to the machine m1"
    );
}

#[tokio::test]
async fn only_the_sites_own_authority_is_trusted_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::create_or_load(&dir.path().join("ca")).unwrap();
    let theirs = Authority::create_or_load(&dir.path().join("other")).unwrap();
    let [lb, web, alien] = ["lb1", "web1", "alien"].map(|name| dir.path().join(name));
    ours.issue("lb1", &[], &lb).unwrap();
    ours.issue("web1", &[], &web).unwrap();
    theirs.issue("alien", &[], &alien).unwrap();

    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let target = Target::tls(listener.local_addr().unwrap());
    let acceptor = tokio_rustls::TlsAcceptor::from(pki::server_config(&web).unwrap());
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut socket) = acceptor.accept(socket).await else {
                    return;
                };
                read_head(&mut socket).await.unwrap();
                let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                socket.write_all(answer).await.unwrap();
                socket.flush().await.unwrap();
            });
        }
    });
    let ask = async |dir: &std::path::Path| {
        let client = Client::new(Some(pki::client_config(dir).unwrap()));
        client.request(&target, &Request::get("/"), LONG).await
    };
    assert_eq!(ask(&lb).await.unwrap().status, 204);
    ask(&alien).await.unwrap_err();

    // A client that trusts the server, but presents a certificate that the server does not trust.
    std::fs::copy(lb.join(pki::CA), alien.join(pki::CA)).unwrap();
    ask(&alien).await.unwrap_err();
}

/// Reads the chunks of a body until its end; `None`: it broke off.
async fn read_chunks(io: &mut (impl AsyncReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(io.read_u8().await.ok()?);
        }
        let size = std::str::from_utf8(&line).unwrap().trim();
        let size = usize::from_str_radix(size, 16).unwrap();
        let mut chunk = vec![0; size + 2];
        io.read_exact(&mut chunk).await.ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_body_is_sent_as_it_is_written() {
    let (listener, target) = listen().await;
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_head(&mut socket).await.unwrap();
        let body = read_chunks(&mut socket).await;
        socket.write_all(OK).await.unwrap();
        body.unwrap()
    });
    let written: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let sent = written.clone();
    let write = move |out: &mut Writer| std::io::Write::write_all(out, &sent);
    let client = Client::new(None);
    let request = Request::put("/x");
    let answer = client.upload(&target, &request, LONG, write);
    assert_eq!(answer.await.unwrap().unwrap().status, 200);
    assert_eq!(server.await.unwrap(), written);
}

#[tokio::test]
async fn a_body_that_is_not_written_to_its_end_is_not_taken_for_whole() {
    let (listener, target) = listen().await;
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_head(&mut socket).await?;
        read_chunks(&mut socket).await
    });
    let write = |out: &mut Writer| {
        std::io::Write::write_all(out, &[7; 1_000_000]).unwrap();
        Err("a file changed")
    };
    let client = Client::new(None);
    let request = Request::put("/x");
    let answer = client.upload(&target, &request, LONG, write);
    assert_eq!(answer.await.err(), Some("a file changed"));
    assert_eq!(server.await.unwrap(), None);
}

#[tokio::test]
async fn an_answer_before_the_bodys_end_and_a_closed_connection_end_the_writing() {
    let (listener, target) = listen().await;
    tokio::spawn(async move {
        for answer in [OK, b""] {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_head(&mut socket).await.unwrap();
            socket.write_all(answer).await.unwrap();
            socket.shutdown().await.unwrap();
            // A socket that is closed with bytes unread is reset, and the answer may be lost with it.
            if !answer.is_empty() {
                let mut rest = tokio::io::sink();
                let _ = tokio::io::copy(&mut socket, &mut rest).await;
            }
        }
    });
    let endless = |out: &mut Writer| loop {
        std::io::Write::write_all(out, &[7; 100_000])?;
    };
    let client = Client::new(None);
    let answered: Result<_, std::io::Error> = client
        .upload(&target, &Request::put("/x"), LONG, endless)
        .await;
    assert_eq!(answered.unwrap().unwrap().status, 200);
    let closed: Result<_, std::io::Error> = client
        .upload(&target, &Request::put("/x"), LONG, endless)
        .await;
    assert!(matches!(closed, Ok(Err(ClientError::Broken { .. }))));
}
