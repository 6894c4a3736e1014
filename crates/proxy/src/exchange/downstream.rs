//! The client's side of an exchange.

use super::private::Private;
use crate::client::Origin;
use crate::io::{self, Buffer, Fault, Stream, Timer};
use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

/// What an exchange has of its client: the stream that its request's body comes from and its response goes to, and
/// what is known of the client. It is not the client's connection: that reads heads, and decides what follows.
pub(crate) struct Downstream<'c> {
    pub(crate) stream: &'c mut Stream,
    /// Timer for what the client does.
    pub(crate) timer: &'c mut Timer,
    pub(crate) origin: &'c Origin,
    /// Idle connections to servers that are reserved for this client.
    pub(crate) private: &'c Private,
}

impl Downstream<'_> {
    /// Whether the client uses TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.stream.tls().is_some()
    }

    /// Source and destination to announce to a server; `None` on a Unix socket.
    pub(super) fn carried(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.origin.carried(self.stream)
    }

    /// Writes all pieces in order, for which the client has `limit`; adds the number of bytes to `written`.
    pub(super) async fn write<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [u8]> + Clone + Unpin,
        limit: Duration,
        written: &Cell<u64>,
    ) -> Result<(), Fault> {
        let writing = io::write_pieces(self.stream, pieces, written);
        self.timer.within(limit, writing).await
    }

    /// Runs `work` while the client stays; `None`: it has left. What it sends goes to `buffer`, while there is room.
    pub(super) async fn while_it_stays<T>(
        &mut self,
        buffer: &mut Buffer,
        mut work: Pin<Box<impl Future<Output = T>>>,
    ) -> Option<T> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            while !buffer.is_full() {
                if ready!(Pin::new(&mut io::read(self.stream, buffer)).poll(cx)).is_err() {
                    return Poll::Ready(None);
                }
            }
            Poll::Pending
        })
        .await
    }
}
