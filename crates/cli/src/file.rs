//! Reads the site's file.

use anyhow::Context as _;
use gaiola_control::provider;
use gaiola_model::Config;
use gaiola_wire::config::{ConfigErrors, Mistake, Surroundings};
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

/// Reads a site's file.
pub(crate) fn load(path: &Path, text: &str) -> anyhow::Result<Config> {
    let folder = site_folder(path)?;
    let name = folder.file_name().and_then(|name| name.to_str());
    let read = |path: &str| std::fs::read_to_string(folder.join(path));
    let around = Surroundings {
        directory: name,
        vips: Some(provider::vips()),
        read: Some(&read),
    };
    let config = gaiola_wire::config::load_in(text, &around);
    config.map_err(|errors| {
        let path = path.to_owned();
        Invalid { path, errors }.into()
    })
}

/// Reads a site's file from disk.
pub(crate) fn read(path: &Path) -> anyhow::Result<Config> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read the site's file {}; name another with -f, or write a first one with: gaiola init",
            path.display()
        )
    })?;
    load(path, &text)
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
    fn a_path_that_is_not_utf_8_is_described() {
        let path = Path::new(OsStr::from_bytes(b"p\xff.toml"));
        assert_eq!(described(path, &[])["file"], "p\u{fffd}.toml");
    }
}
