//! A connection that is a process: its standard input and output carry HTTP.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// The most bytes that are kept of its standard error.
const LARGEST: u64 = 16 * 1024;

/// The process ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEnded {
    /// Its exit code; `None`: it is not known, or a signal ended it.
    pub code: Option<i32>,
    /// What it wrote on standard error.
    pub said: String,
}

impl std::error::Error for ProcessEnded {}

impl fmt::Display for ProcessEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.said.lines().rev().map(str::trim);
        match (lines.find(|line| !line.is_empty()), self.code) {
            (Some(last), _) => f.write_str(last),
            (None, Some(code)) => write!(f, "the process ended with {code}"),
            (None, None) => f.write_str("the process ended"),
        }
    }
}

/// The pipes of the process; it is killed with the connection.
pub(super) struct Process {
    /// `None`: closed.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// Whether there was an answer, or the reason why there is none was returned.
    is_explained: bool,
    end: JoinHandle<ProcessEnded>,
}

impl Process {
    pub(super) fn start(arguments: &[OsString]) -> io::Result<Self> {
        let (program, arguments) = arguments
            .split_first()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            stdin: child.stdin.take(),
            stdout,
            is_explained: false,
            end: tokio::spawn(end_of(child)),
        })
    }

    /// Why there is no answer, once the process has ended.
    fn poll_reason(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let ended = std::task::ready!(Pin::new(&mut self.end).poll(context));
        self.is_explained = true;
        Poll::Ready(ended.map_or_else(io::Error::other, io::Error::other))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end.abort();
    }
}

/// Reads standard error until the process ends.
async fn end_of(mut child: Child) -> ProcessEnded {
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut first = stderr.take(LARGEST);
        let _ = first.read_to_end(&mut said).await;
        // A process that writes more than is kept must not wait for a reader.
        let _ = tokio::io::copy(&mut first.into_inner(), &mut tokio::io::sink()).await;
    }
    ProcessEnded {
        code: child.wait().await.ok().and_then(|status| status.code()),
        said: String::from_utf8_lossy(&said).into_owned(),
    }
}

impl AsyncRead for Process {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stdout).poll_read(context, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                self.is_explained = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) if !self.is_explained => self.poll_reason(context).map(Err),
            read => read,
        }
    }
}

impl AsyncWrite for Process {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Some(stdin) => match Pin::new(stdin).poll_write(context, bytes) {
                // The reason is on standard error.
                Poll::Ready(Err(_)) if !self.is_explained => self.poll_reason(context).map(Err),
                written => written,
            },
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            None => Poll::Ready(Ok(())),
            Some(stdin) => Pin::new(stdin).poll_flush(context),
        }
    }

    /// Closes its standard input; what it still writes can be read.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}
