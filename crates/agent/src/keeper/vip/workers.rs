//! The socket on which the proxy's workers send heartbeats.
//!
//! Heartbeats wake nobody: they are read all together, every [`SWEEP`]. A connection that ends is noticed at once.

use super::beats::{Beats, ConnectionId, Introduction, MOST_WORKERS, ProxyId, Verdict};
use super::schedule::Schedules;
use gaiola_model::Time;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::sockopt;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// The most connections: the workers of an old and a new proxy. A further one is closed.
const MOST_CONNECTIONS: usize = 2 * MOST_WORKERS as usize;

/// Longest introduction line, in bytes.
const LONGEST_LINE: usize = 64;

/// A connection that has not introduced itself within this time is closed.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest that a heartbeat waits to be read: less than the silence after which a worker is observed.
const SWEEP: Duration = Duration::from_millis(50);

/// Accepts workers and reads their heartbeats.
pub(super) struct Workers {
    listener: UnixListener,
    /// Readable when a connection waits at the listener, introduces itself, or has ended.
    ready: OwnedFd,
    swept: Time,
    connections: BTreeMap<ConnectionId, Connection>,
    beats: Beats,
    schedules: Schedules,
    next: u64,
}

/// Token of the listener in the ready events; connections count from 1.
const LISTENER: u64 = 0;

struct Connection {
    stream: UnixStream,
    /// The process at its other end.
    proxy: ProxyId,
    /// The introduction line so far, and its deadline; `None` once it is complete.
    line: Option<(Vec<u8>, Time)>,
    /// What it sends wakes nobody any more.
    is_quiet: bool,
}

impl Workers {
    /// Listens on `keeper.sock`; replaces a socket left by an earlier keeper.
    pub(super) fn listen(directory: &Path) -> io::Result<Self> {
        let path = directory.join("keeper.sock");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let ready = epoll::create(CreateFlags::CLOEXEC)?;
        let mark = EventData::new_u64(LISTENER);
        epoll::add(&ready, &listener, mark, EventFlags::IN)?;
        Ok(Self {
            listener,
            ready,
            swept: Time::ZERO,
            connections: BTreeMap::new(),
            beats: Beats::default(),
            schedules: Schedules::default(),
            next: LISTENER,
        })
    }

    /// Accepts and reads everything that is ready.
    pub(super) fn read(&mut self, now: Time) {
        let marks = self.marks();
        // New ones first, to be read with the others: an old proxy closes its connections as soon as the new one's workers have beaten.
        if marks.contains(&LISTENER) {
            self.accept(now);
        }
        // Where an old proxy's connections have ended, heartbeats of the new one's workers wait to be read. And no worker is judged by
        // what was read last.
        let is_judged = self.beats.next_deadline(now).is_some_and(|due| due <= now);
        let is_late = is_judged || self.verdict(now).is_err();
        if !marks.is_empty() || is_late || now >= self.swept + SWEEP {
            self.swept = now;
            let all: Vec<ConnectionId> = self.connections.keys().copied().collect();
            all.into_iter().for_each(|id| self.read_one(now, id));
        }
        let beats = &mut self.beats;
        self.connections.retain(|&id, connection| {
            let stays = !connection.is_overdue(now);
            if !stays {
                beats.closed(id);
            }
            stays
        });
        for silent in self.beats.silent(now) {
            let schedule = self.schedules.of(silent);
            self.beats.observed(now, silent.id, schedule);
        }
    }

    /// Whether the data plane serves.
    pub(super) fn verdict(&self, now: Time) -> Verdict {
        self.beats.verdict(now)
    }

    /// When to read heartbeats, or the verdict may change, without any input.
    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        let sweep = (!self.connections.is_empty()).then_some(self.swept + SWEEP);
        self.beats.next_deadline(now).into_iter().chain(sweep).min()
    }

    fn marks(&self) -> Vec<u64> {
        let mut events = Vec::with_capacity(MOST_CONNECTIONS + 1);
        let at_once = Timespec::default();
        match epoll::wait(&self.ready, spare_capacity(&mut events), Some(&at_once)) {
            Ok(_) => events.iter().map(|event| event.data.u64()).collect(),
            Err(error) => {
                tracing::debug!(%error, "cannot identify the worker of a heartbeat");
                Vec::new()
            }
        }
    }

    fn accept(&mut self, now: Time) {
        while let Ok((stream, _)) = self.listener.accept() {
            self.next += 1;
            let mark = EventData::new_u64(self.next);
            let accepted = self.connections.len() < MOST_CONNECTIONS
                && stream.set_nonblocking(true).is_ok()
                && epoll::add(&self.ready, &stream, mark, EventFlags::IN).is_ok();
            if accepted {
                let line = Some((Vec::new(), now + INTRODUCTION_TIMEOUT));
                let peer = sockopt::socket_peercred(&stream);
                let proxy = ProxyId(peer.map_or(0, |peer| peer.pid.as_raw_nonzero().get()));
                let connection = Connection {
                    stream,
                    proxy,
                    line,
                    is_quiet: false,
                };
                self.connections.insert(ConnectionId(self.next), connection);
            }
        }
    }

    fn read_one(&mut self, now: Time, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if !connection.read(now, id, &mut self.beats) || !connection.falls_quiet(&self.ready, id) {
            self.beats.closed(id);
            self.schedules.forget(id);
            self.connections.remove(&id);
        }
    }
}

impl AsFd for Workers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

impl Connection {
    /// Reads what has arrived; `false`: the connection is over.
    fn read(&mut self, now: Time, id: ConnectionId, beats: &mut Beats) -> bool {
        let mut buffer = [0; 256];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    if !self.take(now, id, &buffer[..length], beats) {
                        return false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }

    /// Only its end wakes the keeper once it has introduced itself; `false`: that cannot be had.
    fn falls_quiet(&mut self, ready: &OwnedFd, id: ConnectionId) -> bool {
        if self.is_quiet || self.line.is_some() {
            return true;
        }
        self.is_quiet = true;
        let mark = EventData::new_u64(id.0);
        epoll::modify(ready, &self.stream, mark, EventFlags::RDHUP).is_ok()
    }

    /// Whether its introduction is overdue.
    fn is_overdue(&self, now: Time) -> bool {
        matches!(&self.line, Some((_, until)) if now > *until)
    }

    /// Takes the introduction, then heartbeats; any byte is one.
    fn take(&mut self, now: Time, id: ConnectionId, bytes: &[u8], beats: &mut Beats) -> bool {
        let Some((line, _)) = &mut self.line else {
            beats.beaten(now, id);
            return true;
        };
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            line.extend(bytes);
            return line.len() <= LONGEST_LINE;
        };
        line.extend(&bytes[..end]);
        let introduction = Introduction::parse(line);
        self.line = None;
        let Some(introduction) = introduction else {
            return false;
        };
        beats.introduced(id, self.proxy, introduction);
        if end + 1 < bytes.len() {
            beats.beaten(now, id);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use tempfile::TempDir;

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    fn listening() -> (TempDir, Workers) {
        let folder = tempfile::tempdir().unwrap();
        let workers = Workers::listen(folder.path()).unwrap();
        (folder, workers)
    }

    fn connect(folder: &TempDir) -> UnixStream {
        UnixStream::connect(folder.path().join("keeper.sock")).unwrap()
    }

    #[test]
    fn an_end_does_not_overtake_the_heartbeats_before_it() {
        let (folder, mut workers) = listening();
        let old = connect(&folder);
        let mut new = connect(&folder);
        new.write_all(b"worker 0 of 1\n").unwrap();
        workers.read(at(1000));
        assert!(workers.verdict(at(1000)).is_err(), "it has not beaten yet");
        new.write_all(b".").unwrap();
        drop(old);
        workers.read(at(1001));
        assert_eq!(workers.verdict(at(1001)), Ok(()));
    }

    #[test]
    fn a_heartbeat_that_waits_is_read_before_its_worker_is_judged() {
        let (folder, mut workers) = listening();
        let mut worker = connect(&folder);
        worker.write_all(b"worker 0 of 1\n.").unwrap();
        workers.read(at(1000));
        workers.read(at(1160));
        worker.write_all(b".").unwrap();
        workers.read(at(1201));
        assert_eq!(workers.verdict(at(1201)), Ok(()));
    }

    #[test]
    fn heartbeats_wake_nobody_and_an_end_does() {
        let (folder, mut workers) = listening();
        let mut worker = connect(&folder);
        worker.write_all(b"worker 0 of 1\n.").unwrap();
        workers.read(at(1000));
        worker.write_all(b".").unwrap();
        assert!(workers.marks().is_empty());
        assert_eq!(workers.next_deadline(at(1000)), Some(at(1050)));
        drop(worker);
        assert_eq!(workers.marks().len(), 1);
        workers.read(at(1001));
        assert!(workers.verdict(at(1001)).is_err());
    }
}
