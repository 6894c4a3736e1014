//! An archive on its way: the event loop has it piece by piece, and a thread reads or writes it.

use bytes::{Buf as _, Bytes};
use std::error::Error;
use std::io::{self, Read, Write};
use tokio::sync::mpsc::{Receiver, Sender};

/// Pieces of a body that may wait to be read.
pub(crate) const PIECES: usize = 4;

/// A body as a thread reads it. A body that broke off is an error, not an end.
pub(crate) struct Pieces {
    pieces: Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Pieces {
    pub(crate) fn new(pieces: Receiver<io::Result<Bytes>>) -> Self {
        Self {
            pieces,
            piece: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// A body as a thread writes it. Once nobody takes it any more, writing is a [`BrokenPipe`](io::ErrorKind::BrokenPipe).
pub(crate) struct Outlet(pub(crate) Sender<Bytes>);

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs what blocks on a thread of its own.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// An error with its causes in one text.
pub(crate) fn described(error: impl Error) -> io::Error {
    io::Error::other(gaiola_os::chain(&error))
}
