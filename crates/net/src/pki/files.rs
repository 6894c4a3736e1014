//! Small files, read and replaced as a whole.

use super::PkiError;
use gaiola_os::process::User;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, fchown, lchown};
use std::path::Path;

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::File {
        doing: "read",
        path: path.into(),
        source,
    })
}

pub(super) fn make_directory(dir: &Path) -> Result<(), PkiError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| PkiError::File {
            doing: "make",
            path: dir.into(),
            source,
        })
}

/// Replaces a file as a whole: a reader never sees half of it, even after a crash.
pub(super) fn write(
    path: &Path,
    contents: &[u8],
    mode: u32,
    user: Option<User>,
) -> Result<(), PkiError> {
    let fresh = path.with_extension("pem.new");
    let attempt = || -> io::Result<()> {
        // A file left by a crash might have another mode.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        if let Some(user) = user {
            fchown(&file, Some(user.uid), Some(user.gid))?;
        }
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        path.parent()
            .map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    };
    attempt().map_err(|source| PkiError::File {
        doing: "write",
        path: path.into(),
        source,
    })
}

/// Changes the owner of a directory or file. A symbolic link is not followed: whoever owns the directory could place one.
pub(super) fn give(path: &Path, user: User) -> Result<(), PkiError> {
    lchown(path, Some(user.uid), Some(user.gid)).map_err(|source| PkiError::File {
        doing: "change the owner of",
        path: path.into(),
        source,
    })
}
