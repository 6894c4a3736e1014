//! Reads the site's file.

use anyhow::Context as _;
use gaiola_control::provider;
use gaiola_model::Config;
use gaiola_model::secret::SecretName;
use gaiola_wire::config::{ConfigErrors, Mistake, ProxyParts, Surroundings};
use gaiola_wire::proxy_file::Part;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A file is invalid.
#[derive(Debug, thiserror::Error)]
#[error("{}", errors.in_file(&path.display().to_string()))]
pub(crate) struct Invalid {
    pub(crate) path: PathBuf,
    pub(crate) errors: ConfigErrors,
}

impl Invalid {
    /// Prints every mistake; as JSON on standard output, where programs read all results.
    pub(crate) fn print(&self, json: bool) {
        if json {
            print_line!("{:#}", described(&self.path, self.errors.mistakes()))
        } else {
            eprint_line!("{self}")
        }
    }
}

/// A file and its mistakes as JSON. JSON is UTF-8; a path may not be.
pub(crate) fn described(path: &Path, mistakes: &[Mistake]) -> serde_json::Value {
    serde_json::json!({ "file": path.display().to_string(), "mistakes": mistakes })
}

/// Reads a site's file, and the files that it names.
pub(crate) fn load(path: &Path, text: &str) -> anyhow::Result<Config> {
    load_with(path, text, None)
}

fn load_with(
    path: &Path,
    text: &str,
    secrets: Option<&BTreeSet<SecretName>>,
) -> anyhow::Result<Config> {
    let folder = site_folder(path)?;
    let parts = gaiola_proxy::Parts::default();
    let read = |named: &str| std::fs::read_to_string(folder.join(named));
    let check = |part: Part<'_>| parts.mistakes(part);
    let proxy = ProxyParts {
        folder: &folder,
        check: &check,
    };
    let around = Surroundings {
        read: Some(&read),
        secrets,
        proxy: Some(proxy),
        ..Surroundings::default()
    };
    load_in(path, text, around)
}

/// Reads a site's file for where its site is: files that it names may be missing here.
pub(crate) fn load_alone(path: &Path, text: &str) -> anyhow::Result<Config> {
    let around = Surroundings {
        read: Some(&|_| Ok(String::new())),
        ..Surroundings::default()
    };
    load_in(path, text, around)
}

/// In these surroundings, and the file's directory.
fn load_in(path: &Path, text: &str, around: Surroundings<'_>) -> anyhow::Result<Config> {
    let folder = site_folder(path)?;
    let name = folder.file_name().and_then(|name| name.to_str());
    let around = Surroundings {
        directory: name,
        vips: Some(provider::vips()),
        ..around
    };
    let config = gaiola_wire::config::load_in(text, &around);
    config.map_err(|errors| {
        let path = path.to_owned();
        Invalid { path, errors }.into()
    })
}

/// Reads a site's file from disk.
pub(crate) fn read(path: &Path) -> anyhow::Result<Config> {
    load(path, &text_of(path)?)
}

/// As [`read`], by the secrets that there are.
pub(crate) fn read_with(path: &Path, secrets: &BTreeSet<SecretName>) -> anyhow::Result<Config> {
    load_with(path, &text_of(path)?, Some(secrets))
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read the site's file {}; name another with -f, or write a first one with: gaiola init",
            path.display()
        )
    })
}

/// The directory of a site's file: the site's directory.
pub(crate) fn site_folder(file: &Path) -> anyhow::Result<PathBuf> {
    let whole = std::path::absolute(file)?;
    Ok(whole
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_else(|| "/".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn where_a_site_is_is_known_without_the_files_that_its_file_names() {
        let text = "site = 'shop'\nenv_file = 'none.env'\n[app]\nrun = 'x'";
        let path = Path::new("/nowhere/gaiola.toml");
        assert_eq!(load_alone(path, text).unwrap().site.as_str(), "shop");
        let error = load(path, text).unwrap_err().to_string();
        assert!(
            error.contains("`env_file` \"none.env\" cannot be read"),
            "{error}"
        );
    }

    #[test]
    fn a_path_that_is_not_utf_8_is_described() {
        let path = Path::new(OsStr::from_bytes(b"p\xff.toml"));
        assert_eq!(described(path, &[])["file"], "p\u{fffd}.toml");
    }
}
