//! The cookie that keeps a client on the server it was first sent to.
//!
//! Its value is the server's cookie name; if it expires, the times of its last and first setting follow (seconds since
//! 1970, in hexadecimal), and if there is a key, a signature of all that: the first half of HMAC-SHA-256, as 32 hexadecimal
//! digits. The parts are separated by dots. Any other value is ignored.

mod fault;

pub use fault::fault;

use crate::{balance, cookie};
use gaiola_model::http::RequestHead;
use gaiola_model::proxy::{Backend, SameSite, Server, Sticky};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::HashMap;
use std::fmt;
use std::io::Write as _;

/// Bytes of a signature.
const CODE: usize = 16;

/// Reads and writes one backend's cookie.
#[derive(Clone)]
pub struct Jar {
    sticky: Sticky,
    backend: String,
    /// Each server's name in the cookie.
    names: Vec<String>,
    servers: HashMap<String, usize>,
    mac: Option<Hmac<Sha256>>,
}

impl fmt::Debug for Jar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sticky, backend, ..
        } = self;
        f.debug_tuple("Jar").field(backend).field(sticky).finish()
    }
}

/// The content of a request's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The index of the named server.
    pub server: usize,
    /// Whether to set it again, so that it does not expire while in use.
    pub renew: bool,
    /// When it was first set.
    first: u64,
}

impl Jar {
    /// A jar for the backend's cookie; `None` if it has none.
    pub fn new(backend: &Backend) -> Option<Self> {
        let sticky = backend.sticky.clone()?;
        let names: Vec<_> = backend.servers.iter().map(name_of).collect();
        let mac = sticky.key.as_ref().map(|key| {
            Hmac::new_from_slice(key.0.as_bytes()).expect("HMAC takes keys of any length")
        });
        Some(Self {
            backend: backend.name.clone(),
            servers: names.iter().cloned().zip(0..).collect(),
            names,
            mac,
            sticky,
        })
    }

    /// The name of the cookie hidden from servers; `None` if they may see it.
    pub fn hidden(&self) -> Option<&str> {
        self.sticky.indirect.then_some(&*self.sticky.cookie)
    }

    /// The cookie's name.
    pub fn name(&self) -> &str {
        &self.sticky.cookie
    }

    /// The server that a request's cookie names. `now` is in seconds since 1970.
    pub fn find(&self, head: &RequestHead, buffer: &[u8], now: u64) -> Option<Found> {
        self.read(cookie::find(head, buffer, &self.sticky.cookie)?, now)
    }

    /// Parses a value.
    fn read(&self, value: &[u8], now: u64) -> Option<Found> {
        let value = match &self.mac {
            Some(mac) => self.verified(mac, value)?,
            None => value,
        };
        let (name, dates) = if self.is_dated() {
            let (rest, first) = split_last(value)?;
            let (name, last) = split_last(rest)?;
            (name, Some((number(last)?, number(first)?)))
        } else {
            (value, None)
        };
        let server = *self.servers.get(std::str::from_utf8(name).ok()?)?;
        let Some((last, first)) = dates else {
            return Some(Found {
                server,
                renew: false,
                first: now,
            });
        };
        let is_over = |limit: Option<std::time::Duration>, since: u64| {
            limit.is_some_and(|limit| now.saturating_sub(since) > limit.as_secs())
        };
        let over = is_over(self.sticky.max_idle, last) || is_over(self.sticky.max_life, first);
        (!over).then_some(Found {
            server,
            renew: self.sticky.max_idle.is_some() && last < now,
            first,
        })
    }

    /// Appends the lines that set the cookie, for a client served by this server; none if the cookie `found` is already
    /// right.
    pub fn set(&self, server: usize, found: Option<Found>, now: u64, lines: &mut Vec<u8>) {
        let same = found.filter(|found| found.server == server);
        if same.is_some_and(|same| !same.renew) {
            return;
        }
        let first = same.map_or(now, |same| same.first);
        lines.extend_from_slice(b"Set-Cookie: ");
        lines.extend_from_slice(self.sticky.cookie.as_bytes());
        lines.push(b'=');
        self.write(server, now, first, lines);
        self.write_attributes(lines);
        lines.extend_from_slice(b"\r\n");
        if self.sticky.nocache {
            lines.extend_from_slice(b"Cache-Control: private\r\n");
        }
    }

    /// Appends a value.
    fn write(&self, server: usize, last: u64, first: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.names[server].as_bytes());
        // Writing to a Vec cannot fail.
        if self.is_dated() {
            let _ = write!(out, ".{last:x}.{first:x}");
        }
        if let Some(mac) = &self.mac {
            let code = self.code(mac, &out[start..]).finalize().into_bytes();
            out.push(b'.');
            for byte in &code[..CODE] {
                let _ = write!(out, "{byte:02x}");
            }
        }
    }

    fn write_attributes(&self, out: &mut Vec<u8>) {
        let Sticky {
            path,
            domain,
            secure,
            http_only,
            same_site,
            ..
        } = &self.sticky;
        let _ = write!(out, "; Path={path}");
        if let Some(domain) = domain {
            let _ = write!(out, "; Domain={domain}");
        }
        let same_site = match same_site {
            Some(SameSite::Strict) => "; SameSite=Strict",
            Some(SameSite::Lax) => "; SameSite=Lax",
            Some(SameSite::None) => "; SameSite=None",
            None => "",
        };
        let flags = [(*http_only, "; HttpOnly"), (*secure, "; Secure")];
        let flags = flags.iter().filter(|(wanted, _)| *wanted);
        for text in flags.map(|(_, text)| *text).chain([same_site]) {
            out.extend_from_slice(text.as_bytes());
        }
    }

    const fn is_dated(&self) -> bool {
        self.sticky.max_idle.is_some() || self.sticky.max_life.is_some()
    }

    /// The signed part, if the signature is valid. The comparison runs in constant time.
    fn verified<'a>(&self, mac: &Hmac<Sha256>, value: &'a [u8]) -> Option<&'a [u8]> {
        let (signed, digits) = split_last(value)?;
        let mut code = [0; CODE];
        let (pairs, []) = digits.as_chunks::<2>() else {
            return None;
        };
        if pairs.len() != CODE {
            return None;
        }
        for (byte, pair) in code.iter_mut().zip(pairs) {
            *byte = u8::try_from(number(pair)?).ok()?;
        }
        let wanted = self.code(mac, signed);
        wanted.verify_truncated_left(&code).ok().map(|()| signed)
    }

    /// Includes the backend, so that its cookies are invalid for another one.
    fn code(&self, mac: &Hmac<Sha256>, signed: &[u8]) -> Hmac<Sha256> {
        let mut mac = mac.clone();
        mac.update(self.backend.as_bytes());
        mac.update(&[0]);
        mac.update(signed);
        mac
    }
}

/// A server's name in the cookie.
fn name_of(server: &Server) -> String {
    match &server.cookie {
        Some(name) => name.clone(),
        None => format!("{:016x}", balance::number_of(&server.name)),
    }
}

/// The parts before and after the last dot.
fn split_last(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = value.iter().rposition(|&byte| byte == b'.')?;
    Some((&value[..dot], &value[dot + 1..]))
}

/// A number of 1 to 16 lower-case hexadecimal digits.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests;
