//! Sockets below TCP and UDP: VRRP over IP, and ARP and neighbour discovery over Ethernet.

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockFilter, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

/// Traffic class of network control (RFC 2474: CS6), so that a full link does not silence an advertisement.
const NETWORK_CONTROL: u32 = 0xc0;

/// Sends and receives IPv4 packets of one protocol on one interface, to and from a multicast group.
pub struct GroupSocket {
    socket: Socket,
    group: SockAddr,
}

impl GroupSocket {
    /// Opens a socket for the IPv4 `protocol` on the interface of this name and index. It sends from `source` to `group` only,
    /// with `ttl`; it does not receive its own packets. Needs `CAP_NET_RAW`.
    pub fn open(
        interface: &str,
        index: u32,
        source: Ipv4Addr,
        group: Ipv4Addr,
        protocol: u8,
        ttl: u8,
    ) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(Protocol::from(i32::from(protocol))),
        )?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_nonblocking(true)?;
        socket.set_multicast_all_v4(false)?;
        socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))?;
        socket.set_multicast_if_v4(&source)?;
        socket.set_multicast_loop_v4(false)?;
        socket.set_multicast_ttl_v4(u32::from(ttl))?;
        socket.set_ttl_v4(u32::from(ttl))?;
        socket.set_tos_v4(NETWORK_CONTROL)?;
        Ok(Self {
            socket,
            group: SocketAddrV4::new(group, 0).into(),
        })
    }

    /// Sends a payload to the group.
    pub fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.socket.send_to(payload, &self.group).map(drop)
    }

    /// The next IPv4 packet, header included; `None` while there is none. A packet larger than the buffer is truncated.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match (&self.socket).read(buffer) {
            Ok(length) => Ok(Some(&buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for GroupSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends and receives IPv6 packets of one protocol on one interface, to and from a multicast group.
pub struct WideGroupSocket {
    socket: Socket,
    group: SockAddr,
}

impl WideGroupSocket {
    /// Opens a socket for the IPv6 `protocol` on the interface of this name and index. It sends to `group` from the interface's link-local address,
    /// and does not receive its own packets, nor any that crossed a router: the hop limit is 255. The kernel writes and verifies the
    /// checksum of 16 bits at `checksum_at`. Needs `CAP_NET_RAW`.
    pub fn open(
        interface: &str,
        index: u32,
        group: Ipv6Addr,
        protocol: u8,
        checksum_at: u8,
    ) -> io::Result<Self> {
        const HOP_LIMIT: u32 = 255;
        let protocol = Protocol::from(i32::from(protocol));
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(protocol))?;
        socket.attach_filter(&only_hop_limit(HOP_LIMIT))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_nonblocking(true)?;
        write_checksum(&socket, checksum_at)?;
        socket.join_multicast_v6(&group, index)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_hops_v6(HOP_LIMIT)?;
        socket.set_tclass_v6(NETWORK_CONTROL)?;
        Ok(Self {
            socket,
            group: SocketAddrV6::new(group, 0, 0, index).into(),
        })
    }

    /// Sends a payload to the group.
    pub fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.socket.send_to(payload, &self.group).map(drop)
    }

    /// The next payload and its source; `None` while there is none. One larger than the buffer is truncated.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<(&'a [u8], Ipv6Addr)>> {
        match rustix::net::recvfrom(&self.socket, &mut *buffer, rustix::net::RecvFlags::empty()) {
            Ok((_, length, source)) => {
                let source = source.and_then(|it| SocketAddrV6::try_from(it).ok());
                let source = source.map_or(Ipv6Addr::UNSPECIFIED, |it| *it.ip());
                Ok(Some((&buffer[..length.min(buffer.len())], source)))
            }
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for WideGroupSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Has the kernel write and verify the checksum at this offset, with the pseudo-header (RFC 3542, section 3.1).
fn write_checksum(socket: &Socket, at: u8) -> io::Result<()> {
    let at = libc::c_int::from(at);
    let length = libc::socklen_t::try_from(size_of_val(&at)).expect("a small constant");
    // SAFETY: the option's value is an int, which lives until the call returns, and the length is its own.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_RAW,
            libc::IPV6_CHECKSUM,
            std::ptr::from_ref(&at).cast(),
            length,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends whole Ethernet frames on one interface. It receives nothing.
pub struct FrameSocket {
    socket: Socket,
    interface: SockAddr,
}

impl FrameSocket {
    /// Opens a socket for frames of this EtherType on the interface of this index. Needs `CAP_NET_RAW`.
    pub fn open(index: u32, ethertype: u16) -> io::Result<Self> {
        // Protocol 0: the socket receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            interface: link_layer_address(index, ethertype)?,
        })
    }

    /// Sends one frame, its Ethernet header included.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send_to(frame, &self.interface).map(drop)
    }
}

/// Copies of the SYNs that arrive for one address, independent of TCP's own handling; they can be forwarded.
pub struct SynSocket {
    copies: Socket,
    out: Socket,
    address: SockAddr,
}

impl SynSocket {
    /// From now on copies the SYNs of TCP connections to `address`, an address of this server on the interface of this name and index. Once the socket's
    /// buffer is full, further copies are lost. Needs `CAP_NET_RAW`.
    pub fn open(interface: &str, index: u32, address: IpAddr) -> io::Result<Self> {
        let (copies, domain, to): (_, _, SockAddr) = match address {
            IpAddr::V4(address) => {
                let to = SocketAddrV4::new(address, 0).into();
                (Self::over_ipv4(interface, &to)?, Domain::IPV4, to)
            }
            IpAddr::V6(address) => {
                let to = SocketAddrV6::new(address, 0, 0, 0).into();
                (Self::over_ipv6(index, address)?, Domain::IPV6, to)
            }
        };
        let out = Protocol::from(libc::IPPROTO_RAW);
        let out = Socket::new(domain, Type::RAW, Some(out))?;
        out.set_nonblocking(true)?;
        Ok(Self {
            copies,
            out,
            address: to,
        })
    }

    fn over_ipv4(interface: &str, address: &SockAddr) -> io::Result<Socket> {
        let copies = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
        copies.set_nonblocking(true)?;
        copies.attach_filter(&only_syns())?;
        copies.bind_device(Some(interface.as_bytes()))?;
        copies.bind(address)?;
        Ok(copies)
    }

    /// A raw socket of IPv6 would give no header: this one is below IP.
    fn over_ipv6(index: u32, address: Ipv6Addr) -> io::Result<Socket> {
        const ETHERTYPE: u16 = 0x86dd;
        // Protocol 0: it receives nothing before it is bound.
        let copies = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        copies.set_nonblocking(true)?;
        copies.attach_filter(&only_syns_to(address))?;
        copies.bind(&link_layer_address(index, ETHERTYPE)?)?;
        Ok(copies)
    }

    /// The next IP packet; `None` while there is none.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a mut [u8]>> {
        match (&self.copies).read(buffer) {
            Ok(length) => Ok(Some(&mut buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends an IP packet, its header included, to the host that has the address now.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.out.send_to(packet, &self.address).map(drop)
    }
}

const LOAD_HEADER_LENGTH: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
const LOAD_BYTE_BEHIND: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
/// Offset in the TCP header.
const FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// The classic BPF program that passes a TCP segment in an IPv4 packet with SYN and without ACK.
fn only_syns() -> [SockFilter; 6] {
    [
        SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 0),
        SockFilter::new(LOAD_BYTE_BEHIND, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The same for a segment in an IPv6 packet to this address, without extension headers.
fn only_syns_to(address: Ipv6Addr) -> Vec<SockFilter> {
    const HEADER: u32 = 40;
    const NEXT_HEADER: u32 = 6;
    const DESTINATION: u32 = 24;
    const TCP: u32 = 6;
    let octets = address.octets();
    let words = octets.as_chunks::<4>().0;
    let mut program = vec![
        SockFilter::new(LOAD_BYTE, 0, 0, NEXT_HEADER),
        SockFilter::new(JUMP_EQUAL, 0, 12, TCP),
    ];
    for (number, word) in (0..).zip(words) {
        let left = 10 - 2 * number;
        program.push(SockFilter::new(
            LOAD_WORD,
            0,
            0,
            DESTINATION + 4 * u32::from(number),
        ));
        program.push(SockFilter::new(
            JUMP_EQUAL,
            0,
            left,
            u32::from_be_bytes(*word),
        ));
    }
    program.extend([
        SockFilter::new(LOAD_BYTE, 0, 0, HEADER + FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]);
    program
}

/// The program of a raw socket of IPv6 that passes packets which arrive with this hop limit.
fn only_hop_limit(limit: u32) -> [SockFilter; 4] {
    /// `SKF_NET_OFF`: offsets into the IP header.
    const NETWORK: u32 = 0xfff0_0000;
    const HOP_LIMIT: u32 = 7;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, NETWORK + HOP_LIMIT),
        SockFilter::new(JUMP_EQUAL, 0, 1, limit),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn link_layer_address(index: u32, ethertype: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no interface has that number"))?;
    // SAFETY: the storage is zeroed, large enough and aligned for every kind of socket address; all fields of
    // `sockaddr_ll` are integers, for which zero is a value; the length given back is that of what was written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = &mut *storage.cast::<libc::sockaddr_ll>();
            address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small constant");
            address.sll_protocol = ethertype.to_be();
            address.sll_ifindex = index;
            *length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("a small struct");
            Ok(())
        })
    }?;
    Ok(address)
}
