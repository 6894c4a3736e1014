//! The settings of an instance, from the environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use tokio_postgres::Config;

/// The settings of one instance. Without a database it still serves, and reports it.
pub(crate) struct Settings {
    /// The address that it listens on: HOST and PORT, by default 127.0.0.1:3000.
    pub(crate) listen: SocketAddr,
    /// DATABASE_URL: connects to the primary.
    pub(crate) primary: Option<Config>,
    /// DATABASE_REPLICA_URL: connects to the standbys. By default the primary's.
    pub(crate) standbys: Option<Config>,
    /// INSTANCE: this process's name, such as `app1.2`.
    pub(crate) instance: Option<String>,
    /// RELEASE: the number of its release.
    pub(crate) release: Option<String>,
    /// GUESTBOOK_RATE: maximum requests per second, to show that capacity scales with servers.
    pub(crate) rate: Option<NonZeroU32>,
}

impl Settings {
    /// Reads them; an empty variable counts as absent.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let text = |name: &str| variable(name).filter(|value| !value.is_empty());
        let host = parse("HOST", text("HOST"))?.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let port = parse("PORT", text("PORT"))?.unwrap_or(3000);
        let primary = database("DATABASE_URL", text("DATABASE_URL"))?;
        let standbys = database("DATABASE_REPLICA_URL", text("DATABASE_REPLICA_URL"))?;
        Ok(Self {
            listen: SocketAddr::new(host, port),
            standbys: standbys.or_else(|| primary.clone()),
            primary,
            instance: text("INSTANCE"),
            release: text("RELEASE"),
            rate: parse("GUESTBOOK_RATE", text("GUESTBOOK_RATE"))?,
        })
    }
}

fn parse<T: std::str::FromStr>(name: &str, text: Option<String>) -> Result<Option<T>, String> {
    text.map(|text| {
        text.parse()
            .map_err(|_| format!("{name} cannot be {text:?}"))
    })
    .transpose()
}

/// The error does not repeat the URL, which contains a password.
fn database(name: &str, text: Option<String>) -> Result<Option<Config>, String> {
    text.map(|text| {
        text.parse()
            .map_err(|error| format!("{name} cannot be read: {error}"))
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_string())
        })
    }

    #[test]
    fn nothing_is_required() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:3000");
        assert!(
            settings.primary.is_none() && settings.standbys.is_none() && settings.rate.is_none()
        );
    }

    #[test]
    fn reads_go_to_the_primary_where_no_standby_is_named() {
        let settings = read(&[("DATABASE_URL", "postgres://u:p@h:5432/d")]).unwrap();
        assert_eq!(settings.standbys.unwrap().get_ports(), [5432]);
    }

    #[test]
    fn a_password_does_not_get_into_an_error() {
        let error = read(&[("DATABASE_URL", "postgres://u:secret@h:no/d")])
            .err()
            .unwrap();
        assert!(
            error.starts_with("DATABASE_URL") && !error.contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn a_rate_of_zero_is_refused() {
        assert_eq!(
            read(&[("GUESTBOOK_RATE", "0")]).err().unwrap(),
            "GUESTBOOK_RATE cannot be \"0\""
        );
    }
}
