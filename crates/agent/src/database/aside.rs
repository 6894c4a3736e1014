//! Data directories that were set aside: whether there is room for one more, and when they are removed.

use crate::engine::KeeperDatabase;
use rustix::fs::statvfs;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// How many are kept at most; beyond that nothing is set aside.
const MOST: usize = 2;
/// The name of a directory while it is being removed.
const GONE: &str = "data.gone";

/// Whether the data may be set aside: a clone of its size fits beside it, and not too many are kept already.
pub(super) fn has_room(data: &Path) -> bool {
    let Some(parent) = data.parent() else {
        return false;
    };
    let kept = kept(parent, "data.").len();
    let size = size(data);
    statvfs(parent).is_ok_and(|disk| kept < MOST && disk.f_bavail * disk.f_frsize > size)
}

/// Removes what was kept until the site was whole. Forked data stays: it may hold writes that are nowhere else.
pub(super) fn forget(data: &Path) {
    let Some(parent) = data.parent() else { return };
    let gone = parent.join(GONE);
    for aside in kept(parent, KeeperDatabase::ASIDE) {
        match remove(&aside, &gone) {
            Ok(()) => tracing::info!(data = %aside.display(), "removed data that was set aside"),
            Err(error) => {
                let data = aside.display();
                tracing::warn!(%data, %error, "cannot remove data that was set aside");
            }
        }
    }
}

/// Renames first: a half-removed directory is never found under the name of a whole one.
fn remove(aside: &Path, gone: &Path) -> io::Result<()> {
    if gone.exists() {
        fs::remove_dir_all(gone)?;
    }
    fs::rename(aside, gone)?;
    fs::remove_dir_all(gone)
}

fn kept(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(prefix) && name != GONE
    };
    paths.filter(named).collect()
}

/// Disk usage of a directory, in bytes.
fn size(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_forked_stays_and_no_more_than_two_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("base")).unwrap();
        fs::write(data.join("base/1"), "rows").unwrap();
        assert!(size(&data) > 0 && has_room(&data));
        for name in ["data.aside.1", "data.forked.1"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert!(!has_room(&data));
        forget(&data);
        assert!(!dir.path().join("data.aside.1").exists());
        assert!(dir.path().join("data.forked.1").exists() && data.exists());
        assert!(has_room(&data));
    }
}
