//! Encryption of the operator's secrets, on a machine that keeps the site's passwords.

use gaiola_agent::engine::Secret;
use gaiola_model::SiteName;
use gaiola_model::secret::{Sealed, SecretName};
use gaiola_net::seal::{SealError, SealingKey};
use serde::{Deserialize, Serialize};

/// A value to seal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SealRequest {
    /// The secret's name.
    pub name: SecretName,
    /// Its value.
    pub value: Secret,
    /// What it was sealed as before: stays if the value is the same.
    pub held: Option<Sealed>,
}

impl SealRequest {
    /// Seals the value.
    ///
    /// # Errors
    /// Where the encryption fails.
    pub fn seal(&self, site: &SiteName, key: &SealingKey) -> Result<Sealed, SealError> {
        let (under, value) = (self.name.sealed_under(site), self.value.reveal());
        let is_same = |held: &&Sealed| key.open(&under, &held.0).is_ok_and(|held| held == value);
        match self.held.as_ref().filter(is_same) {
            Some(held) => Ok(held.clone()),
            None => key.seal(&under, value).map(Sealed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_value_stays_sealed_as_it_was() {
        let (site, key) = ("shop".parse().unwrap(), SealingKey::derived_from("pw"));
        let seal = |value: &str, held| {
            let asked = SealRequest {
                name: "TOKEN".parse().unwrap(),
                value: Secret::from(value.to_string()),
                held,
            };
            asked.seal(&site, &key).unwrap()
        };
        let first = seal("one", None);
        assert_eq!(seal("one", Some(first.clone())), first);
        let second = seal("two", Some(first.clone()));
        assert_ne!(second, first);
        assert_eq!(key.open("shop/TOKEN", &second.0).as_deref(), Ok("two"));
        assert_eq!(
            seal("one", Some(Sealed("broken".into()))).0.len(),
            first.0.len()
        );
    }
}
