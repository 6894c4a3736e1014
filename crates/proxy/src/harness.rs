//! A worker without sockets, for tests with a paused clock and for benches: its clients and its servers are connections
//! within memory.

use super::auth::Verifier;
use super::client::{Client, Open, Origin};
use super::counters::Counters;
use super::io::memory::{self, Listener, Memory};
use super::io::{self, Buffer, Fault, Stream};
use super::log::Signal;
use super::orders::{BackendOrders, FrontendShare, Health, InFlight, Member, Orders};
use super::reports::MemberReport;
use super::worker::{Worker, WorkerSetup};
use super::{rules, session};
use gaiola_core::balance::WHOLE;
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{Address, Backend, Bind, Frontend, Mode, Route, Server};
use gaiola_model::proxy_file::LogFormat;
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
#[cfg(test)]
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Where the one frontend listens, and who connects to it.
const BIND: ([u8; 4], u16) = ([192, 0, 2, 1], 80);
const CLIENT: ([u8; 4], u16) = ([198, 51, 100, 7], 41_002);

/// A worker that serves one frontend, `site`, with one backend, `app`.
pub(super) struct Proxy {
    pub(super) worker: Rc<Worker>,
    setup: WorkerSetup,
    share: Arc<FrontendShare>,
    bind: Rc<Address>,
    lines: Receiver<Signal>,
    /// What the worker reports on servers.
    pub(super) reports: mpsc::Receiver<MemberReport>,
}

/// The address of a server of the backend, counted from 1.
pub(super) fn address(server: u8) -> Address {
    ([10, 0, 0, server], 80).into()
}

/// A configuration with this many servers.
pub(super) fn config(servers: u8) -> ProxyConfig {
    let mode = Mode::Http {
        routes: vec![Route::to("app")],
        trusted: Vec::new(),
    };
    let server = |number| Server::new(format!("app{number}"), address(number));
    ProxyConfig {
        server: "lb1".into(),
        frontends: vec![Frontend::new("site", vec![Bind::new(BIND)], mode)],
        backends: vec![Backend::new("app", (1..=servers).map(server).collect())],
        ..ProxyConfig::default()
    }
}

impl Proxy {
    /// A worker with this configuration, all of whose servers are up.
    pub(super) fn new(config: ProxyConfig) -> Self {
        let (sender, lines) = sync_channel(1024);
        let (reporter, reports) = mpsc::channel(1024);
        let setup = WorkerSetup {
            index: 0,
            count: 1,
            orders: watch::channel(Arc::default()).1,
            applied: watch::channel(0).0,
            queries: mpsc::channel(1).1,
            counters: Arc::<Counters>::default(),
            log: Some(sender),
            log_format: LogFormat::Httplog,
            reports: reporter,
            keeper: None,
            verifier: Arc::new(Verifier::new([7; 32])),
        };
        let share = Arc::new(FrontendShare::new("site"));
        let worker = Rc::new(Worker::new(&setup));
        let orders = Orders {
            guides: rules::guides(&config).expect("a good configuration"),
            frontends: vec![Arc::clone(&share)],
            backends: config.backends.iter().map(backend_orders).collect(),
            config: Some(Arc::new(config)),
            ..Orders::default()
        };
        worker.apply(&Arc::new(orders), &setup);
        Self {
            worker,
            setup,
            share,
            bind: Rc::new(BIND.into()),
            lines,
            reports,
        }
    }

    /// Applies changed orders.
    pub(super) fn change(&self, change: impl FnOnce(&mut Orders)) {
        let mut orders = Orders::clone(&self.worker.orders.borrow());
        change(&mut orders);
        self.worker.apply(&Arc::new(orders), &self.setup);
    }

    /// A client that has just connected.
    pub(super) fn client(&self) -> Peer {
        let (near, far) = memory::pair();
        let address = SocketAddr::from(CLIENT);
        let local = IpAddr::from(BIND.0);
        let count = self.worker.local(local);
        count.add(1);
        assert!(self.share.try_open(u32::MAX), "there is room");
        let client = Box::new(Client {
            stream: Stream::Memory(near),
            early: None,
            origin: Origin {
                address: address.ip(),
                port: address.port(),
                ends: None,
                local,
                bind: Rc::clone(&self.bind),
                server_name: None,
                activity: self.worker.sessions.enter(address, &self.bind),
                open: Open {
                    share: Arc::clone(&self.share),
                    local: count,
                },
            },
        });
        let worker = Rc::clone(&self.worker);
        tokio::task::spawn_local(async move { session::serve(&worker, client).await });
        far.into()
    }

    /// Forgets the lines logged so far.
    #[cfg(feature = "bench")]
    pub(super) fn discard_lines(&self) {
        self.lines.try_iter().for_each(drop);
    }

    /// The next line of the access log.
    #[cfg(test)]
    pub(super) async fn line(&self) -> String {
        loop {
            self.worker.log.flush();
            match self.lines.try_recv() {
                Ok(Signal::Lines(batch)) => return batch.into_text(),
                Ok(Signal::Moved) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

fn backend_orders(backend: &Backend) -> BackendOrders {
    let member = |server| {
        let health = Health {
            up: true,
            takes: true,
            share: WHOLE,
            ..Health::default()
        };
        (Arc::new(Member::new(&backend.name, server, 1)), health)
    };
    BackendOrders {
        queue: Arc::default(),
        in_flight: Arc::new(InFlight::new(1)),
        members: backend.servers.iter().map(member).collect(),
        panic: false,
        tls: vec![None; backend.servers.len()].into(),
    }
}

/// The other end of a connection of the proxy: a client, or a server's end.
pub(super) struct Peer {
    stream: Stream,
    /// Read, and not yet asked for.
    early: Buffer,
}

impl From<Memory> for Peer {
    fn from(memory: Memory) -> Self {
        Self {
            stream: Stream::Memory(memory),
            early: Buffer::take_long(),
        }
    }
}

impl Peer {
    /// The next connection made to a server.
    pub(super) async fn accept(listener: &mut Listener) -> Self {
        listener.recv().await.expect("a connection").into()
    }

    /// Sends these bytes.
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let pieces = [bytes.as_ref()].into_iter();
        let written = io::write_pieces(&mut self.stream, pieces, &Cell::new(0)).await;
        written.expect("the other side takes it");
    }

    /// Sends until the other side accepts no more.
    #[cfg(test)]
    pub(super) async fn send_until_refused(&mut self) {
        let piece = [b'x'; 1000];
        let count = Cell::new(0);
        while io::write_pieces(&mut self.stream, [&piece[..]].into_iter(), &count)
            .await
            .is_ok()
        {}
    }

    /// Receives a head, up to its blank line.
    pub(super) async fn head(&mut self) -> String {
        loop {
            let filled = self.early.filled();
            if let Some(at) = filled.windows(4).position(|four| four == b"\r\n\r\n") {
                return self.take(at + 4);
            }
            self.read().await.expect("a head");
        }
    }

    /// Receives this many bytes.
    pub(super) async fn bytes(&mut self, count: usize) -> String {
        while self.early.filled().len() < count {
            self.read().await.expect("more bytes");
        }
        self.take(count)
    }

    /// Receives until the end, which is proper or not.
    pub(super) async fn rest(&mut self) -> (String, bool) {
        loop {
            match self.read().await {
                Ok(_) => {}
                Err(fault) => {
                    let rest = self.early.filled().len();
                    return (self.take(rest), matches!(fault, Fault::Closed));
                }
            }
        }
    }

    fn take(&mut self, count: usize) -> String {
        let text = String::from_utf8_lossy(&self.early.filled()[..count]).into_owned();
        self.early.consume(count);
        self.early.compact();
        text
    }

    async fn read(&mut self) -> Result<usize, Fault> {
        io::read(&mut self.stream, &mut self.early).await
    }

    /// Closes with a reset.
    pub(super) fn reset(self) {
        self.stream.reset_when_dropped();
    }
}
