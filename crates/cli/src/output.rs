//! What is printed, and how a command that could not print ends.

pub(crate) use gaiola_model::Exit;

use gaiola_os::stderr;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

/// A line on standard error waits this long for its turn, so that it stands before what is printed next.
const IN_ORDER: Duration = Duration::from_millis(100);

/// What kept standard output from taking what was printed.
static UNPRINTED: OnceLock<io::Error> = OnceLock::new();

/// Prints a line on standard output.
macro_rules! print_line {
    ($($text:tt)*) => { $crate::output::print(&format!("{}\n", format_args!($($text)*))) };
}

/// Prints a line on standard error.
macro_rules! eprint_line {
    ($($text:tt)*) => { $crate::output::eprint(&format!("{}\n", format_args!($($text)*))) };
}

/// Prints on standard output. Where that fails, what is under way goes on; the exit code shows it in the end.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = printed {
        let _ = UNPRINTED.set(error);
    }
}

/// Prints on standard error without ever waiting long for a reader.
pub(crate) fn eprint(text: &str) {
    stderr::line(text);
    stderr::flush(IN_ORDER);
}

/// The exit code once standard output is known to have taken everything. Whoever closed it has read enough.
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

/// Whether standard output takes no more: a command that prints without end may stop.
pub(crate) fn is_closed() -> bool {
    UNPRINTED.get().is_some()
}

/// Whether standard output may be coloured; `refused`: not by the command line.
pub(crate) fn color(refused: bool) -> bool {
    !refused && std::env::var_os("NO_COLOR").is_none() && io::stdout().is_terminal()
}
