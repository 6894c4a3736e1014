//! Copies of the certificates that balancers serve. Each `up` reads the files that the site's file names, and sends them to the site
//! if it does not have them. The site stores them apart from the releases, so that its own processes cannot read the keys.
//!
//! A copy is named after the digest of its contents: changed certificates are a new copy, which the proxies load.

use crate::api::Digest;
use crate::archive::{self, Entry, Kind, Packer, Rules};
use gaiola_model::config::BalancerTls;
use gaiola_proxy::TlsError;
use sha2::{Digest as _, Sha256};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The name of a copy while it is being written.
const UNFINISHED: &str = ".new";
/// Copies that a change has queried are kept at least this long: it may be about to use them.
const FRESH: Duration = Duration::from_secs(3600);
/// Maximum size of a file with certificates.
const MOST_BYTES: u64 = 1024 * 1024;
/// Maximum number of files in one folder of certificates.
const MOST_FILES: usize = 10_000;

/// Maximum size of all certificates.
const MOST_BYTES_IN_ALL: u64 = 256 * MOST_BYTES;

/// Modes of a copy: only the owner may read it.
const RULES: Rules = Rules {
    entries: 4 * MOST_FILES as u64,
    files: 2 * MOST_FILES as u64,
    file_bytes: MOST_BYTES,
    bytes: MOST_BYTES_IN_ALL,
    names: 16 * MOST_BYTES,
    links: false,
    directory: 0o700,
    file: 0o600,
    executable: 0o600,
};

/// Certificates as read from the files.
pub struct Certificates {
    /// The digest of all of them.
    pub contents: Digest,
    /// Each file with its place in the copy.
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They cannot be served; every mistake in them.
    #[error("{0}")]
    Unusable(TlsError),
    /// The system refused.
    #[error("cannot read {}: {why}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// A file is larger than one with certificates.
    #[error("cannot read {}: it has more than {} MiB", .0.display(), MOST_BYTES >> 20)]
    TooLarge(PathBuf),
    /// They exceed the limits.
    #[error(
        "they have {files} files of {mib} MiB, more than {} files or {} MiB",
        RULES.files,
        RULES.bytes >> 20
    )]
    TooMany {
        /// The number of files.
        files: usize,
        /// The files' total size.
        mib: u64,
    },
}

impl ReadError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |why| Self::Io { path, why }
    }
}

/// Reads what `tls` names; relative paths begin at `folder`.
///
/// # Errors
/// Every mistake in them.
pub fn read(folder: &Path, tls: &BalancerTls) -> Result<Certificates, ReadError> {
    let paths: Vec<_> = tls
        .certificates
        .iter()
        .map(|path| folder.join(path))
        .collect();
    gaiola_proxy::check_certificates(&paths).map_err(ReadError::Unusable)?;
    let mut files = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let found = of(path).map_err(ReadError::io(path))?;
        for file in found {
            let bytes = load(&file)?;
            let name = file.file_name().unwrap_or_default();
            files.push((Path::new(&number.to_string()).join(name), bytes));
        }
    }
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    if files.len() as u64 > RULES.files || bytes > RULES.bytes {
        return Err(ReadError::TooMany {
            files: files.len(),
            mib: bytes >> 20,
        });
    }
    let mut digest = Contents::default();
    for (place, bytes) in &files {
        digest.add(place, bytes);
    }
    let contents = digest.finish();
    Ok(Certificates { contents, files })
}

/// The digest of a copy's files, in the order of their places.
#[derive(Default)]
struct Contents(Sha256);

impl Contents {
    fn add(&mut self, place: &Path, bytes: &[u8]) {
        let place = place.as_os_str().as_encoded_bytes();
        for part in [place, bytes] {
            self.0.update((part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    fn finish(self) -> Digest {
        Digest::of(&self.0.finalize()[..16])
    }
}

/// The paths that `tls` names, the files in and beside them, and the targets of links: not part of a release.
pub fn apart(folder: &Path, tls: &BalancerTls) -> Vec<PathBuf> {
    let mut apart = Vec::new();
    for path in tls.certificates.iter().map(|path| folder.join(path)) {
        apart.extend(of(&path).unwrap_or_default());
        apart.extend(with_beside(&path));
    }
    let led_to = apart.iter().filter_map(|path| path.canonicalize().ok());
    let led_to: Vec<_> = led_to.collect();
    apart.extend(led_to);
    apart
}

fn with_beside(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_path_buf()];
    all.extend(gaiola_proxy::beside(path));
    all
}

/// The files of a folder, or a file with those beside it, by their names.
fn of(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        let mut files = with_beside(path);
        files.retain(|file| file.is_file());
        return Ok(files);
    }
    let mut files = Vec::new();
    for entry in path.read_dir()?.take(MOST_FILES) {
        let entry = entry?.path();
        if entry.is_file() {
            files.push(entry);
        }
    }
    files.sort();
    Ok(files)
}

/// The files of one folder of a copy, as those of a folder of the operator's were read.
fn by_name(folder: &Path) -> io::Result<Vec<PathBuf>> {
    of(folder)
}

/// The files of one folder of a copy, as a file of the operator's was read with those beside it.
fn beside_each_other(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let all = of(folder)?;
    for file in &all {
        let found = of(file)?;
        if found.len() == all.len() {
            return Ok(found);
        }
    }
    Ok(all)
}

fn load(file: &Path) -> Result<Vec<u8>, ReadError> {
    let metadata = fs::metadata(file).map_err(ReadError::io(file))?;
    if metadata.len() > MOST_BYTES {
        return Err(ReadError::TooLarge(file.into()));
    }
    fs::read(file).map_err(ReadError::io(file))
}

impl Certificates {
    /// The copy with these contents, as it is sent to another machine; `None`: there is none, or it has others by now.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn held(copies: &Path, contents: &Digest) -> io::Result<Option<Self>> {
        let copy = copies.join(contents.as_str());
        let mut folders: Vec<(usize, PathBuf)> = Vec::new();
        for entry in copy.read_dir()? {
            let entry = entry?;
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            folders.extend(number.map(|number| (number, entry.path())));
        }
        folders.sort();
        for order in [by_name, beside_each_other] {
            let mut files = Vec::new();
            for (number, folder) in &folders {
                for file in order(folder)? {
                    let place =
                        Path::new(&number.to_string()).join(file.file_name().unwrap_or_default());
                    files.push((place, fs::read(&file)?));
                }
            }
            let mut digest = Contents::default();
            files
                .iter()
                .for_each(|(place, bytes)| digest.add(place, bytes));
            if digest.finish() == *contents {
                let contents = contents.clone();
                return Ok(Some(Self { contents, files }));
            }
        }
        Ok(None)
    }

    /// Writes the archive that [`receive`] reads.
    ///
    /// # Errors
    /// If writing to `out` fails.
    pub fn pack(&self, out: impl Write) -> io::Result<()> {
        let mut archive = Packer::new(out);
        let mut folder = Path::new("");
        for (place, bytes) in &self.files {
            let parent = place.parent().unwrap_or(folder);
            if parent != folder {
                archive.directory(parent)?;
                folder = parent;
            }
            archive.file(place, false, None, bytes.len() as u64, &mut &bytes[..])?;
        }
        archive.finish()
    }
}

/// Whether there is a copy with these contents.
///
/// Since the client is about to use them, they are not removed for the next `FRESH`.
pub fn has(copies: &Path, contents: &Digest) -> bool {
    let folder = fs::File::open(copies.join(contents.as_str()));
    folder.is_ok_and(|folder| folder.set_modified(SystemTime::now()).is_ok())
}

/// Unpacks the archive of [`Certificates::pack`] and stores it below `copies`, completely or not at all, readable by its owner
/// only. Calls must not overlap. It blocks.
///
/// # Errors
/// If it breaks off, is not such an archive, has another digest, or cannot be served. Nothing of it is left then.
pub fn receive(archive: impl Read, copies: &Path, contents: &Digest) -> Result<(), ReceiveError> {
    let failed = |source| ReceiveError::Io {
        copies: copies.into(),
        source,
    };
    let place = copies.join(contents.as_str());
    let new = copies.join(UNFINISHED);
    let kept = begin(copies, &new)
        .map_err(failed)
        .and_then(|()| check(archive, &new, contents))
        .and_then(|()| {
            if place.is_dir() {
                Ok(())
            } else {
                keep(copies, &new, &place).map_err(failed)
            }
        });
    let _ = remove(&new);
    kept
}

/// Why uploaded certificates are rejected.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The system refused.
    #[error("cannot keep the certificates in {}", copies.display())]
    Io {
        /// The directory.
        copies: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The upload is not an archive of certificates.
    #[error("the upload does not contain valid certificates")]
    NotUnpacked(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Their digest is not the announced one.
    #[error("the upload has the digest {received}; {expected} was announced")]
    OtherContents {
        /// The announced digest.
        expected: Digest,
        /// The upload's digest.
        received: Digest,
    },
    /// They cannot be served. They may have been replaced while they were read; stored certificates and keys must match.
    #[error("the balancers' certificates cannot be served: {0}")]
    Unusable(TlsError),
}

fn begin(copies: &Path, new: &Path) -> io::Result<()> {
    remove(new)?;
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(copies)?;
    builder.create(new)
}

fn remove(new: &Path) -> io::Result<()> {
    match fs::remove_dir_all(new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn check(archive: impl Read, new: &Path, expected: &Digest) -> Result<(), ReceiveError> {
    let entries = archive::unpack(archive, new, &RULES)
        .map_err(|error| ReceiveError::NotUnpacked(Box::new(error)))?;
    let mut digest = Contents::default();
    let mut folders = Vec::new();
    for Entry { path, kind } in &entries {
        match (kind, path.components().count()) {
            (Kind::Directory, 1) => folders.push(new.join(path)),
            (Kind::File { .. }, 2) => {
                let read = fs::read(new.join(path));
                let bytes = read.map_err(|source| ReceiveError::Io {
                    copies: new.into(),
                    source,
                })?;
                digest.add(path, &bytes);
            }
            _ => {
                let why = format!("{} is out of place", path.display());
                return Err(ReceiveError::NotUnpacked(why.into()));
            }
        }
    }
    let received = digest.finish();
    if received != *expected {
        return Err(ReceiveError::OtherContents {
            expected: expected.clone(),
            received,
        });
    }
    gaiola_proxy::check_certificates(&folders).map_err(ReceiveError::Unusable)
}

/// Syncs the copy to disk, then renames it.
fn keep(copies: &Path, new: &Path, place: &Path) -> io::Result<()> {
    for folder in fs::read_dir(new)? {
        let folder = folder?.path();
        for file in fs::read_dir(&folder)? {
            File::open(file?.path())?.sync_all()?;
        }
        File::open(folder)?.sync_all()?;
    }
    File::open(new)?.sync_all()?;
    fs::rename(new, place)?;
    File::open(copies)?.sync_all()
}

/// Removes all copies except those in `kept` and one that is being written.
///
/// # Errors
/// If the system refuses.
pub fn prune(copies: &Path, kept: &[&str]) -> io::Result<()> {
    let entries = match copies.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let is_kept = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name == UNFINISHED || kept.contains(&name));
        let asked_for = entry.metadata()?.modified()?;
        let is_fresh = asked_for.elapsed().map_or(true, |age| age < FRESH);
        if !is_kept && !is_fresh {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn site() -> tempfile::TempDir {
        let site = tempfile::tempdir().unwrap();
        let certified = rcgen::generate_simple_self_signed(["a.example".into()]).unwrap();
        fs::write(site.path().join("a.pem"), certified.cert.pem()).unwrap();
        fs::write(
            site.path().join("a.pem.key"),
            certified.signing_key.serialize_pem(),
        )
        .unwrap();
        site
    }

    fn packed(certificates: &Certificates) -> Vec<u8> {
        let mut archive = Vec::new();
        certificates.pack(&mut archive).unwrap();
        archive
    }

    fn names(copies: &Path) -> Vec<String> {
        let entries = copies.read_dir().into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn the_digest_is_that_of_earlier_versions() {
        let site = tempfile::tempdir().unwrap();
        let files = ["0/b.pem", "0/a.pem", "10/c"].map(|place| (place.into(), b"x".to_vec()));
        let mut digest = Contents::default();
        let read = Certificates {
            contents: "a87c678101338325d80f1c7ca462d553".parse().unwrap(),
            files: files.into(),
        };
        for (place, bytes) in &read.files {
            digest.add(place, bytes);
        }
        assert_eq!(digest.finish(), read.contents);
        // The upload keeps the order in which they were read; these cannot be served, though.
        let received = receive(&packed(&read)[..], site.path(), &read.contents);
        let why = received.unwrap_err();
        assert!(matches!(why, ReceiveError::Unusable(_)), "{why}");
    }

    #[test]
    fn what_is_not_as_said_breaks_off_or_cannot_be_served_leaves_nothing() {
        let (site, copies) = (site(), tempfile::tempdir().unwrap());
        let tls = BalancerTls::new(vec!["a.pem".into()]);
        let read = read(site.path(), &tls).unwrap();
        let archive = packed(&read);
        let other = Digest::of(&[7; 16]);
        let why = receive(&archive[..], copies.path(), &other).unwrap_err();
        assert!(matches!(why, ReceiveError::OtherContents { .. }), "{why}");
        for length in (0..archive.len() - 1024).step_by(100) {
            let cut = receive(&archive[..length], copies.path(), &read.contents);
            assert!(cut.is_err(), "{length}");
        }
        let without_key = Certificates {
            contents: read.contents.clone(),
            files: read.files[..1].to_vec(),
        };
        let mut digest = Contents::default();
        digest.add(&without_key.files[0].0, &without_key.files[0].1);
        let why = receive(&packed(&without_key)[..], copies.path(), &digest.finish());
        let why = why.unwrap_err();
        assert!(matches!(why, ReceiveError::Unusable(_)), "{why}");
        assert_eq!(names(copies.path()), [""; 0]);
    }

    #[test]
    fn a_file_that_is_out_of_place_is_rejected() {
        let copies = tempfile::tempdir().unwrap();
        for place in ["a.pem", "0/a/b.pem"] {
            let mut archive = Vec::new();
            let mut packer = Packer::new(&mut archive);
            packer.directory(Path::new("0")).unwrap();
            packer.directory(Path::new("0/a")).unwrap();
            packer
                .file(Path::new(place), false, None, 1, &mut &b"x"[..])
                .unwrap();
            packer.finish().unwrap();
            let why = receive(&archive[..], copies.path(), &Digest::of(&[7; 16])).unwrap_err();
            assert!(matches!(why, ReceiveError::NotUnpacked(_)), "{why}");
        }
    }

    #[test]
    fn a_copy_is_whole_and_for_us_alone() {
        let (site, copies) = (site(), tempfile::tempdir().unwrap());
        let tls = BalancerTls::new(vec!["a.pem".into()]);
        let read = read(site.path(), &tls).unwrap();
        assert!(!has(copies.path(), &read.contents));
        for _ in 0..2 {
            receive(&packed(&read)[..], copies.path(), &read.contents).unwrap();
        }
        assert!(has(copies.path(), &read.contents));
        let copy = copies.path().join(read.contents.as_str());
        gaiola_proxy::check_certificates(&[copy.join("0")]).unwrap();
        let key = fs::metadata(copy.join("0/a.pem.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        prune(copies.path(), &[read.contents.as_str()]).unwrap();
        assert!(copy.is_dir());
        prune(copies.path(), &[]).unwrap();
        assert!(
            copy.is_dir(),
            "a change that has asked for it may be about to name it"
        );
        let folder = File::open(&copy).unwrap();
        folder.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        prune(copies.path(), &[]).unwrap();
        assert!(!copy.exists());
    }

    #[test]
    fn other_certificates_are_another_copy() {
        let (one, two) = (site(), site());
        let tls = BalancerTls::new(vec!["a.pem".into()]);
        let contents = |site: &tempfile::TempDir| read(site.path(), &tls).unwrap().contents;
        assert_eq!(contents(&one), contents(&one));
        assert_ne!(contents(&one), contents(&two));
    }

    #[test]
    fn a_copy_goes_on_to_another_machine() {
        let (site, here, there) = (
            site(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        fs::copy(site.path().join("a.pem"), site.path().join("b.pem")).unwrap();
        fs::copy(site.path().join("a.pem.key"), site.path().join("b.pem.key")).unwrap();
        let tls = BalancerTls::new(vec!["a.pem".into(), "b.pem".into()]);
        let read = read(site.path(), &tls).unwrap();
        receive(&packed(&read)[..], here.path(), &read.contents).unwrap();
        let held = Certificates::held(here.path(), &read.contents)
            .unwrap()
            .unwrap();
        receive(&packed(&held)[..], there.path(), &read.contents).unwrap();
        assert!(has(there.path(), &read.contents));
        fs::write(here.path().join(read.contents.as_str()).join("0/c"), "").unwrap();
        assert!(
            Certificates::held(here.path(), &read.contents)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn what_cannot_be_served_is_reported() {
        let site = site();
        fs::remove_file(site.path().join("a.pem.key")).unwrap();
        let tls = BalancerTls::new(vec!["a.pem".into(), "b.pem".into()]);
        let mistakes = read(site.path(), &tls).err().unwrap().to_string();
        assert!(
            mistakes.contains("a.pem") && mistakes.contains("b.pem"),
            "{mistakes}"
        );
    }
}
