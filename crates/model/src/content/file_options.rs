//! How a route's files are served.

use serde::{Deserialize, Serialize};

/// How a route's files are served. The default: files under their own names, without `Cache-Control`.
///
/// ```
/// use gaiola_model::content::FileOptions;
///
/// let single_page = FileOptions { tries: vec!["/index.html".into()], ..FileOptions::default() };
/// assert!(single_page.ends_the_search());
/// let clean_addresses = FileOptions { tries: vec!["{path}.html".into()], ..FileOptions::default() };
/// assert!(!clean_addresses.ends_the_search());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileOptions {
    /// Names tried, in this order, where no file has the request's: each is served with 200. `{path}` stands for the
    /// request's path, without a slash at its end.
    #[serde(rename = "try", skip_serializing_if = "Vec::is_empty")]
    pub tries: Vec<String>,
    /// The file that answers, with 404, where none was found. Requests for missing files then reach no backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_found: Option<String>,
    /// Whether the file with `.br`, `.zst` or `.gz` at the end of its name is served in a file's place, to clients that
    /// accept it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub precompressed: bool,
    /// `Cache-Control` by name: the first that fits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache_control: Vec<CacheControl>,
}

impl FileOptions {
    /// What stands for the request's path in [`Self::tries`].
    pub const PATH: &'static str = "{path}";

    /// Whether these are the defaults.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a request for a missing file gets another one whatever its path is, so that it reaches no backend.
    pub fn ends_the_search(&self) -> bool {
        self.not_found.is_some() || self.tries.iter().any(|name| !name.contains(Self::PATH))
    }
}

/// The `Cache-Control` of some files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheControl {
    /// Which files.
    pub files: FilePattern,
    /// The field's value.
    pub value: String,
}

/// Which files a setting is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilePattern {
    /// Those whose name contains a fingerprint of their contents: `app.3f2a9c1b.js`.
    Fingerprinted,
    /// Those whose name fits, `*` being any characters. With a `/` at its beginning it is compared with the whole path
    /// below the directory, otherwise with the last segment.
    Name(String),
}
