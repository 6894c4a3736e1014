//! The kinds of processes that a drill can harm.

use super::target::TargetError;
use gaiola_model::Tier;
use std::fmt;
use std::str::FromStr;

/// A kind of process that runs on servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    /// The data plane.
    Proxy,
    /// The keeper of the VIPs on a balancer, of the database on a database server.
    Keeper,
    /// The agent.
    Agent,
    /// One instance of the site's own process.
    App,
    /// PostgreSQL's first process.
    Postgres,
    /// Patroni.
    Patroni,
    /// The store's member.
    Etcd,
}

impl Process {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Proxy,
        Self::Keeper,
        Self::Agent,
        Self::App,
        Self::Postgres,
        Self::Patroni,
        Self::Etcd,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Keeper => "keeper",
            Self::Agent => "agent",
            Self::App => "app",
            Self::Postgres => "postgres",
            Self::Patroni => "patroni",
            Self::Etcd => "etcd",
        }
    }

    /// Whether servers of this tier may run one. Which servers carry store members is decided elsewhere.
    pub const fn runs_on(self, tier: Tier) -> bool {
        match self {
            Self::Agent | Self::Etcd => true,
            Self::Proxy => !matches!(tier, Tier::Database),
            Self::Keeper => matches!(tier, Tier::Balancer | Tier::Database),
            Self::App => matches!(tier, Tier::App),
            Self::Postgres | Self::Patroni => matches!(tier, Tier::Database),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Process {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let found = Self::ALL.into_iter().find(|process| process.name() == text);
        found.ok_or_else(|| TargetError::NotAProcess(text.into()))
    }
}
