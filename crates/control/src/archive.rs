//! A directory's contents as one stream between the command line and the site: a tar archive of regular files, directories
//! and symbolic links, each directory before its entries.
//!
//! The sender is not trusted: [`unpack`] rejects entries that lead out of the directory, entries of other kinds, and archives
//! that exceed the limits.

mod pack;
mod pieces;
mod unpack;

pub(crate) use pack::{Exactly, Packer, Time};
pub(crate) use pieces::{Outlet, PIECES, Pieces, described, on_a_thread};
pub(crate) use unpack::{leads_out, unpack};

use std::io;
use std::path::PathBuf;

/// Longest path, and longest target of a link, in bytes.
const LONGEST_PATH: u64 = 4096;
/// The PAX record of a file's time; the header has whole seconds only.
const MTIME: &str = "mtime";

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the directory.
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
}

/// The kinds of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File {
        executable: bool,
        bytes: u64,
    },
    /// A symbolic link and its target.
    Link(PathBuf),
}

/// The limits of an archive, and how it is unpacked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Maximum number of entries of any kind, including the archive's own records.
    pub(crate) entries: u64,
    /// Maximum number of regular files.
    pub(crate) files: u64,
    /// Maximum size of one file.
    pub(crate) file_bytes: u64,
    /// Maximum size of all files.
    pub(crate) bytes: u64,
    /// Maximum size of all paths and targets.
    pub(crate) names: u64,
    /// Whether symbolic links are accepted.
    pub(crate) links: bool,
    /// Mode of a directory while it is filled.
    pub(crate) directory: u32,
    /// Mode of a file.
    pub(crate) file: u32,
    /// Mode of an executable file.
    pub(crate) executable: u32,
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The stream ended early, or is not an archive.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The archive has an entry that is not allowed.
    #[error("the archive contains {:?}, {why}", path)]
    Rejected { path: PathBuf, why: Reason },
    /// It exceeds a limit.
    #[error("the archive contains more than {most} {what}")]
    TooLarge { most: u64, what: &'static str },
    /// The system refused.
    #[error("cannot {tried} {}", path.display())]
    Io {
        tried: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// Why an entry is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("which is not a path below the directory")]
    Path,
    #[error("which comes before its directory")]
    Parent,
    #[error("twice")]
    Twice,
    #[error("which is neither a file nor a directory nor a symbolic link")]
    Kind,
    #[error("a link that leads out of the directory")]
    LinkOutside,
    #[error("which has unsupported header records")]
    Records,
}

#[cfg(test)]
mod tests;
