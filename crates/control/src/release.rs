//! Releases: numbered, read-only copies of the site's directory that instances and web servers run from.
//!
//! A release is identified by the digest of its contents, so that `up` makes a new one only if something changed. The command
//! line scans the directory ([`scan`]; `walk` defines what belongs to a release) and sends the site an archive if it does not
//! have the contents. The site unpacks it under a name that nothing reads ([`receive`]), and renames it once it is complete,
//! verified and synced: after a crash there is the whole release or none.

mod command;
mod copy;
mod digest;
mod pack;
mod walk;

pub use command::{missing_program, private_program};

use crate::api::Digest;
use crate::archive::Entry;
use copy::Copy;
use digest::FileDigests;
use gaiola_model::placement::{Release, ReleaseNumber};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// How many releases [`prune`] keeps, besides those in use.
pub const KEPT: usize = 5;

/// The paths of a site's directory.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The site's directory.
    pub directory: &'a Path,
    /// Its `gaiola.toml`, which is not part of a release: another number of servers makes no new release.
    pub file: &'a Path,
    /// Other files and folders that are not part of a release.
    pub apart: &'a [PathBuf],
}

/// The result of [`number`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The release.
    pub release: Release,
    /// Its directory.
    pub path: PathBuf,
    /// Whether it is new; `false` if the last one has these contents already.
    pub new: bool,
}

/// The result of [`scan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The digest of the release.
    pub digest: Digest,
    /// Files and directories that are left out because only their owner may use them.
    pub private: Vec<PathBuf>,
    root: PathBuf,
    entries: Vec<Entry>,
    contents: FileDigests,
}

/// An unpacked upload of [`receive`]: complete, synced, and with the expected digest.
#[derive(Debug)]
pub struct Received {
    copy: Copy,
    digest: Digest,
}

/// Progress, reported after each file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The current phase.
    pub phase: Phase,
    /// Files done.
    pub files: u64,
    /// The number of files.
    pub of_files: u64,
    /// Bytes done.
    pub bytes: u64,
    /// The number of bytes.
    pub of_bytes: u64,
}

/// The phases of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading the site's directory, to see whether it changed.
    Reading,
    /// Sending it.
    Sending,
}

/// A release could not be written or removed. No partial one is left.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The system refused.
    #[error("cannot {tried} {path}")]
    Io {
        /// What was tried.
        tried: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No room is left.
    #[error(
        "the disk is full: cannot copy {path}; free space below {releases}, or list files that the site does not need in .gaiolaignore"
    )]
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
        /// The directory of the releases.
        releases: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A directory could not be read, or a `.gaiolaignore` not be parsed.
    #[error("cannot read the site's directory {directory}")]
    Walk {
        /// The site's directory.
        directory: PathBuf,
        /// Why not.
        source: ignore::Error,
    },
    /// A symbolic link leads out of the site's directory.
    #[error(
        "{link} leads out of the site's directory, to {target}; put there what it leads to, or name it in .gaiolaignore"
    )]
    LinkOutside {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The interpreter of a Python environment leads out of the site's directory.
    #[error(
        "{link} leads out of the site's directory, to {target}: recreate the environment with \
         `python3 -m venv --copies`, and run what is in it as `bin/python -m NAME`, since its scripts name the \
         directory that they were made in"
    )]
    PythonEnvironment {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The directory exceeds the limits.
    #[error(
        "the site's directory contains {files} files, {mib} MiB; the limits are {most_files} files and {most_mib} MiB; \
         most of it is in {largest}: list what the site does not need in .gaiolaignore"
    )]
    TooLarge {
        /// The number of files.
        files: u64,
        /// Their total size.
        mib: u64,
        /// The limit of files.
        most_files: u64,
        /// The limit of their size.
        most_mib: u64,
        /// Its largest part.
        largest: PathBuf,
    },
    /// The site's directory is also the state directory.
    #[error(
        "{0} is both the site's directory and Gaiola's state directory; choose another one for the state"
    )]
    StateIsSite(PathBuf),
    /// Another process is writing a release.
    #[error("another process is writing a release in {0}; try again when it has finished")]
    Busy(PathBuf),
    /// A file changed between two reads of it.
    #[error("{0} changed while it was read: try again, or list it in .gaiolaignore")]
    Changing(PathBuf),
    /// The upload failed.
    #[error("cannot send the release")]
    Send(#[source] io::Error),
    /// The upload was rejected.
    #[error("the upload is not a valid release")]
    NotUnpacked(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The upload does not have the announced digest.
    #[error("the upload has the digest {received}; {expected} was announced")]
    OtherContents {
        /// The announced digest.
        expected: Digest,
        /// The upload's digest.
        received: Digest,
    },
    /// The site does not have these contents.
    #[error("the site does not have the release's contents {0}; try again")]
    Absent(Digest),
}

impl ReleaseError {
    fn io(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            tried,
            path,
            source,
        }
    }
}

/// The directory of a release.
pub fn path_of(releases: &Path, number: ReleaseNumber) -> PathBuf {
    releases.join(number.to_string())
}

/// Scans the site's directory, and rejects one that cannot be a release. It writes nothing. `releases` need not exist; the state
/// directory that contains it is left out even if it is inside the site's. It blocks, and calls `progress` after each file.
///
/// # Errors
/// Every [`ReleaseError`] that concerns the directory.
pub fn scan(
    source: Source<'_>,
    releases: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Scan, ReleaseError> {
    let site = walk::site(source, releases)?;
    let (digest, contents) = digest::of(&site.root, &site.entries, progress)?;
    Ok(Scan {
        digest,
        private: site.private,
        root: site.root,
        entries: site.entries,
        contents,
    })
}

/// Whether the site has these contents: as its last release, or as an upload that is not numbered yet.
pub fn has(releases: &Path, digest: &Digest, last: Option<&Release>) -> bool {
    let is_last = last.is_some_and(|last| unchanged(releases, last, digest).is_some());
    is_last || copy::is_held(releases, digest)
}

/// Unpacks the archive of [`Scan::pack`] and checks it. Calls must not overlap. It blocks.
///
/// # Errors
/// If it breaks off, contains entries that a release must not have, or has another digest. Nothing of it is left then.
pub fn receive(
    archive: impl Read,
    releases: &Path,
    digest: &Digest,
) -> Result<Received, ReleaseError> {
    copy::make_room(releases)?;
    let (copy, entries) = Copy::unpack(archive, releases)?;
    let (received, _) = digest::of(copy.path(), &entries, &mut |_| {})?;
    if received == *digest {
        Ok(Received {
            copy,
            digest: received,
        })
    } else {
        Err(ReleaseError::OtherContents {
            expected: digest.clone(),
            received,
        })
    }
}

impl Received {
    /// Stores it until it is numbered, in place of an earlier upload. Dropping it instead removes it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn hold(self) -> Result<(), ReleaseError> {
        let releases = self.copy.releases().to_path_buf();
        let _lock = lock(&releases)?;
        self.copy.hold(&self.digest)
    }

    /// Makes it the release with this number, which it has on another machine. One that is there stays if it has the same contents; with
    /// others it is what a change that failed has left, and is removed.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn keep_as(self, number: ReleaseNumber) -> Result<(), ReleaseError> {
        let releases = self.copy.releases().to_path_buf();
        let _lock = lock(&releases)?;
        match contents(&releases, number, &self.digest)? {
            Contents::Expected => Ok(()),
            Contents::Absent | Contents::Other => self.copy.keep_as(number, &self.digest),
        }
    }
}

/// What a release on the disk contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// There is none with this number.
    Absent,
    /// What was expected.
    Expected,
    /// Something else: the number was given to a release that was never desired.
    Other,
}

/// Whether the release with this number has this digest. It blocks: one that was made by an earlier version is read whole, once.
///
/// # Errors
/// Where it cannot be read.
pub fn contents(
    releases: &Path,
    number: ReleaseNumber,
    expected: &Digest,
) -> Result<Contents, ReleaseError> {
    if !path_of(releases, number).is_dir() {
        return Ok(Contents::Absent);
    }
    let known = match copy::known_digest(releases, number) {
        Some(known) => known,
        None => {
            let scanned = scan_release(releases, number)?.digest;
            copy::note_digest(releases, number, &scanned)?;
            scanned
        }
    };
    Ok(if known == *expected {
        Contents::Expected
    } else {
        Contents::Other
    })
}

/// Scans a release, so that it can be sent to another machine. It blocks.
///
/// # Errors
/// Where it cannot be read.
pub fn scan_release(releases: &Path, number: ReleaseNumber) -> Result<Scan, ReleaseError> {
    let source = Source {
        directory: &path_of(releases, number),
        // The site's file is no part of a release, and this is no file.
        file: &releases.join(".file"),
        apart: &[],
    };
    scan(source, releases, &mut |_| {})
}

/// The release with these contents: `last` if it has them, otherwise the upload, with the next number: above `highest`, which a release of the
/// site had that this machine perhaps never had.
///
/// # Errors
/// If the site does not have them.
pub fn number(
    releases: &Path,
    digest: &Digest,
    last: Option<&Release>,
    highest: ReleaseNumber,
) -> Result<Made, ReleaseError> {
    copy::make_room(releases)?;
    let _lock = lock(releases)?;
    if let Some(same) = last.and_then(|last| unchanged(releases, last, digest)) {
        copy::drop_held(releases)?;
        return Ok(same);
    }
    let number = match last {
        Some(last) if last.digest == digest.as_str() => last.number,
        _ => next_number(releases, highest)?,
    };
    if !copy::number(releases, digest, number)? {
        return Err(ReleaseError::Absent(digest.clone()));
    }
    Ok(Made {
        path: path_of(releases, number),
        release: Release {
            number,
            digest: digest.to_string(),
        },
        new: true,
    })
}

/// A message about files that were left out, if any.
pub fn left_out_in_words(private: &[PathBuf]) -> Option<String> {
    let first = private.first()?.display();
    let others = match private.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    Some(format!(
        "left out of the release, because only its owner may read it: {first}{others}; make everything that the site needs readable by all"
    ))
}

/// The number of the next release.
///
/// # Errors
/// If the releases cannot be listed.
pub fn next(releases: &Path, highest: ReleaseNumber) -> Result<ReleaseNumber, ReleaseError> {
    next_number(releases, highest)
}

/// Removes all releases but the newest [`KEPT`] and those in `keep`; returns which were removed.
pub fn prune(releases: &Path, keep: &[ReleaseNumber]) -> Result<Vec<ReleaseNumber>, ReleaseError> {
    let _lock = lock(releases)?;
    copy::remove_condemned(releases)?;
    let mut old = numbers(releases)?;
    old.truncate(old.len().saturating_sub(KEPT));
    old.retain(|number| !keep.contains(number));
    for &number in &old {
        copy::remove(releases, number)?;
    }
    Ok(old)
}

/// `last`, if it has these contents and so has its copy.
fn unchanged(releases: &Path, last: &Release, digest: &Digest) -> Option<Made> {
    let path = path_of(releases, last.number);
    let known = copy::known_digest(releases, last.number);
    let is_other = known.is_some_and(|known| known != *digest);
    let same = last.digest == digest.as_str() && path.is_dir() && !is_other;
    same.then(|| Made {
        release: last.clone(),
        path,
        new: false,
    })
}

/// One above all numbers seen so far.
fn next_number(releases: &Path, highest: ReleaseNumber) -> Result<ReleaseNumber, ReleaseError> {
    let there = numbers(releases)?.pop().unwrap_or_default();
    Ok(ReleaseNumber(there.max(highest).0.saturating_add(1)))
}

/// The existing releases, in order.
fn numbers(releases: &Path) -> Result<Vec<ReleaseNumber>, ReleaseError> {
    let mut numbers: Vec<ReleaseNumber> = copy::names(releases)?
        .iter()
        .filter_map(|name| name.parse().ok().map(ReleaseNumber))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A lock, held until the file is dropped; the kernel releases it when the process ends.
fn lock(releases: &Path) -> Result<File, ReleaseError> {
    let path = releases.join(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(ReleaseError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ReleaseError::Busy(releases.to_path_buf())),
        Err(TryLockError::Error(error)) => Err(ReleaseError::io("lock", &path)(error)),
    }
}

/// Removes the releases of a test: read-only directories stand in the way of a plain removal.
#[cfg(test)]
pub(crate) fn remove_all(releases: &Path) {
    for name in copy::names(releases).unwrap_or_default() {
        copy::remove_tree(&releases.join(name)).unwrap();
    }
}

#[cfg(test)]
mod tests;
