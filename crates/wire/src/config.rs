//! The file `gaiola.toml`: decodes its text to a [`Config`], or reports every mistake with line and column.
//!
//! `tiers` defines the keys and their meaning, `machines` those that name machines, `env` the variables of an environment, `env_file` a
//! file of them, `workers` the processes beside the instances, `crons` the commands that run at set times.

mod crons;
mod deploy;
mod env;
mod env_file;
mod limits;
mod machines;
mod named;
pub mod rules;
mod tiers;
mod value;
mod workers;

pub use crate::file::{ConfigErrors, Mistake};

use crate::file;
use crate::proxy_file::{Part, SiteParts};
use gaiola_model::Config;
use gaiola_model::secret::SecretName;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// Reads a text file, from its path.
pub type ReadFile<'a> = dyn Fn(&str) -> io::Result<String> + 'a;

/// What a file does not say, but its meaning depends on.
#[derive(Clone, Default)]
pub struct Surroundings<'a> {
    /// The name of the file's directory: the site's name where the file has none, if it is valid as one.
    pub directory: Option<&'a str>,
    /// Which VIPs the provider of servers can give; `None`: any. For a file without machines only.
    pub vips: Option<VipRange>,
    /// Reads a text file that the file names, relative to the file's directory. `None`: it may name none.
    pub read: Option<&'a ReadFile<'a>>,
    /// The operator's secrets, which the file may refer to; `None`: they are not known here, and not checked.
    pub secrets: Option<&'a BTreeSet<SecretName>>,
    /// How the balancers' settings are validated. `None`: only as far as their text says.
    pub proxy: Option<ProxyParts<'a>>,
}

/// How settings are validated that only a proxy understands.
#[derive(Clone, Copy)]
pub struct ProxyParts<'a> {
    /// Base of relative paths: the file's own directory.
    pub folder: &'a Path,
    /// Reports every mistake in a part.
    pub check: &'a dyn Fn(Part<'_>) -> Vec<String>,
}

/// The VIPs that a provider can give.
#[derive(Clone, Debug)]
pub struct VipRange {
    /// They are in one of these networks,
    pub networks: Vec<IpNet>,
    /// and in none of these parts of them, each with the reason: `is the lab's own address`.
    pub taken: Vec<(IpNet, String)>,
    /// The first free one, as an example.
    pub example: IpAddr,
}

/// Decodes a `gaiola.toml` that names its site.
///
/// ```
/// let config = gaiola_wire::config::load("site = 'guestbook'\n[app]\nrun = 'bin/guestbook'").unwrap();
/// assert_eq!((config.app.servers, config.app.health.as_str()), (2, "/up"));
/// ```
pub fn load(text: &str) -> Result<Config, ConfigErrors> {
    load_in(text, &Surroundings::default())
}

impl Surroundings<'_> {
    /// Calls `work` with what the reader of the balancers' settings needs.
    fn with_parts<T>(&self, work: impl FnOnce(&SiteParts<'_>) -> T) -> T {
        let none = |_: &str| Err(io::ErrorKind::Unsupported.into());
        let nothing = |_: Part<'_>| Vec::new();
        work(&SiteParts {
            folder: self.proxy.map_or(Path::new(""), |parts| parts.folder),
            read: self.read.unwrap_or(&none),
            check: self.proxy.map_or(&nothing, |parts| parts.check),
        })
    }
}

/// As [`load`], in these surroundings.
pub fn load_in(text: &str, around: &Surroundings<'_>) -> Result<Config, ConfigErrors> {
    file::read(text, &tiers::WORDS, |root, mistakes| {
        tiers::config(root, around, mistakes)
    })
}

#[cfg(test)]
mod tests;
