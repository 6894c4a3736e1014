//! A site whose servers run programs of two versions.

use super::Site;
use crate::binaries;
use crate::processes::Process;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The programs of two versions.
pub struct Programs {
    /// The usual one.
    pub old: PathBuf,
    /// The same, which calls itself one schema newer.
    pub new: PathBuf,
}

impl Site {
    /// Both programs, where every user may run them.
    pub fn programs(&self) -> Programs {
        let programs = Programs {
            old: self.base.path().join("bin/old/gaiola"),
            new: self.base.path().join("bin/new/gaiola"),
        };
        for (from, to) in [
            (binaries::gaiola(), &programs.old),
            (binaries::next(), &programs.new),
        ] {
            let folder = to.parent().expect("it is in a directory");
            fs::create_dir(folder).expect("it is made once");
            fs::copy(from, to).expect("the binary is copied");
        }
        programs
    }

    /// Switches a server to a program: each process that is started there from now on is of it.
    pub fn switch_program(&self, server: &str, program: &Path) {
        let link = self.state().join("servers").join(server).join("gaiola");
        let fresh = link.with_extension("new");
        symlink(program, &fresh).expect("the state can be written");
        fs::rename(fresh, link).expect("it is on the same disk");
    }

    /// Makes a program the one that commands are run with from now on, and so the next lab's.
    pub fn use_program(&self, program: &Path) {
        fs::remove_file(&self.binary).expect("it is there");
        fs::copy(program, &self.binary).expect("the binary is copied");
    }

    /// Kills a process on a server, and waits until it runs again.
    #[track_caller]
    pub fn start_again(&self, server: &str, name: &str) -> Process {
        let before = self.process(server, name);
        before.kill();
        let mut after = None;
        self.wait_for("it runs again", super::COMMAND_LIMIT, || {
            after = self.on(server, name).filter(|one| one.pid != before.pid);
            after.is_some()
        });
        after.expect("it was waited for")
    }
}
