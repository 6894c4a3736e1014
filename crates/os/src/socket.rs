//! Sockets, beyond what the runtime's own types offer.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// Registers a listening socket with the event loop, so that its readiness is known without an accept.
///
/// # Errors
/// The system's error.
pub fn watch(listener: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays the same file descriptor and open until it is dropped; nothing changes it through a shared
    // or exclusive reference.
    let watched = unsafe { AsyncFd::register(listener) };
    watched.map_err(io::Error::from)
}

/// Time since the peer's kernel last acknowledged anything on this TCP connection, in ticks of the kernel's clock (up to
/// 10 ms).
///
/// # Errors
/// The system's error.
pub fn since_last_ack(connection: BorrowedFd<'_>) -> io::Result<Duration> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).expect("a small struct");
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes at most `len` bytes to `info`, which has
    // that size.
    let result = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a struct of integers, all of it zero or written by the kernel.
    let info = unsafe { info.assume_init() };
    Ok(Duration::from_millis(info.tcpi_last_ack_recv.into()))
}

/// Poll interval for the peer's acknowledgements.
const ACK_POLL: Duration = Duration::from_millis(10);

/// Waits until the peer's kernel has acknowledged everything written to this TCP connection, or nothing more of it for
/// `silence`: call it before a reset, which would discard data in flight.
pub async fn acknowledged(connection: BorrowedFd<'_>, silence: Duration) {
    let (mut least, mut since) = (usize::MAX, Instant::now());
    loop {
        match unacknowledged(connection) {
            Ok(0) | Err(_) => return,
            Ok(left) if left < least => (least, since) = (left, Instant::now()),
            Ok(_) if since.elapsed() >= silence => return,
            Ok(_) => {}
        }
        tokio::time::sleep(ACK_POLL).await;
    }
}

/// Bytes written to a TCP connection that its peer has not acknowledged.
///
/// # Errors
/// The system's error.
fn unacknowledged(connection: BorrowedFd<'_>) -> io::Result<usize> {
    let mut left: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes one int.
    let result = unsafe { libc::ioctl(connection.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(left).unwrap_or(0))
}
