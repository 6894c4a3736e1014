//! A client's connection.

use super::counters::{Apart, Count};
use super::io::{Buffer, Stream};
use super::log::ClientAt;
use super::orders::FrontendShare;
use super::sessions::Entered;
use gaiola_model::proxy::{self, Address};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// A client's connection. It is counted as open until this is dropped.
pub(super) struct Client {
    /// The connection.
    pub(super) stream: Stream,
    /// Whose it is: the peer, or whom its PROXY protocol header names. On a Unix socket 127.0.0.1.
    pub(super) address: IpAddr,
    /// The port of `address`; 0 on a Unix socket.
    pub(super) port: u16,
    /// Where it came from and where it went to, as its PROXY protocol header has it.
    pub(super) ends: Option<(SocketAddr, SocketAddr)>,
    /// The address of ours that it came to; 0.0.0.0 on a Unix socket.
    pub(super) local: IpAddr,
    /// The listening address that it was accepted from, which finds its frontend in each configuration.
    pub(super) bind: Rc<Address>,
    /// The server that its TLS ClientHello asks for, where that decides where it goes.
    pub(super) server_name: Option<String>,
    /// What was read of it beyond a PROXY protocol header.
    pub(super) early: Option<Buffer>,
    /// What is done on it, for who asks.
    pub(super) session: Entered,
    pub(super) open: Open,
}

impl Client {
    /// Where it came from and where it went to, as a server is to be told; `None` on a Unix socket.
    pub(super) fn carried(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.ends.or_else(|| self.stream.ends())
    }

    /// The frontend that it counts for.
    pub(super) fn share(&self) -> &FrontendShare {
        &self.open.share
    }

    /// Whose it is, for the access log.
    pub(super) fn logged(&self, frontend: &proxy::Frontend) -> ClientAt {
        match (&*self.bind, self.ends) {
            (Address::Unix(_), None) => {
                let mut binds = frontend.binds.iter();
                let place = binds.position(|bind| bind.address == *self.bind);
                ClientAt::Unix(place.map_or(0, |place| place + 1))
            }
            _ => ClientAt::Tcp((self.address, self.port).into()),
        }
    }
}

/// Counts a connection.
pub(super) struct Open {
    pub(super) share: Arc<FrontendShare>,
    pub(super) local: Arc<Apart<Count>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.share.close();
        self.local.sub(1);
    }
}
