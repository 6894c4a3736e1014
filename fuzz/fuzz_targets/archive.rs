//! An archive of a release or of certificates: no panic, bounded, nothing outside of its directory, and the same entries when it is
//! packed again.
//!
//! The sender's machine may be anybody's by then, so that this is the decoder of `gaiola-control` with the most to lose. Its room pulls in
//! the whole data plane; the module alone is compiled here.

#![no_main]

#[allow(dead_code, unused_imports)]
#[path = "../../crates/control/src"]
mod control {
    pub(crate) mod archive;
}

use control::archive::{Entry, Kind, Packer, Rules, unpack};
use libfuzzer_sys::fuzz_target;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const BLOCK: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const SIZE: std::ops::Range<usize> = 124..136;

const RULES: Rules = Rules {
    entries: 12,
    files: 4,
    file_bytes: 1024,
    bytes: 2048,
    names: 1024,
    links: true,
    directory: 0o700,
    file: 0o600,
    executable: 0o700,
};

/// Our own archives have a record for each long name, where others may do without.
const AGAIN: Rules = Rules {
    entries: 3 * RULES.entries,
    ..RULES
};

fuzz_target!(|data: &[u8]| {
    let Some((&first, archive)) = data.split_first() else {
        return;
    };
    let mut archive = archive.to_vec();
    if first & 1 == 1 {
        mend(&mut archive);
    }
    let place = Place::new();
    let unpacked = unpack(&archive[..], &place.make("a"), &RULES);
    assert_eq!(place.names(), ["a"], "something is beside the directory");
    let Ok(entries) = unpacked else { return };
    check(&place.0.join("a"), &entries);
    let again = packed(&place.0.join("a"), &entries);
    let same = unpack(&again[..], &place.make("b"), &AGAIN).expect("our own archive");
    assert_eq!(same, entries);
});

/// What the rules allow, and nothing else.
fn check(root: &Path, entries: &[Entry]) {
    let real = root.canonicalize().unwrap();
    let (mut files, mut bytes_in_all) = (0, 0);
    for Entry { path, kind } in entries {
        let place = root.join(path);
        let held = fs::symlink_metadata(&place).expect("every entry is there");
        let parent = place.parent().unwrap().canonicalize().unwrap();
        assert!(parent.starts_with(&real), "{path:?} is outside");
        match kind {
            Kind::Directory => assert!(held.is_dir()),
            Kind::File { bytes, .. } => {
                assert!(held.is_file() && held.len() == *bytes);
                files += 1;
                bytes_in_all += bytes;
            }
            Kind::Link(target) => {
                assert_eq!(fs::read_link(&place).unwrap(), *target);
                let led_to = place.canonicalize();
                assert!(led_to.is_err() || led_to.unwrap().starts_with(&real));
            }
        }
    }
    assert!(entries.len() as u64 <= RULES.entries && files <= RULES.files);
    assert!(bytes_in_all <= RULES.bytes);
}

fn packed(root: &Path, entries: &[Entry]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut packer = Packer::new(&mut archive);
    for Entry { path, kind } in entries {
        match kind {
            Kind::Directory => packer.directory(path),
            Kind::Link(target) => packer.link(path, target),
            Kind::File { executable, bytes } => {
                let mut file = File::open(root.join(path)).unwrap();
                packer.file(path, *executable, None, *bytes, &mut file)
            }
        }
        .unwrap();
    }
    packer.finish().unwrap();
    archive
}

/// Fills in the checksum of every header: no fuzzer guesses it.
fn mend(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if header.iter().all(|&byte| byte == 0) {
            continue;
        }
        header[CHECKSUM].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = header[SIZE].iter().take_while(|byte| byte.is_ascii_digit());
        let size = digits.fold(0_usize, |size, digit| {
            size.saturating_mul(8)
                .saturating_add(usize::from(digit & 7))
        });
        at = at.saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
        if at > archive.len() {
            return;
        }
    }
}

/// A directory of this run's own.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let name = format!("gaiola-fuzz-archive-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
