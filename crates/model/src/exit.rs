//! Exit codes.

use serde::{Deserialize, Serialize};

/// How a command ended, as the shell sees it. These numbers are stable: scripts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", from = "u8")]
pub enum Exit {
    /// Done: 0.
    Ok,
    /// It failed: 1.
    Failed,
    /// The command line is wrong: 2.
    Usage,
    /// The file is invalid: 3.
    FileInvalid,
    /// The site is not healthy: 4.
    Degraded,
    /// It took too long: 5.
    Timeout,
    /// Another change is in progress: 7.
    ChangeUnderWay,
    /// Interrupted by the user: 130.
    Interrupted,
    /// The exit code of a command that was run for the user.
    Other(u8),
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
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
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit.code()
    }
}

impl From<u8> for Exit {
    fn from(code: u8) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_that_of_its_exit() {
        for code in 0..=u8::MAX {
            assert_eq!(Exit::from(code).code(), code);
        }
        assert_eq!(serde_json::to_string(&Exit::ChangeUnderWay).unwrap(), "7");
    }
}
