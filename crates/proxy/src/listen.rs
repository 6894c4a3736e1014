//! Listening sockets: one per worker for each address, and the filter that leaves new connections unanswered.
//!
//! A balancer gives a VIP up without a failed request in this order: the filter drops connection requests (SYN), so
//! that clients retry and reach the next owner; connections already in progress are still accepted and served. The last
//! ACK of a handshake passes the filter, and so does everything of an established connection.

mod unix;

use gaiola_model::proxy::{Address, Bind};
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use unix::SocketFile;

/// Backlog of one worker; the kernel's `somaxconn` may lower it.
const BACKLOG: i32 = 4096;

/// One address, on which every worker listens with a socket of its own.
pub(super) struct Listener {
    /// The address.
    pub(super) address: Address,
    sockets: Vec<Socket>,
    /// The workers' sockets, until they take them: usually one for each.
    handles: Vec<Mutex<Vec<OwnedFd>>>,
    filtered: AtomicBool,
    file: Option<SocketFile>,
}

impl Listener {
    /// Listens on the address, for TCP with a socket for each worker. This server need not hold the address yet.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn bind(bind: &Bind, workers: usize) -> io::Result<Self> {
        let listener = Self::prepare(bind, workers)?;
        listener.start()?;
        Ok(listener)
    }

    /// As [`Self::bind`], but no TCP connection arrives before [`Self::start`].
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn prepare(bind: &Bind, workers: usize) -> io::Result<Self> {
        match &bind.address {
            Address::Tcp(_) => Self::with(&bind.address, Vec::new(), None, workers),
            Address::Unix(path) => {
                let (socket, file) = unix::listen(path, bind.permissions)?;
                Self::with(&bind.address, vec![socket], Some(file), workers)
            }
        }
    }

    /// Goes on with sockets that another process listens on; further ones wait for [`Self::start`]. None is left out: closing one would reset the connections in
    /// its backlog. A Unix socket's file stays the other process's until [`Self::own_file`].
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn inherit(bind: &Bind, sockets: Vec<OwnedFd>, workers: usize) -> io::Result<Self> {
        let file = match &bind.address {
            Address::Tcp(_) => None,
            Address::Unix(path) => Some(SocketFile::of_another(path)?),
        };
        let sockets = sockets.into_iter().map(Socket::from).collect();
        let listener = Self::with(&bind.address, sockets, file, workers)?;
        // They may have a filter.
        listener.filtered.store(true, Ordering::Relaxed);
        Ok(listener)
    }

    /// With further sockets where a TCP address has fewer than workers.
    fn with(
        address: &Address,
        mut sockets: Vec<Socket>,
        file: Option<SocketFile>,
        workers: usize,
    ) -> io::Result<Self> {
        if let Address::Tcp(address) = address {
            while sockets.len() < workers {
                sockets.push(bound(*address)?);
            }
        }
        if sockets.is_empty() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let mut handles: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
        for turn in 0..sockets.len().max(workers) {
            let socket = sockets[turn % sockets.len()].try_clone()?;
            handles[turn % workers].push(socket.into());
        }
        Ok(Self {
            address: address.clone(),
            sockets,
            handles: handles.into_iter().map(Mutex::new).collect(),
            filtered: AtomicBool::new(false),
            file,
        })
    }

    /// Listens with all TCP sockets: those that were inherited do already.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn start(&self) -> io::Result<()> {
        match self.address {
            Address::Tcp(_) => self
                .sockets
                .iter()
                .try_for_each(|socket| socket.listen(BACKLOG)),
            Address::Unix(_) => Ok(()),
        }
    }

    /// Its sockets, for another process.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// A Unix socket's file is this process's: it is removed with the listener.
    pub(super) fn own_file(&self) {
        if let Some(file) = &self.file {
            file.own(true);
        }
    }

    /// A Unix socket's file is another process's from now on.
    pub(super) fn leave_file(&self) {
        if let Some(file) = &self.file {
            file.own(false);
        }
    }

    /// Sets the permissions of a Unix socket's file.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn permit(&self, permissions: Option<u32>) -> io::Result<()> {
        self.file
            .as_ref()
            .map_or(Ok(()), |file| file.permit(permissions))
    }

    /// Takes one worker's sockets; none the second time.
    pub(super) fn take(&self, worker: usize) -> Vec<OwnedFd> {
        let handles = self.handles[worker].lock();
        std::mem::take(&mut *handles.unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether connections to this local address may arrive here.
    pub(super) fn serves(&self, local: IpAddr) -> bool {
        let Some(bound) = self.address.ip() else {
            return false;
        };
        bound == local || bound.is_unspecified() && bound.is_ipv4() == local.is_ipv4()
    }

    /// From now on, leaves connection requests to these local addresses unanswered.
    ///
    /// # Errors
    /// The system's error; the sockets may then differ from each other until the next call.
    pub(super) fn refuse(&self, locals: &BTreeSet<IpAddr>) -> io::Result<()> {
        let mine: Vec<_> = locals
            .iter()
            .copied()
            .filter(|&local| self.serves(local))
            .collect();
        if mine.is_empty() {
            return self.accept_all();
        }
        if self.address.ip().is_some_and(|ip| ip.is_unspecified()) {
            self.attach(&program(&mine))
        } else {
            self.refuse_all()
        }
    }

    /// From now on, leaves all connection requests unanswered; a Unix socket still accepts.
    ///
    /// # Errors
    /// As [`Self::refuse`].
    pub(super) fn refuse_all(&self) -> io::Result<()> {
        match self.address {
            Address::Tcp(_) => self.attach(&program(&[])),
            Address::Unix(_) => Ok(()),
        }
    }

    fn attach(&self, program: &[SockFilter]) -> io::Result<()> {
        for socket in &self.sockets {
            socket.attach_filter(program)?;
        }
        self.filtered.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn accept_all(&self) -> io::Result<()> {
        if self.filtered.swap(false, Ordering::Relaxed) {
            for socket in &self.sockets {
                match socket.detach_filter() {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Whether connections wait in the backlog.
    pub(super) fn has_waiting(&self) -> bool {
        self.sockets.iter().any(|socket| {
            let mut fds = [PollFd::new(socket, PollFlags::IN)];
            poll(&mut fds, Some(&rustix::time::Timespec::default())).is_ok_and(|ready| ready > 0)
        })
    }
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    // Accepted connections inherit it, which saves a system call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// All addresses of `binds`, which must be distinct.
///
/// # Errors
/// The address that occurs twice.
pub(super) fn addresses<'a>(
    binds: impl Iterator<Item = &'a Bind>,
) -> Result<BTreeSet<&'a Address>, &'a Address> {
    let mut all = BTreeSet::new();
    for bind in binds {
        if !all.insert(&bind.address) {
            return Err(&bind.address);
        }
    }
    Ok(all)
}

/// The classic BPF program that a listening socket runs on each segment, starting at its TCP header: it drops those
/// with SYN and without ACK if their destination is one of `locals`, or if `locals` is empty.
fn program(locals: &[IpAddr]) -> Vec<SockFilter> {
    /// `BPF_LD | BPF_B | BPF_ABS`
    const LOAD_BYTE: u16 = 0x30;
    /// `BPF_LD | BPF_W | BPF_ABS`
    const LOAD_WORD: u16 = 0x20;
    /// `BPF_ALU | BPF_AND | BPF_K`
    const AND: u16 = 0x54;
    /// `BPF_JMP | BPF_JEQ | BPF_K`
    const JUMP_EQUAL: u16 = 0x15;
    /// `BPF_RET | BPF_K`
    const RETURN: u16 = 0x06;
    /// Offset in the TCP header.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    /// `SKF_NET_OFF`: offsets into the IP header.
    const NETWORK: u32 = 0xfff0_0000;
    let keep = || SockFilter::new(RETURN, 0, 0, u32::MAX);
    let drop = || SockFilter::new(RETURN, 0, 0, 0);

    let mut program = vec![
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_EQUAL, 1, 0, SYN),
        keep(),
    ];
    for local in locals {
        let (offset, words) = match local {
            IpAddr::V4(local) => (16, vec![u32::from(*local)]),
            IpAddr::V6(local) => (24, words(*local)),
        };
        // Each word that differs jumps past this address' `drop`.
        let mut left = u8::try_from(words.len() * 2).expect("at most four words");
        for (index, word) in (0..).zip(words) {
            program.push(SockFilter::new(
                LOAD_WORD,
                0,
                0,
                NETWORK + offset + 4 * index,
            ));
            left -= 2;
            program.push(SockFilter::new(JUMP_EQUAL, 0, left + 1, word));
        }
        program.push(drop());
    }
    program.push(if locals.is_empty() { drop() } else { keep() });
    program
}

fn words(address: Ipv6Addr) -> Vec<u32> {
    let bits = address.to_bits();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each is cut to its 32 bits"
    )]
    [96, 64, 32, 0].map(|shift| (bits >> shift) as u32).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::time::Duration;

    const SOON: Duration = Duration::from_millis(200);

    fn listening(ip: &str) -> (Listener, SocketAddr) {
        // Binding once without sharing finds a free port.
        let address = SocketAddr::new(ip.parse().unwrap(), 0);
        let free = std::net::TcpListener::bind(address).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        (Listener::bind(&Bind::new(address), 2).unwrap(), address)
    }

    #[test]
    fn a_refused_address_answers_nothing_and_later_accepts_again() {
        let (listener, address) = listening("127.0.0.1");
        TcpStream::connect_timeout(&address, SOON).unwrap();
        listener.refuse(&BTreeSet::from([address.ip()])).unwrap();
        let error = TcpStream::connect_timeout(&address, SOON).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        listener.refuse(&BTreeSet::new()).unwrap();
        TcpStream::connect_timeout(&address, SOON).unwrap();
    }

    #[test]
    fn what_waited_before_the_refusal_can_still_be_accepted() {
        let (listener, address) = listening("127.0.0.1");
        let _client = TcpStream::connect_timeout(&address, SOON).unwrap();
        listener.refuse(&BTreeSet::from([address.ip()])).unwrap();
        assert!(listener.has_waiting());
        let mut taken = (0..2).flat_map(|n| listener.take(n));
        let accepted = taken.any(|socket| Socket::from(socket).accept().is_ok());
        assert!(accepted);
        assert!(!listener.has_waiting());
    }

    #[test]
    fn a_wildcard_listener_refuses_one_address_and_serves_the_others() {
        let (listener, address) = listening("0.0.0.0");
        let on = |last| SocketAddr::from(([127, 0, 0, last], address.port()));
        listener
            .refuse(&BTreeSet::from([on(7).ip(), on(8).ip()]))
            .unwrap();
        TcpStream::connect_timeout(&on(6), SOON).unwrap();
        assert!(TcpStream::connect_timeout(&on(7), SOON).is_err());
        assert!(TcpStream::connect_timeout(&on(8), SOON).is_err());
    }

    #[test]
    fn a_foreign_address_can_be_bound() {
        let foreign: SocketAddr = "192.0.2.77:0".parse().unwrap();
        Listener::bind(&Bind::new(foreign), 1).unwrap();
    }

    fn handed(listener: &Listener, workers: usize) -> Listener {
        let sockets = listener.descriptors();
        let sockets = sockets.map(|socket| socket.try_clone_to_owned().unwrap());
        let bind = Bind::new(listener.address.clone());
        Listener::inherit(&bind, sockets.collect(), workers).unwrap()
    }

    #[test]
    fn what_waits_in_a_backlog_is_accepted_by_whoever_takes_the_sockets_over() {
        for workers in [1, 2, 3, 5] {
            let (old, address) = listening("127.0.0.1");
            let clients: Vec<_> = (0..20)
                .map(|_| TcpStream::connect_timeout(&address, SOON).unwrap())
                .collect();
            let new = handed(&old, workers);
            drop(old);
            let taken: Vec<_> = (0..workers).map(|worker| new.take(worker)).collect();
            assert!(taken.iter().all(|sockets| !sockets.is_empty()));
            let sockets = taken.into_iter().flatten().map(Socket::from);
            let accepted =
                sockets.map(|socket| std::iter::from_fn(|| socket.accept().ok()).count());
            assert_eq!(accepted.sum::<usize>(), clients.len(), "{workers} workers");
            assert!(new.take(0).is_empty());
        }
    }

    #[test]
    fn a_filter_goes_over_with_the_sockets_and_can_be_taken_off() {
        let (old, address) = listening("127.0.0.1");
        old.refuse(&BTreeSet::from([address.ip()])).unwrap();
        let new = handed(&old, 2);
        drop(old);
        assert!(TcpStream::connect_timeout(&address, SOON).is_err());
        new.refuse(&BTreeSet::new()).unwrap();
        TcpStream::connect_timeout(&address, SOON).unwrap();
    }

    #[test]
    fn the_file_of_a_unix_socket_belongs_to_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.sock");
        let bind = Bind::new(Address::Unix(path.clone()));
        let old = Listener::bind(&bind, 2).unwrap();
        drop(handed(&old, 2));
        assert!(path.exists(), "a take-over that failed removed it");
        let new = handed(&old, 1);
        old.leave_file();
        new.own_file();
        drop(old);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(new);
        assert!(!path.exists());
    }
}
