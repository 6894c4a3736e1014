//! Copies of the certificates that balancers serve. Each `up` reads them from where the site's file says, and keeps a copy
//! apart from the releases, so that the site's own processes cannot read their keys.
//!
//! A copy is named by the digest of what is in it: changed certificates are another one, which the proxies take over.

use gaiola_model::config::BalancerTls;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A larger file is none with certificates.
const MOST_BYTES: u64 = 1024 * 1024;
/// More files in one folder are something else than certificates.
const MOST_FILES: usize = 10_000;

/// Certificates as they were read.
pub struct Certificates {
    /// The digest of all of them.
    pub contents: String,
    /// Each file with its place in the copy.
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// Reads what `tls` names; relative paths begin at `folder`.
///
/// # Errors
/// Every mistake in them, in words.
pub fn read(folder: &Path, tls: &BalancerTls) -> Result<Certificates, String> {
    let paths: Vec<_> = tls
        .certificates
        .iter()
        .map(|path| folder.join(path))
        .collect();
    gaiola_proxy::check_certificates(&paths)?;
    let mut files = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let found = of(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        for file in found {
            let bytes =
                load(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            let name = file.file_name().unwrap_or_default();
            files.push((Path::new(&number.to_string()).join(name), bytes));
        }
    }
    let mut digest = Sha256::new();
    for (place, bytes) in &files {
        let place = place.as_os_str().as_encoded_bytes();
        digest.update((place.len() as u64).to_be_bytes());
        digest.update(place);
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    }
    let contents = digest
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(Certificates { contents, files })
}

/// The paths that `tls` names, what stands in them and beside them, and what their links lead to: no part of a release.
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

fn load(file: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(file)?.len() > MOST_BYTES {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    fs::read(file)
}

impl Certificates {
    /// Keeps the copy below `copies`, whole or not at all, and readable by nobody else.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn keep(&self, copies: &Path) -> io::Result<()> {
        let place = copies.join(&self.contents);
        if place.is_dir() {
            return Ok(());
        }
        let new = copies.join(format!(".new-{}", std::process::id()));
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        for (file, bytes) in &self.files {
            let file = new.join(file);
            let parent = file.parent().unwrap_or(&new);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)?;
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&file)?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        // They may have been exchanged while they were read: what is kept fits together.
        let folders = fs::read_dir(&new)?.map(|folder| folder.map(|folder| folder.path()));
        let folders = folders.collect::<io::Result<Vec<_>>>()?;
        gaiola_proxy::check_certificates(&folders).map_err(io::Error::other)?;
        fs::rename(&new, &place)
    }
}

/// Removes the copies that are none of `kept`.
///
/// # Errors
/// Where the system refuses.
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
            .is_some_and(|name| kept.contains(&name));
        if !is_kept {
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

    #[test]
    fn a_copy_is_whole_and_for_us_alone() {
        let (site, copies) = (site(), tempfile::tempdir().unwrap());
        let tls = BalancerTls::new(vec!["a.pem".into()]);
        let read = read(site.path(), &tls).unwrap();
        for _ in 0..2 {
            read.keep(copies.path()).unwrap();
        }
        let copy = copies.path().join(&read.contents);
        gaiola_proxy::check_certificates(&[copy.join("0")]).unwrap();
        let key = fs::metadata(copy.join("0/a.pem.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        prune(copies.path(), &[&read.contents]).unwrap();
        assert!(copy.is_dir());
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
    fn what_cannot_be_served_is_told() {
        let site = site();
        fs::remove_file(site.path().join("a.pem.key")).unwrap();
        let tls = BalancerTls::new(vec!["a.pem".into(), "b.pem".into()]);
        let mistakes = read(site.path(), &tls).err().unwrap();
        assert!(
            mistakes.contains("a.pem") && mistakes.contains("b.pem"),
            "{mistakes}"
        );
    }
}
