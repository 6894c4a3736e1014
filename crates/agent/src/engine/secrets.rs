//! The passwords of a site's database.

use gaiola_net::seal::SealingKey;
use gaiola_wire::hex;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A password. Its `Debug` output hides it; it is written only to files of mode 0600 and to the store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// 192 random bits from the kernel, as letters and digits that need no quoting anywhere.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 24];
        getrandom::fill(&mut bytes)?;
        Ok(Self(hex::encode(&bytes)))
    }

    /// The password itself: for a configuration file, a URL or a socket, never for a command line, a log or an error.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Every password of a site's database, generated once with the site and the same on all its servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Of the role `postgres`, for Patroni and for our own queries.
    pub superuser: Secret,
    /// Of the role `replicator`, for standbys that stream and clone.
    pub replication: Secret,
    /// Of the role `rewinder`, for pg_rewind.
    pub rewind: Secret,
    /// Of the site's own role.
    pub site: Secret,
}

impl Secrets {
    /// The key that seals the operator's secrets. It follows from a password that only our own processes have.
    pub fn sealing_key(&self) -> SealingKey {
        SealingKey::derived_from(self.superuser.reveal())
    }

    /// New passwords, each drawn independently.
    pub fn generate() -> Result<Self, getrandom::Error> {
        Ok(Self {
            superuser: Secret::generate()?,
            replication: Secret::generate()?,
            rewind: Secret::generate()?,
            site: Secret::generate()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secrets = Secrets::generate().unwrap();
        let printed = format!("{secrets:?}");
        assert!(!printed.contains(secrets.site.reveal()), "{printed}");
    }

    #[test]
    fn no_two_passwords_are_the_same() {
        let secrets = Secrets::generate().unwrap();
        assert_eq!(secrets.site.reveal().len(), 48);
        assert_ne!(secrets.site, secrets.superuser);
        assert_ne!(secrets.replication, secrets.rewind);
    }

    #[test]
    fn secrets_survive_the_store() {
        let secrets = Secrets::generate().unwrap();
        let text = serde_json::to_string(&secrets).unwrap();
        assert_eq!(serde_json::from_str::<Secrets>(&text).unwrap(), secrets);
    }
}
