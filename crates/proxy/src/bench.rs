//! One exchange after another within memory, for `benches/exchange.rs`.

use super::harness::{Peer, Proxy, address, config};
use super::io::memory;
use std::cell::RefCell;
use tokio::runtime::LocalRuntime;

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// A client with a kept connection, a proxy, and a server with a pooled connection.
pub struct Bench {
    runtime: LocalRuntime,
    /// The client, the server, and the proxy between them.
    parties: RefCell<(Peer, Peer, Proxy)>,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// A worker, after the first exchange.
    ///
    /// # Panics
    /// If the system has no resources left for an event loop.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(Default::default())
            .expect("an event loop");
        let parties = runtime.block_on(async {
            let proxy = Proxy::new(config(1));
            let mut listener = memory::listen(&address(1));
            let mut client = proxy.client();
            client.send(REQUEST).await;
            let mut server = Peer::accept(&mut listener).await;
            respond(&mut client, &mut server).await;
            (client, server, proxy)
        });
        Self {
            runtime,
            parties: RefCell::new(parties),
        }
    }

    /// One exchange.
    pub fn exchange(&self) {
        let (client, server, proxy) = &mut *self.parties.borrow_mut();
        self.runtime.block_on(async {
            client.send(REQUEST).await;
            respond(client, server).await;
            proxy.discard_lines();
        });
    }
}

async fn respond(client: &mut Peer, server: &mut Peer) {
    server.head().await;
    server.send(RESPONSE).await;
    client.head().await;
    client.bytes(2).await;
}
