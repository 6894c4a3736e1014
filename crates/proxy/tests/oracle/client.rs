//! What the client does, and what it saw.

use super::conversation::Step;
use super::message::{Facts, Kind, Seen, in_short};
use super::peer::{End, LONG, Peer};
use super::play::PAUSE;
use super::tls::{self, Hello};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// For a connection to be closed by a proxy that did not say so.
const POLL: Duration = Duration::from_millis(25);

/// A client's connection.
pub(crate) struct Client {
    /// `None` once it was reset.
    proxy: Option<Peer>,
    lines: Vec<String>,
    last: Facts,
    /// How it ended, once it has.
    end: Option<End>,
}

impl Client {
    pub(crate) fn connect(bind: SocketAddr, hello: Option<&Hello>) -> Self {
        let mut client = Self {
            proxy: Some(Peer::new(TcpStream::connect_timeout(&bind, LONG).unwrap())),
            lines: Vec::new(),
            last: Facts::default(),
            end: None,
        };
        if let Some(hello) = hello {
            client.handshake(hello);
        }
        client
    }

    fn handshake(&mut self, hello: &Hello) {
        let Some(proxy) = &mut self.proxy else { return };
        match proxy.handshake(tls::client(hello)) {
            Ok(tls) => self.lines.push(tls::described(tls)),
            Err(end) => self.ended(end),
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        let Some(proxy) = &mut self.proxy else {
            return;
        };
        match step {
            Step::Send(bytes) => drop(proxy.say(bytes)),
            Step::Pause => std::thread::sleep(PAUSE),
            Step::Read => self.response(Kind::Response),
            Step::ReadHead => self.response(Kind::BodilessResponse),
            Step::ReadBytes(count) => {
                let mut bytes = Vec::new();
                let read = proxy.exactly(*count, &mut bytes);
                self.lines.push(in_short(&bytes));
                self.end = read.err();
            }
            Step::Notify => drop(proxy.notify()),
            Step::Shut => drop(proxy.stream.shutdown(Shutdown::Write)),
            Step::Reset => {
                proxy.will_reset();
                self.proxy = None;
            }
            Step::ReadToEnd => {
                let mut bytes = Vec::new();
                let end = proxy.rest(&mut bytes);
                if !bytes.is_empty() {
                    self.lines.push(in_short(&bytes));
                }
                self.ended(end);
            }
            Step::Open | Step::On(_) | Step::Await(_) => unreachable!("not a client's step"),
        }
    }

    /// Reads up to a final response.
    fn response(&mut self, kind: Kind) {
        while let Some(proxy) = &mut self.proxy
            && self.end.is_none()
        {
            match Seen::read(proxy, kind) {
                Err(end) => return self.ended(end),
                Ok(mut seen) => {
                    self.lines.append(&mut seen.lines);
                    match seen.whole {
                        Err(end) => {
                            self.end = Some(end);
                            return;
                        }
                        Ok(facts) => self.last = facts,
                    }
                }
            }
            if !matches!(self.last.status, 100 | 102..200) {
                return;
            }
        }
    }

    fn ended(&mut self, end: End) {
        if self.end.is_none() {
            self.lines.push(end.words());
            self.end = Some(end);
        }
    }

    /// What it saw, and whether its connection is left.
    pub(crate) fn finish(mut self) -> Vec<String> {
        if let Some(proxy) = &mut self.proxy
            && self.end.is_none()
            && !self.last.until_close
        {
            let wait = if self.last.says_close { LONG } else { POLL };
            let end = proxy.end_within(wait);
            let end = end.map_or_else(|| "kept open".into(), End::words);
            self.lines.push(end);
        }
        self.lines
    }
}
