//! Secrets of the site's operator, as `gaiola secret set` takes them: their names, how they are kept, and how the file refers to one.

use crate::id::SiteName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// How a value of the file refers to a secret: `{secret.NAME}`.
const OPENS: &str = "{secret.";
/// Most characters of a name.
const LONGEST_NAME: usize = 64;

/// The name of a secret: letters, digits and `_`, not a digit first, 64 at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

/// Not the name of a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the name of a secret: it has letters, digits and `_`, does not begin with a digit, and has {LONGEST_NAME} at most"
)]
pub struct NoSecretName(String);

impl SecretName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What its value is sealed under: its name at this site.
    pub fn sealed_under(&self, site: &SiteName) -> String {
        format!("{site}/{self}")
    }
}

impl FromStr for SecretName {
    type Err = NoSecretName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let begins = text.bytes().next().is_some_and(first);
        let is_plain = text
            .bytes()
            .all(|byte| first(byte) || byte.is_ascii_digit());
        match begins && is_plain && text.len() <= LONGEST_NAME {
            true => Ok(Self(text.into())),
            false => Err(NoSecretName(text.chars().take(LONGEST_NAME).collect())),
        }
    }
}

impl TryFrom<String> for SecretName {
    type Error = NoSecretName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A secret's value, encrypted: only the site's application servers, and the machines that keep the site's passwords, can read it. Hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

/// Sealed values by the names of their secrets.
pub type SealedSecrets = BTreeMap<SecretName, Sealed>;

/// A secret as the site keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSecret {
    /// Its value.
    pub sealed: Sealed,
    /// When it was set, as events have it: `2026-01-02T03:04:05.678Z`.
    pub set: String,
    /// Who set it: `root@laptop`.
    pub by: String,
}

/// A piece of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it stands.
    Text(&'a str),
    /// The value of this secret comes here.
    Secret(SecretName),
}

/// A value begins a reference to a secret that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not end.
    #[error("has a `{OPENS}` without its `}}`")]
    Unclosed,
    /// It names none.
    #[error("refers to a secret by {0}")]
    Name(#[from] NoSecretName),
}

/// The pieces of a value.
///
/// # Errors
/// Where it begins a reference that is none.
///
/// ```
/// use gaiola_model::secret::{Piece, pieces};
///
/// let found = pieces("redis://:{secret.REDIS}@10.0.0.9").unwrap();
/// let secret = Piece::Secret("REDIS".parse().unwrap());
/// assert_eq!(found, [Piece::Text("redis://:"), secret, Piece::Text("@10.0.0.9")]);
/// ```
pub fn pieces(value: &str) -> Result<Vec<Piece<'_>>, ReferenceError> {
    let mut found = Vec::new();
    let mut rest = value;
    while let Some((text, reference)) = rest.split_once(OPENS) {
        let (name, after) = reference.split_once('}').ok_or(ReferenceError::Unclosed)?;
        if !text.is_empty() {
            found.push(Piece::Text(text));
        }
        found.push(Piece::Secret(name.parse()?));
        rest = after;
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest));
    }
    Ok(found)
}

/// The secrets that values refer to.
pub fn referred<'a>(values: impl IntoIterator<Item = &'a String>) -> BTreeSet<SecretName> {
    let pieces = values.into_iter().filter_map(|value| pieces(value).ok());
    let secrets = pieces.flatten().filter_map(|piece| match piece {
        Piece::Secret(name) => Some(name),
        Piece::Text(_) => None,
    });
    secrets.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_that_is_none_is_an_error() {
        assert_eq!(pieces("a {secret.B"), Err(ReferenceError::Unclosed));
        for wrong in ["{secret.}", "{secret.9}", "{secret.a b}", "{secret.a-b}"] {
            let found = pieces(wrong);
            assert!(matches!(found, Err(ReferenceError::Name(_))), "{wrong}");
        }
        let long = format!("{{secret.{}}}", "a".repeat(65));
        assert!(pieces(&long).is_err());
    }

    #[test]
    fn braces_without_a_secret_are_text() {
        for text in ["{}", "{secret}", "{{secrets.A}}", "}", r#"{"a": 1}"#] {
            assert_eq!(pieces(text), Ok(vec![Piece::Text(text)]));
        }
        assert_eq!(pieces(""), Ok(Vec::new()));
    }

    #[test]
    fn values_refer_to_each_secret_once() {
        let values = ["{secret.A}{secret.B}", "x{secret.A}", "none"].map(String::from);
        let found: Vec<String> = referred(&values).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["A", "B"]);
    }
}
