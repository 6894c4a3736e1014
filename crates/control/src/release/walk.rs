//! Which files of the site's directory belong to a release.
//!
//! Everything, built programs too, except: the directories of version control, what a `.gaiolaignore` names (in
//! `.gitignore` syntax), those files themselves, the site's `gaiola.toml`, its certificates, and Gaiola's state. A `.gitignore` is
//! not read: it mostly names build output. Sockets, pipes, devices and dangling links have no contents
//! and are ignored. Files that only their owner may use, such as keys, are left out and reported: everyone may
//! read a release.

use super::{ReleaseError, Source};
use crate::archive::{Entry, Kind, leads_out};
use ignore::{DirEntry, WalkBuilder};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The file that lists paths that are not part of the site, in `.gitignore` syntax.
pub(super) const IGNORE_FILE: &str = ".gaiolaignore";
/// Directories of version control.
const VERSION_CONTROL: [&str; 7] = [".git", ".hg", ".svn", ".jj", ".bzr", ".pijul", "_darcs"];
/// Maximum number of files: a larger directory contains something that is not part of the site.
pub(super) const MOST_FILES: u64 = 100_000;
/// As [`MOST_FILES`].
pub(super) const MOST_BYTES: u64 = 2 << 30;

/// The contents of the site's directory.
pub(super) struct Site {
    /// Its real path.
    pub(super) root: PathBuf,
    /// What belongs to a release, each directory before its entries.
    pub(super) entries: Vec<Entry>,
    /// Files and directories that are left out because only their owner may use them, relative to the site's directory.
    pub(super) private: Vec<PathBuf>,
}

/// Walks the site's directory. If `releases` does not exist yet, no state of Gaiola's is left out.
pub(super) fn site(source: Source<'_>, releases: &Path) -> Result<Site, ReleaseError> {
    let root = real(source.directory)?;
    let left_out = left_out(&root, source, releases)?;
    let private = Arc::new(Mutex::new(Vec::new()));
    let note_private = Arc::clone(&private);
    let is_wanted = move |entry: &DirEntry| {
        if entry.depth() == 0 {
            return true;
        }
        if is_left_out(entry, &left_out) {
            return false;
        }
        let private = is_private(entry);
        if private && let Ok(mut noted) = note_private.lock() {
            noted.push(entry.path().to_path_buf());
        }
        !private
    };
    let walk = WalkBuilder::new(&root)
        .standard_filters(false)
        .follow_links(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .filter_entry(is_wanted)
        .build();

    let failed = |source| ReleaseError::Walk {
        directory: root.clone(),
        source,
    };
    let opened = File::open(&root).map_err(ReleaseError::io("open", &root))?;
    let mut entries = Vec::new();
    for entry in walk {
        let entry = entry.map_err(failed)?;
        if let Some(unreadable) = entry.error().cloned() {
            return Err(failed(unreadable));
        }
        if entry.depth() > 0
            && let path = entry.path().strip_prefix(&root).unwrap_or(entry.path())
            && let Some(kind) = kind(&root, &opened, path)?
        {
            entries.push(Entry {
                path: path.to_path_buf(),
                kind,
            });
        }
    }
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    check_size(&entries, MOST_FILES, MOST_BYTES)?;
    let noted = private.lock().map(|mut noted| std::mem::take(&mut *noted));
    let below = |path: PathBuf| path.strip_prefix(&root).map(Path::to_path_buf).ok();
    let mut private: Vec<PathBuf> = noted
        .unwrap_or_default()
        .into_iter()
        .filter_map(below)
        .collect();
    private.sort();
    Ok(Site {
        root,
        entries,
        private,
    })
}

/// Whether only its owner may use it.
fn is_private(entry: &DirEntry) -> bool {
    let is_kind = |kind: fs::FileType| kind.is_file() || kind.is_dir();
    let counts = entry.file_type().is_some_and(is_kind);
    let mode = entry.metadata().map(|held| held.permissions().mode());
    counts && mode.is_ok_and(|mode| mode & 0o077 == 0)
}

/// Paths that are never part of the site.
fn left_out(
    root: &Path,
    source: Source<'_>,
    releases: &Path,
) -> Result<Vec<PathBuf>, ReleaseError> {
    let mut paths = Vec::new();
    if let Ok(releases) = fs::canonicalize(releases) {
        let state = releases.parent().unwrap_or(&releases);
        if state == root {
            return Err(ReleaseError::StateIsSite(root.to_path_buf()));
        }
        if state.starts_with(root) {
            paths.push(state.to_path_buf());
        }
        paths.push(releases);
    }
    paths.extend(place(source.file)?);
    for apart in source.apart {
        paths.extend(place(apart).ok().flatten());
    }
    Ok(paths)
}

/// The real path of a file that may be a link, or not exist.
fn place(file: &Path) -> Result<Option<PathBuf>, ReleaseError> {
    let (Some(parent), Some(name)) = (file.parent(), file.file_name()) else {
        return Ok(None);
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    Ok(Some(real(parent)?.join(name)))
}

fn is_left_out(entry: &DirEntry, paths: &[PathBuf]) -> bool {
    let name = entry.file_name();
    let is_directory = entry.file_type().is_some_and(|kind| kind.is_dir());
    let is_worktree = name == ".git"; // a file, in a linked worktree or submodule
    name == IGNORE_FILE
        || is_worktree
        || is_directory && VERSION_CONTROL.iter().any(|control| name == *control)
        || paths.iter().any(|path| path == entry.path())
}

/// The entry at `path` below the site's directory; `None` if it has no contents that could be copied.
fn kind(root: &Path, opened: &File, path: &Path) -> Result<Option<Kind>, ReleaseError> {
    let place = root.join(path);
    let metadata = fs::symlink_metadata(&place).map_err(ReleaseError::io("stat", &place))?;
    if metadata.is_symlink() {
        return link(&place, leads_out(opened, path));
    }
    Ok(if metadata.is_dir() {
        Some(Kind::Directory)
    } else if metadata.is_file() {
        Some(Kind::File {
            executable: metadata.permissions().mode() & 0o111 != 0,
            bytes: metadata.len(),
        })
    } else {
        None
    })
}

/// A link is kept if its target is inside, by a path that is also valid in a copy.
fn link(path: &Path, leads_out: bool) -> Result<Option<Kind>, ReleaseError> {
    let target = fs::read_link(path).map_err(ReleaseError::io("read the link", path))?;
    if fs::canonicalize(path).is_err() {
        return Ok(None);
    }
    if leads_out {
        if is_of_python_environment(path) {
            return Err(ReleaseError::PythonEnvironment {
                link: path.to_path_buf(),
                target,
            });
        }
        return Err(ReleaseError::LinkOutside {
            link: path.to_path_buf(),
            target,
        });
    }
    Ok(Some(Kind::Link(target)))
}

/// Whether a link is the interpreter of a virtual environment, `venv/bin/python3` beside `venv/pyvenv.cfg`.
fn is_of_python_environment(link: &Path) -> bool {
    let name = link.file_name().and_then(|name| name.to_str());
    let environment = link.parent().and_then(Path::parent);
    name.is_some_and(|name| name.starts_with("python"))
        && environment.is_some_and(|folder| folder.join("pyvenv.cfg").exists())
}

fn check_size(entries: &[Entry], most_files: u64, most_bytes: u64) -> Result<(), ReleaseError> {
    let (mut files, mut bytes) = (0, 0_u64);
    let mut parts: BTreeMap<PathBuf, (u64, u64)> = BTreeMap::new();
    for entry in entries {
        if let Kind::File { bytes: size, .. } = entry.kind {
            files += 1;
            bytes = bytes.saturating_add(size);
            let part: PathBuf = entry.path.iter().take(1).collect();
            let sum = parts.entry(part).or_default();
            *sum = (sum.0.saturating_add(size), sum.1 + 1);
        }
    }
    if files <= most_files && bytes <= most_bytes {
        return Ok(());
    }
    let heaviest = |(_, (bytes, files)): &(PathBuf, (u64, u64))| {
        if files > &most_files {
            (*files, *bytes)
        } else {
            (0, *bytes)
        }
    };
    let largest = parts.into_iter().max_by_key(heaviest);
    Err(ReleaseError::TooLarge {
        files,
        mib: bytes >> 20,
        most_files,
        most_mib: most_bytes >> 20,
        largest: largest.map(|(part, _)| part).unwrap_or_default(),
    })
}

fn real(path: &Path) -> Result<PathBuf, ReleaseError> {
    fs::canonicalize(path).map_err(ReleaseError::io("find", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_named_by_its_heaviest_part() {
        let file = |path: &str, bytes| Entry {
            path: path.into(),
            kind: Kind::File {
                executable: false,
                bytes,
            },
        };
        let entries = [
            file("a/x", 5 << 20),
            file("b/x", 3 << 20),
            file("b/y", 4 << 20),
        ];
        assert!(check_size(&entries, 3, 12 << 20).is_ok());
        let Err(ReleaseError::TooLarge { mib, largest, .. }) = check_size(&entries, 3, 11 << 20)
        else {
            panic!("12 MiB are more than 11");
        };
        assert_eq!((mib, largest), (12, PathBuf::from("b")));
        assert!(check_size(&entries, 2, 12 << 20).is_err());
    }
}
