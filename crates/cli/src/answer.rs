//! An answer that the operator types.

use anyhow::Context as _;
use std::io::{self, BufRead, IsTerminal as _};

/// Whether somebody at a terminal can read a question and answer it.
pub(crate) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and reads one line; `None`: the input ended without one.
///
/// # Errors
/// Where the input cannot be read.
pub(crate) fn to(question: &str) -> anyhow::Result<Option<String>> {
    eprint_line!("{question}");
    let answer = line(&mut io::stdin().lock());
    answer.context("cannot read the answer")
}

fn line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = input.read_line(&mut line)?;
    Ok((length > 0).then(|| line.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_line_without_what_is_around_it() {
        let mut input: &[u8] = b" y \r\n\nno";
        let mut next = || line(&mut input).unwrap();
        let answers = [next(), next(), next(), next()];
        assert_eq!(
            answers,
            [
                Some("y".into()),
                Some(String::new()),
                Some("no".into()),
                None
            ]
        );
        assert!(line(&mut &b"\xff\n"[..]).is_err());
    }
}
