//! The heartbeat that each worker sends to the VIP keeper. It runs on the worker's own event loop, so that a worker
//! that hangs falls silent.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::UnixStream;

/// Interval of heartbeats, and of attempts to reach a keeper that is absent.
const INTERVAL: Duration = Duration::from_millis(50);
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
            if let Ok(stream) = self.connect().await {
                while beat_once(&stream).is_ok() {
                    self.beating.store(true, Ordering::Release);
                    tokio::time::sleep(INTERVAL).await;
                }
                self.beating.store(false, Ordering::Release);
                tracing::warn!("lost the VIP keeper; reconnecting");
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(self.keeper).await?;
        let line = format!("worker {} of {}\n", self.index, self.count);
        stream.writable().await?;
        // A new connection has room for a line.
        if stream.try_write(line.as_bytes())? == line.len() {
            Ok(stream)
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }
}

/// A keeper that does not read for a while is no error: what it has yet to read is heartbeat enough.
fn beat_once(stream: &UnixStream) -> io::Result<()> {
    match stream.try_write(b".") {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}
