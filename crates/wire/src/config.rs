//! The file `gaiola.toml`: its text to a [`Config`], or every mistake in it with line and column.
//!
//! `tiers` knows the keys and gives each its meaning.

mod tiers;
mod value;

pub use crate::file::{ConfigErrors, Mistake};

use crate::file;
use gaiola_model::Config;

/// Reads the text of a `gaiola.toml` that names its site.
///
/// ```
/// let config = gaiola_wire::config::load("site = 'guestbook'\n[app]\nrun = 'bin/guestbook'").unwrap();
/// assert_eq!((config.app.servers, config.app.health.as_str()), (2, "/up"));
/// ```
pub fn load(text: &str) -> Result<Config, ConfigErrors> {
    load_in(text, None)
}

/// As [`load`], but a file without `site` takes the name of the directory it stands in, where that can be one.
pub fn load_in(text: &str, directory: Option<&str>) -> Result<Config, ConfigErrors> {
    file::read(text, &tiers::WORDS, |root, mistakes| {
        tiers::config(root, directory, mistakes)
    })
}

#[cfg(test)]
mod tests;
