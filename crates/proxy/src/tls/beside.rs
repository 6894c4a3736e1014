//! Files beside a certificate file: its key, and its authority's OCSP response.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

const KEY: &str = "key";
pub(super) const OCSP: &str = "ocsp";

/// Where the key may be if a certificate file contains none: `FILE.key`, and certbot's `privkey.pem` beside its
/// `fullchain.pem` or `cert.pem`.
pub(super) fn keys(file: &Path) -> Vec<PathBuf> {
    let mut keys = vec![with_ending(file, KEY)];
    if let Some((Part::FullChain | Part::Certificate, number)) = part(file) {
        keys.push(file.with_file_name(format!("privkey{number}.pem")));
    }
    keys
}

/// Every file that belongs to a certificate file, whether it exists or not.
pub fn all(file: &Path) -> Vec<PathBuf> {
    let mut all = keys(file);
    all.push(with_ending(file, OCSP));
    all
}

/// `FILE.ending`.
pub(super) fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".");
    name.push(ending);
    name.into()
}

/// Whether a file in a certificate folder is not a certificate to serve: it is hidden, belongs to another one, is
/// certbot's `README`, or is a part of what `fullchain.pem` has whole.
pub(super) fn is_none_itself(file: &Path) -> bool {
    let is_ending = |ending| file.extension().is_some_and(|found| found == ending);
    let Some(name) = file.file_name() else {
        return true;
    };
    name.as_encoded_bytes().starts_with(b".")
        || is_ending(KEY)
        || is_ending(OCSP)
        || file.file_stem().is_some_and(|stem| stem == "README")
        || part(file).is_some_and(|(part, number)| is_in_another(file, part, number))
}

fn is_in_another(file: &Path, part: Part, number: &str) -> bool {
    let has = |part: &str| file.with_file_name(format!("{part}{number}.pem")).is_file();
    match part {
        Part::FullChain => false,
        Part::Certificate | Part::Chain => has("fullchain"),
        Part::Key => has("fullchain") || has("cert"),
    }
}

/// The files that certbot writes.
#[derive(Clone, Copy)]
enum Part {
    /// The certificate with its chain.
    FullChain,
    Certificate,
    Chain,
    Key,
}

/// Which of them a file is by its name, and the number in the name: `fullchain.pem`, or `fullchain7.pem` in certbot's
/// archive.
fn part(file: &Path) -> Option<(Part, &str)> {
    let stem = file.file_name()?.to_str()?.strip_suffix(".pem")?;
    let name = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    let part = match name {
        "fullchain" => Part::FullChain,
        "cert" => Part::Certificate,
        "chain" => Part::Chain,
        "privkey" => Part::Key,
        _ => return None,
    };
    Some((part, &stem[name.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certbots_key_is_found_beside_its_chain() {
        let keys = |file: &str| keys(Path::new(file));
        let of = |names: [&str; 2]| names.map(PathBuf::from).to_vec();
        assert_eq!(
            keys("/le/fullchain.pem"),
            of(["/le/fullchain.pem.key", "/le/privkey.pem"])
        );
        assert_eq!(
            keys("/le/cert12.pem"),
            of(["/le/cert12.pem.key", "/le/privkey12.pem"])
        );
        assert_eq!(keys("/le/site.pem"), [PathBuf::from("/le/site.pem.key")]);
    }

    #[test]
    fn what_is_no_certificate_of_its_own_is_left_out_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("fullchain.pem"), "").unwrap();
        for name in [
            "README",
            "README.md",
            ".hidden",
            "a.pem.key",
            "a.pem.ocsp",
            "cert.pem",
        ] {
            assert!(is_none_itself(&file(name)), "{name}");
        }
        for name in ["chain.pem", "privkey.pem"] {
            assert!(is_none_itself(&file(name)), "{name}");
        }
        for name in [
            "fullchain.pem",
            "a.pem",
            "example.org",
            "chain2.pem",
            "privkey2.pem",
        ] {
            assert!(!is_none_itself(&file(name)), "{name}");
        }
    }
}
