//! Names: of a site, its tiers, their servers and the instances on them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A tier of the infrastructure, in the order in which a request passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Takes the clients' connections on the VIPs.
    Balancer,
    /// Serves static files and forwards everything else.
    Web,
    /// Runs the site's own processes.
    App,
    /// Runs PostgreSQL.
    Database,
}

impl Tier {
    /// Every tier, in the order in which a request passes them.
    pub const ALL: [Self; 4] = [Self::Balancer, Self::Web, Self::App, Self::Database];

    /// Prefix of its servers' names: `lb`, `web`, `app`, `db`.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Balancer => "lb",
            Self::Web => "web",
            Self::App => "app",
            Self::Database => "db",
        }
    }

    /// The name of its section in `gaiola.toml`.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Balancer => "balancer",
            Self::Web => "web",
            Self::App => "app",
            Self::Database => "database",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.section())
    }
}

/// A name that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct NameError {
    text: String,
    wanted: &'static str,
}

impl FromStr for Tier {
    type Err = NameError;

    /// Parses a section's name, or the prefix of its servers.
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.section() == text || tier.prefix() == text)
            .ok_or_else(|| NameError {
                text: text.into(),
                wanted: "a tier: balancer, web, app or database",
            })
    }
}

/// A server's name: its tier and its number in it, from 1.
///
/// ```
/// use gaiola_model::{ServerName, Tier};
///
/// let name: ServerName = "db2".parse().unwrap();
/// assert_eq!((name.tier, name.number), (Tier::Database, 2));
/// assert_eq!(name.to_string(), "db2");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerName {
    /// The tier it belongs to.
    pub tier: Tier,
    /// Its number within the tier, from 1.
    pub number: u16,
}

impl ServerName {
    /// The server `number` of `tier`.
    pub const fn new(tier: Tier, number: u16) -> Self {
        Self { tier, number }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.tier.prefix(), self.number)
    }
}

impl FromStr for ServerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let digits = text.find(|c: char| c.is_ascii_digit())?;
            let tier = Tier::ALL
                .into_iter()
                .find(|tier| tier.prefix() == &text[..digits])?;
            let number = plain_number(&text[digits..])?;
            Some(Self { tier, number })
        };
        parse().ok_or_else(|| NameError {
            text: text.into(),
            wanted: "a server, such as lb1, web2, app1 or db1",
        })
    }
}

/// Digits without a leading zero, so that each name has one spelling only.
fn plain_number(digits: &str) -> Option<u16> {
    let number: u16 = digits.parse().ok()?;
    (number > 0 && number.to_string() == digits).then_some(number)
}

impl TryFrom<String> for ServerName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ServerName> for String {
    fn from(name: ServerName) -> Self {
        name.to_string()
    }
}

/// An instance of the site's own process: its server and its number there, from 1.
///
/// ```
/// let name: gaiola_model::InstanceName = "app2.3".parse().unwrap();
/// assert_eq!((name.server.number, name.number), (2, 3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName {
    /// The application server it runs on.
    pub server: ServerName,
    /// Its number on that server, from 1.
    pub number: u16,
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.server, self.number)
    }
}

impl FromStr for InstanceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let (server, number) = text.split_once('.')?;
            Some(Self {
                server: server.parse().ok()?,
                number: plain_number(number)?,
            })
        };
        parse().ok_or_else(|| NameError {
            text: text.into(),
            wanted: "an instance, such as app1.2",
        })
    }
}

impl TryFrom<String> for InstanceName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<InstanceName> for String {
    fn from(name: InstanceName) -> Self {
        name.to_string()
    }
}

/// A name as a site's, of a section of the file.
macro_rules! section_name {
    ($(#[$doc:meta])* $name:ident, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                match is_plain_name(text) {
                    true => Ok(Self(text.into())),
                    false => Err(NameError {
                        text: text.into(),
                        wanted: $wanted,
                    }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

section_name!(
    /// The name of a `[worker.NAME]`: as a site's.
    WorkerKind,
    "a worker's name: up to 32 of a-z, 0-9 and -, a letter first"
);
section_name!(
    /// The name of a `[cron.NAME]`: as a site's.
    CronName,
    "a cron's name: up to 32 of a-z, 0-9 and -, a letter first"
);

/// A worker: its server, what it is, and its number among those there, from 1.
///
/// ```
/// let name: gaiola_model::WorkerName = "app2.mail.1".parse().unwrap();
/// assert_eq!((name.server.number, name.kind.as_str(), name.number), (2, "mail", 1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkerName {
    /// The application server it runs on.
    pub server: ServerName,
    /// Its section of the file.
    pub kind: WorkerKind,
    /// Its number among those of its kind on that server, from 1.
    pub number: u16,
}

impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.server, self.kind, self.number)
    }
}

impl FromStr for WorkerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let (server, rest) = text.split_once('.')?;
            let (kind, number) = rest.split_once('.')?;
            Some(Self {
                server: server.parse().ok()?,
                kind: kind.parse().ok()?,
                number: plain_number(number)?,
            })
        };
        parse().ok_or_else(|| NameError {
            text: text.into(),
            wanted: "a worker, such as app1.mail.1",
        })
    }
}

impl TryFrom<String> for WorkerName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<WorkerName> for String {
    fn from(name: WorkerName) -> Self {
        name.to_string()
    }
}

/// 1 to 32 of `a-z`, `0-9` and `-`, beginning with a letter.
fn is_plain_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(is_plain)
}

/// A site's name: 1 to 32 of `a-z`, `0-9` and `-`, beginning with a letter.
///
/// It names directories, keys of the store, the database and its role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteName(String);

impl SiteName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a plain SQL identifier: `-` becomes `_`.
    pub fn sql(&self) -> String {
        self.0.replace('-', "_")
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SiteName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        if is_plain_name(&text) {
            Ok(Self(text))
        } else {
            Err(NameError {
                text,
                wanted: "a site's name: up to 32 of a-z, 0-9 and -, a letter first",
            })
        }
    }
}

impl FromStr for SiteName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.to_string().try_into()
    }
}

impl From<SiteName> for String {
    fn from(name: SiteName) -> Self {
        name.0
    }
}

/// A machine, by the name under which the provider knows it. Servers on one host fail together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Host(pub String);

impl Default for Host {
    /// This machine: a site on one machine names no other.
    fn default() -> Self {
        Self("localhost".into())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in ["lb1", "web12", "app3", "db65535"] {
            assert_eq!(text.parse::<ServerName>().unwrap().to_string(), text);
        }
        assert_eq!(
            "app2.10".parse::<InstanceName>().unwrap().to_string(),
            "app2.10"
        );
    }

    #[test]
    fn a_worker_is_no_instance_and_an_instance_no_worker() {
        let name: WorkerName = "app12.mail-out.3".parse().unwrap();
        assert_eq!(name.to_string(), "app12.mail-out.3");
        assert!(name.to_string().parse::<InstanceName>().is_err());
        for text in [
            "app1.2",
            "app1.1.2",
            "app1.mail",
            "app1.mail.0",
            "app1.Mail.1",
            "app1.a.b.1",
        ] {
            assert!(text.parse::<WorkerName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_has_one_spelling() {
        for text in [
            "lb", "lb0", "lb01", "1", "proxy1", "app1.0", "db65536", "app-1", "",
        ] {
            assert!(text.parse::<ServerName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_site_name_cannot_leave_its_directory() {
        for text in ["", "..", "a/b", "A", "1a", &"a".repeat(33)] {
            assert!(text.parse::<SiteName>().is_err(), "{text}");
        }
        assert_eq!(
            "guest-book".parse::<SiteName>().unwrap().sql(),
            "guest_book"
        );
    }
}
