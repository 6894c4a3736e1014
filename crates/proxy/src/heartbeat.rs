//! The heartbeat that each worker sends to the VIP keeper. It runs on the worker's own event loop, so that a worker
//! that hangs falls silent.
//!
//! Its timer is the kernel's, and its socket is not polled: an idle worker wakes once for a heartbeat, where the event loop's own timers
//! and a socket that becomes writable again would wake it four times.

use gaiola_os::ticks::Ticks;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Interval of heartbeats, and of attempts to reach a keeper that is absent.
const INTERVAL: Duration = Duration::from_millis(75);
const RECONNECT: Duration = Duration::from_millis(100);

/// The worker that sends heartbeats.
pub(super) struct Heartbeat<'a> {
    /// The keeper's socket.
    pub(super) keeper: &'a Path,
    /// The worker's number, from 0.
    pub(super) index: usize,
    /// How many workers there are.
    pub(super) count: usize,
    /// Set while the keeper has its heartbeats.
    pub(super) beating: &'a AtomicBool,
}

impl Heartbeat<'_> {
    /// Sends heartbeats. Never returns; dropping it closes the connection, which the keeper notices at once.
    pub(super) async fn beat(self) {
        loop {
            if let Ok((mut stream, ticks)) = self.connect() {
                while beat_once(&mut stream).is_ok() {
                    self.beating.store(true, Ordering::Release);
                    if ticks.next().await.is_err() {
                        break;
                    }
                }
                self.beating.store(false, Ordering::Release);
                tracing::warn!("lost the VIP keeper; reconnecting");
                // Another one may be there already.
                continue;
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    fn connect(&self) -> io::Result<(UnixStream, Ticks)> {
        // Not for a moment does the worker wait for a keeper that hangs.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(self.keeper)?)?;
        let mut stream = UnixStream::from(socket);
        let ticks = Ticks::every(INTERVAL)?;
        let line = format!("worker {} of {}\n", self.index, self.count);
        // A new connection has room for a line.
        stream.write_all(line.as_bytes())?;
        Ok((stream, ticks))
    }
}

/// A keeper that does not read for a while is no error: what it has yet to read is heartbeat enough.
fn beat_once(stream: &mut UnixStream) -> io::Result<()> {
    match stream.write(b".") {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}
