//! Room reserved on a database server's disk.
//!
//! A PostgreSQL whose disk is full cannot even shut down cleanly, so a primary could not switch over. The reserve is a
//! file with allocated blocks; it is removed when the disk is full, and made again once there is room.

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Two WAL segments are enough to shut down; four leave some room for other writers.
const LARGEST: u64 = 64 << 20;
/// The reserve of a small disk is this fraction of it.
const SHARE: u64 = 16;

pub(super) struct Reserve(PathBuf);

impl Reserve {
    /// The reserve in the directory that holds PostgreSQL's data directory.
    pub(super) fn beside(data: &Path) -> Self {
        Self(data.with_file_name("reserve"))
    }

    /// Makes the reserve where it is missing and four times its size is free.
    pub(super) fn keep(&self) -> io::Result<()> {
        let Some(directory) = self.0.parent().filter(|parent| parent.exists()) else {
            return Ok(());
        };
        if self.0.exists() {
            return Ok(());
        }
        let disk = statvfs(directory)?;
        let size = LARGEST.min(disk.f_blocks * disk.f_frsize / SHARE);
        if disk.f_bavail * disk.f_frsize < 4 * size {
            return Ok(());
        }
        let made = self.make(size);
        if made.is_err() {
            // Half a reserve is useless.
            let _ = fs::remove_file(&self.0);
        }
        made
    }

    fn make(&self, size: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.0)?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, size)?)
    }

    /// Releases the room; `true` if there was any.
    pub(super) fn release(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_has_blocks_of_its_own_and_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::beside(&dir.path().join("data"));
        assert!(!reserve.release());
        for _ in 0..2 {
            reserve.keep().unwrap();
            reserve.keep().unwrap();
            let found = fs::metadata(dir.path().join("reserve")).unwrap();
            assert!(found.blocks() * 512 >= found.len() && found.len() > 0);
            assert!(reserve.release());
        }
    }

    #[test]
    fn without_a_directory_there_is_nothing_to_keep() {
        Reserve::beside(Path::new("/nowhere/data")).keep().unwrap();
    }
}
