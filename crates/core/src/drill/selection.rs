//! The operator's selection: one failure, or a whole list of them.

use super::process::Process;
use super::server_ref::ServerRef;
use super::target::{RequestedTarget, Target, TargetError};
use gaiola_model::{Config, ServerName, Tier};
use std::str::FromStr;

/// The operator's selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// This one.
    One(RequestedTarget),
    /// Every server and every kind of process, one at a time.
    All,
    /// Every fault that leaves a server running: cut, mute, deaf, frozen, and a full disk if each database server has a
    /// disk of its own.
    Faults {
        /// Whether each has one.
        disks: bool,
    },
}

impl Selection {
    /// The failures to rehearse on this site, in order. `store` names the servers that carry a store member.
    pub fn targets(&self, config: &Config, store: &[ServerName]) -> Vec<RequestedTarget> {
        match self {
            Self::One(target) => vec![target.clone()],
            Self::All => all(config, store),
            Self::Faults { disks } => faults(config, store, *disks),
        }
    }
}

/// Processes, then servers shut down, then servers that lose power.
///
/// Database processes are killed on every database server, as only one of them is the primary.
fn all(config: &Config, store: &[ServerName]) -> Vec<RequestedTarget> {
    let servers: Vec<ServerName> = config.server_names().collect();
    let first = |server: &&ServerName| is_first(config, **server);
    let mut targets: Vec<RequestedTarget> = servers
        .iter()
        .flat_map(|server| processes(*server, first(&server)))
        .collect();
    targets.extend(store.first().map(|server| kill(*server, Process::Etcd)));
    let named = |server: &ServerName| ServerRef::Server(*server);
    targets.extend(servers.iter().filter(first).map(named).map(Target::Stop));
    targets.extend(servers.iter().map(named).map(Target::Power));
    targets
}

/// Whether a server is the first of its tier.
fn is_first(config: &Config, server: ServerName) -> bool {
    config.servers_of(server.tier).next() == Some(server)
}

fn processes(server: ServerName, is_first: bool) -> Vec<RequestedTarget> {
    let kinds: &[Process] = match (server.tier, is_first) {
        (Tier::Balancer, true) => &[Process::Proxy, Process::Keeper],
        (Tier::Web, true) => &[Process::Proxy],
        (Tier::App, true) => &[Process::App, Process::Proxy, Process::Agent],
        (Tier::Database, _) => &[Process::Postgres, Process::Patroni, Process::Keeper],
        _ => &[],
    };
    kinds.iter().map(|kind| kill(server, *kind)).collect()
}

const fn kill(server: ServerName, process: Process) -> RequestedTarget {
    Target::Kill {
        server: ServerRef::Server(server),
        process: Some(process),
    }
}

/// What has cost other clusters acknowledged writes or left them with two primaries; without a database, what leaves a
/// server running but useless.
fn faults(config: &Config, store: &[ServerName], disks: bool) -> Vec<RequestedTarget> {
    if config.database.is_none() {
        return without_a_database(config);
    }
    let freeze = |process| Target::Freeze {
        server: ServerRef::Primary,
        process,
    };
    let on_app = |server: &&ServerName| server.tier == Tier::App;
    let voter = store.iter().find(on_app).copied();
    let beside = voter.or_else(|| {
        config
            .server_names()
            .find(|server| server.tier == Tier::App)
    });
    let mut primary = vec![ServerRef::Primary];
    primary.extend(beside.map(ServerRef::Server));
    let mut all = vec![
        Target::Cut(primary),
        Target::Mute(ServerRef::Primary),
        Target::Deaf(ServerRef::Primary),
        freeze(None),
        freeze(Some(Process::Patroni)),
        freeze(Some(Process::Postgres)),
        freeze(Some(Process::Keeper)),
        Target::Cut(vec![ServerRef::Primary]),
        Target::Cut(vec![ServerRef::Standby]),
    ];
    all.extend(disks.then_some(Target::Fill(ServerRef::Primary)));
    all
}

fn without_a_database(config: &Config) -> Vec<RequestedTarget> {
    let first = |server: &ServerName| is_first(config, *server);
    let servers = config.server_names().filter(first).map(ServerRef::Server);
    let of_one = |server| {
        let freeze = Target::Freeze {
            server,
            process: None,
        };
        [
            Target::Cut(vec![server]),
            Target::Mute(server),
            Target::Deaf(server),
            freeze,
        ]
    };
    servers.flat_map(of_one).collect()
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
    use gaiola_model::config::{App, Balancer, Database, Machine, Machines, Web};
    use std::collections::HashSet;
    use std::time::Duration;

    fn config() -> Config {
        Config {
            site: "guestbook".parse().unwrap(),
            balancer: Some(Balancer {
                vips: None,
                ..Balancer::default()
            }),
            web: Some(Web {
                servers: 2,
                ..Web::default()
            }),
            app: App {
                servers: 2,
                instances: 2,
                run: "bin/guestbook".into(),
                release: None,
                health: "/up".into(),
                maxconn: None,
                grace: Duration::from_secs(10),
                env: Default::default(),
                ..App::new("")
            },
            workers: Default::default(),
            crons: Default::default(),
            database: Some(Database {
                servers: 2,
                strict: false,
                ..Database::default()
            }),
            drill: None,
            env: Default::default(),
            env_file: None,
            machines: None,
        }
    }

    fn words(targets: &[RequestedTarget]) -> Vec<String> {
        targets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_is_every_server_and_every_kind_of_process_once() {
        let config = config();
        let targets = Selection::All.targets(&config, &["lb1".parse().unwrap()]);
        for server in config.server_names() {
            assert!(targets.contains(&Target::Power(server.into())), "{server}");
        }
        for kind in Process::ALL {
            let hit = |target: &RequestedTarget| matches!(target, Target::Kill { process: Some(p), .. } if *p == kind);
            assert!(targets.iter().any(hit), "{kind}");
        }
        assert_eq!(targets.iter().collect::<HashSet<_>>().len(), targets.len());
    }

    #[test]
    fn on_machines_the_first_of_a_tier_need_not_have_number_1() {
        let mut config = config();
        let names = ["lb2", "web3", "web4", "app2", "db1"].map(|name| name.parse().unwrap());
        config.set_machines(Machines {
            servers: names.map(|name| (name, Machine::new("m"))).into(),
            spare: Vec::new(),
            ..Machines::default()
        });
        let targets = words(&Selection::All.targets(&config, &[]));
        for target in [
            "kill lb2/proxy",
            "kill web3/proxy",
            "kill app2/app",
            "stop web3",
        ] {
            assert!(targets.contains(&target.into()), "{target}");
        }
        assert!(!targets.contains(&"kill web4/proxy".into()));
    }

    #[test]
    fn faults_are_done_to_whoever_is_primary_then() {
        let store = ["lb1", "web1", "app2"].map(|name| name.parse().unwrap());
        let faults = |disks| words(&Selection::Faults { disks }.targets(&config(), &store));
        let expected = [
            "cut primary,app2",
            "mute primary",
            "deaf primary",
            "freeze primary",
            "freeze primary/patroni",
            "freeze primary/postgres",
            "freeze primary/keeper",
            "cut primary",
            "cut standby",
        ];
        assert_eq!(faults(false), expected);
        assert_eq!(faults(true)[..9], expected);
        assert_eq!(faults(true)[9..], ["fill primary"]);
    }

    #[test]
    fn without_a_database_the_first_server_of_each_tier_is_harmed() {
        let mut config = config();
        config.database = None;
        let targets = words(&Selection::Faults { disks: true }.targets(&config, &[]));
        assert_eq!(
            targets[..4],
            ["cut lb1", "mute lb1", "deaf lb1", "freeze lb1"]
        );
        assert_eq!(targets.len(), 12);
    }
}
