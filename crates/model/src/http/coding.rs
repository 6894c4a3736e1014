//! Content codings.

use serde::{Deserialize, Serialize};

/// How contents are compressed (RFC 9110, section 8.4.1; RFC 7932, 8878).
///
/// ```
/// use gaiola_model::http::Coding;
///
/// assert_eq!((Coding::Brotli.token(), Coding::Gzip.extension()), ("br", ".gz"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
    /// `gzip`.
    Gzip,
}

impl Coding {
    /// All of them; of equal rank to a client, the first is preferred: it makes the smallest files.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// How the name of a file that is compressed so ends.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }
}
