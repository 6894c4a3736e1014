//! Notification of changes of links.

use super::{NetlinkError, Result};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use std::os::fd::{AsFd, BorrowedFd};

/// The kernel's multicast group for link changes.
const RTNLGRP_LINK: u32 = 1;

/// Becomes readable when any link of its network namespace changes. It reports that something changed, not what: call
/// [`Netlink::link`](super::Netlink::link) for that.
pub struct LinkWatch {
    socket: Socket,
}

impl LinkWatch {
    /// Watches the links of the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.add_membership(RTNLGRP_LINK)?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| NetlinkError {
            tried: "watch the links".into(),
            source,
        })?;
        Ok(Self { socket })
    }

    /// Whether something changed since the last call.
    pub fn changed(&self) -> bool {
        let mut changed = false;
        let mut buffer = [0; 4096];
        loop {
            match self.socket.recv(&mut buffer.as_mut_slice(), 0) {
                Ok(_) => changed = true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return changed,
                // The queue overflowed (ENOBUFS), which empties it.
                Err(_) => return true,
            }
        }
    }
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
