//! TCP connections of the network namespace that the calling thread is in, by `sock_diag(7)`.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Message types and structures: `linux/sock_diag.h`, `linux/inet_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IPPROTO_TCP: u8 = 6;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_BC_S_COND: u8 = 7;
/// `struct nlmsghdr`, and `struct inet_diag_sockid`, which follows four bytes of `struct inet_diag_msg`.
const HEADER: usize = 16;
const SOCKET_ID: std::ops::Range<usize> = 4..52;
/// Connections on which a peer may wait for something: ESTABLISHED, FIN_WAIT1 and CLOSE_WAIT (`net/tcp_states.h`).
const STATES: u32 = 1 << 1 | 1 << 4 | 1 << 8;

/// Resets the connections of this local address, whose peers then know at once that nothing more will come. Without it, a
/// peer that waits for a response is never told that the address has left. What takes longer than `limit` is left as it is.
/// Returns how many were reset.
///
/// # Errors
/// If the kernel does not list its connections, or does not let us end them: without `CAP_NET_ADMIN`, or when it is built
/// without `CONFIG_INET_DIAG_DESTROY`.
pub fn reset_connections(local: IpAddr, limit: Duration) -> io::Result<usize> {
    let deadline = Instant::now() + limit;
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let family = family(local);
    let ids = list(&socket, local, deadline)?;
    let mut reset = 0;
    for id in &ids {
        let Some(left) = left(deadline) else { break };
        set_socket_timeout(&socket, Timeout::Recv, Some(left))?;
        socket.send(&message(SOCK_DESTROY, NLM_F_ACK, &request(family, id)), 0)?;
        reset += usize::from(acknowledged(&socket)?);
    }
    Ok(reset)
}

/// The time until then; `None`: it has passed.
fn left(deadline: Instant) -> Option<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    // The kernel counts microseconds, and none would mean for ever.
    (left > Duration::from_millis(1)).then_some(left)
}

/// Whether a connection was reset; another may have ended meanwhile.
fn acknowledged(socket: &Socket) -> io::Result<bool> {
    let (answer, _) = socket.recv_from_full()?;
    match messages(&answer).next() {
        Some((NLMSG_ERROR, payload)) => match errno(payload) {
            Some(0) => Ok(true),
            Some(libc::ENOENT) => Ok(false),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The connections of a local address.
fn list(socket: &Socket, local: IpAddr, deadline: Instant) -> io::Result<Vec<Vec<u8>>> {
    let mut body = request(family(local), &[0; SOCKET_ID.end - SOCKET_ID.start]);
    let condition = source_is(local);
    let length = u16::try_from(4 + condition.len()).expect("it is short");
    body.extend(length.to_ne_bytes());
    body.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
    body.extend(condition);
    socket.send(&message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &body), 0)?;
    let mut ids = Vec::new();
    loop {
        let left = left(deadline).ok_or(io::ErrorKind::TimedOut)?;
        set_socket_timeout(socket, Timeout::Recv, Some(left))?;
        let (datagram, _) = socket.recv_from_full()?;
        for (kind, payload) in messages(&datagram) {
            match kind {
                SOCK_DIAG_BY_FAMILY => ids.extend(payload.get(SOCKET_ID).map(<[u8]>::to_vec)),
                NLMSG_DONE => return Ok(ids),
                NLMSG_ERROR => {
                    let errno = errno(payload).unwrap_or(libc::EINVAL);
                    return Err(io::Error::from_raw_os_error(errno));
                }
                _ => {}
            }
        }
    }
}

/// A `struct nlmsghdr`, and what follows it.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).expect("it is short");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // The sequence number and our port: the socket is used for one thing at a time.
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// A `struct inet_diag_req_v2`.
fn request(family: u8, id: &[u8]) -> Vec<u8> {
    let mut request = vec![family, IPPROTO_TCP, 0, 0];
    request.extend(STATES.to_ne_bytes());
    request.extend(id);
    request
}

/// A program of one `struct inet_diag_bc_op` with its `struct inet_diag_hostcond`: the local address is this one, whatever
/// the port. Otherwise it jumps past its end, which means no.
fn source_is(local: IpAddr) -> Vec<u8> {
    let (prefix, address) = match local {
        IpAddr::V4(local) => (32, local.octets().to_vec()),
        IpAddr::V6(local) => (128, local.octets().to_vec()),
    };
    let length = u8::try_from(12 + address.len()).expect("it is short");
    let mut program = vec![INET_DIAG_BC_S_COND, length];
    program.extend((u16::from(length) + 4).to_ne_bytes());
    program.extend([family(local), prefix, 0, 0]);
    program.extend((-1_i32).to_ne_bytes());
    program.extend(address);
    program
}

fn family(address: IpAddr) -> u8 {
    let family = match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    u8::try_from(family).expect("address families are small")
}

/// Type and payload of each message of a datagram.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?);
        let length = usize::try_from(length).ok()?;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let payload = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The error number of a `struct nlmsgerr`, which the kernel negates.
fn errno(payload: &[u8]) -> Option<i32> {
    let errno = payload.get(..4)?.try_into().ok()?;
    i32::from_ne_bytes(errno).checked_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    fn connected(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (client, server)
    }

    #[test]
    fn the_connections_of_an_address_are_reset_and_those_of_others_are_not() {
        let limit = Duration::from_secs(5);
        let (mut client, _server) = connected("127.6.5.4");
        let (mut kept, _kept_server) = connected("127.6.5.3");
        match reset_connections([127, 6, 5, 4].into(), limit) {
            Ok(reset) => assert_eq!(reset, 1),
            Err(error) => {
                crate::skip::skipped("connections are reset", &error.to_string());
                return;
            }
        }
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        kept.set_nonblocking(true).unwrap();
        let error = kept.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_limit_is_kept() {
        let error = reset_connections([127, 6, 5, 2].into(), Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn malformed_messages_end_the_reading() {
        for bytes in [&[][..], &[1], &[255; 15], &[0; 16], &[17, 0, 0, 0, 3, 0]] {
            assert!(messages(bytes).count() <= 1);
        }
    }
}
