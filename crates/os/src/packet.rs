//! Sockets below TCP and UDP: VRRP over IPv4, and ARP over Ethernet.

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockFilter, Socket, Type};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};

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

/// Copies of the SYNs that arrive for one IPv4 address, independent of TCP's own handling; they can be forwarded.
pub struct SynSocket {
    copies: Socket,
    out: Socket,
    address: SockAddr,
}

impl SynSocket {
    /// From now on copies the SYNs of TCP connections to `address`, an address of this server. Once the socket's buffer is
    /// full, further copies are lost. Needs `CAP_NET_RAW`.
    pub fn open(interface: &str, address: Ipv4Addr) -> io::Result<Self> {
        let copies = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
        copies.set_nonblocking(true)?;
        copies.attach_filter(&only_syns())?;
        copies.bind_device(Some(interface.as_bytes()))?;
        let address = SocketAddrV4::new(address, 0).into();
        copies.bind(&address)?;
        let out = Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(Protocol::from(libc::IPPROTO_RAW)),
        )?;
        out.set_nonblocking(true)?;
        Ok(Self {
            copies,
            out,
            address,
        })
    }

    /// The next IPv4 packet; `None` while there is none.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a mut [u8]>> {
        match (&self.copies).read(buffer) {
            Ok(length) => Ok(Some(&mut buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends an IPv4 packet, its header included, to the host that has the address now.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.out.send_to(packet, &self.address).map(drop)
    }
}

/// The classic BPF program that passes a TCP segment in an IPv4 packet with SYN and without ACK.
fn only_syns() -> [SockFilter; 6] {
    const LOAD_HEADER_LENGTH: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
    const LOAD_BYTE_BEHIND: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
    const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    /// Offset in the TCP header.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [
        SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 0),
        SockFilter::new(LOAD_BYTE_BEHIND, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_EQUAL, 0, 1, SYN),
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
