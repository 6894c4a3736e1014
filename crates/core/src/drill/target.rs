//! What can be rehearsed: the harm, and the server or process it targets.

use super::process::Process;
use super::server_ref::{Roles, ServerRef};
use gaiola_model::ServerName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// One failure that can be rehearsed.
///
/// ```
/// use gaiola_core::drill::{Process, Target};
///
/// let target: Target = "kill db1/postgres".parse().unwrap();
/// assert!(target.heals_itself() && !target.is_held());
/// assert_eq!(target.to_string(), "kill db1/postgres");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target<S = ServerName> {
    /// SIGKILL to one process, or to every process of the server at once.
    Kill {
        /// The server.
        server: S,
        /// The process; `None`: all of them.
        process: Option<Process>,
    },
    /// The power cord is pulled: network and processes are gone at the same moment.
    Power(S),
    /// The server is shut down cleanly.
    Stop(S),
    /// The network between these servers and all others passes nothing either way; among themselves it does. Link
    /// carriers stay up, and everything keeps running.
    Cut(Vec<S>),
    /// The server receives everything, and nothing it sends arrives.
    Mute(S),
    /// Everything the server sends arrives, and it receives nothing.
    Deaf(S),
    /// SIGSTOP to one process, or to every process of the server but its pid 1.
    Freeze {
        /// The server.
        server: S,
        /// The process; `None`: all of them.
        process: Option<Process>,
    },
    /// The disk with the server's data is full.
    Fill(S),
}

/// A failure as an operator names it, before the primary is known.
///
/// ```
/// use gaiola_core::drill::{Roles, RequestedTarget};
///
/// let wanted: RequestedTarget = "cut primary,app1".parse().unwrap();
/// let roles = Roles { primary: Some("db2".parse().unwrap()), standby: None };
/// assert_eq!(wanted.named(roles).unwrap().to_string(), "cut db2,app1");
/// ```
pub type RequestedTarget = Target<ServerRef>;

impl<S: Copy> Target<S> {
    /// The harmed servers, at least one.
    pub fn servers(&self) -> Vec<S> {
        match self {
            Self::Cut(servers) => servers.clone(),
            Self::Kill { server, .. }
            | Self::Freeze { server, .. }
            | Self::Power(server)
            | Self::Stop(server)
            | Self::Mute(server)
            | Self::Deaf(server)
            | Self::Fill(server) => vec![*server],
        }
    }

    /// Whether the site must become whole without intervention. A lost server must be switched on first.
    pub const fn heals_itself(&self) -> bool {
        matches!(
            self,
            Self::Kill {
                process: Some(_),
                ..
            }
        )
    }

    /// Whether it lasts for a time and is then undone, while the servers keep running.
    pub const fn is_held(&self) -> bool {
        match self {
            Self::Cut(_) | Self::Mute(_) | Self::Deaf(_) | Self::Freeze { .. } | Self::Fill(_) => {
                true
            }
            Self::Kill { .. } | Self::Power(_) | Self::Stop(_) => false,
        }
    }

    /// The same failure with the servers' names mapped.
    fn map<T, E>(&self, name: impl Fn(S) -> Result<T, E>) -> Result<Target<T>, E> {
        Ok(match self {
            Self::Kill { server, process } => Target::Kill {
                server: name(*server)?,
                process: *process,
            },
            Self::Freeze { server, process } => Target::Freeze {
                server: name(*server)?,
                process: *process,
            },
            Self::Cut(servers) => {
                let servers = servers.iter().map(|server| name(*server));
                Target::Cut(servers.collect::<Result<_, _>>()?)
            }
            Self::Power(server) => Target::Power(name(*server)?),
            Self::Stop(server) => Target::Stop(name(*server)?),
            Self::Mute(server) => Target::Mute(name(*server)?),
            Self::Deaf(server) => Target::Deaf(name(*server)?),
            Self::Fill(server) => Target::Fill(name(*server)?),
        })
    }
}

impl RequestedTarget {
    /// The failure with roles replaced by server names.
    pub fn named(&self, roles: Roles) -> Result<Target, TargetError> {
        self.map(|server| server.named(roles))
    }
}

impl<S: fmt::Display> fmt::Display for Target<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { server, process } => of(f, "kill", server, *process),
            Self::Freeze { server, process } => of(f, "freeze", server, *process),
            Self::Power(server) => write!(f, "power {server}"),
            Self::Stop(server) => write!(f, "stop {server}"),
            Self::Mute(server) => write!(f, "mute {server}"),
            Self::Deaf(server) => write!(f, "deaf {server}"),
            Self::Fill(server) => write!(f, "fill {server}"),
            Self::Cut(servers) => {
                let names: Vec<String> = servers.iter().map(ToString::to_string).collect();
                write!(f, "cut {}", names.join(","))
            }
        }
    }
}

fn of(
    f: &mut fmt::Formatter<'_>,
    verb: &str,
    server: &impl fmt::Display,
    process: Option<Process>,
) -> fmt::Result {
    match process {
        Some(process) => write!(f, "{verb} {server}/{process}"),
        None => write!(f, "{verb} {server}"),
    }
}

/// A drill that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Unknown harm, or missing words.
    #[error(
        "{0:?} is not a drill: kill SERVER[/PROCESS], power SERVER, stop SERVER, cut SERVER[,SERVER], mute SERVER, deaf SERVER, freeze SERVER[/PROCESS], fill SERVER or all"
    )]
    NotADrill(String),
    /// Invalid server name.
    #[error(transparent)]
    Server(#[from] gaiola_model::id::NameError),
    /// Unknown kind of process.
    #[error("{0:?} is not a process: proxy, keeper, agent, app, postgres, patroni or etcd")]
    NotAProcess(String),
    /// This kind of process runs on another tier.
    #[error("{server} runs no {process}")]
    Elsewhere {
        /// The server that was named.
        server: ServerRef,
        /// The process that does not run on its tier.
        process: Process,
    },
    /// A server is named twice.
    #[error("{0} is named twice")]
    Twice(ServerRef),
    /// No server has that role.
    #[error("the database has no {0} now")]
    Nobody(ServerRef),
}

impl FromStr for RequestedTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [verb, server] = words[..] else {
            return Err(TargetError::NotADrill(text.into()));
        };
        match verb {
            "kill" => process_of(server).map(|(server, process)| Self::Kill { server, process }),
            "freeze" => {
                process_of(server).map(|(server, process)| Self::Freeze { server, process })
            }
            "power" => Ok(Self::Power(server.parse()?)),
            "stop" => Ok(Self::Stop(server.parse()?)),
            "mute" => Ok(Self::Mute(server.parse()?)),
            "deaf" => Ok(Self::Deaf(server.parse()?)),
            "fill" => Ok(Self::Fill(server.parse()?)),
            "cut" => several(server).map(Self::Cut),
            _ => Err(TargetError::NotADrill(text.into())),
        }
    }
}

/// `SERVER[/PROCESS]`.
fn process_of(text: &str) -> Result<(ServerRef, Option<Process>), TargetError> {
    let Some((server, process)) = text.split_once('/') else {
        return Ok((text.parse()?, None));
    };
    let server: ServerRef = server.parse()?;
    let process: Process = process.parse()?;
    if process.runs_on(server.tier()) {
        Ok((server, Some(process)))
    } else {
        Err(TargetError::Elsewhere { server, process })
    }
}

/// `SERVER[,SERVER]`.
fn several(text: &str) -> Result<Vec<ServerRef>, TargetError> {
    let mut servers = Vec::new();
    for name in text.split(',') {
        let server: ServerRef = name.parse()?;
        if servers.contains(&server) {
            return Err(TargetError::Twice(server));
        }
        servers.push(server);
    }
    Ok(servers)
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        text.parse::<RequestedTarget>()?.named(Roles::default())
    }
}

impl Serialize for Target {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::super::selection::Selection;
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_written() {
        for text in [
            "kill lb1",
            "kill lb2/keeper",
            "kill app1/app",
            "power db2",
            "stop web1",
            "cut db1",
            "cut db1,app1",
            "mute db1",
            "deaf lb2",
            "freeze db1",
            "freeze db1/patroni",
            "fill db1",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in [
            "cut primary,app1",
            "freeze primary/patroni",
            "cut standby",
            "fill primary",
        ] {
            assert_eq!(text.parse::<RequestedTarget>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_mistake_is_answered_with_what_can_be_said() {
        let error = |text: &str| text.parse::<Selection>().unwrap_err().to_string();
        assert!(error("burn lb1").starts_with("\"burn lb1\" is not a drill: kill SERVER"));
        assert!(error("kill").contains("is not a drill"));
        assert!(error("power proxy").contains("is not a server"));
        assert!(error("cut db1,").contains("is not a server"));
        assert!(error("kill lb1/nginx").contains("is not a process: proxy,"));
        assert_eq!(error("kill lb1/postgres"), "lb1 runs no postgres");
        assert_eq!(error("kill db1/proxy"), "db1 runs no proxy");
        assert_eq!(error("freeze primary/proxy"), "primary runs no proxy");
        assert_eq!(error("cut db1,db1"), "db1 is named twice");
    }

    #[test]
    fn a_role_is_a_server_once_it_is_known_who_has_it() {
        let wanted: RequestedTarget = "cut primary,app1".parse().unwrap();
        let db2 = "db2".parse().unwrap();
        let roles = Roles {
            primary: Some(db2),
            standby: None,
        };
        assert_eq!(wanted.named(roles).unwrap().to_string(), "cut db2,app1");
        let nobody = wanted.named(Roles::default()).unwrap_err();
        assert_eq!(nobody.to_string(), "the database has no primary now");
    }

    #[test]
    fn only_a_killed_process_heals_itself() {
        assert!("kill lb1/proxy".parse::<Target>().unwrap().heals_itself());
        for text in [
            "kill lb1",
            "power lb1",
            "stop lb1",
            "cut lb1",
            "freeze lb1/proxy",
            "fill db1",
        ] {
            assert!(!text.parse::<Target>().unwrap().heals_itself(), "{text}");
        }
    }
}
