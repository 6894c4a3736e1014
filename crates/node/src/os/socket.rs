//! Sockets, where the runtime's own types do not go far enough.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Registers a listening socket with the event loop, so that its readiness is known without accepting.
///
/// # Errors
/// What the system said.
pub fn watch(listener: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays the same file descriptor and open until it is dropped; nothing changes it through a shared
    // or exclusive reference.
    let watched = unsafe { AsyncFd::register(listener) };
    watched.map_err(io::Error::from)
}
