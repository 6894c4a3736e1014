//! A steady load whose every failure counts.

use super::*;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;

/// Clients that ask without a pause, on connections that stay and on new ones.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub(super) fn start(address: SocketAddr, keep_alive: usize, anew: usize) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |keeps: bool| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    if let Err(error) = visit(address, keeps, &stop, &answered) {
                        failures.push(error.to_string());
                    }
                }
                failures
            })
        };
        let keep_alive = (0..keep_alive).map(|_| client(true));
        let clients = keep_alive.chain((0..anew).map(|_| client(false))).collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Waits until this many more requests were answered.
    pub(super) fn more(&self, count: u64) {
        let before = self.answered();
        eventually("requests are answered", || {
            self.answered() >= before + count
        });
    }

    /// Stops, and returns how each failure looked to its client.
    pub(super) fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let clients = self.clients.into_iter();
        clients.flat_map(|client| client.join().unwrap()).collect()
    }
}

/// One connection, until the server has said that it closes it. A connection that ends in any other way is a failure.
fn visit(
    address: SocketAddr,
    keeps: bool,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, LONG)?;
    stream.set_read_timeout(Some(LONG))?;
    stream.set_nodelay(true)?;
    let fields = if keeps { "" } else { "Connection: close\r\n" };
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    loop {
        stream.write_all(request.as_bytes())?;
        let text = response(&mut stream)?;
        if !text.starts_with("HTTP/1.1 200 ") {
            return Err(std::io::Error::other(text));
        }
        answered.fetch_add(1, Ordering::SeqCst);
        let closes = text.contains("\r\nConnection: close\r\n");
        if closes || stop.load(Ordering::SeqCst) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A whole response with a Content-Length.
fn response(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut fields = head.split("\r\n");
            let length = fields.find_map(|field| field.strip_prefix("Content-Length: "));
            if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
                return Ok(text);
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "no answer")),
            read => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
    }
}
