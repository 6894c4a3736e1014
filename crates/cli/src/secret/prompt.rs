//! A line that is typed and not shown.

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, BufRead};

/// What Ctrl-C, Ctrl-D and the two erase keys send.
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const ERASE: [u8; 2] = [8, 127];
/// The longest line.
const LONGEST: usize = 64 << 10;

/// Asks at the terminal, and reads a line that it does not show.
pub(super) fn hidden(question: &str) -> anyhow::Result<String> {
    eprint_line!("{question}");
    let _silent = Silent::begin().context("cannot make the terminal silent")?;
    let line = line(io::stdin().lock());
    eprint_line!("");
    line
}

/// A terminal that shows nothing, and sends each key at once: what Ctrl-C does is done here, so that it shows again afterwards.
struct Silent(Termios);

impl Silent {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

fn line(input: impl BufRead) -> anyhow::Result<String> {
    let mut typed = Vec::new();
    for byte in input.bytes() {
        match byte.context("cannot read the value")? {
            b'\n' | b'\r' | END => return whole(typed),
            INTERRUPT => bail!("interrupted"),
            byte if ERASE.contains(&byte) => erase(&mut typed),
            _ if typed.len() == LONGEST => bail!("the value is longer than {LONGEST} bytes"),
            byte => typed.push(byte),
        }
    }
    whole(typed)
}

fn whole(typed: Vec<u8>) -> anyhow::Result<String> {
    String::from_utf8(typed)
        .ok()
        .context("the value is not UTF-8")
}

/// The last character: in UTF-8 its further bytes begin with the bits 10.
fn erase(typed: &mut Vec<u8>) {
    while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_was_typed_and_not_erased() {
        let read = |keys: &[u8]| line(keys).ok();
        assert_eq!(read(b"s3cret\nmore").as_deref(), Some("s3cret"));
        assert_eq!(
            read("gr\u{fc}\u{7f}\u{fc}n\r".as_bytes()).as_deref(),
            Some("grün")
        );
        assert_eq!(read(b"ab\x7f\x7f\x7fc\x04").as_deref(), Some("c"));
        assert_eq!(read(b"ab\x03"), None);
        assert_eq!(read(b"\xff\n"), None);
    }
}
