//! Finding the installed etcd.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Timeout of `etcd --version`.
const LIMIT: Duration = Duration::from_secs(10);
/// The oldest supported version: the first with learners.
const OLDEST: Version = Version::new(3, 4, 0);
/// The first unsupported newer version.
const TOO_NEW: Version = Version::new(4, 0, 0);
/// Where etcd is searched for after PATH.
const USUAL: &str = "/usr/bin:/usr/local/bin:/usr/sbin:/opt/etcd";

/// An installed etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

/// A version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// `major.minor.patch`.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Parses the output of `etcd --version`; `None` where it names no version.
    fn read(printed: &str) -> Option<Self> {
        let text = printed
            .lines()
            .find_map(|line| line.strip_prefix("etcd Version: "))?;
        let release = text.trim().split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self::new(next()?, next()?, next()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Why no etcd can be started.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not installed.
    #[error(
        "etcd was not found in {searched}; install 3.4 to 3.6 (on Debian: the package etcd-server)"
    )]
    Missing {
        /// Directories that were searched.
        searched: String,
    },
    /// Its version is not supported.
    #[error("{} is etcd {version}, which is not supported; install 3.4 to 3.6", path.display())]
    Unfit {
        /// Its path.
        path: PathBuf,
        /// Its version.
        version: Version,
    },
    /// It could not be run.
    #[error("cannot run {} --version", path.display())]
    NotRun {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It printed no version.
    #[error("{} --version printed no version of etcd, but {printed:?}", path.display())]
    Unknown {
        /// Its path.
        path: PathBuf,
        /// The beginning of its output.
        printed: String,
    },
}

/// The etcd of PATH, or of the usual places. Blocks while `etcd --version` runs.
pub fn find() -> Result<Program, ProgramError> {
    let path = std::env::var("PATH").unwrap_or_default();
    find_in(&format!("{path}:{USUAL}"))
}

fn find_in(searched: &str) -> Result<Program, ProgramError> {
    let path = searched
        .split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join("etcd"))
        .find(|path| path.is_file());
    let Some(path) = path else {
        return Err(ProgramError::Missing {
            searched: searched.into(),
        });
    };
    let printed = match printed(&path) {
        Ok(printed) => printed,
        Err(source) => return Err(ProgramError::NotRun { path, source }),
    };
    match Version::read(&printed) {
        None => Err(ProgramError::Unknown {
            path,
            printed: printed.chars().take(100).collect(),
        }),
        Some(version) if version < OLDEST || version >= TOO_NEW => {
            Err(ProgramError::Unfit { path, version })
        }
        Some(version) => Ok(Program { path, version }),
    }
}

/// The output of `path --version`, 4 KiB at most.
fn printed(path: &Path) -> io::Result<String> {
    let mut child = Command::new(path)
        .arg("--version")
        .env_clear()
        .env(
            "ETCD_UNSUPPORTED_ARCH",
            std::env::consts::ARCH.replace("aarch64", "arm64"),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut printed = String::new();
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    stdout.take(4096).read_to_string(&mut printed)?;
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn install(dir: &Path, prints: &str) {
        let path = dir.join("etcd");
        std::fs::write(&path, format!("#!/bin/sh\necho '{prints}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn versions_are_read_from_what_etcd_prints() {
        let printed = "etcd Version: 3.4.23\nGit SHA: Not provided\nGo Version: go1.19.8\n";
        assert_eq!(Version::read(printed), Some(Version::new(3, 4, 23)));
        let early = Version::read("etcd Version: 3.6.0-rc.1");
        assert_eq!(early, Some(Version::new(3, 6, 0)));
        assert_eq!(Version::read("etcd Version: soon"), None);
        assert_eq!(Version::read(""), None);
    }

    #[test]
    fn missing_old_and_mute_programs_are_distinguished() {
        let dir = tempfile::tempdir().unwrap();
        let find = || find_in(dir.path().to_str().unwrap());
        assert!(matches!(find(), Err(ProgramError::Missing { .. })));
        install(dir.path(), "etcd Version: 3.3.25");
        assert!(matches!(find(), Err(ProgramError::Unfit { .. })));
        install(dir.path(), "hello");
        assert!(matches!(find(), Err(ProgramError::Unknown { .. })));
        install(dir.path(), "etcd Version: 3.5.9");
        assert_eq!(find().unwrap().version, Version::new(3, 5, 9));
    }
}
