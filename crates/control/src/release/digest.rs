//! The digest of a release: SHA-256 over the path, kind and contents of each of its entries.

use super::{Phase, Progress, ReleaseError};
use crate::api::Digest;
use crate::archive::{Entry, Kind};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The beginning of every digest's input, so that another algorithm gives another digest.
const VERSION: &[u8] = b"gaiola release 1\n";

/// The digest of each file, in the order of the entries.
pub(super) type FileDigests = Vec<[u8; 32]>;

/// Reads each of `entries` below `root`. Of a file's mode only whether it is executable counts: the rest is the same
/// in every copy.
pub(super) fn of(
    root: &Path,
    entries: &[Entry],
    progress: &mut dyn FnMut(Progress),
) -> Result<(Digest, FileDigests), ReleaseError> {
    let mut total = Sha256::new_with_prefix(VERSION);
    let mut tally = Tally::new(Phase::Reading, entries);
    let mut all = FileDigests::new();
    for entry in entries {
        match &entry.kind {
            Kind::Directory => add(&mut total, b'd', entry, b""),
            Kind::Link(target) => add(&mut total, b'l', entry, target.as_os_str().as_bytes()),
            Kind::File { executable, bytes } => {
                let contents = file(&root.join(&entry.path))?;
                let kind = if *executable { b'x' } else { b'f' };
                add(&mut total, kind, entry, &contents);
                all.push(contents);
                progress(tally.add(*bytes));
            }
        }
    }
    Ok((Digest::of(&total.finalize()), all))
}

/// Every field is prefixed with its length, so that no two lists of entries give the same bytes.
fn add(total: &mut Sha256, kind: u8, entry: &Entry, contents: &[u8]) {
    total.update([kind]);
    for part in [entry.path.as_os_str().as_bytes(), contents] {
        total.update((part.len() as u64).to_le_bytes());
        total.update(part);
    }
}

fn file(path: &Path) -> Result<[u8; 32], ReleaseError> {
    let mut file = File::open(path).map_err(ReleaseError::io("open", path))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file
            .read(&mut buffer)
            .map_err(ReleaseError::io("read", path))?;
        if read == 0 {
            return Ok(digest.finalize().into());
        }
        digest.update(&buffer[..read]);
    }
}

/// Counts progress.
pub(super) struct Tally(Progress);

impl Tally {
    pub(super) fn new(phase: Phase, entries: &[Entry]) -> Self {
        let sizes = entries.iter().filter_map(|entry| match entry.kind {
            Kind::File { bytes, .. } => Some(bytes),
            Kind::Directory | Kind::Link(_) => None,
        });
        Self(Progress {
            phase,
            files: 0,
            of_files: sizes.clone().count() as u64,
            bytes: 0,
            of_bytes: sizes.sum(),
        })
    }

    /// Counts one more file.
    pub(super) fn add(&mut self, bytes: u64) -> Progress {
        self.0.files += 1;
        self.0.bytes += bytes;
        self.0
    }
}
