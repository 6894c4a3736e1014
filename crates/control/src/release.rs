//! Releases: numbered, read-only copies of the site's directory that instances and web servers run from.
//!
//! A release is known by the digest of its contents, so that `up` makes a new one only where something changed. The command line
//! scans the directory ([`scan`]; `walk` defines what belongs to a release) and sends the site an archive of what it does not
//! have. The site unpacks it beside the others under a name that nothing reads ([`receive`]), and renames it once it is whole, as
//! expected and on the disk: after a crash there is the whole release or none.

mod command;
mod copy;
mod digest;
mod pack;
mod walk;

pub use command::{missing_program, private_program};

use crate::api::Digest;
use crate::archive::Entry;
use copy::Copy;
use digest::Contents;
use gaiola_model::placement::{Release, ReleaseNumber};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// How many releases [`prune`] leaves, those in use beside them.
pub const KEPT: usize = 5;

/// Where the site stands.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The site's directory.
    pub directory: &'a Path,
    /// Its `gaiola.toml`, which is no part of a release: to write another number of servers there is no new contents.
    pub file: &'a Path,
    /// Files and folders that are no part of a release either.
    pub apart: &'a [PathBuf],
}

/// What [`number`] found or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The release.
    pub release: Release,
    /// Its directory.
    pub path: PathBuf,
    /// Whether it is new; `false` where the last one has these contents already.
    pub new: bool,
}

/// What [`scan`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The digest of the release.
    pub digest: Digest,
    /// Files and directories that are left out since only their owner may use them.
    pub private: Vec<PathBuf>,
    root: PathBuf,
    entries: Vec<Entry>,
    contents: Contents,
}

/// What [`receive`] has unpacked: whole, on the disk, and with the expected digest.
#[derive(Debug)]
pub struct Received {
    copy: Copy,
    digest: Digest,
}

/// How far something is, reported after each file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is done.
    pub phase: Phase,
    /// Files that are done.
    pub files: u64,
    /// Files there are.
    pub of_files: u64,
    /// Bytes that are done.
    pub bytes: u64,
    /// Bytes there are.
    pub of_bytes: u64,
}

/// What takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading the site's directory, to see whether it changed.
    Reading,
    /// Sending it.
    Sending,
}

/// A release could not be made or removed. Nothing half-made is left.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The system refused.
    #[error("cannot {tried} {path}")]
    Io {
        /// What was tried.
        tried: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No room is left.
    #[error(
        "the disk is full: cannot copy {path}; make room below {releases}, or name what the site does not need in .gaiolaignore"
    )]
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
        /// Where releases stand.
        releases: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A directory could not be walked, or a `.gaiolaignore` not be understood.
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
    /// The directory holds more than a site does.
    #[error(
        "the site's directory holds {files} files of {mib} MiB, more than {most_files} files or {most_mib} MiB; \
         most of it is in {largest}: name in .gaiolaignore what the site does not need"
    )]
    TooLarge {
        /// Files there are.
        files: u64,
        /// Their size.
        mib: u64,
        /// Most there may be.
        most_files: u64,
        /// Most they may have.
        most_mib: u64,
        /// The part of it that weighs most.
        largest: PathBuf,
    },
    /// The site's directory and the state directory are one.
    #[error(
        "{0} is both the site's directory and the one for Gaiola's state; take another for the state"
    )]
    StateIsSite(PathBuf),
    /// Another process makes a release.
    #[error("another release is being made in {0}; wait until it is ready")]
    Busy(PathBuf),
    /// A file was changed between two reads of it.
    #[error(
        "{0} is being changed while it is read: try again when it is not, or name it in .gaiolaignore"
    )]
    Changing(PathBuf),
    /// The site takes no more of it.
    #[error("cannot send the release")]
    Send(#[source] io::Error),
    /// What was sent was rejected.
    #[error("what was sent is not taken for a release")]
    NotUnpacked(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What was sent does not have the announced digest.
    #[error("what was sent has the digest {received}, and not {expected} as was said")]
    OtherContents {
        /// The announced digest.
        expected: Digest,
        /// The digest of what was sent.
        received: Digest,
    },
    /// The site has no such release, or no longer.
    #[error("the site does not have the contents {0} of the release, or no longer; try again")]
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

/// Where a release stands.
pub fn path_of(releases: &Path, number: ReleaseNumber) -> PathBuf {
    releases.join(number.to_string())
}

/// Scans the site's directory, and rejects what cannot be a release. Nothing is written, and `releases` need not be there: it
/// stands in the state directory, which is left out even where it lies within the site's. It blocks, and calls `progress` after each file.
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

/// Whether the site has these contents: as its last release, or sent and waiting to be numbered.
pub fn has(releases: &Path, digest: &Digest, last: Option<&Release>) -> bool {
    let is_last = last.is_some_and(|last| unchanged(releases, last, digest).is_some());
    is_last || copy::is_held(releases, digest)
}

/// Unpacks what [`Scan::pack`] has written, and checks it. There may be one at a time. It blocks.
///
/// # Errors
/// Where it breaks off, holds what no release may, or has another digest. Nothing is left of it then.
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
    /// Keeps it until it is numbered, in place of another that waits. What is dropped instead is removed.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn hold(self) -> Result<(), ReleaseError> {
        let releases = self.copy.releases().to_path_buf();
        let _lock = lock(&releases)?;
        self.copy.hold(&self.digest)
    }

    /// Makes it the release with this number, which it has on another machine. One that is there stays.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn keep_as(self, number: ReleaseNumber) -> Result<(), ReleaseError> {
        let releases = self.copy.releases().to_path_buf();
        let _lock = lock(&releases)?;
        if path_of(&releases, number).is_dir() {
            return Ok(());
        }
        self.copy.keep_as(number)
    }
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

/// The release with these contents: `last` where they are its own, otherwise the copy that waits, with the next number.
///
/// # Errors
/// Where the site does not have them.
pub fn number(
    releases: &Path,
    digest: &Digest,
    last: Option<&Release>,
) -> Result<Made, ReleaseError> {
    copy::make_room(releases)?;
    let _lock = lock(releases)?;
    if let Some(same) = last.and_then(|last| unchanged(releases, last, digest)) {
        copy::drop_held(releases)?;
        return Ok(same);
    }
    let number = match last {
        Some(last) if last.digest == digest.as_str() => last.number,
        _ => next_number(releases, last)?,
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

/// What was left out, in words; `None`: nothing.
pub fn left_out_in_words(private: &[PathBuf]) -> Option<String> {
    let first = private.first()?.display();
    let others = match private.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    Some(format!(
        "left out of the release, since only its owner may use it: {first}{others}; what the site needs has to be readable by all"
    ))
}

/// The number that the next release would have.
///
/// # Errors
/// Where the releases cannot be listed.
pub fn next(releases: &Path, last: &Release) -> Result<ReleaseNumber, ReleaseError> {
    next_number(releases, Some(last))
}

/// Removes a release that was never desired.
///
/// # Errors
/// Where the system refuses.
pub fn discard(releases: &Path, number: ReleaseNumber) -> Result<(), ReleaseError> {
    let _lock = lock(releases)?;
    copy::remove(releases, number)
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

/// `last`, where these are its contents and its copy is there.
fn unchanged(releases: &Path, last: &Release, digest: &Digest) -> Option<Made> {
    let path = path_of(releases, last.number);
    let same = last.digest == digest.as_str() && path.is_dir();
    same.then(|| Made {
        release: last.clone(),
        path,
        new: false,
    })
}

/// One above every number that was ever seen.
fn next_number(releases: &Path, last: Option<&Release>) -> Result<ReleaseNumber, ReleaseError> {
    let there = numbers(releases)?.pop().unwrap_or_default();
    let last = last.map_or(ReleaseNumber(0), |last| last.number);
    Ok(ReleaseNumber(there.max(last).0.saturating_add(1)))
}

/// The releases that are there, in order.
fn numbers(releases: &Path) -> Result<Vec<ReleaseNumber>, ReleaseError> {
    let mut numbers: Vec<ReleaseNumber> = copy::names(releases)?
        .iter()
        .filter_map(|name| name.parse().ok().map(ReleaseNumber))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Held until the file is dropped; the kernel lets go of it where the process ends.
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

#[cfg(test)]
mod tests;
