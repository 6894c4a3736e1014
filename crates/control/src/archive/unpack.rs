//! Unpacks archives from an untrusted sender.

use super::pack::Time;
use super::{ArchiveError, Entry, Kind, LONGEST_PATH, MTIME, Reason, Rules};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, openat2, utimensat,
};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, EntryType, PaxExtensions};

/// Maximum number of zero bytes after the end of an archive.
const PADDING: u64 = 10 << 10;
/// Attempts to follow a link: a rename anywhere on the machine can make the kernel unsure of `..`.
const RENAMED: usize = 100;
/// Maximum number of directories above an entry: removing a tree takes a descriptor for each.
const DEEPEST: usize = 128;

/// Unpacks an archive into an empty directory that nobody else writes to, and returns its entries in order. After
/// an error the directory may contain a part of it.
///
/// Memory is bounded by the entries and names that the rules allow, whatever the archive contains.
pub(crate) fn unpack(
    archive: impl Read,
    into: &Path,
    rules: &Rules,
) -> Result<Vec<Entry>, ArchiveError> {
    let mut archive = Archive::new(archive);
    let mut unpacking = Unpacking {
        into,
        rules,
        entries: Vec::new(),
        directories: BTreeSet::new(),
        records: 0,
        files: 0,
        bytes: 0,
        names: 0,
    };
    let mut names = Names::default();
    for entry in archive.entries().map_err(ArchiveError::Read)?.raw(true) {
        let mut entry = entry.map_err(ArchiveError::Read)?;
        unpacking.records += 1;
        limit(unpacking.records, rules.entries, "entries")?;
        if !names.take(&mut entry)? {
            let names = std::mem::take(&mut names);
            unpacking.entry(&mut entry, names)?;
        }
    }
    let mut rest = Vec::new();
    let mut padding = archive.into_inner().take(PADDING + 1);
    padding.read_to_end(&mut rest).map_err(ArchiveError::Read)?;
    let is_end = rest.len() as u64 <= PADDING && rest.iter().all(|&byte| byte == 0);
    if !is_end || names != Names::default() {
        return Err(rejected(Path::new("its end"), Reason::Records));
    }
    unpacking.check_links()?;
    Ok(unpacking.entries)
}

/// The information of records about the entry that follows them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    changed: Option<Time>,
}

impl Names {
    /// Reads a record; `false`: the entry is not a record.
    fn take<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<bool, ArchiveError> {
        let kind = entry.header().entry_type();
        let unset = match kind {
            EntryType::GNULongName => self.path.replace(value(entry)?).is_none(),
            EntryType::GNULongLink => self.target.replace(value(entry)?).is_none(),
            EntryType::XHeader => {
                let changed = time(&value(entry)?);
                changed.is_some() && std::mem::replace(&mut self.changed, changed).is_none()
            }
            _ => return Ok(false),
        };
        if unset {
            Ok(true)
        } else {
            Err(rejected(Path::new("an entry"), Reason::Records))
        }
    }
}

/// The contents of a record.
fn value<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    let read = entry.take(LONGEST_PATH + 1).read_to_end(&mut bytes);
    let read = read.map_err(ArchiveError::Read)? as u64;
    if read > LONGEST_PATH || read != entry.size() {
        return Err(rejected(Path::new("an entry"), Reason::Records));
    }
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

/// The time in a PAX record, which must contain nothing else.
fn time(record: &[u8]) -> Option<Time> {
    let mut records = PaxExtensions::new(record);
    let record = records.next()?.ok()?;
    let only = records.next().is_none() && record.key() == Ok(MTIME);
    only.then(|| Time::from_decimal(record.value().ok()?))?
}

struct Unpacking<'a> {
    into: &'a Path,
    rules: &'a Rules,
    entries: Vec<Entry>,
    directories: BTreeSet<PathBuf>,
    records: u64,
    files: u64,
    bytes: u64,
    names: u64,
}

impl Unpacking<'_> {
    fn entry<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        names: Names,
    ) -> Result<(), ArchiveError> {
        let header = entry.header();
        let path = names.path.unwrap_or_else(|| header.path_bytes().into());
        let path = self.checked(Path::new(OsStr::from_bytes(&path)))?;
        let kind = match header.entry_type() {
            EntryType::Directory if entry.size() == 0 => self.directory(&path)?,
            EntryType::Regular => {
                let mode = header.mode().map_err(ArchiveError::Read)?;
                self.file(entry, &path, mode & 0o111 != 0, names.changed)?
            }
            EntryType::Symlink if self.rules.links && entry.size() == 0 => {
                let short = || header.link_name_bytes().map(Into::into);
                let target = names.target.or_else(short).unwrap_or_default();
                self.link(&path, OsStr::from_bytes(&target))?
            }
            _ => return Err(rejected(&path, Reason::Kind)),
        };
        let target = match &kind {
            Kind::Link(target) => target.as_os_str().len(),
            Kind::Directory | Kind::File { .. } => 0,
        };
        self.names += (path.as_os_str().len() + target) as u64;
        self.entries.push(Entry { path, kind });
        limit(self.names, self.rules.names, "bytes in names")
    }

    /// The path, if it leads to a new place in a directory of this archive. No link is followed on the way: those directories were
    /// made here.
    fn checked(&self, path: &Path) -> Result<PathBuf, ArchiveError> {
        let is_normal = |component: Component<'_>| matches!(component, Component::Normal(_));
        let bytes = path.as_os_str().as_bytes();
        let clean: PathBuf = path.components().collect();
        if bytes.is_empty()
            || bytes.len() as u64 > LONGEST_PATH
            || bytes.contains(&0)
            || !path.components().all(is_normal)
            || clean.components().count() > DEEPEST
        {
            return Err(rejected(path, Reason::Path));
        }
        match clean.parent() {
            Some(parent) if parent.as_os_str().is_empty() || self.directories.contains(parent) => {
                Ok(clean)
            }
            _ => Err(rejected(path, Reason::Parent)),
        }
    }

    fn directory(&mut self, path: &Path) -> Result<Kind, ArchiveError> {
        let (place, mode) = (self.into.join(path), self.rules.directory);
        let made = DirBuilder::new().mode(0o700).create(&place);
        made.map_err(at(path, "make the directory", &place))?;
        set_mode(&place, mode)?;
        self.directories.insert(path.into());
        Ok(Kind::Directory)
    }

    fn link(&mut self, path: &Path, target: &OsStr) -> Result<Kind, ArchiveError> {
        let place = self.into.join(path);
        if target.is_empty() || target.as_bytes().contains(&0) {
            return Err(rejected(path, Reason::Records));
        }
        symlink(target, &place).map_err(at(path, "make the link", &place))?;
        Ok(Kind::Link(target.into()))
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        path: &Path,
        executable: bool,
        changed: Option<Time>,
    ) -> Result<Kind, ArchiveError> {
        let bytes = entry.size();
        self.count(bytes)?;
        let place = self.into.join(path);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&place)
            .map_err(at(path, "make the file", &place))?;
        copy(entry, &mut file, &place)?;
        if let Some(changed) = changed {
            set_time(&place, changed).map_err(io_at("set the time of", &place))?;
        }
        let mode = if executable {
            self.rules.executable
        } else {
            self.rules.file
        };
        set_mode(&place, mode)?;
        Ok(Kind::File { executable, bytes })
    }

    fn count(&mut self, bytes: u64) -> Result<(), ArchiveError> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        limit(self.files, self.rules.files, "files")?;
        limit(bytes, self.rules.file_bytes, "bytes in one file")?;
        limit(self.bytes, self.rules.bytes, "bytes")
    }

    /// A link's target may be missing, but it must be inside, on whatever path.
    fn check_links(&self) -> Result<(), ArchiveError> {
        let links = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.kind, Kind::Link(_)));
        let mut links = links.peekable();
        if links.peek().is_none() {
            return Ok(());
        }
        let root = File::open(self.into).map_err(io_at("open", self.into))?;
        match links.find(|link| leads_out(&root, &link.path)) {
            Some(link) => Err(rejected(&link.path, Reason::LinkOutside)),
            None => Ok(()),
        }
    }
}

/// Whether a link below `root` leads out of it, even if only on the way to a place inside.
pub(crate) fn leads_out(root: &File, link: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    for _ in 0..RENAMED {
        match openat2(root, link, flags, Mode::empty(), ResolveFlags::BENEATH) {
            Err(Errno::AGAIN) => {}
            Ok(_)
            | Err(
                Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::ACCESS | Errno::NAMETOOLONG,
            ) => return false,
            // XDEV means that it leads out; other errors mean that it may.
            Err(_) => return true,
        }
    }
    true
}

/// Copies an entry's contents. A failed read and a failed write are distinct errors.
fn copy<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    file: &mut File,
    place: &Path,
) -> Result<(), ArchiveError> {
    let (mut left, mut buffer) = (entry.size(), vec![0; 64 << 10]);
    while left > 0 {
        let read = entry.read(&mut buffer).map_err(ArchiveError::Read)?;
        if read == 0 {
            return Err(ArchiveError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        file.write_all(&buffer[..read])
            .map_err(io_at("write", place))?;
        left = left.saturating_sub(read as u64);
    }
    Ok(())
}

fn limit(is: u64, most: u64, what: &'static str) -> Result<(), ArchiveError> {
    if is > most {
        Err(ArchiveError::TooLarge { most, what })
    } else {
        Ok(())
    }
}

fn set_mode(place: &Path, mode: u32) -> Result<(), ArchiveError> {
    let set = fs::set_permissions(place, Permissions::from_mode(mode));
    set.map_err(io_at("set the mode of", place))
}

fn set_time(place: &Path, changed: Time) -> io::Result<()> {
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(0, UTIME_OMIT),
        last_modification: time(changed.seconds, changed.nanoseconds.into()),
    };
    Ok(utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn rejected(path: &Path, why: Reason) -> ArchiveError {
    let path = path.to_path_buf();
    ArchiveError::Rejected { path, why }
}

/// An IO error; if the path exists already, the archive has it twice.
fn at(path: &Path, tried: &'static str, place: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let (path, otherwise) = (path.to_path_buf(), io_at(tried, place));
    move |error| match error.kind() {
        io::ErrorKind::AlreadyExists => rejected(&path, Reason::Twice),
        _ => otherwise(error),
    }
}

fn io_at(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_path_buf();
    move |source| ArchiveError::Io {
        tried,
        path,
        source,
    }
}
