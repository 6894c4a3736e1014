//! The user who brings a site up: the lab works for root and for every other user.

use std::path::Path;
use std::process::Command;

/// The user that runs `gaiola`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Root; unless the tests run as root, such a test is skipped.
    Root,
    /// An ordinary user: `nobody` if root runs the tests, else the caller.
    Rootless,
}

/// An ordinary user that exists on every machine.
const NOBODY: (u32, u32) = (65534, 65534);

impl Who {
    /// The user that runs the tests.
    pub fn caller() -> Self {
        if is_root() {
            Self::Root
        } else {
            Self::Rootless
        }
    }

    /// Whether tests can run as this user; reports a skipped test if not.
    pub fn is_here(self) -> bool {
        let here = self == Self::Rootless || is_root();
        if !here {
            let test = std::thread::current();
            let test = test.name().unwrap_or("a test");
            gaiola_os::skip::skipped(test, "not root: tested as an ordinary user only");
        }
        here
    }

    /// A command that runs as this user.
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

    /// Makes this user the owner of a directory.
    pub(crate) fn own(self, path: &Path) {
        if let Some((uid, gid)) = self.switched() {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("root may chown");
        }
    }

    /// The user to switch to, if any.
    fn switched(self) -> Option<(u32, u32)> {
        (self == Self::Rootless && is_root()).then_some(NOBODY)
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
