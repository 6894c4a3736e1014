//! A client's connection, and what is known of the client.

use super::counters::{Apart, Count};
use super::io::{Buffer, Stream};
use super::log::ClientAt;
use super::orders::FrontendShare;
use super::sessions::Listed;
use gaiola_model::proxy::{self, Address};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// A client's connection, counted as open until dropped.
pub(super) struct Client {
    /// The connection.
    pub(super) stream: Stream,
    /// Bytes already read beyond any PROXY header.
    pub(super) early: Option<Buffer>,
    pub(super) origin: Origin,
}

/// Where a client's connection comes from, where it was accepted, and what it counts among.
pub(super) struct Origin {
    /// Client address: the socket's peer, or the source in its PROXY header. 127.0.0.1 on a Unix socket.
    pub(super) address: IpAddr,
    /// The port of `address`; 0 on a Unix socket.
    pub(super) port: u16,
    /// Source and destination from its PROXY header.
    pub(super) ends: Option<(SocketAddr, SocketAddr)>,
    /// Local address it connected to; 0.0.0.0 on a Unix socket.
    pub(super) local: IpAddr,
    /// Listening address that accepted it, by which its frontend is found in each configuration.
    pub(super) bind: Rc<Address>,
    /// Server name from its TLS ClientHello, where routing depends on it.
    pub(super) server_name: Option<String>,
    /// Its entry for session listings.
    pub(super) activity: Listed,
    pub(super) open: Open,
}

impl Origin {
    /// Source and destination to announce to a server; `None` on a Unix socket. `stream` is the client's.
    pub(super) fn carried(&self, stream: &Stream) -> Option<(SocketAddr, SocketAddr)> {
        self.ends.or_else(|| stream.ends())
    }

    /// The frontend whose connections it counts among.
    pub(super) fn share(&self) -> &FrontendShare {
        &self.open.share
    }

    /// Client address for the access log.
    pub(super) fn logged(&self, frontend: &proxy::Frontend) -> ClientAt {
        match (&*self.bind, self.ends) {
            (Address::Unix(_), None) => {
                let mut binds = frontend.binds.iter();
                let index = binds.position(|bind| bind.address == *self.bind);
                ClientAt::Unix(index.map_or(0, |index| index + 1))
            }
            _ => ClientAt::Tcp((self.address, self.port).into()),
        }
    }
}

/// Counts an open connection.
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
