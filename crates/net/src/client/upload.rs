//! The body of a request, written piece by piece by a thread.

use super::Bytes;
use hyper::body::{Body, Frame};
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Bytes in one piece.
const PIECE: usize = 64 << 10;
/// Pieces that may wait to be sent; then the writer waits.
const PIECES: usize = 4;

/// Where a body is written. Once the other side takes no more, writing is a [`BrokenPipe`](io::ErrorKind::BrokenPipe).
#[derive(Debug)]
pub struct Writer {
    pieces: Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

/// The body that a connection sends.
pub(super) struct Written {
    pieces: Receiver<io::Result<Bytes>>,
    ended: bool,
}

pub(super) fn body() -> (Written, Writer) {
    let (sender, receiver) = channel(PIECES);
    let written = Written {
        pieces: receiver,
        ended: false,
    };
    let writer = Writer {
        pieces: sender,
        piece: Vec::new(),
    };
    (written, writer)
}

impl Writer {
    /// Whether the other side takes no more.
    pub(super) fn is_closed(&self) -> bool {
        self.pieces.is_closed()
    }

    /// Ends the body. One that is not whole ends the connection, so that the other side does not take it for whole.
    pub(super) fn end(mut self, is_whole: bool) {
        if !is_whole {
            let aborted = io::Error::other("the body was not written to its end");
            let _ = self.pieces.blocking_send(Err(aborted));
        } else if self.flush().is_ok() {
            let _ = self.pieces.blocking_send(Ok(Bytes::new()));
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.piece.len();
        let taken = bytes.len().min(room);
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.pieces
            .blocking_send(Ok(piece.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Body for Written {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(context));
        // An empty piece is the end. A writer that is gone without one has died.
        let piece = piece.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()));
        self.ended = !matches!(&piece, Ok(piece) if !piece.is_empty());
        match piece {
            Ok(_) if self.ended => Poll::Ready(None),
            piece => Poll::Ready(Some(piece.map(Frame::data))),
        }
    }
}
