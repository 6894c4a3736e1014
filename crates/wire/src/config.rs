//! The file `gaiola.toml`: decodes its text to a [`Config`], or reports every mistake with line and column.
//!
//! `tiers` defines the keys and their meaning.

mod tiers;
mod value;

pub use crate::file::{ConfigErrors, Mistake};

use crate::file;
use gaiola_model::Config;

/// Decodes a `gaiola.toml` that names its site.
///
/// ```
/// let config = gaiola_wire::config::load("site = 'guestbook'\n[app]\nrun = 'bin/guestbook'").unwrap();
/// assert_eq!((config.app.servers, config.app.health.as_str()), (2, "/up"));
/// ```
pub fn load(text: &str) -> Result<Config, ConfigErrors> {
    load_in(text, None)
}

/// As [`load`], but a file without `site` takes the name of its directory, if that is a valid site name.
pub fn load_in(text: &str, directory: Option<&str>) -> Result<Config, ConfigErrors> {
    file::read(text, &tiers::WORDS, |root, mistakes| {
        tiers::config(root, directory, mistakes)
    })
}

#[cfg(test)]
mod tests;
