//! Room that is kept back on a database server's disk.
//!
//! A PostgreSQL whose disk is full cannot even shut down in order, so a primary could not hand its role over. The reserve is
//! a file with blocks of its own; it is removed when the disk is full, and made again once there is room.

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Two files of PostgreSQL's log are enough to shut down; four leave something for others that write.
const LARGEST: u64 = 64 << 20;
/// The reserve's share of a small disk, and of the room that must be left beside it.
const SHARE: u64 = 16;

pub(super) struct Reserve(PathBuf);

impl Reserve {
    /// In the directory that holds PostgreSQL's data directory.
    pub(super) fn beside(data: &Path) -> Self {
        Self(data.with_file_name("reserve"))
    }

    /// Makes it where it is missing and there is room for it four times over.
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
            // Half a reserve is none.
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

    /// Gives the room back; whether there was any.
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
