//! What tests of connections share: a runtime like a worker's, and connections with small socket buffers.

use super::tcp::Tcp;
use super::{send_alone, send_together};
use std::net::{TcpListener, TcpStream as Peer};
use std::sync::Arc;
use tokio::net::TcpStream;

/// Runs on a runtime like a worker's.
pub(crate) fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .unwrap()
        .block_on(async {
            send_together(&Arc::default());
            work.await;
            send_alone();
        });
}

/// A connection with small socket buffers, and its other end.
pub(crate) fn pair() -> (Tcp, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = Peer::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&near, 8 * 1024).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&peer, 8 * 1024).unwrap();
    (TcpStream::from_std(near).unwrap().into(), peer)
}
