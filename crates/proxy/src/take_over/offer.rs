//! What the old process offers, as the new one receives it.

use super::{ANSWER_LIMIT, MESSAGES, TakeOverError};
use gaiola_model::proxy::{ControlReply, ControlRequest, Count, HandOver, KnownServer, SocketUse};
use gaiola_os::{chain, descriptors};
use gaiola_wire::document::{decode_message, encode_message};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv, sockopt};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Length of a count: key, window, number.
pub(super) const COUNT_LEN: usize = 20;

/// Time for an old process that cannot be taken over from to end, and then to be gone after SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(12);
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// Time for a process whose socket has closed to be gone, if it is ending.
const GONE_LIMIT: Duration = Duration::from_secs(1);

/// From whom a process takes over.
#[derive(Clone, Debug, Default)]
pub enum TakeOver {
    /// From nobody: another process on its control socket is a mistake.
    #[default]
    Nobody,
    /// From the process that answers on its control socket, if there is one. One that cannot hand over is stopped first.
    Control,
    /// From the process at the other end of this socket.
    Parent(Arc<OwnedFd>),
}

/// Everything that the old process hands over.
pub(crate) struct Offer {
    /// What it says.
    pub(crate) hand_over: HandOver,
    /// The counts of each limit.
    pub(crate) counts: Vec<Vec<Count>>,
    sockets: Vec<(SocketUse, Vec<OwnedFd>)>,
    stream: UnixStream,
    pub(crate) process: OtherProcess,
}

/// What a new process has of the old one's and does not use yet.
#[derive(Default)]
pub(crate) struct Inherited {
    sockets: Vec<(SocketUse, Vec<OwnedFd>)>,
    /// Each limit's identity and counts.
    pub(crate) limits: Vec<(u64, Vec<Count>)>,
    pub(crate) health: Vec<KnownServer>,
}

/// The process at the other end of a socket.
pub(crate) struct OtherProcess(Option<OwnedFd>);

/// Asks the old process for everything, if there is one to take over from.
///
/// # Errors
/// Why there is one and it hands nothing over.
pub(crate) fn meet(
    from: &TakeOver,
    control: Option<&Path>,
) -> Result<Option<Offer>, TakeOverError> {
    match (from, control) {
        (TakeOver::Nobody, _) | (TakeOver::Control, None) => Ok(None),
        (TakeOver::Parent(socket), _) => {
            let stream = UnixStream::from(socket.try_clone()?);
            Offer::ask(stream).map(Some)
        }
        (TakeOver::Control, Some(path)) => Ok(meet_at(path)),
    }
}

fn meet_at(path: &Path) -> Option<Offer> {
    let stream = UnixStream::connect(path).ok()?;
    let process = OtherProcess::of(&stream);
    match Offer::ask(stream) {
        Ok(offer) => Some(offer),
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(
                error,
                "cannot take over from the process that serves: stopping it first"
            );
            process.end();
            None
        }
    }
}

impl Offer {
    fn ask(mut stream: UnixStream) -> Result<Self, TakeOverError> {
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let process = OtherProcess::of(&stream);
        let mut request = encode_message(&ControlRequest::TakeOver, MESSAGES)?;
        request.push(b'\n');
        stream.write_all(&request)?;
        let reply = read_line(&mut stream)?;
        let hand_over = match decode_message(&reply)?.0 {
            ControlReply::HandOver(hand_over) => *hand_over,
            ControlReply::Refused(why) => return Err(TakeOverError::Refused(why)),
            other => return Err(TakeOverError::Unexpected(format!("{other:?}"))),
        };
        let mut counts = Vec::new();
        for limit in &hand_over.limits {
            counts.push(read_counts(&mut stream, limit.counts)?);
        }
        let mut sockets = Vec::new();
        for socket in &hand_over.sockets {
            let mut received = Vec::new();
            while received.len() < socket.count {
                received.extend(descriptors::receive(&stream)?);
            }
            sockets.push((socket.what.clone(), received));
        }
        Ok(Self {
            hand_over,
            counts,
            sockets,
            stream,
            process,
        })
    }

    /// A socket that was handed over and is used for the same; it is taken out.
    pub(crate) fn take(&mut self, what: &SocketUse) -> Option<OwnedFd> {
        let index = self.sockets.iter().position(|(other, _)| other == what)?;
        self.sockets.swap_remove(index).1.pop()
    }

    /// Splits it: what is used later, the connection, and the process at its other end.
    pub(crate) fn split(self) -> (Inherited, HandOver, UnixStream, OtherProcess) {
        let identities = self.hand_over.limits.iter().map(|limit| limit.identity);
        let inherited = Inherited {
            sockets: self.sockets,
            limits: identities.zip(self.counts).collect(),
            health: self.hand_over.health.clone(),
        };
        (inherited, self.hand_over, self.stream, self.process)
    }
}

impl Inherited {
    /// Takes the socket that receives the peers' counts.
    pub(crate) fn take_peers(&mut self) -> Option<(SocketAddr, OwnedFd)> {
        let mut all = self.sockets.iter_mut();
        all.find_map(|(what, sockets)| match what {
            SocketUse::Peers(address) => Some((*address, sockets.pop()?)),
            _ => None,
        })
    }

    /// Copies of the sockets of this use; they stay open here until this is dropped.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn sockets(&self, what: &SocketUse) -> io::Result<Vec<OwnedFd>> {
        let of_use = self.sockets.iter().filter(|(other, _)| other == what);
        of_use
            .flat_map(|(_, sockets)| sockets)
            .map(OwnedFd::try_clone)
            .collect()
    }
}

impl OtherProcess {
    fn of(stream: &UnixStream) -> Self {
        let found = sockopt::socket_peercred(stream);
        let opened = found.and_then(|peer| pidfd_open(peer.pid, PidfdFlags::empty()));
        // Itself, in tests.
        Self(opened.ok())
    }

    /// Whether it is gone, or ends within a moment. One that cannot be watched is.
    pub(crate) fn is_gone(&self) -> bool {
        self.ends_within(GONE_LIMIT)
    }

    fn ends_within(&self, limit: Duration) -> bool {
        let Some(process) = &self.0 else { return true };
        let limit = Timespec::try_from(limit).expect("some seconds fit");
        let mut waits = [PollFd::new(process, PollFlags::IN)];
        loop {
            match poll(&mut waits, Some(&limit)) {
                Err(rustix::io::Errno::INTR) => {}
                polled => return polled.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Ends it, and waits until it is gone.
    fn end(&self) {
        for (signal, limit) in [(Signal::TERM, END_LIMIT), (Signal::KILL, KILL_LIMIT)] {
            let Some(process) = &self.0 else { return };
            let _ = pidfd_send_signal(process.as_fd(), signal);
            if self.ends_within(limit) {
                return;
            }
        }
        tracing::error!("the process that serves cannot be ended");
    }
}

/// Reads up to the end of a line, and not a byte of what follows.
fn read_line(stream: &mut UnixStream) -> Result<Vec<u8>, TakeOverError> {
    let mut line = Vec::new();
    let mut ahead = vec![0; 64 * 1024];
    loop {
        let (_, seen) = recv(&*stream, &mut ahead[..], RecvFlags::PEEK).map_err(io::Error::from)?;
        let end = ahead[..seen].iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(seen, |end| end + 1);
        if taken == 0 {
            return Err(TakeOverError::Closed);
        }
        stream.read_exact(&mut ahead[..taken])?;
        line.extend(&ahead[..taken]);
        if end.is_some() {
            return Ok(line);
        }
    }
}

fn read_counts(stream: &mut UnixStream, count: usize) -> io::Result<Vec<Count>> {
    /// Counts read at a time.
    const MOST: usize = 4096;
    let mut counts = Vec::new();
    while counts.len() < count {
        let some = (count - counts.len()).min(MOST);
        let mut bytes = vec![0; some * COUNT_LEN];
        stream.read_exact(&mut bytes)?;
        counts.extend(bytes.as_chunks().0.iter().map(read_count));
    }
    Ok(counts)
}

fn read_count(bytes: &[u8; COUNT_LEN]) -> Count {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, more @ ..] = *bytes;
    Count {
        key: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        window: u64::from_le_bytes([i, j, k, l, m, n, o, p]),
        more: u32::from_le_bytes(more),
    }
}

/// The bytes that [`read_counts`] reads.
pub(crate) fn write_counts(counts: &[Count], out: &mut Vec<u8>) {
    for Count { key, window, more } in counts {
        out.extend(key.to_le_bytes());
        out.extend(window.to_le_bytes());
        out.extend(more.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_without_what_follows_and_counts_as_they_were_written() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let long = vec![b'x'; 100_000];
        let counts: Vec<_> = (0..5000u32)
            .map(|number| Count {
                key: u64::MAX - u64::from(number),
                window: u64::from(number),
                more: number,
            })
            .collect();
        let mut bytes = [&long[..], b"\n"].concat();
        write_counts(&counts, &mut bytes);
        let writer = std::thread::spawn(move || here.write_all(&bytes).unwrap());
        let line = read_line(&mut there).unwrap();
        assert_eq!(line.len(), long.len() + 1);
        assert_eq!(read_counts(&mut there, counts.len()).unwrap(), counts);
        writer.join().unwrap();
        let closed = read_line(&mut there).unwrap_err();
        assert!(matches!(closed, TakeOverError::Closed), "{closed}");
    }
}
