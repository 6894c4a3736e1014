//! The two logs, bounded on disk. Patroni writes one; the other is the standard error of all processes.

use crate::engine::Owner;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A log that grows beyond this is moved to `.1`, replacing an older one.
const LIMIT: u64 = 8 << 20;
/// Interval between two checks of their sizes.
const INTERVAL: Duration = Duration::from_secs(10);

pub(super) struct Logs {
    paths: [PathBuf; 2],
    next: Instant,
}

impl Logs {
    /// Creates both files where they are missing and returns the one for standard output and error.
    pub(super) fn open(directory: &Path, owner: Option<Owner>) -> io::Result<(Self, File)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
        let paths = ["patroni.log", "postgres.log"].map(|name| directory.join(name));
        open(&paths[0], owner)?;
        let output = open(&paths[1], owner)?;
        Ok((
            Self {
                paths,
                next: Instant::now(),
            },
            output,
        ))
    }

    /// Cuts logs that have grown too large, at intervals.
    pub(super) fn bound(&mut self, now: Instant) {
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        for path in &self.paths {
            if let Err(error) = cut(path, LIMIT) {
                tracing::warn!(%error, path = %path.display(), "cannot rotate a log");
            }
        }
    }
}

/// Opened for appending: the file can be truncated while others write to it.
fn open(path: &Path, owner: Option<Owner>) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    if let Some(owner) = owner {
        fchown(&file, Some(owner.uid), Some(owner.gid))?;
    }
    Ok(file)
}

/// Copies and truncates: the writers keep their descriptor. A line written in between is lost.
fn cut(path: &Path, limit: u64) -> io::Result<()> {
    if fs::metadata(path)?.len() <= limit {
        return Ok(());
    }
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    fs::copy(path, &older)?;
    OpenOptions::new().write(true).open(path)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_that_is_too_long_starts_anew_under_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, mut output) = Logs::open(dir.path(), None).unwrap();
        let path = &logs.paths[1];
        output.write_all(b"first\n").unwrap();
        cut(path, 6).unwrap();
        assert_eq!(fs::read(path).unwrap(), b"first\n");
        cut(path, 5).unwrap();
        output.write_all(b"second\n").unwrap();
        assert_eq!(fs::read(path).unwrap(), b"second\n");
        assert_eq!(
            fs::read(dir.path().join("postgres.log.1")).unwrap(),
            b"first\n"
        );
    }

    #[test]
    fn what_was_logged_before_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (_, mut output) = Logs::open(dir.path(), None).unwrap();
        output.write_all(b"one\n").unwrap();
        let (_, mut output) = Logs::open(dir.path(), None).unwrap();
        output.write_all(b"two\n").unwrap();
        let text = fs::read_to_string(dir.path().join("postgres.log")).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }
}
