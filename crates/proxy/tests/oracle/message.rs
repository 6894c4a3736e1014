//! Messages as they came off a connection: read believing little, and written down.

use super::peer::{End, Peer};

/// What is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    RequestHead,
    Response,
    /// One to HEAD.
    BodilessResponse,
}

/// What follows from a message.
#[derive(Clone, Copy, Default)]
pub(crate) struct Facts {
    pub(crate) status: u16,
    pub(crate) says_close: bool,
    pub(crate) until_close: bool,
    pub(crate) is_head: bool,
}

/// What was written down of a message, and whether it is whole.
pub(crate) struct Seen {
    pub(crate) lines: Vec<String>,
    /// Its first line as it came.
    pub(crate) first: String,
    pub(crate) whole: Result<Facts, End>,
}

/// A head as it came; names are in small letters.
struct Head {
    first: String,
    fields: Vec<Field>,
}

type Field = (String, String);

enum Length {
    None,
    Exactly(usize),
    Chunked,
    UntilClose,
}

impl Seen {
    /// Reads a message; an error when the connection ends before its first byte.
    pub(crate) fn read(peer: &mut Peer, kind: Kind) -> Result<Self, End> {
        peer.begins()?;
        let mut lines = Vec::new();
        let (first, whole) = match Head::read(peer) {
            Ok(head) => (head.first.clone(), head.write_down(peer, kind, &mut lines)),
            Err(end) => {
                lines.push(in_short(&peer.leftover()));
                (String::new(), Err(end))
            }
        };
        if let Err(end) = whole {
            lines.push(format!("  broken off, {}", end.words()));
        }
        Ok(Self {
            lines,
            first,
            whole,
        })
    }
}

impl Head {
    fn read(peer: &mut Peer) -> Result<Self, End> {
        let first = peer.line()?;
        let mut fields = Vec::new();
        loop {
            match peer.line()? {
                line if line.is_empty() => return Ok(Self { first, fields }),
                line => fields.push(field(&line)),
            }
        }
    }

    /// Writes the head down, and the body that is read now.
    fn write_down(
        mut self,
        peer: &mut Peer,
        kind: Kind,
        lines: &mut Vec<String>,
    ) -> Result<Facts, End> {
        let status = self.status(kind);
        let length = self.length(kind, status);
        let facts = Facts {
            status,
            says_close: self.says_close(),
            until_close: matches!(length, Length::UntilClose),
            is_head: self.first.starts_with("HEAD "),
        };
        let is_own = status >= 300 && self.values("x-origin").next().is_none();
        if is_own {
            lines.push(format!("{status}, an answer of its own"));
            self.fields.retain(|(name, _)| is_compared(name));
        } else {
            lines.push(self.first.clone());
            self.fields
                .retain(|(name, _)| !matches!(&**name, "date" | "via" | "x-request-id"));
        }
        self.write_fields(lines);
        let (mut body, mut framing) = (Vec::new(), Vec::new());
        let whole = match length {
            Length::None => Ok(()),
            Length::Exactly(count) => peer.exactly(count, &mut body),
            Length::Chunked => chunks(peer, &mut body, &mut framing),
            Length::UntilClose => match peer.rest(&mut body) {
                End::Closed => Ok(()),
                end => Err(end),
            },
        };
        if !is_own && !matches!(length, Length::None) {
            lines.push(format!("  {}{}", manner(&length), in_short(&body)));
            lines.append(&mut framing);
        }
        whole.map(|()| facts)
    }

    fn write_fields(&mut self, lines: &mut Vec<String>) {
        self.fields.sort_by(|a, b| a.0.cmp(&b.0));
        let is_usual = self.speaks_truly_of_the_way();
        for (name, value) in &self.fields {
            if !(is_usual && name.starts_with("x-forwarded-")) {
                let value = shortened(value).unwrap_or_else(|| value.clone());
                add(lines, format!("  {name}: {value}"));
            }
        }
        if is_usual {
            lines.push("  and who asked for what".into());
        }
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.fields.iter().filter(move |(other, _)| other == name);
        fields.map(|(_, value)| &**value)
    }

    /// A response's status; 0 for a request.
    fn status(&self, kind: Kind) -> u16 {
        match kind {
            Kind::Request | Kind::RequestHead => 0,
            Kind::Response | Kind::BodilessResponse => {
                let word = self.first.split(' ').nth(1);
                word.and_then(|word| word.parse().ok()).unwrap_or(0)
            }
        }
    }

    fn length(&self, kind: Kind, status: u16) -> Length {
        let coding = self.values("transfer-encoding").next();
        let count = self.values("content-length").next();
        match (kind, coding, count) {
            (Kind::RequestHead | Kind::BodilessResponse, ..) => Length::None,
            (Kind::Response, ..) if matches!(status, 100..200 | 204 | 304) => Length::None,
            (_, Some(_), _) => Length::Chunked,
            (_, None, Some(count)) => Length::Exactly(count.parse().unwrap_or(0)),
            (Kind::Request, None, None) => Length::None,
            (Kind::Response, None, None) => Length::UntilClose,
        }
    }

    fn says_close(&self) -> bool {
        let mut options = self.values("connection");
        options.any(|options| options.contains("close"))
    }

    /// Whether it says of the client, its protocol and its host what it always should.
    fn speaks_truly_of_the_way(&self) -> bool {
        self.values("x-forwarded-for").eq(["127.0.0.1"])
            && self.values("x-forwarded-proto").eq(["http"])
            && self.values("x-forwarded-host").eq(self.values("host"))
    }
}

fn chunks(peer: &mut Peer, body: &mut Vec<u8>, framing: &mut Vec<String>) -> Result<(), End> {
    loop {
        let line = peer.line()?;
        let (size, extension) = line.split_once(';').unwrap_or((&line, ""));
        if !extension.is_empty() {
            framing.push(format!("  chunk extension: {extension}"));
        }
        let Ok(size) = usize::from_str_radix(size, 16) else {
            framing.push(format!("  no chunk size: {line}"));
            return Err(End::Closed);
        };
        if size == 0 {
            break;
        }
        peer.exactly(size, body)?;
        let end = peer.line()?;
        if !end.is_empty() {
            framing.push(format!("  behind a chunk: {end}"));
        }
    }
    loop {
        match peer.line()? {
            line if line.is_empty() => return Ok(()),
            line => {
                let (name, value) = field(&line);
                add(framing, format!("  trailer {name}: {value}"));
            }
        }
    }
}

fn field(line: &str) -> Field {
    match line.split_once(':') {
        Some((name, value)) => {
            let name = name.to_ascii_lowercase();
            let value = value.replace("\\t", "\t");
            let value = value.trim();
            // Neither options nor the names of a cookie's attributes have a case.
            let value = match &*name {
                "connection" => value.to_lowercase(),
                "set-cookie" => value
                    .replace("; Path", "; path")
                    .replace("; Domain", "; domain"),
                _ => value.replace('\t', "\\t"),
            };
            (name, value)
        }
        None => (line.to_owned(), "(no colon)".to_owned()),
    }
}

const fn manner(length: &Length) -> &'static str {
    match length {
        Length::None => "",
        Length::Exactly(_) => "body: ",
        Length::Chunked => "chunked body: ",
        Length::UntilClose => "body until the end: ",
    }
}

/// What is compared of an answer that a proxy made itself. Its words, its type and the rest are a matter of taste.
fn is_compared(name: &str) -> bool {
    matches!(
        name,
        "connection" | "location" | "www-authenticate" | "set-cookie" | "strict-transport-security"
    ) || (name.starts_with("x-") && name != "x-request-id")
}

/// Adds a line; the same one again is counted only.
fn add(lines: &mut Vec<String>, line: String) {
    match lines.last_mut() {
        Some(last) if *last == line => last.push_str(" (several times)"),
        Some(last) if last.strip_suffix(" (several times)") == Some(&line) => {}
        _ => lines.push(line),
    }
}

/// Bytes as text, or what distinguishes them from others.
pub(crate) fn in_short(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    shortened(&text).unwrap_or_else(|| format!("\"{text}\""))
}

/// What distinguishes a long text from others; `None` for a short one.
fn shortened(text: &str) -> Option<String> {
    const MOST: usize = 120;
    let sum = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (text.len() > MOST).then(|| format!("{} bytes, of sum {sum:016x}", text.len()))
}
