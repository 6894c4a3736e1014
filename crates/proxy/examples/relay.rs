//! `relay PORT ORIGIN...`: what no proxy can do without, for `bench/run`. It copies bytes between each client and a
//! connection to an origin of its own, with one receive and one send for each message, and parses nothing: no heads, no
//! timeouts, no limits. A message is to be smaller than a buffer, and come alone: more than that is taken up with the next
//! one. Everything that is ready is received before anything is sent, so that receivers are woken seldom.

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt::set_tcp_nodelay};
use std::collections::HashMap;
use std::error::Error;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// As much as Gaiola receives at once.
const BUFFER_LEN: usize = 34 * 1024;

/// Connections that are ready, taken at once.
const EVENTS: usize = 256;

const LISTENER: u64 = 0;

/// Where bytes come from, and where they go.
type Way = (Rc<OwnedFd>, Rc<OwnedFd>);

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().ok_or("usage: relay PORT ORIGIN...")?.parse()?;
    let origins: Vec<String> = args.collect();
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let data = EventData::new_u64(LISTENER);
    epoll::add(&epoll, &listener, data, EventFlags::IN)?;
    let mut ways: HashMap<u64, Way> = HashMap::new();
    let mut buffers: Vec<Vec<u8>> = (0..EVENTS)
        .map(|_| Vec::with_capacity(BUFFER_LEN))
        .collect();
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    let mut next = LISTENER;
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        let mut received = Vec::with_capacity(EVENTS);
        for (event, buffer) in events.iter().zip(&mut buffers) {
            let id = event.data.u64();
            if id == LISTENER {
                let client = socket(listener.accept()?.0)?;
                let origin = &origins[usize::try_from(next)? / 2 % origins.len()];
                let server = socket(TcpStream::connect(origin)?)?;
                for (from, to) in [(&client, &server), (&server, &client)] {
                    next += 1;
                    let flags = EventFlags::IN | EventFlags::ET;
                    epoll::add(&epoll, from, EventData::new_u64(next), flags)?;
                    ways.insert(next, (Rc::clone(from), Rc::clone(to)));
                }
                continue;
            }
            let Some((from, to)) = ways.get(&id) else {
                continue;
            };
            buffer.clear();
            match recv(from, spare_capacity(buffer), RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => {}
                Ok((1.., _)) => received.push((Rc::clone(to), buffer)),
                Ok((0, _)) | Err(_) => {
                    // Its other way is the one before or behind it.
                    ways.remove(&id);
                    ways.remove(&(if id % 2 == 1 { id + 1 } else { id - 1 }));
                }
            }
        }
        for (to, buffer) in received {
            send_all(&to, buffer);
        }
    }
}

fn socket(stream: TcpStream) -> Result<Rc<OwnedFd>, Errno> {
    set_tcp_nodelay(&stream, true)?;
    ioctl_fionbio(&stream, true)?;
    Ok(Rc::new(stream.into()))
}

/// Waits where there is no room: with messages that fit there always is.
fn send_all(to: &OwnedFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match send(to, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(to, PollFlags::OUT)], None);
            }
            Err(_) => return,
        }
    }
}
