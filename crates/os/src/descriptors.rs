//! File descriptors sent from process to process over a Unix socket (`SCM_RIGHTS`).
//!
//! Each message is one byte with some descriptors: bytes before and after it are read as usual, since a read never goes past
//! descriptors.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The most descriptors in one message; the kernel takes up to 253.
pub const MOST: usize = 128;

/// Room for the descriptors of one message.
const SPACE: usize = rustix::cmsg_space!(ScmRights(MOST));

/// The byte that descriptors are sent with.
const MARK: u8 = b'F';

/// Sends up to [`MOST`] descriptors. The receiver gets copies of them.
///
/// # Errors
/// The system's error; `WouldBlock` if the socket does not block and has no room.
pub fn send(socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    assert!(
        descriptors.len() <= MOST,
        "too many descriptors for a message"
    );
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let bytes = [IoSlice::new(&[MARK])];
    loop {
        match sendmsg(&socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives the descriptors of one message. They are closed on `exec`.
///
/// # Errors
/// The system's error; `UnexpectedEof` if the sender has gone, `InvalidData` if something else came, or if this process may
/// have no more descriptors.
pub fn receive(socket: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = loop {
        let mut bytes = [IoSliceMut::new(&mut byte)];
        match recvmsg(&socket, &mut bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            descriptors.extend(sent);
        }
    }
    if byte != [MARK] || received.flags.contains(ReturnFlags::CTRUNC) {
        let what = "no descriptors came, or more than this process may open";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(descriptors)
}

/// Takes what was passed as standard input, and leaves `/dev/null` in its place.
///
/// # Errors
/// The system's error.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let nothing = std::fs::File::open("/dev/null")?;
    // SAFETY: both descriptors are open; what was standard input stays open as `stdin`.
    match unsafe { libc::dup2(nothing.as_raw_fd(), libc::STDIN_FILENO) } {
        0.. => Ok(stdin),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_listener_is_sent_between_bytes_and_accepts_on_the_other_side() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        here.write_all(b"before").unwrap();
        send(&here, &[listener.as_fd(), listener.as_fd()]).unwrap();
        here.write_all(b"after").unwrap();
        let mut bytes = [0; 6];
        there.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"before");
        let mut received = receive(&there).unwrap();
        assert_eq!(received.len(), 2);
        there.read_exact(&mut bytes[..5]).unwrap();
        assert_eq!(&bytes[..5], b"after");
        let waiting = TcpStream::connect(address).unwrap();
        drop(listener);
        let listener = TcpListener::from(received.remove(0));
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap());
    }

    #[test]
    fn what_is_no_message_with_descriptors_is_refused() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"{").unwrap();
        let error = receive(&there).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(here);
        let error = receive(&there).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
