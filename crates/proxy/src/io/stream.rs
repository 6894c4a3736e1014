//! A connection over any transport. For plain TCP the overhead is one comparison.

#[cfg(any(test, feature = "bench"))]
use super::memory::Memory;
use super::tcp::Tcp;
use super::tls::{self, TlsStream};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixStream, unix};

/// A connection.
pub(crate) enum Stream {
    /// Plain TCP.
    Tcp(Tcp),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream>),
    /// Within this process.
    #[cfg(any(test, feature = "bench"))]
    Memory(Memory),
}

/// The reading half of a [`Stream`].
pub(crate) enum Reader<'a> {
    Tcp(&'a Tcp),
    Unix(unix::ReadHalf<'a>),
    Tls(tls::Reader<'a>),
    #[cfg(any(test, feature = "bench"))]
    Memory(&'a Memory),
}

/// The writing half of a [`Stream`]. Flushed data leaves in the same turn of the event loop, unless the peer then turns
/// out to accept no more.
pub(crate) enum Writer<'a> {
    Tcp(&'a Tcp),
    Unix(unix::WriteHalf<'a>),
    Tls(tls::Writer<'a>),
    #[cfg(any(test, feature = "bench"))]
    Memory(&'a Memory),
}

impl Stream {
    /// Both halves, which may be used at the same time.
    pub(crate) fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        match self {
            Self::Tcp(tcp) => (Reader::Tcp(tcp), Writer::Tcp(tcp)),
            Self::Unix(stream) => {
                let (reader, writer) = stream.split();
                (Reader::Unix(reader), Writer::Unix(writer))
            }
            Self::Tls(stream) => {
                let (reader, writer) = stream.split();
                (Reader::Tls(reader), Writer::Tls(writer))
            }
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(stream) => (Reader::Memory(stream), Writer::Memory(stream)),
        }
    }

    /// The connection, if bytes pass it unchanged, so that the kernel can move them alone.
    pub(crate) const fn plain(&self) -> Option<&Tcp> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Unix(_) | Self::Tls(_) => None,
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(_) => None,
        }
    }

    /// The TCP connection underneath, if any.
    pub(crate) const fn tcp(&self) -> Option<&Tcp> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(stream) => Some(stream.tcp()),
            Self::Unix(_) => None,
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(_) => None,
        }
    }

    /// The TLS session, if any.
    pub(crate) const fn tls(&self) -> Option<&TlsStream> {
        match self {
            Self::Tls(stream) => Some(stream),
            Self::Tcp(_) | Self::Unix(_) => None,
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(_) => None,
        }
    }

    /// The peer's and the local address; `None` without TCP.
    pub(crate) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let tcp = self.tcp()?.stream();
        Some((tcp.peer_addr().ok()?, tcp.local_addr().ok()?))
    }

    /// Sends a TLS close_notify, as far as possible without waiting.
    pub(crate) fn end(&mut self) {
        if let Self::Tls(stream) = self {
            stream.end();
        }
    }

    /// Makes a plain TCP connection end with a reset, as far as possible.
    pub(crate) fn reset_when_dropped(&self) {
        match self {
            Self::Tcp(tcp) => tcp.reset_when_dropped(),
            Self::Unix(_) | Self::Tls(_) => {}
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(stream) => stream.reset_when_dropped(),
        }
    }

    /// Ready when all that was written has left.
    pub(super) fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.tcp() {
            Some(tcp) => tcp.poll_sent(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Ready when there may be something to read.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.stream().poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.poll_read_ready(cx),
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(stream) => stream.poll_read_ready(cx),
        }
    }
}

impl Reader<'_> {
    /// The connection, as [`Stream::plain`].
    pub(crate) fn plain(&self) -> Option<&Tcp> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Unix(_) | Self::Tls(_) => None,
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(_) => None,
        }
    }

    /// Ready when there may be something to read.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.stream().poll_read_ready(cx),
            Self::Unix(half) => half.as_ref().poll_read_ready(cx),
            Self::Tls(half) => half.poll_read_ready(cx),
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(stream) => stream.poll_read_ready(cx),
        }
    }
}

impl Writer<'_> {
    /// The connection, as [`Stream::plain`].
    pub(crate) fn plain(&self) -> Option<&Tcp> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Unix(_) | Self::Tls(_) => None,
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(_) => None,
        }
    }
}

impl AsyncRead for Reader<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => tcp.poll_read(cx, into),
            Self::Unix(half) => Pin::new(half).poll_read(cx, into),
            Self::Tls(half) => half.poll_read(cx, into),
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(stream) => stream.poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Writer<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => tcp.poll_write(cx, &[IoSlice::new(bytes)]),
            Self::Unix(half) => Pin::new(half).poll_write(cx, bytes),
            Self::Tls(half) => half.poll_write(cx, &[IoSlice::new(bytes)]),
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(stream) => stream.poll_write(cx, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => tcp.poll_write(cx, pieces),
            Self::Unix(half) => Pin::new(half).poll_write_vectored(cx, pieces),
            Self::Tls(half) => half.poll_write(cx, pieces),
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(stream) => stream.poll_write(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => tcp.poll_late(cx),
            Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(half) => half.poll_flush(cx),
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => tcp.poll_shutdown(cx),
            Self::Unix(half) => Pin::new(half).poll_shutdown(cx),
            Self::Tls(half) => half.poll_shutdown(cx),
            #[cfg(any(test, feature = "bench"))]
            Self::Memory(stream) => {
                stream.shutdown();
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().split().0).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().split().1).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().split().1).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().split().1).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().split().1).poll_shutdown(cx)
    }
}
