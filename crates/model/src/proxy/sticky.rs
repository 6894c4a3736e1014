//! The cookie that keeps a client on its server, and checks of its configuration.

use super::Server;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A cookie set by the proxy that names a client's server, so that its requests return there. Draining servers still
/// take requests that name them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// Whether the cookie is hidden from the server.
    #[serde(default)]
    pub indirect: bool,
    /// Whether a response that sets the cookie is kept out of shared caches, by `Cache-Control: private`.
    #[serde(default)]
    pub nocache: bool,
    /// The key that signs its value; a value without a valid signature is ignored. `None`: unsigned.
    #[serde(default)]
    pub key: Option<Secret>,
    /// `Path`.
    pub path: String,
    /// `Domain`.
    #[serde(default)]
    pub domain: Option<String>,
    /// `Secure`.
    #[serde(default)]
    pub secure: bool,
    /// `HttpOnly`.
    #[serde(default)]
    pub http_only: bool,
    /// `SameSite`.
    #[serde(default)]
    pub same_site: Option<SameSite>,
    /// Ignored if unused for this long.
    #[serde(default)]
    pub max_idle: Option<Duration>,
    /// Ignored if first set this long ago.
    #[serde(default)]
    pub max_life: Option<Duration>,
}

impl Sticky {
    /// An unsigned session cookie for the whole site.
    pub fn new(cookie: impl Into<String>) -> Self {
        Self {
            cookie: cookie.into(),
            indirect: false,
            nocache: false,
            key: None,
            path: "/".into(),
            domain: None,
            secure: false,
            http_only: false,
            same_site: None,
            max_idle: None,
            max_life: None,
        }
    }

    /// Settings that browsers or parsers would reject, or that would not be secure.
    ///
    /// ```
    /// use gaiola_model::proxy::Sticky;
    ///
    /// assert_eq!(Sticky::new("SERVERID").faults(), []);
    /// assert_eq!(Sticky::new("a b").faults()[0].field, "cookie");
    /// ```
    #[must_use]
    pub fn faults(&self) -> Vec<StickyFault> {
        let is_text = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| is_plain(byte) || byte == b',')
        };
        let is_name = !self.cookie.is_empty() && self.cookie.bytes().all(is_token);
        let is_long = |key: &Secret| key.0.len() >= Self::KEY_LEN;
        let rules = [
            (
                is_name,
                "cookie",
                "is not a name for a cookie",
                "use letters, digits, `-` and `_`",
            ),
            (
                self.path.starts_with('/') && is_text(&self.path),
                "path",
                "is not a path for a cookie",
                "it begins with `/` and has no space, `;` or `\\`",
            ),
            (
                self.domain.as_deref().is_none_or(is_text),
                "domain",
                "is not valid in a cookie",
                "write it as \"example.org\"",
            ),
            (
                self.same_site != Some(SameSite::None) || self.secure,
                "same_site",
                "is \"none\" without `secure`, and browsers refuse such a cookie",
                "add secure = true",
            ),
            (
                self.key.as_ref().is_none_or(is_long),
                "key",
                "is shorter than 16 bytes",
                "make one with `openssl rand -hex 16`",
            ),
        ];
        let broken = rules.into_iter().filter(|(holds, ..)| !holds);
        let fault = |(_, field, what, hint)| StickyFault { field, what, hint };
        broken.map(fault).collect()
    }

    /// A shorter key can be guessed.
    const KEY_LEN: usize = 16;
}

/// A mistake in one field of a [`Sticky`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StickyFault {
    /// The field.
    pub field: &'static str,
    /// What is wrong; follows the field's name in a sentence.
    pub what: &'static str,
    /// What to do.
    pub hint: &'static str,
}

/// The requests from other sites to which a browser adds a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// To none.
    Strict,
    /// To navigation.
    Lax,
    /// To all; only with `Secure`.
    None,
}

/// A text that is never displayed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Server {
    /// Whether a server may have this name in the backend's cookie.
    ///
    /// ```
    /// use gaiola_model::proxy::Server;
    ///
    /// assert!(Server::is_cookie("web1.a"));
    /// assert!(!Server::is_cookie("web 1") && !Server::is_cookie(""));
    /// ```
    #[must_use]
    pub fn is_cookie(text: &str) -> bool {
        !text.is_empty() && text.bytes().all(|byte| is_plain(byte) && byte != b'"')
    }
}

/// Whether a byte may appear in a name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a byte may appear in a value (RFC 6265, section 4.1.1).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b";,\\".contains(&byte)
}
