//! Copying: into a directory that nothing reads, to the disk, and only then under the release's name.

use super::digest::Tally;
use super::walk::{Entry, Kind, Site};
use super::{Phase, Progress, ReleaseError, path_of};
use gaiola_model::placement::ReleaseNumber;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What a copy is named while it is made.
const UNFINISHED: &str = ".new";
/// What a release is named while it is removed.
const CONDEMNED: &str = ".old";
/// So many files are brought to the disk one by one; of more the whole file system is told to write once.
const SYNCED_SINGLY: usize = 500;

/// Everyone may read: the site's processes run as another user than the one who made the copy.
const READABLE: u32 = 0o444;
const EXECUTABLE: u32 = 0o555;
const WHILE_FILLED: u32 = 0o755;

/// A copy that is not yet a release. Dropped, it is removed.
pub(super) struct Copy<'a> {
    releases: &'a Path,
    path: PathBuf,
}

impl<'a> Copy<'a> {
    /// An empty one. There is one at a time: the caller holds the lock.
    pub(super) fn begin(releases: &'a Path) -> Result<Self, ReleaseError> {
        let path = releases.join(UNFINISHED);
        fs::create_dir(&path).map_err(failed(releases, "make the directory", &path))?;
        Ok(Self { releases, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Copies the site's entries, makes them read-only, and brings them to the disk.
    pub(super) fn fill(
        &mut self,
        site: &Site,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), ReleaseError> {
        let mut tally = Tally::new(Phase::Copying, &site.entries);
        let singly = site.entries.len() <= SYNCED_SINGLY;
        for entry in &site.entries {
            self.copy(&site.root, entry, singly)?;
            if let Kind::File { bytes, .. } = entry.kind {
                progress(tally.add(bytes));
            }
        }
        let directories = site
            .entries
            .iter()
            .rev()
            .filter(|entry| entry.kind == Kind::Directory)
            .map(|entry| self.path.join(&entry.path))
            .chain([self.path.clone()]);
        for directory in directories {
            self.set_mode(&directory, EXECUTABLE)?;
            if singly {
                self.sync(&directory)?;
            }
        }
        if !singly {
            self.sync_file_system()?;
        }
        Ok(())
    }

    /// Gives it its name: from now on it is a release.
    pub(super) fn keep_as(self, number: ReleaseNumber) -> Result<PathBuf, ReleaseError> {
        let path = path_of(self.releases, number);
        fs::rename(&self.path, &path).map_err(failed(self.releases, "rename", &self.path))?;
        self.sync(self.releases)?;
        Ok(path)
    }

    fn copy(&self, root: &Path, entry: &Entry, sync: bool) -> Result<(), ReleaseError> {
        let (from, to) = (root.join(&entry.path), self.path.join(&entry.path));
        match &entry.kind {
            Kind::Directory => {
                fs::create_dir(&to).map_err(failed(self.releases, "make the directory", &to))?;
                self.set_mode(&to, WHILE_FILLED)
            }
            Kind::Link(target) => {
                symlink(target, &to).map_err(failed(self.releases, "make the link", &to))
            }
            Kind::File { executable, .. } => {
                fs::copy(&from, &to).map_err(failed(self.releases, "copy", &from))?;
                keep_time(&from, &to).map_err(failed(self.releases, "set the time of", &to))?;
                let mode = if *executable { EXECUTABLE } else { READABLE };
                self.set_mode(&to, mode)?;
                if sync {
                    self.sync(&to)?;
                }
                Ok(())
            }
        }
    }

    fn set_mode(&self, path: &Path, mode: u32) -> Result<(), ReleaseError> {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed(
            self.releases,
            "set the mode of",
            path,
        ))
    }

    fn sync(&self, path: &Path) -> Result<(), ReleaseError> {
        File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(failed(self.releases, "write to the disk", path))
    }

    fn sync_file_system(&self) -> Result<(), ReleaseError> {
        File::open(&self.path)
            .and_then(|directory| Ok(rustix::fs::syncfs(&directory)?))
            .map_err(failed(self.releases, "write to the disk", &self.path))
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        // Once it was renamed there is nothing here; what cannot be removed now is removed by the next `make`.
        let _ = remove_tree(&self.path);
    }
}

/// What is derived from a file goes by when it was changed: compiled Python, `ETag`, `Last-Modified`.
fn keep_time(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
    use std::os::unix::fs::MetadataExt as _;
    let changed = fs::metadata(from)?;
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(0, UTIME_OMIT),
        last_modification: time(changed.mtime(), changed.mtime_nsec()),
    };
    Ok(rustix::fs::utimensat(CWD, to, &times, AtFlags::empty())?)
}

/// The directory for releases, open to the users that the site's processes run as, whatever the caller's umask.
pub(super) fn make_room(releases: &Path) -> Result<(), ReleaseError> {
    fs::create_dir_all(releases).map_err(failed(releases, "make the directory", releases))?;
    fs::set_permissions(releases, Permissions::from_mode(WHILE_FILLED)).map_err(failed(
        releases,
        "set the mode of",
        releases,
    ))
}

/// Removes what a crash left.
pub(super) fn remove_leftovers(releases: &Path) -> Result<(), ReleaseError> {
    for name in [UNFINISHED, CONDEMNED] {
        let path = releases.join(name);
        remove_tree(&path).map_err(ReleaseError::io("remove", &path))?;
    }
    Ok(())
}

/// Removes a release: its name first, so that a half-removed one is never taken for whole.
pub(super) fn remove(releases: &Path, number: ReleaseNumber) -> Result<(), ReleaseError> {
    let (path, condemned) = (path_of(releases, number), releases.join(CONDEMNED));
    fs::rename(&path, &condemned).map_err(ReleaseError::io("rename", &path))?;
    remove_tree(&condemned).map_err(ReleaseError::io("remove", &condemned))
}

/// The names of the directories that stand among the releases.
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

/// Removes a directory whose own directories are read-only. That it is not there is no error.
fn remove_tree(path: &Path) -> io::Result<()> {
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
