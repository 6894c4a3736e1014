//! What people and programs are told: exit codes, colour, completion scripts.

use crate::args::{Args, Global};
use clap::CommandFactory as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;

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

/// Whether standard output may be coloured.
pub(crate) fn color(global: &Global) -> bool {
    !global.no_color && std::env::var_os("NO_COLOR").is_none() && std::io::stdout().is_terminal()
}

/// Prints a completion script.
pub(crate) fn completion(shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    clap_complete::generate(
        shell,
        &mut Args::command(),
        "gaiola",
        &mut std::io::stdout(),
    );
    Ok(Exit::Ok)
}
