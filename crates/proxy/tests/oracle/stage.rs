//! The servers of a conversation: what they do with each connection, and what they saw.

use super::conversation::{Act, Server, answer};
use super::message::{Facts, Kind, Seen, in_short};
use super::peer::{LONG, Peer};
use super::play::PAUSE;
use super::proxies::Place;
use super::tls;
use rustls::Connection;
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The servers of a conversation.
pub(crate) struct Stage {
    pub(crate) addresses: Vec<SocketAddr>,
    listeners: Vec<Option<Socket>>,
    /// Connections that fill a queue.
    _filling: Vec<Socket>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    /// What was seen: by server, by connection.
    servers: Vec<Vec<Vec<String>>>,
    /// Requests, ends and scripts that are over so far.
    events: usize,
    /// Connections on which something has begun and has not ended.
    busy: usize,
}

impl Stage {
    /// The servers' addresses; nothing is accepted yet.
    pub(crate) fn new(servers: &[Server], place: Place) -> Self {
        let mut stage = Self {
            addresses: Vec::new(),
            listeners: Vec::new(),
            _filling: Vec::new(),
            log: Arc::default(),
        };
        for server in servers {
            let backlog = match server {
                Server::Script(_) => 128,
                Server::Deaf => 0,
                Server::Refusing => {
                    stage.addresses.push(place.nobody());
                    stage.listeners.push(None);
                    continue;
                }
            };
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            socket.bind(&SockAddr::from(any)).unwrap();
            socket.listen(backlog).unwrap();
            let address = socket.local_addr().unwrap();
            if backlog == 0 {
                stage._filling = (0..3).map(|_| begin_connect(&address)).collect();
            }
            stage.addresses.push(address.as_socket().unwrap());
            stage.listeners.push(Some(socket));
        }
        stage
    }

    /// Has the servers accept. The threads end with the test's process.
    pub(crate) fn open(&self, servers: &[Server]) {
        self.log
            .lock()
            .unwrap()
            .servers
            .resize_with(servers.len(), Vec::new);
        for (index, server) in servers.iter().enumerate() {
            let (Server::Script(script), Some(socket)) = (server, &self.listeners[index]) else {
                continue;
            };
            let listener = TcpListener::from(socket.try_clone().unwrap());
            let (script, log) = (script.clone(), Arc::clone(&self.log));
            std::thread::spawn(move || accept(&listener, index, &script, &log));
        }
    }

    /// Waits for this number of events, [`Step::Await`](super::conversation::Step::Await).
    pub(crate) fn wait_for(&self, events: usize) {
        let start = Instant::now();
        while self.log.lock().unwrap().events < events && start.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the servers saw, once nothing goes on there.
    pub(crate) fn seen(&self) -> Vec<String> {
        let start = Instant::now();
        while self.log.lock().unwrap().busy > 0 && start.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(2));
        }
        let log = self.log.lock().unwrap();
        let mut lines = Vec::new();
        for (server, connections) in (1..).zip(&log.servers) {
            for (connection, seen) in (1..).zip(connections) {
                lines.push(format!("server s{server}, connection {connection}"));
                lines.extend(seen.iter().cloned());
            }
        }
        lines
    }
}

/// Begins to connect, to one whose queue may be full.
fn begin_connect(address: &SockAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    drop(socket.connect(address));
    socket
}

fn accept(listener: &TcpListener, server: usize, script: &[Vec<Act>], log: &Arc<Mutex<Log>>) {
    for (number, stream) in listener.incoming().enumerate() {
        let Ok(stream) = stream else { continue };
        let acts = script[number.min(script.len() - 1)].clone();
        log.lock().unwrap().servers[server].push(Vec::new());
        let mut accepted = Accepted {
            name: format!("s{}", server + 1),
            proxy: Peer::new(stream),
            log: Arc::clone(log),
            place: (server, number),
        };
        std::thread::spawn(move || {
            for act in &acts {
                if accepted.act(act).is_none() {
                    break;
                }
            }
            let log = Arc::clone(&accepted.log);
            drop(accepted);
            log.lock().unwrap().events += 1;
        });
    }
}

/// A connection as a server has it.
struct Accepted {
    name: String,
    proxy: Peer,
    log: Arc<Mutex<Log>>,
    place: (usize, usize),
}

impl Accepted {
    /// Does it; `None` when the connection is over.
    fn act(&mut self, act: &Act) -> Option<()> {
        match act {
            Act::Tls(certificate) => self.handshake(tls::server(certificate, false)),
            Act::MutualTls(certificate) => self.handshake(tls::server(certificate, true)),
            Act::Take => self.take(Kind::Request).map(drop),
            Act::TakeHead => self.take(Kind::RequestHead).map(drop),
            Act::TakeBytes(count) => {
                let mut bytes = Vec::new();
                let read = self.proxy.exactly(*count, &mut bytes);
                self.note(vec![in_short(&bytes)]);
                read.ok()
            }
            Act::Say(bytes) => self.proxy.say(bytes),
            Act::Pause => {
                std::thread::sleep(PAUSE);
                Some(())
            }
            Act::Notify => self.proxy.notify(),
            Act::Shut => self.proxy.stream.shutdown(Shutdown::Write).ok(),
            Act::Reset => {
                self.proxy.will_reset();
                None
            }
            Act::TakeToEnd => {
                let mut bytes = Vec::new();
                let end = self.proxy.rest(&mut bytes);
                self.note(vec![format!("{}, then {}", in_short(&bytes), end.words())]);
                Some(())
            }
            Act::Hold => {
                self.proxy.rest(&mut Vec::new());
                None
            }
            Act::Serve => self.serve(),
        }
    }

    fn handshake(&mut self, tls: Connection) -> Option<()> {
        self.proxy
            .stream
            .peek(&mut [0])
            .ok()
            .filter(|count| *count > 0)?;
        self.log.lock().unwrap().busy += 1;
        let done = self.proxy.handshake(tls).map(tls::described);
        self.log.lock().unwrap().busy -= 1;
        let stands = done.is_ok();
        self.note(vec![
            done.unwrap_or_else(|end| format!("no TLS, {}", end.words())),
        ]);
        stands.then_some(())
    }

    /// Takes a request, and returns its first line and whether it was HEAD.
    fn take(&mut self, kind: Kind) -> Option<(String, Facts)> {
        self.proxy.begins().ok()?;
        self.log.lock().unwrap().busy += 1;
        let seen = Seen::read(&mut self.proxy, kind);
        self.log.lock().unwrap().busy -= 1;
        let seen = seen.ok()?;
        let facts = seen.whole.ok();
        self.note(seen.lines);
        Some((seen.first, facts?))
    }

    fn serve(&mut self) -> Option<()> {
        loop {
            let (first, facts) = self.take(Kind::Request)?;
            let asked = first.rsplit_once(' ').map_or(&*first, |(asked, _)| asked);
            let body = format!("{}: {asked}", self.name);
            let mut text = answer("200 OK", "", &body)
                .replace("X-Origin: s1", &format!("X-Origin: {}", self.name));
            if facts.is_head {
                text.truncate(text.len() - body.len());
            }
            self.proxy.say(text.as_bytes())?;
        }
    }

    fn note(&self, mut lines: Vec<String>) {
        let mut log = self.log.lock().unwrap();
        let (server, connection) = self.place;
        log.servers[server][connection].append(&mut lines);
        log.events += 1;
    }
}
