//! What people and programs are told: exit codes, colour, what cannot be printed.

use gaiola_os::stderr;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

/// A line on standard error waits this long for its turn, so that it stands before what is printed next.
const IN_ORDER: Duration = Duration::from_millis(100);

/// What kept standard output from taking what was printed.
static UNPRINTED: OnceLock<io::Error> = OnceLock::new();

/// Prints a line on standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::print(&format!("{}\n", format_args!($($text)*))) };
}

/// Tells a line on standard error.
macro_rules! tell {
    ($($text:tt)*) => { $crate::output::tell(&format!("{}\n", format_args!($($text)*))) };
}

/// Prints on standard output. Where that fails, what is under way goes on; the exit code says it in the end.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = printed {
        let _ = UNPRINTED.set(error);
    }
}

/// Tells something on standard error, which holds nobody up who does not read it.
pub(crate) fn tell(text: &str) {
    stderr::line(text);
    stderr::flush(IN_ORDER);
}

/// The exit code once standard output is known to have taken everything. Whoever closed it has read enough.
pub(crate) fn settle(exit: Exit) -> Exit {
    match UNPRINTED.get() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            tell!("gaiola: cannot write to standard output: {error}");
            match exit {
                Exit::Ok => Exit::Failed,
                failed => failed,
            }
        }
        Some(_) | None => exit,
    }
}

/// Whether standard output takes no more: whoever prints for ever may end.
pub(crate) fn is_closed() -> bool {
    UNPRINTED.get().is_some()
}

/// The published exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// It failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The file is invalid.
    FileInvalid,
    /// Not healthy.
    Degraded,
    /// It took too long.
    Timeout,
    /// Another change is under way.
    ChangeUnderWay,
    /// Interrupted by the user.
    Interrupted,
    /// What a command that was run for the user ended with.
    Other(u8),
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::FileInvalid => 3,
            Self::Degraded => 4,
            Self::Timeout => 5,
            Self::ChangeUnderWay => 7,
            Self::Interrupted => 130,
            Self::Other(code) => code,
        }
    }

    /// The exit that has this number.
    pub(crate) const fn of(code: u8) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::Failed,
            2 => Self::Usage,
            3 => Self::FileInvalid,
            4 => Self::Degraded,
            5 => Self::Timeout,
            7 => Self::ChangeUnderWay,
            130 => Self::Interrupted,
            other => Self::Other(other),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Whether standard output may be coloured; `refused`: not by the command line.
pub(crate) fn color(refused: bool) -> bool {
    !refused && std::env::var_os("NO_COLOR").is_none() && io::stdout().is_terminal()
}
