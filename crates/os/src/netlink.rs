//! Links, addresses and routes of the network namespace that the calling thread is in.
//!
//! A [`Netlink`] is a synchronous handle: every call waits for the kernel's answer, at most [`ANSWER_TIMEOUT`], and
//! an error says what was tried. A handle stays in the namespace in which it was opened.

mod addresses;
mod links;
mod queues;
mod watch;

pub use addresses::{Address, Lifetime};
pub use links::Link;
pub use watch::LinkWatch;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io;
use std::time::Duration;

/// Timeout of the kernel's answer. It answers within microseconds unless its locks are held.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// An operation failed; the source says why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {tried}")]
pub struct NetlinkError {
    tried: String,
    source: io::Error,
}

impl NetlinkError {
    /// The kernel's reason.
    pub fn reason(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The kernel's error number, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

type Result<T> = std::result::Result<T, NetlinkError>;

/// A handle on one network namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a handle on the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
            set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_TIMEOUT))?;
            Ok(socket)
        };
        let socket = open().map_err(|source| NetlinkError {
            tried: "open a netlink socket".into(),
            source,
        })?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Opens a handle on the network namespace of a process.
    pub fn open_in(pid: u32) -> Result<Self> {
        let inside = move || {
            super::namespace::join_network(pid, false).map_err(|source| NetlinkError {
                tried: format!("enter the network namespace of process {pid}"),
                source,
            })?;
            Self::open()
        };
        // The spawned thread enters it and ends; the calling thread stays where it is.
        let thread = std::thread::spawn(inside);
        thread.join().expect("nothing in it panics")
    }

    /// Requests a change and waits until it is done.
    fn change(
        &mut self,
        tried: impl FnOnce() -> String,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Result<()> {
        self.ask(NLM_F_ACK | flags, message, |_| {})
            .map_err(|source| NetlinkError {
                tried: tried(),
                source,
            })
    }

    /// Lists all objects of a kind; `take` gets each.
    fn list(
        &mut self,
        tried: impl FnOnce() -> String,
        message: RouteNetlinkMessage,
        take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<()> {
        self.ask(NLM_F_DUMP, message, take)
            .map_err(|source| NetlinkError {
                tried: tried(),
                source,
            })
    }

    fn ask(
        &mut self,
        flags: u16,
        message: RouteNetlinkMessage,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(flags, message)?;
        loop {
            let datagram = self.receive()?;
            for answer in messages(&datagram) {
                let (header, payload) = answer?.into_parts();
                // A late answer to an earlier request that has timed out.
                if header.sequence_number != self.sequence {
                    continue;
                }
                match payload {
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(()),
                            Some(_) => Err(error.to_io()),
                        };
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::InnerMessage(inner) => take(inner),
                    _ => {}
                }
            }
        }
    }

    fn send(&self, flags: u16, message: RouteNetlinkMessage) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => return Ok(datagram),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("the kernel did not answer within {ANSWER_TIMEOUT:?}"),
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The messages of one datagram; each is aligned to four bytes.
fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> + '_ {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
        let length = message
            .as_ref()
            .map_or(usize::MAX, |message| message.header.length as usize);
        let length = length.checked_next_multiple_of(4).unwrap_or(usize::MAX);
        rest = rest.get(length..).unwrap_or_default();
        Some(message.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string())))
    })
}
