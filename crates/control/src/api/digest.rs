//! Digests, which identify contents.

use gaiola_wire::hex;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A digest in hexadecimal: of a release, or of the certificates that balancers serve. It is safe as the name of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// It is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is {min} to {max} hexadecimal digits in lower case", min = Digest::SHORTEST, max = Digest::LONGEST)]
pub struct NoDigest;

impl Digest {
    const SHORTEST: usize = 32;
    const LONGEST: usize = 64;

    /// These bytes in hexadecimal.
    ///
    /// # Panics
    /// If there are fewer than 16 bytes, or more than 32.
    pub fn of(bytes: &[u8]) -> Self {
        let text = hex::encode(bytes);
        assert!((Self::SHORTEST..=Self::LONGEST).contains(&text.len()));
        Self(text)
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, NoDigest> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_one = (Self::SHORTEST..=Self::LONGEST).contains(&text.len());
        if is_one && text.bytes().all(is_digit) {
            Ok(Self(text))
        } else {
            Err(NoDigest)
        }
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        text.to_string().try_into()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_safe_as_a_name_is_a_digest() {
        let digest = Digest::of(&[0xab; 16]);
        assert_eq!(digest.as_str().parse(), Ok(digest));
        let long = "a".repeat(65);
        let upper = "A".repeat(32);
        let path = format!("../{}", "a".repeat(32));
        for text in ["", "abc", "..", &long, &upper, &path] {
            assert_eq!(text.parse::<Digest>(), Err(NoDigest), "{text}");
        }
    }
}
