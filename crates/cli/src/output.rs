//! Printing, and the exit code of a command that could not print.

pub(crate) use gaiola_model::Exit;

use gaiola_os::stderr;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

/// How long a line waits to be written to standard error, so that it appears before what is printed next.
const IN_ORDER: Duration = Duration::from_millis(100);

/// The error that a write to standard output failed with.
static UNPRINTED: OnceLock<io::Error> = OnceLock::new();

/// Prints a line on standard output.
macro_rules! print_line {
    ($($text:tt)*) => { $crate::output::print(&format!("{}\n", format_args!($($text)*))) };
}

/// Prints a line on standard error.
macro_rules! eprint_line {
    ($($text:tt)*) => { $crate::output::eprint(&format!("{}\n", format_args!($($text)*))) };
}

/// Prints on standard output. If that fails, the command continues, and its exit code reports it.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = printed {
        let _ = UNPRINTED.set(error);
    }
}

/// Prints on standard error; a slow reader delays it only briefly.
pub(crate) fn eprint(text: &str) {
    stderr::line(text);
    stderr::flush(IN_ORDER);
}

/// The command's exit code, or that of a failed write to standard output. A closed pipe is no failure: its reader has read enough.
pub(crate) fn settle(exit: Exit) -> Exit {
    match UNPRINTED.get() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprint_line!("gaiola: cannot write to standard output: {error}");
            match exit {
                Exit::Ok => Exit::Failed,
                failed => failed,
            }
        }
        Some(_) | None => exit,
    }
}

/// Whether standard output is closed: a command that follows a stream may stop.
pub(crate) fn is_closed() -> bool {
    UNPRINTED.get().is_some()
}

/// Whether standard output may be coloured; `refused`: the command line forbids it.
pub(crate) fn color(refused: bool) -> bool {
    !refused && std::env::var_os("NO_COLOR").is_none() && io::stdout().is_terminal()
}

/// A time of RFC 3339 without the fraction of its second; `-`: it is not known.
pub(crate) fn second_of(at: &str) -> String {
    match at.split_once('.') {
        Some((second, _)) => format!("{second}Z"),
        None if at.is_empty() => "-".into(),
        None => at.into(),
    }
}
