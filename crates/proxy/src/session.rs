//! A client's connection in HTTP: its bytes and their framing. What it carries are exchanges, which know of it only
//! what a [`Downstream`](crate::exchange::Downstream) offers.

mod h1;

use super::client::Client;
use super::worker::Worker;
use h1::Connection;
use std::rc::Rc;

/// A client's connection in the version of HTTP that it speaks.
///
/// HTTP/2 will be the second variant, chosen by ALPN: a connection with many exchanges at a time, each of which gets a
/// stream of that connection as its downstream.
enum Session {
    /// HTTP/1.x: one exchange after another.
    H1(Connection),
}

/// Serves a connection until it ends.
pub(super) async fn serve(worker: &Rc<Worker>, client: Box<Client>) {
    let mut session = Session::H1(Connection::new(worker, client));
    match &mut session {
        Session::H1(connection) => connection.serve().await,
    }
}

#[cfg(test)]
mod tests;
