//! As whom a site is brought up: the lab works for root and for everybody else.

use std::path::Path;
use std::process::Command;

/// Whom `gaiola` is run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Root. Where the tests are not, such a test does nothing.
    Root,
    /// An ordinary user: `nobody` where the tests are run by root, the caller otherwise.
    Rootless,
}

/// An ordinary user that every machine has.
const NOBODY: (u32, u32) = (65534, 65534);

impl Who {
    /// The user whom the tests are run by.
    pub fn caller() -> Self {
        if is_root() {
            Self::Root
        } else {
            Self::Rootless
        }
    }

    /// Whether this can be had here; says so where it cannot.
    pub fn is_here(self) -> bool {
        let here = self == Self::Rootless || is_root();
        if !here {
            let test = std::thread::current();
            let test = test.name().unwrap_or("a test");
            gaiola_os::skip::skipped(test, "not root: tested as an ordinary user only");
        }
        here
    }

    /// A command that is run as this user.
    pub(crate) fn command(self, program: &Path) -> Command {
        let Some((uid, gid)) = self.switched() else {
            return Command::new(program);
        };
        let mut command = Command::new("setpriv");
        command.args([
            format!("--reuid={uid}"),
            format!("--regid={gid}"),
            "--clear-groups".into(),
            "--".into(),
        ]);
        command.arg(program);
        command
    }

    /// Makes a directory this user's.
    pub(crate) fn own(self, path: &Path) {
        if let Some((uid, gid)) = self.switched() {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("root may chown");
        }
    }

    /// The user that has to be switched to.
    fn switched(self) -> Option<(u32, u32)> {
        (self == Self::Rootless && is_root()).then_some(NOBODY)
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
