//! Servers as an operator names them: by name, or by their current database role.

use super::target::TargetError;
use gaiola_model::placement::DatabaseRole;
use gaiola_model::status::Status;
use gaiola_model::{ServerName, Tier};
use std::fmt;
use std::str::FromStr;

/// A server of a drill that has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerRef {
    /// This one.
    Server(ServerName),
    /// The database's primary at the time the drill begins.
    Primary,
    /// A standby, preferably the synchronous one.
    Standby,
}

impl ServerRef {
    /// Its tier.
    pub const fn tier(self) -> Tier {
        match self {
            Self::Server(server) => server.tier,
            Self::Primary | Self::Standby => Tier::Database,
        }
    }

    /// The server it currently is.
    pub fn named(self, roles: Roles) -> Result<ServerName, TargetError> {
        let now = match self {
            Self::Server(server) => Some(server),
            Self::Primary => roles.primary,
            Self::Standby => roles.standby,
        };
        now.ok_or(TargetError::Nobody(self))
    }
}

impl From<ServerName> for ServerRef {
    fn from(server: ServerName) -> Self {
        Self::Server(server)
    }
}

impl fmt::Display for ServerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(server) => server.fmt(f),
            Self::Primary => f.write_str("primary"),
            Self::Standby => f.write_str("standby"),
        }
    }
}

impl FromStr for ServerRef {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Ok(match text {
            "primary" => Self::Primary,
            "standby" => Self::Standby,
            name => Self::Server(name.parse()?),
        })
    }
}

/// Which servers have which role in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// The primary.
    pub primary: Option<ServerName>,
    /// A standby.
    pub standby: Option<ServerName>,
}

impl Roles {
    /// As the status reports them.
    pub fn of(status: &Status) -> Self {
        let with = |role: DatabaseRole| {
            let servers = status.servers.iter();
            let mut is = servers.filter(|server| {
                let database = server.database.as_ref();
                database.is_some_and(|database| database.role == role)
            });
            is.next().map(|server| server.name)
        };
        Self {
            primary: status.primary,
            standby: with(DatabaseRole::SyncStandby).or_else(|| with(DatabaseRole::Standby)),
        }
    }
}
