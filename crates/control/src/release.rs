//! Releases: numbered, read-only copies of the site's directory that instances and web servers run from.
//!
//! A release is known by the digest of its contents, so that `up` makes a new one only where something changed. It is
//! copied beside the others under a name that nothing reads, and renamed once it is whole and on the disk: after a
//! crash there is the whole release or none. What belongs to it is told in `walk`.

mod command;
mod copy;
mod digest;
mod walk;

pub use command::{missing_program, private_program};

use copy::Copy;
use gaiola_model::placement::{Release, ReleaseNumber};
use std::fs::{File, TryLockError};
use std::io;
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

/// What [`make`] found or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The release in which the site's directory stands as it is now.
    pub release: Release,
    /// Its directory.
    pub path: PathBuf,
    /// Whether it is new; `false` where the last one has these contents already.
    pub new: bool,
    /// Files and directories that were left out since only their owner may use them.
    pub private: Vec<PathBuf>,
}

/// What [`look`] found: what [`make`] would make of the site's directory now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The digest that the release would have.
    pub digest: String,
    /// Files and directories that would be left out since only their owner may use them.
    pub private: Vec<PathBuf>,
}

/// How far [`make`] is, told after each file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
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

/// What [`make`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reads the site's directory, to see whether it changed.
    Reading,
    /// Copies it.
    Copying,
    /// Reads the copy, whose digest is the release's.
    Checking,
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
        "{link} leads out of the site's directory, to {target}: make the environment anew with \
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

/// The release with the contents that the site's directory has now: `last` where nothing changed, otherwise a new copy
/// with the next number.
///
/// `releases` stands in the state directory, which is left out even where it lies within the site's. It blocks, and
/// calls `progress` after each file.
pub fn make(
    source: Source<'_>,
    releases: &Path,
    last: Option<&Release>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Made, ReleaseError> {
    copy::make_room(releases)?;
    let _lock = lock(releases)?;
    copy::remove_leftovers(releases)?;

    let site = walk::site(source, releases)?;
    let digest = digest::of(&site.root, &site.entries, Phase::Reading, progress)?;
    let unchanged = |digest: &str| {
        let same = last.and_then(|last| unchanged(releases, last, digest));
        same.map(|same| Made {
            private: site.private.clone(),
            ..same
        })
    };
    if let Some(same) = unchanged(&digest) {
        return Ok(same);
    }

    let mut copy = Copy::begin(releases)?;
    copy.fill(&site, progress)?;
    let digest = digest::of(copy.path(), &site.entries, Phase::Checking, progress)?;
    if let Some(same) = unchanged(&digest) {
        return Ok(same);
    }
    let number = match last {
        Some(last) if last.digest == digest => last.number,
        _ => next_number(releases, last)?,
    };
    Ok(Made {
        path: copy.keep_as(number)?,
        release: Release { number, digest },
        new: true,
        private: site.private,
    })
}

/// Looks at the site's directory as [`make`] would, and refuses what it would. Nothing is written, and `releases` need
/// not be there.
///
/// # Errors
/// As [`make`].
pub fn look(source: Source<'_>, releases: &Path) -> Result<Look, ReleaseError> {
    let site = walk::site(source, releases)?;
    let digest = digest::of(&site.root, &site.entries, Phase::Reading, &mut |_| {})?;
    Ok(Look {
        digest,
        private: site.private,
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

/// Removes all releases but the newest [`KEPT`] and those in `keep`; tells which went.
pub fn prune(releases: &Path, keep: &[ReleaseNumber]) -> Result<Vec<ReleaseNumber>, ReleaseError> {
    let _lock = lock(releases)?;
    copy::remove_leftovers(releases)?;
    let mut old = numbers(releases)?;
    old.truncate(old.len().saturating_sub(KEPT));
    old.retain(|number| !keep.contains(number));
    for &number in &old {
        copy::remove(releases, number)?;
    }
    Ok(old)
}

/// `last`, where these are its contents and its copy is there.
fn unchanged(releases: &Path, last: &Release, digest: &str) -> Option<Made> {
    let path = path_of(releases, last.number);
    let same = last.digest == digest && path.is_dir();
    same.then(|| Made {
        release: last.clone(),
        path,
        new: false,
        private: Vec::new(),
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
