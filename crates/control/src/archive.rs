//! What a directory holds, as one stream between the command line and the site: a tar archive of regular files, directories
//! and symbolic links, each directory before what is in it.
//!
//! Who writes the stream is not trusted with more than the contents: [`unpack`] rejects every entry that would lead out of the
//! directory, or that is of another kind, and whatever exceeds the limits.

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
/// The PAX record of a file's time, which the header has in whole seconds only.
const MTIME: &str = "mtime";

/// One thing in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the directory.
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File {
        executable: bool,
        bytes: u64,
    },
    /// A symbolic link and what is written in it.
    Link(PathBuf),
}

/// How an archive is unpacked, and how much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Most entries of any kind, the archive's own records included.
    pub(crate) entries: u64,
    /// Most regular files.
    pub(crate) files: u64,
    /// Most bytes in one file.
    pub(crate) file_bytes: u64,
    /// Most bytes in all files.
    pub(crate) bytes: u64,
    /// Most bytes in all paths and targets.
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
    /// The stream broke off, or is no archive.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// An entry is none that an archive may have.
    #[error("the archive holds {:?}, {why}", path)]
    Rejected { path: PathBuf, why: Reason },
    /// It holds too much.
    #[error("the archive holds more than {most} {what}")]
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
    #[error("which is no path below the directory")]
    Path,
    #[error("whose directory does not come before it")]
    Parent,
    #[error("twice")]
    Twice,
    #[error("which is neither a file nor a directory nor a symbolic link")]
    Kind,
    #[error("a link that leads out of the directory")]
    LinkOutside,
    #[error("whose records are not those of such an archive")]
    Records,
}

#[cfg(test)]
mod tests;
