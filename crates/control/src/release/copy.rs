//! Copies: unpacked into a directory that nothing reads, synced, stored under the digest of their contents, and then
//! numbered.

use super::walk::{MOST_BYTES, MOST_FILES};
use super::{ReleaseError, path_of};
use crate::api::Digest;
use crate::archive::{self, ArchiveError, Entry, Kind, Rules};
use gaiola_agent::state::release_digest;
use gaiola_model::placement::ReleaseNumber;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Maximum number of entries of an archive: files, directories, links and records.
const MOST_ENTRIES: u64 = 10 * MOST_FILES;
/// Maximum size of all their paths.
const MOST_NAMES: u64 = 128 << 20;
/// Prefix of the name of a copy that is not numbered yet; its digest follows.
const HELD: &str = ".held-";
/// The name of a copy while it is being written.
const UNFINISHED: &str = ".new";
/// The name of a release while it is being removed.
const CONDEMNED: &str = ".old";
/// The name of a file with a digest while it is being written.
const NOTED: &str = ".digest-new";
/// Up to this many files are synced one by one; above it the whole file system is synced once.
const SYNCED_SINGLY: usize = 500;

/// Everyone may read: the site's processes run as a different user.
const READABLE: u32 = 0o444;
const EXECUTABLE: u32 = 0o555;
const WHILE_FILLED: u32 = 0o755;

/// Modes of a release: everyone may read it, nobody may write.
const RULES: Rules = Rules {
    entries: MOST_ENTRIES,
    files: MOST_FILES,
    file_bytes: MOST_BYTES,
    bytes: MOST_BYTES,
    names: MOST_NAMES,
    links: true,
    directory: WHILE_FILLED,
    file: READABLE,
    executable: EXECUTABLE,
};

/// A copy that is not a release yet. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Copy {
    releases: PathBuf,
    path: PathBuf,
}

impl Copy {
    /// Unpacks an archive, makes its contents read-only, and syncs them; returns its entries sorted by path. The caller
    /// ensures that calls do not overlap; leftovers of a crash are removed.
    pub(super) fn unpack(
        archive: impl Read,
        releases: &Path,
    ) -> Result<(Self, Vec<Entry>), ReleaseError> {
        let path = releases.join(UNFINISHED);
        remove_tree(&path).map_err(ReleaseError::io("remove", &path))?;
        fs::create_dir(&path).map_err(failed(releases, "make the directory", &path))?;
        let copy = Self {
            releases: releases.into(),
            path,
        };
        let entries = archive::unpack(archive, &copy.path, &RULES);
        let mut entries = entries.map_err(|error| copy.not_unpacked(error))?;
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        copy.finish(&entries)?;
        Ok((copy, entries))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn releases(&self) -> &Path {
        &self.releases
    }

    /// Renames it to this name, which nothing reads, until it is numbered. An earlier one is removed.
    pub(super) fn hold(self, digest: &Digest) -> Result<(), ReleaseError> {
        drop_held(&self.releases)?;
        let path = held(&self.releases, digest);
        fs::rename(&self.path, &path).map_err(failed(&self.releases, "rename", &self.path))?;
        sync(&self.releases, &self.releases)
    }

    /// Makes it the release with this number and digest. One that has the number is removed.
    pub(super) fn keep_as(
        self,
        number: ReleaseNumber,
        digest: &Digest,
    ) -> Result<(), ReleaseError> {
        give_number(&self.releases, &self.path, number, digest)
    }

    /// Files first, then the directories that hold them.
    fn finish(&self, entries: &[Entry]) -> Result<(), ReleaseError> {
        let singly = entries.len() <= SYNCED_SINGLY;
        let files = entries
            .iter()
            .filter(|entry| matches!(entry.kind, Kind::File { .. }));
        for file in files.filter(|_| singly) {
            sync(&self.releases, &self.path.join(&file.path))?;
        }
        let directories = entries
            .iter()
            .rev()
            .filter(|entry| entry.kind == Kind::Directory)
            .map(|entry| self.path.join(&entry.path))
            .chain([self.path.clone()]);
        for directory in directories {
            set_mode(&self.releases, &directory, EXECUTABLE)?;
            if singly {
                sync(&self.releases, &directory)?;
            }
        }
        if singly {
            Ok(())
        } else {
            sync_file_system(&self.releases, &self.path)
        }
    }

    fn not_unpacked(&self, error: ArchiveError) -> ReleaseError {
        match error {
            ArchiveError::Io {
                tried,
                path,
                source,
            } => failed(&self.releases, tried, &path)(source),
            other => ReleaseError::NotUnpacked(Box::new(other)),
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // After the rename nothing is left here; what cannot be removed now is removed by the next copy.
        let _ = remove_tree(&self.path);
    }
}

/// Numbers a copy, which makes it a release. `false`: there is no copy with these contents.
pub(super) fn number(
    releases: &Path,
    digest: &Digest,
    number: ReleaseNumber,
) -> Result<bool, ReleaseError> {
    if !is_held(releases, digest) {
        return Ok(false);
    }
    give_number(releases, &held(releases, digest), number, digest)?;
    Ok(true)
}

/// Renames a copy to the release with this number. Its digest is on the disk before: with the number alone nobody knows what it is.
fn give_number(
    releases: &Path,
    from: &Path,
    number: ReleaseNumber,
    digest: &Digest,
) -> Result<(), ReleaseError> {
    let to = path_of(releases, number);
    if to.is_dir() {
        condemn(releases, &to)?;
    }
    note_digest(releases, number, digest)?;
    fs::rename(from, &to).map_err(failed(releases, "rename", from))?;
    sync(releases, releases)
}

/// The digest of a release as it was noted; `None`: an earlier version made it, or there is none.
pub(super) fn known_digest(releases: &Path, number: ReleaseNumber) -> Option<Digest> {
    let text = fs::read_to_string(release_digest(releases, number)).ok()?;
    text.parse().ok()
}

/// Notes the digest of a release, whole or not at all.
pub(super) fn note_digest(
    releases: &Path,
    number: ReleaseNumber,
    digest: &Digest,
) -> Result<(), ReleaseError> {
    let (path, new) = (release_digest(releases, number), releases.join(NOTED));
    fs::write(&new, digest.as_str()).map_err(failed(releases, "write", &new))?;
    sync(releases, &new)?;
    fs::rename(&new, &path).map_err(failed(releases, "rename", &new))?;
    sync(releases, releases)
}

/// Removes all copies that are not numbered yet.
pub(super) fn drop_held(releases: &Path) -> Result<(), ReleaseError> {
    for other in names(releases)? {
        if other.starts_with(HELD) {
            condemn(releases, &releases.join(other))?;
        }
    }
    Ok(())
}

/// Whether there is a copy with these contents that is not numbered yet.
pub(super) fn is_held(releases: &Path, digest: &Digest) -> bool {
    held(releases, digest).is_dir()
}

fn held(releases: &Path, digest: &Digest) -> PathBuf {
    releases.join(format!("{HELD}{digest}"))
}

fn set_mode(releases: &Path, path: &Path, mode: u32) -> Result<(), ReleaseError> {
    let set = fs::set_permissions(path, Permissions::from_mode(mode));
    set.map_err(failed(releases, "set the mode of", path))
}

fn sync(releases: &Path, path: &Path) -> Result<(), ReleaseError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(failed(releases, "write to the disk", path))
}

fn sync_file_system(releases: &Path, path: &Path) -> Result<(), ReleaseError> {
    File::open(path)
        .and_then(|directory| Ok(rustix::fs::syncfs(&directory)?))
        .map_err(failed(releases, "write to the disk", path))
}

/// The directory of releases, readable by the users of the site's processes whatever the caller's umask.
pub(super) fn make_room(releases: &Path) -> Result<(), ReleaseError> {
    fs::create_dir_all(releases).map_err(failed(releases, "make the directory", releases))?;
    fs::set_permissions(releases, Permissions::from_mode(WHILE_FILLED)).map_err(failed(
        releases,
        "set the mode of",
        releases,
    ))
}

/// Removes a release: renames it first, so that a partly removed one is never used.
pub(super) fn remove(releases: &Path, number: ReleaseNumber) -> Result<(), ReleaseError> {
    condemn(releases, &path_of(releases, number))?;
    let digest = release_digest(releases, number);
    match fs::remove_file(&digest) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ReleaseError::io("remove", &digest)(error))
        }
        _ => Ok(()),
    }
}

/// Removes leftovers of an interrupted removal.
pub(super) fn remove_condemned(releases: &Path) -> Result<(), ReleaseError> {
    let condemned = releases.join(CONDEMNED);
    remove_tree(&condemned).map_err(ReleaseError::io("remove", &condemned))
}

fn condemn(releases: &Path, path: &Path) -> Result<(), ReleaseError> {
    remove_condemned(releases)?;
    let condemned = releases.join(CONDEMNED);
    fs::rename(path, &condemned).map_err(ReleaseError::io("rename", path))?;
    remove_condemned(releases)
}

/// The names of all directories among the releases.
pub(super) fn names(releases: &Path) -> Result<Vec<String>, ReleaseError> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(releases)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    };
    read().map_err(ReleaseError::io("list", releases))
}

/// Removes a directory with read-only subdirectories. It need not exist.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match unlock(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::remove_dir_all(path),
    }
}

fn unlock(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

fn failed(
    releases: &Path,
    tried: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ReleaseError {
    let (releases, path) = (releases.to_path_buf(), path.to_path_buf());
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ReleaseError::DiskFull {
            path,
            releases,
            source,
        },
        _ => ReleaseError::Io {
            tried,
            path,
            source,
        },
    }
}
