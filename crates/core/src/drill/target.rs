//! What can be rehearsed: the harm, and the server or process that it is done to.

use gaiola_model::{Config, ServerName, Tier};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One failure that can be rehearsed.
///
/// ```
/// use gaiola_core::drill::{Process, Target};
///
/// let target: Target = "kill db1/postgres".parse().unwrap();
/// assert!(target.heals_itself());
/// assert_eq!(target.to_string(), "kill db1/postgres");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// SIGKILL to one process, or to every process of the server at once.
    Kill {
        /// The server.
        server: ServerName,
        /// The process; `None`: all of them.
        process: Option<Process>,
    },
    /// The power cord is pulled: cable and processes are gone at the same moment.
    Power(ServerName),
    /// The server is shut down in order.
    Stop(ServerName),
}

impl Target {
    /// The server that is harmed.
    pub const fn server(self) -> ServerName {
        match self {
            Self::Kill { server, .. } | Self::Power(server) | Self::Stop(server) => server,
        }
    }

    /// Whether the site must become whole without a hand. A server that was lost has to be put back first.
    pub const fn heals_itself(self) -> bool {
        matches!(
            self,
            Self::Kill {
                process: Some(_),
                ..
            }
        )
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill {
                server,
                process: Some(process),
            } => write!(f, "kill {server}/{process}"),
            Self::Kill {
                server,
                process: None,
            } => write!(f, "kill {server}"),
            Self::Power(server) => write!(f, "power {server}"),
            Self::Stop(server) => write!(f, "stop {server}"),
        }
    }
}

/// A drill could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The first word is no harm, or words are missing.
    #[error("{0:?} is not a drill: kill SERVER[/PROCESS], power SERVER, stop SERVER or all")]
    NotADrill(String),
    /// There can be no such server.
    #[error(transparent)]
    Server(#[from] gaiola_model::id::NameError),
    /// There is no such kind of process.
    #[error("{0:?} is not a process: proxy, keeper, agent, app, postgres, patroni or etcd")]
    NotAProcess(String),
    /// This kind of process runs elsewhere.
    #[error("{server} runs no {process}")]
    Elsewhere {
        /// The server that was named.
        server: ServerName,
        /// The process that does not run on its tier.
        process: Process,
    },
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["kill", whom] => kill(whom),
            ["power", server] => Ok(Self::Power(server.parse()?)),
            ["stop", server] => Ok(Self::Stop(server.parse()?)),
            _ => Err(TargetError::NotADrill(text.into())),
        }
    }
}

fn kill(whom: &str) -> Result<Target, TargetError> {
    let Some((server, process)) = whom.split_once('/') else {
        return Ok(Target::Kill {
            server: whom.parse()?,
            process: None,
        });
    };
    let server: ServerName = server.parse()?;
    let process: Process = process.parse()?;
    if process.runs_on(server.tier) {
        Ok(Target::Kill {
            server,
            process: Some(process),
        })
    } else {
        Err(TargetError::Elsewhere { server, process })
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

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

    /// Whether servers of this tier may run one. Which servers carry the store's members is decided elsewhere.
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

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// This one.
    One(Target),
    /// Every server and every kind of process, one after another.
    All,
}

impl Selection {
    /// The failures to rehearse on this site, in order: processes, then servers shut down, then servers that lose
    /// power. `store` names the servers that carry a member of the store.
    ///
    /// Database processes are killed on every database server, as only one of them is the primary.
    pub fn targets(self, config: &Config, store: &[ServerName]) -> Vec<Target> {
        if let Self::One(target) = self {
            return vec![target];
        }
        let servers: Vec<ServerName> = config.server_names().collect();
        let first = |server: &&ServerName| server.number == 1;
        let mut targets: Vec<Target> = servers
            .iter()
            .flat_map(|server| processes(*server))
            .collect();
        targets.extend(store.first().map(|server| of(*server, Process::Etcd)));
        targets.extend(servers.iter().filter(first).copied().map(Target::Stop));
        targets.extend(servers.iter().copied().map(Target::Power));
        targets
    }
}

fn processes(server: ServerName) -> Vec<Target> {
    let kinds: &[Process] = match (server.tier, server.number) {
        (Tier::Balancer, 1) => &[Process::Proxy, Process::Keeper],
        (Tier::Web, 1) => &[Process::Proxy],
        (Tier::App, 1) => &[Process::App, Process::Proxy, Process::Agent],
        (Tier::Database, _) => &[Process::Postgres, Process::Patroni, Process::Keeper],
        _ => &[],
    };
    kinds.iter().map(|kind| of(server, *kind)).collect()
}

const fn of(server: ServerName, process: Process) -> Target {
    Target::Kill {
        server,
        process: Some(process),
    }
}

impl FromStr for Selection {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.trim() {
            "all" => Ok(Self::All),
            one => one.parse().map(Self::One),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::config::{App, Balancer, Database, Web};
    use std::collections::HashSet;
    use std::time::Duration;

    fn config() -> Config {
        Config {
            site: "guestbook".parse().unwrap(),
            balancer: Some(Balancer {
                servers: 2,
                vips: None,
                listen: vec![80],
                tls: None,
            }),
            web: Some(Web {
                servers: 2,
                root: "public".into(),
            }),
            app: App {
                servers: 2,
                instances: 2,
                run: "bin/guestbook".into(),
                release: None,
                health: "/up".into(),
                maxconn: None,
                grace: Duration::from_secs(10),
            },
            database: Some(Database {
                servers: 2,
                strict: false,
            }),
            drill: None,
        }
    }

    #[test]
    fn targets_are_read_as_they_are_written() {
        for text in [
            "kill lb1",
            "kill lb2/keeper",
            "kill app1/app",
            "power db2",
            "stop web1",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_mistake_is_answered_with_what_can_be_said() {
        let error = |text: &str| text.parse::<Selection>().unwrap_err().to_string();
        assert!(error("burn lb1").starts_with("\"burn lb1\" is not a drill: kill SERVER"));
        assert!(error("kill").contains("is not a drill"));
        assert!(error("power proxy").contains("is not a server"));
        assert!(error("kill lb1/nginx").contains("is not a process: proxy,"));
        assert_eq!(error("kill lb1/postgres"), "lb1 runs no postgres");
        assert_eq!(error("kill db1/proxy"), "db1 runs no proxy");
    }

    #[test]
    fn all_is_every_server_and_every_kind_of_process_once() {
        let config = config();
        let targets = Selection::All.targets(&config, &["lb1".parse().unwrap()]);
        for server in config.server_names() {
            assert!(targets.contains(&Target::Power(server)), "{server}");
        }
        for kind in Process::ALL {
            let hit = |target: &Target| matches!(target, Target::Kill { process: Some(p), .. } if *p == kind);
            assert!(targets.iter().any(hit), "{kind}");
        }
        assert_eq!(targets.iter().collect::<HashSet<_>>().len(), targets.len());
    }

    #[test]
    fn only_a_killed_process_heals_itself() {
        assert!("kill lb1/proxy".parse::<Target>().unwrap().heals_itself());
        for text in ["kill lb1", "power lb1", "stop lb1"] {
            assert!(!text.parse::<Target>().unwrap().heals_itself(), "{text}");
        }
    }
}
