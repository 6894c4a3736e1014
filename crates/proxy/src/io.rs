//! Sockets and timers as the worker uses them. Everything else in `worker` reaches them only through here, so that
//! another event loop can replace the runtime.

mod buffer;
#[cfg(any(test, feature = "bench"))]
#[cfg_attr(not(test), expect(dead_code, reason = "tests use all of it"))]
pub(super) mod memory;
mod outbox;
mod pipe;
mod stream;
mod tcp;
#[cfg(test)]
pub(super) mod testing;
mod timer;
mod tls;

pub(super) use buffer::{BUFFER_LEN, Buffer, Sink, Window, trim};
pub(super) use outbox::{begin as send_together, end as send_alone};
pub(super) use pipe::{Pipe, SPLICE_FROM};
pub(super) use stream::{Reader, Stream, Writer};
pub(super) use tcp::Tcp;
pub(super) use timer::Timer;
pub(super) use tls::{Side, TlsStream};

use gaiola_model::proxy::{Address, ProxyVersion};
use gaiola_wire::proxy_protocol;
use rustix::net::RecvFlags;
use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpSocket, UnixStream};

/// Why a read, a write or a connect failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The timeout expired.
    #[error("timed out")]
    Deadline,
    /// The other side has closed.
    #[error("connection closed")]
    Closed,
    /// An error of the system.
    #[error(transparent)]
    Os(#[from] io::Error),
}

/// Reads what is available, at least one byte, into the free part of `sink`.
pub(super) fn read(
    reader: &mut (impl AsyncRead + Unpin),
    sink: &mut impl Sink,
) -> impl Future<Output = Result<usize, Fault>> + Unpin {
    poll_fn(move |cx| {
        debug_assert!(!sink.space().is_empty(), "nothing can be read");
        let mut into = ReadBuf::new(sink.space());
        ready!(Pin::new(&mut *reader).poll_read(cx, &mut into))?;
        let count = into.filled().len();
        if count == 0 {
            return Poll::Ready(Err(Fault::Closed));
        }
        sink.advance(count);
        Poll::Ready(Ok(count))
    })
}

/// Writes all pieces in order, adding the number of bytes to `written` as it proceeds.
pub(super) fn write_pieces<'a>(
    writer: &mut (impl AsyncWrite + Unpin),
    pieces: impl Iterator<Item = &'a [u8]> + Clone + Unpin,
    written: &Cell<u64>,
) -> impl Future<Output = Result<(), Fault>> + Unpin {
    let (mut done, mut is_done) = (0, false);
    poll_fn(move |cx| {
        while !is_done {
            let (count, left) = ready!(poll_write(cx, writer, pieces.clone(), done))?;
            if count == 0 && left != Some(0) {
                return Poll::Ready(Err(Fault::Closed));
            }
            done += count;
            written.set(written.get() + count as u64);
            is_done = left == Some(count);
        }
        Pin::new(&mut *writer).poll_flush(cx).map_err(Fault::Os)
    })
}

/// Most pieces per write call.
const PIECES: usize = 16;

/// Writes what follows the first `done` bytes. Returns how much was written, and out of how much if that was all.
fn poll_write<'a>(
    cx: &mut Context<'_>,
    writer: &mut (impl AsyncWrite + Unpin),
    pieces: impl Iterator<Item = &'a [u8]>,
    mut done: usize,
) -> Poll<io::Result<(usize, Option<usize>)>> {
    let mut slices = [IoSlice::new(&[]); PIECES];
    let (mut count, mut len) = (0, 0);
    for piece in pieces {
        let skipped = done.min(piece.len());
        done -= skipped;
        let left = &piece[skipped..];
        if !left.is_empty() {
            slices[count] = IoSlice::new(left);
            (count, len) = (count + 1, len + left.len());
        }
        if count == PIECES {
            break;
        }
    }
    let all = (count < PIECES).then_some(len);
    let writer = Pin::new(writer);
    let written = match &slices[..count] {
        [] => Poll::Ready(Ok(0)),
        [slice] => writer.poll_write(cx, slice),
        slices => writer.poll_write_vectored(cx, slices),
    };
    written.map_ok(|written| (written, all))
}

/// Shuts down the sending direction.
pub(super) async fn shutdown(writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut *writer).poll_shutdown(cx)).await
}

/// Connects to `address`. Data unacknowledged for `user` ends the connection.
pub(super) async fn connect(address: &Address, user: Duration) -> io::Result<Stream> {
    #[cfg(any(test, feature = "bench"))]
    if let Some(connected) = memory::connect(address).await {
        return connected.map(Stream::Memory);
    }
    let address = match address {
        Address::Tcp(address) => *address,
        Address::Unix(path) => return UnixStream::connect(path).await.map(Stream::Unix),
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    let user_ms = u32::try_from(user.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&socket, user_ms)?;
    let stream = socket.connect(address).await?;
    Ok(Stream::Tcp(stream.into()))
}

/// The header at the start of a connection to a server: source and destination of the connection it carries, `None` for
/// a connection of the proxy itself.
pub(super) fn proxy_header(
    version: ProxyVersion,
    carried: Option<(SocketAddr, SocketAddr)>,
) -> Vec<u8> {
    let mut header = Vec::new();
    match (version, carried) {
        (ProxyVersion::V1, Some((from, to))) => proxy_protocol::encode_v1(from, to, &mut header),
        (ProxyVersion::V2, Some((from, to))) => proxy_protocol::encode_v2(from, to, &mut header),
        (ProxyVersion::V1, None) => proxy_protocol::encode_v1_local(&mut header),
        (ProxyVersion::V2, None) => proxy_protocol::encode_v2_local(&mut header),
    }
    header
}

/// Whether an idle connection can be used: neither data nor an end has arrived. With `known`, only what the event loop
/// has reported counts, which costs no system call; otherwise the system is asked.
pub(super) fn is_quiet(stream: &Stream, known: bool) -> bool {
    let mut byte = [0];
    match stream {
        Stream::Tls(stream) => stream.is_quiet(known),
        #[cfg(any(test, feature = "bench"))]
        Stream::Memory(stream) => stream.is_quiet(),
        Stream::Tcp(tcp) if known => is_blocked(tcp.try_read(&mut byte)),
        Stream::Unix(stream) if known => is_blocked(stream.try_read(&mut byte)),
        Stream::Tcp(tcp) => is_blocked(peek(tcp.stream())),
        Stream::Unix(stream) => is_blocked(peek(stream)),
    }
}

fn is_blocked(read: io::Result<usize>) -> bool {
    matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn peek(socket: impl AsFd) -> io::Result<usize> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let (count, _) = rustix::net::recv(socket, &mut [0u8][..], flags)?;
    Ok(count)
}

/// Closes so that the peer still receives what was written: shuts down sending, then keeps reading. Closing at once
/// would send a reset that destroys data in flight.
pub(super) async fn close_gently(stream: &mut Stream) {
    const ENDING: Duration = Duration::from_secs(1);
    // The end leaves together with other connections' writes.
    tokio::task::yield_now().await;
    sent(stream).await;
    let _ = tokio::time::timeout(ENDING, shutdown(stream)).await;
    read_on(stream, PATIENCE).await;
}

/// Waits until what was written has arrived, as far as the peer accepts it. Late data is part of the response, and has
/// its own time limit here.
pub(super) async fn sent(stream: &mut Stream) {
    const SENDING: Duration = Duration::from_secs(30);
    let arrives = async {
        let sent = poll_fn(|cx| stream.poll_sent(cx)).await;
        if let (Ok(()), Some(tcp)) = (sent, stream.tcp()) {
            tcp.acknowledged().await;
        }
    };
    let _ = tokio::time::timeout(SENDING, arrives).await;
}

/// How long to keep reading from a side that still sends, before it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Until it has been silent for this long,
    pub(super) silence: Duration,
    /// and never longer than this.
    pub(super) longest: Duration,
}

/// When nothing is known of the client: many send a whole body before they read the response.
pub(super) const PATIENCE: Patience = Patience {
    silence: Duration::from_secs(1),
    longest: Duration::from_secs(10),
};

/// Reads and discards what the other side still sends, until it ends, within `patience` and a quarter of a gigabyte.
pub(super) async fn read_on(stream: &mut Stream, patience: Patience) {
    const MOST: usize = 256 * 1024 * 1024;
    sent(stream).await;
    let _ = tokio::time::timeout(patience.longest, async {
        let mut buffer = Buffer::take_long();
        let mut forgotten = 0;
        while forgotten <= MOST {
            let read = tokio::time::timeout(patience.silence, read(stream, &mut buffer)).await;
            let Ok(Ok(count)) = read else { return };
            forgotten += count;
            buffer.clear();
        }
    })
    .await;
}

/// Sends part of a file, at most a megabyte, and returns how much.
///
/// # Errors
/// `Closed` if the file has become shorter.
pub(super) async fn send_file(
    stream: &mut Stream,
    file: impl AsFd,
    range: &std::ops::Range<u64>,
) -> Result<u64, Fault> {
    const MOST: u64 = 1024 * 1024;
    let Some(tcp) = stream.plain() else {
        return copy_file(stream, file, range).await;
    };
    poll_fn(|cx| tcp.poll_sent(cx)).await?;
    let stream = tcp.stream();
    let wanted = usize::try_from((range.end - range.start).min(MOST)).unwrap_or(0);
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut offset = range.start;
            Ok(rustix::fs::sendfile(
                stream,
                &file,
                Some(&mut offset),
                wanted,
            )?)
        })
        .await
        .map_err(|error| tcp.broke(error))?;
    if sent == 0 {
        return Err(Fault::Closed);
    }
    Ok(sent as u64)
}

/// As [`send_file`], at most one buffer, when the kernel cannot do it alone.
async fn copy_file(
    stream: &mut Stream,
    file: impl AsFd,
    range: &std::ops::Range<u64>,
) -> Result<u64, Fault> {
    let mut buffer = Buffer::take();
    read_file(file, range, &mut buffer)?;
    if buffer.is_empty() {
        return Err(Fault::Closed);
    }
    let count = Cell::new(0);
    write_pieces(stream, [buffer.filled()].into_iter(), &count).await?;
    Ok(count.get())
}

/// Reads part of a file, as much as fits.
pub(super) fn read_file(
    file: impl AsFd,
    range: &std::ops::Range<u64>,
    buffer: &mut Buffer,
) -> io::Result<usize> {
    let space = buffer.space();
    let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let wanted = wanted.min(space.len());
    let count = rustix::io::pread(file, &mut space[..wanted], range.start)?;
    buffer.advance(count);
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Accepts part of what it is given, sometimes nothing.
    struct Slow {
        taken: Vec<u8>,
        rng: fastrand::Rng,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let Self { taken, rng } = self.get_mut();
            if rng.bool() {
                return Poll::Pending;
            }
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            assert!(!all.is_empty(), "nothing is written with a call");
            let count = rng.usize(1..=all.len());
            taken.extend(&all[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.rng.bool() {
                Poll::Pending
            } else {
                Poll::Ready(Ok(()))
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn all_pieces_are_written_in_order_whatever_is_taken_at_once() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..2_000 {
            let mut pieces: Vec<Vec<u8>> = vec![Vec::new(); rng.usize(0..40)];
            for piece in &mut pieces {
                let longest = [1, 2, 60, 2000][rng.usize(0..4)];
                piece.resize_with(rng.usize(0..longest), || rng.u8(..));
            }
            let all = pieces.concat();
            let mut writer = Slow {
                taken: Vec::new(),
                rng: rng.fork(),
            };
            let count = Cell::new(0);
            let given = pieces.iter().map(|piece| &piece[..]);
            let mut writing = write_pieces(&mut writer, given, &count);
            let mut cx = Context::from_waker(Waker::noop());
            let done = loop {
                if let Poll::Ready(done) = Pin::new(&mut writing).poll(&mut cx) {
                    break done;
                }
            };
            drop(writing);
            assert!(done.is_ok());
            assert_eq!(count.get(), all.len() as u64);
            assert!(writer.taken == all, "what was taken is not what was given");
        }
    }
}
