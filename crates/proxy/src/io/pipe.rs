//! Moves bytes from one connection to another within the kernel.

use super::{Fault, Tcp};
use crate::free_list::FreeList;
use rustix::pipe::{PipeFlags, SpliceFlags, splice};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;

/// Bodies from this size on are moved by the kernel alone.
pub(crate) const SPLICE_FROM: u64 = 64 * 1024;

/// Desired capacity of a pipe.
const PIPE_LEN: usize = 1024 * 1024;

/// Pipes that a worker keeps on its free list.
const SPARE_PIPES: usize = 16;

thread_local! {
    static PIPES: RefCell<FreeList<Ends>> = const { RefCell::new(FreeList::new(SPARE_PIPES)) };
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe between two connections, through which bytes pass without a copy in our memory.
pub(crate) struct Pipe {
    ends: Option<Ends>,
    held: u64,
}

impl Pipe {
    /// Takes an empty pipe, from the worker's free list if possible.
    ///
    /// # Errors
    /// The system's error: no file descriptor is left.
    pub(crate) fn take() -> io::Result<Self> {
        let ends = match PIPES.with_borrow_mut(FreeList::take) {
            Some(ends) => ends,
            None => {
                let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
                let (read, write) = rustix::pipe::pipe_with(flags)?;
                // A smaller one works too, only slower.
                let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_LEN);
                Ends { read, write }
            }
        };
        Ok(Self {
            ends: Some(ends),
            held: 0,
        })
    }

    /// Whether nothing is in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves at most `most` bytes, and at least one, from a connection into the empty pipe; returns how many.
    pub(crate) async fn fill(&mut self, from: &Tcp, most: u64) -> Result<u64, Fault> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let write = &self.ends().write;
        let from = from.stream();
        let splice = || Ok(splice(from, None, write, None, most, flags())?);
        let moved = from.async_io(Interest::READABLE, splice).await? as u64;
        self.held += moved;
        if moved == 0 {
            Err(Fault::Closed)
        } else {
            Ok(moved)
        }
    }

    /// As [`Self::fill`], as much as fits without waiting: 0 when nothing is available, or nothing more will come.
    pub(crate) fn fill_now(&mut self, from: &Tcp) -> io::Result<u64> {
        let write = &self.ends().write;
        let from = from.stream();
        let splice = || Ok(splice(from, None, write, None, PIPE_LEN, flags())?);
        let moved = match from.try_io(Interest::READABLE, splice) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            moved => moved? as u64,
        };
        self.held += moved;
        Ok(moved)
    }

    /// Moves bytes from the non-empty pipe to a connection, and returns how many.
    pub(crate) async fn drain(&mut self, to: &Tcp) -> Result<u64, Fault> {
        let held = usize::try_from(self.held).unwrap_or(usize::MAX);
        let read = &self.ends().read;
        poll_fn(|cx| to.poll_sent(cx)).await?;
        let socket = to.stream();
        let splice = || Ok(splice(read, None, socket, None, held, flags())?);
        let moved = socket.async_io(Interest::WRITABLE, splice).await;
        let moved = moved.map_err(|error| to.broke(error))? as u64;
        self.held -= moved;
        if moved == 0 {
            Err(Fault::Closed)
        } else {
            Ok(moved)
        }
    }

    const fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("held until dropped")
    }
}

const fn flags() -> SpliceFlags {
    SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK)
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if self.held > 0 {
            // Another body's bytes must not come out of it.
            return;
        }
        if let Some(ends) = self.ends.take() {
            // At the end of a thread the free list may be gone already.
            let _ = PIPES.try_with(|pipes| pipes.borrow_mut().give(ends));
        }
    }
}
