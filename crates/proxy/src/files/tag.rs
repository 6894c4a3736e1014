//! Entity tags by content: the first 128 bits of a file's SHA-256, so that they are equal on every server and in every
//! release that has the same bytes.
//!
//! Each worker digests a file once and remembers the tag for its version: device, inode, size, and the times at which
//! contents and inode changed. A file above [`AT_ONCE`] is digested by a thread beside the worker, one at a time; until that is
//! done its responses have no tag. One above [`MOST`] is not read for this: its tag is of its size and its time.

use super::File;
use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::fstat;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Largest file that is digested before its response begins: a few milliseconds.
const AT_ONCE: u64 = 4 << 20;
/// Largest file that is digested.
const MOST: u64 = 256 << 20;
/// Bytes between two moments at which the worker may serve others.
const BLOCK: usize = 64 << 10;
/// Most tags in each of two generations: about 6 MB for a worker whose releases have that many files.
const GENERATION: usize = 32_768;
/// A file that changed more recently could change again without another time of change.
const SETTLED: Duration = Duration::from_secs(2);

/// What makes a file's contents others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds since the epoch.
    pub(super) modified: (u64, u64),
    changed: (u64, u64),
}

impl Version {
    /// The version of a file with this state.
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        let nanos = |nanos: i64| number(nanos);
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: number(stat.st_size),
            modified: (
                number(stat.st_mtime),
                nanos(i64::from_ne_bytes(stat.st_mtime_nsec.to_ne_bytes())),
            ),
            changed: (
                number(stat.st_ctime),
                nanos(i64::from_ne_bytes(stat.st_ctime_nsec.to_ne_bytes())),
            ),
        }
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let changed = UNIX_EPOCH + Duration::from_secs(self.changed.0);
        now.duration_since(changed).is_ok_and(|age| age > SETTLED)
    }
}

type Tag = [u8; 16];

/// The tags that a worker knows. When the younger generation is full, it replaces the older.
#[derive(Default)]
pub(crate) struct Tags {
    known: RefCell<Generations>,
    /// Those that are digested at this moment: who asks meanwhile gets no tag.
    digesting: RefCell<HashSet<Version>>,
    /// Whether a large file is being digested.
    is_busy: Cell<bool>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Version, Tag>,
    old: HashMap<Version, Tag>,
}

impl Generations {
    fn get(&mut self, version: &Version) -> Option<Tag> {
        if let Some(tag) = self.young.get(version) {
            return Some(*tag);
        }
        let tag = self.old.remove(version)?;
        self.insert(*version, tag);
        Some(tag)
    }

    fn insert(&mut self, version: Version, tag: Tag) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(version, tag);
    }
}

impl Tags {
    /// The file's strong entity tag with its quotes; `None` while it is not known, or cannot be: the file changes.
    pub(super) async fn of(tags: &Rc<Self>, file: &File<'_>) -> Option<String> {
        let known = tags.known.borrow_mut().get(&file.version);
        if let Some(tag) = known {
            return Some(written(&tag));
        }
        match file.version.size {
            size if size > MOST => return Some(by_time(&file.version)),
            size if size > AT_ONCE => {
                tags.later(file);
                return None;
            }
            _ => {}
        }
        let began = SystemTime::now();
        if !tags.digesting.borrow_mut().insert(file.version) {
            return None;
        }
        let _ends = Digesting(tags, file.version);
        let tag = digest(&file.fd, &file.version).await?;
        tags.keep(file.version, tag, began);
        Some(written(&tag))
    }

    /// Remembers a tag of which the digest began at this time.
    fn keep(&self, version: Version, tag: Tag, began: SystemTime) {
        if version.is_settled(began) {
            self.known.borrow_mut().insert(version, tag);
        }
    }

    /// Digests a large file beside the requests, unless another one is: a later request for it begins anew.
    fn later(self: &Rc<Self>, file: &File<'_>) {
        if !file.version.is_settled(SystemTime::now()) || self.is_busy.get() {
            return;
        }
        let Ok(fd) = file.fd.try_clone() else {
            return;
        };
        self.is_busy.set(true);
        let (tags, version) = (Rc::clone(self), file.version);
        let began = SystemTime::now();
        let digest = tokio::task::spawn_blocking(move || digest_all(&fd, &version));
        tokio::task::spawn_local(async move {
            if let Ok(Some(tag)) = digest.await {
                tags.keep(version, tag, began);
            }
            tags.is_busy.set(false);
        });
    }
}

/// Until it is dropped, a version is being digested.
struct Digesting<'a>(&'a Tags, Version);

impl Drop for Digesting<'_> {
    fn drop(&mut self) {
        self.0.digesting.borrow_mut().remove(&self.1);
    }
}

/// The digest of a file; `None` if it could not be read or was changed meanwhile. The worker serves others between two blocks.
async fn digest(fd: &OwnedFd, version: &Version) -> Option<Tag> {
    let mut digest = Digest::of(version);
    while digest.block(fd)? {
        tokio::task::yield_now().await;
    }
    digest.tag(fd)
}

/// The same in a thread of its own.
fn digest_all(fd: &OwnedFd, version: &Version) -> Option<Tag> {
    let mut digest = Digest::of(version);
    while digest.block(fd)? {}
    digest.tag(fd)
}

/// A file that is being read.
struct Digest {
    context: Context,
    version: Version,
    block: Vec<u8>,
    at: u64,
}

impl Digest {
    fn of(version: &Version) -> Self {
        let size = usize::try_from(version.size).unwrap_or(usize::MAX);
        Self {
            context: Context::new(&SHA256),
            version: *version,
            block: vec![0; size.min(BLOCK)],
            at: 0,
        }
    }

    /// Reads a block; whether more are left.
    fn block(&mut self, fd: &OwnedFd) -> Option<bool> {
        if self.at < self.version.size {
            let count = rustix::io::pread(fd.as_fd(), &mut self.block, self.at).ok()?;
            if count == 0 {
                return None;
            }
            self.context.update(&self.block[..count]);
            self.at += count as u64;
        }
        Some(self.at < self.version.size)
    }

    fn tag(self, fd: &OwnedFd) -> Option<Tag> {
        let is_same = Version::of(&fstat(fd).ok()?) == self.version;
        let digest = self.context.finish();
        let (tag, _) = digest.as_ref().split_first_chunk()?;
        is_same.then_some(*tag)
    }
}

/// The tag of a file that is too large to be read for it.
fn by_time(version: &Version) -> String {
    let (seconds, nanos) = version.modified;
    format!("\"{seconds:x}.{nanos:x}-{:x}\"", version.size)
}

fn written(tag: &Tag) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, work)
    }

    fn open(path: &std::path::Path) -> File<'static> {
        let fd: OwnedFd = fs::File::open(path).unwrap().into();
        let version = Version::of(&fstat(&fd).unwrap());
        File::new(fd, version, b"a.txt", None)
    }

    #[test]
    fn equal_contents_have_equal_tags_whatever_their_times() {
        let directory = tempfile::tempdir().unwrap();
        let [one, same, other] = ["one", "same", "other"].map(|name| directory.path().join(name));
        let contents = "x".repeat(200_000);
        fs::write(&one, &contents).unwrap();
        fs::write(&same, &contents).unwrap();
        fs::write(&other, contents.replace("xxx", "xyx")).unwrap();
        let long_ago = UNIX_EPOCH + Duration::from_secs(86_400);
        let file = fs::File::options().write(true).open(&same).unwrap();
        file.set_modified(long_ago).unwrap();
        let tags = Rc::<Tags>::default();
        let of = |path| run(Tags::of(&tags, &open(path))).unwrap();
        assert_eq!(of(&one), of(&same));
        assert_ne!(of(&one), of(&other));
        assert_eq!(of(&one).len(), 24);
        // What has just been written could be written again in the same tick.
        assert!(tags.known.borrow().young.is_empty());
    }

    #[test]
    fn a_tag_is_remembered_for_a_version_that_has_settled() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, "a").unwrap();
        let mut file = open(&path);
        let tags = Tags::default();
        tags.keep(file.version, [1; 16], SystemTime::now());
        assert!(tags.known.borrow().young.is_empty());
        file.version.changed.0 -= 10;
        tags.keep(file.version, [1; 16], SystemTime::now());
        let tag = run(Tags::of(&Rc::new(tags), &file)).unwrap();
        assert_eq!(tag, "\"AQEBAQEBAQEBAQEBAQEBAQ\"");
    }

    #[test]
    fn a_file_that_changed_while_it_was_read_has_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, "a").unwrap();
        let mut file = open(&path);
        file.version.modified.0 -= 1;
        assert_eq!(run(Tags::of(&Rc::default(), &file)), None);
        file.version.size = 2;
        assert_eq!(run(Tags::of(&Rc::default(), &file)), None);
    }

    #[test]
    fn the_oldest_tags_are_forgotten() {
        let mut known = Generations::default();
        let version = |inode| Version {
            device: 1,
            inode,
            size: 0,
            modified: (0, 0),
            changed: (0, 0),
        };
        let many = GENERATION as u64;
        (0..=2 * many).for_each(|inode| known.insert(version(inode), [0; 16]));
        assert!(known.young.len() + known.old.len() <= 2 * GENERATION);
        assert_eq!(known.get(&version(0)), None);
        assert!(known.get(&version(many)).is_some());
    }
}
