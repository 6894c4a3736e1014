//! Writes archives.

use super::MTIME;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// A file's modification time: seconds since 1970, and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

impl Time {
    /// In PAX's format: decimal seconds.
    pub(super) fn to_decimal(self) -> String {
        let Self {
            seconds,
            nanoseconds,
        } = self;
        match (seconds, nanoseconds) {
            (..0, 1..) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
            _ => format!("{seconds}.{nanoseconds:09}"),
        }
    }

    /// The reverse of [`to_decimal`](Self::to_decimal).
    pub(super) fn from_decimal(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if fraction.len() > 9
            || !digits(fraction)
            || !digits(whole.strip_prefix('-').unwrap_or(whole))
        {
            return None;
        }
        let seconds: i64 = whole.parse().ok()?;
        let nanoseconds: u32 = format!("{fraction:0<9}").parse().ok()?;
        Some(if whole.starts_with('-') && nanoseconds > 0 {
            Self {
                seconds: seconds.checked_sub(1)?,
                nanoseconds: 1_000_000_000 - nanoseconds,
            }
        } else {
            Self {
                seconds,
                nanoseconds,
            }
        })
    }
}

/// Writes an archive without holding it in memory.
pub(crate) struct Packer<W: Write>(Builder<W>);

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self(Builder::new(out))
    }

    pub(crate) fn directory(&mut self, path: &Path) -> io::Result<()> {
        self.entry(EntryType::Directory, path, 0o755, 0, &mut io::empty())
    }

    pub(crate) fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let target = target.as_os_str().as_bytes();
        let mut header = header(EntryType::Symlink, 0o777, 0);
        if header.set_link_name_literal(target).is_err() {
            self.record(EntryType::GNULongLink, target)?;
        }
        self.append(header, path, &mut io::empty())
    }

    /// A file of `bytes` bytes, which `contents` must yield.
    pub(crate) fn file(
        &mut self,
        path: &Path,
        executable: bool,
        changed: Option<Time>,
        bytes: u64,
        contents: &mut impl Read,
    ) -> io::Result<()> {
        if let Some(changed) = changed {
            let changed = changed.to_decimal();
            self.0
                .append_pax_extensions([(MTIME, changed.as_bytes())])?;
        }
        let mode = if executable { 0o755 } else { 0o644 };
        self.entry(EntryType::Regular, path, mode, bytes, contents)
    }

    /// Ends the archive and flushes it.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.0.into_inner()?.flush()
    }

    fn entry(
        &mut self,
        kind: EntryType,
        path: &Path,
        mode: u32,
        bytes: u64,
        contents: &mut dyn Read,
    ) -> io::Result<()> {
        self.append(header(kind, mode, bytes), path, contents)
    }

    /// Names are written unchanged; `tar` itself would normalise some of them.
    fn append(
        &mut self,
        mut header: Header,
        path: &Path,
        contents: &mut dyn Read,
    ) -> io::Result<()> {
        let path = path.as_os_str().as_bytes();
        match header.as_old_mut().name.get_mut(..path.len()) {
            Some(name) => name.copy_from_slice(path),
            None => self.record(EntryType::GNULongName, path)?,
        }
        header.set_cksum();
        self.0.append(&header, contents)
    }

    /// A name that does not fit into the next header.
    fn record(&mut self, kind: EntryType, name: &[u8]) -> io::Result<()> {
        let mut header = header(kind, 0o644, name.len() as u64);
        header.set_cksum();
        self.0.append(&header, name)
    }
}

fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Reads exactly this number of bytes of a file and computes their digest; fewer bytes are an error.
pub(crate) struct Exactly<R> {
    file: R,
    left: u64,
    digest: Sha256,
}

impl<R: Read> Exactly<R> {
    pub(crate) fn new(file: R, bytes: u64) -> Self {
        Self {
            file,
            left: bytes,
            digest: Sha256::new(),
        }
    }

    /// The digest of the bytes read.
    pub(crate) fn digest(self) -> [u8; 32] {
        self.digest.finalize().into()
    }
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let room = buffer.len().min(most);
        let read = self.file.read(&mut buffer[..room])?;
        if read == 0 && room > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.digest.update(&buffer[..read]);
        self.left -= read as u64;
        Ok(read)
    }
}
