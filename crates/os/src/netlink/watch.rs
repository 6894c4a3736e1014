//! Being told when a link changes.

use super::{NetlinkError, Result};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use std::os::fd::{AsFd, BorrowedFd};

/// The kernel's multicast group for changes of links.
const RTNLGRP_LINK: u32 = 1;

/// Becomes readable when any link of its network namespace changes. It says that something changed, not what: whoever
/// wants to know asks [`Netlink::link`](super::Netlink::link).
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
                // More happened than fits the queue (ENOBUFS), which empties it.
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
