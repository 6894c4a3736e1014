//! What the simulated agents do and report.

use super::{Site, number};
use gaiola_core::topology::{self, TrafficTarget};
use gaiola_model::placement::{
    DatabaseRole, Encryption, InstanceState, LackingFiles, ObservedDatabase, ObservedInstance,
    ObservedProxy, Phase, ReleaseOutcome,
};
use gaiola_model::schema::SCHEMA;
use gaiola_model::{InstanceName, Observed, Placement, ServerName, Tier, WorkerName};
use std::collections::BTreeMap;

impl Site {
    pub(super) fn obey(&mut self) {
        let (_, placement) = self.parts();
        let placement = placement.clone();
        self.elect(&placement);
        let before = std::mem::take(&mut self.observed);
        for server in placement
            .servers
            .keys()
            .filter(|server| !self.lost.contains(server))
        {
            let seen = self.observe(*server, &placement, &before);
            self.observed.insert(*server, seen);
        }
    }

    /// The primary stays where it is unless it is lost, removed, or drained with a standby beside it.
    fn elect(&mut self, placement: &Placement) {
        let able = |server: &ServerName| !self.lost.contains(server);
        let databases: Vec<ServerName> = topology::servers_of(placement, Tier::Database)
            .filter(able)
            .collect();
        let serving = databases
            .iter()
            .find(|server| topology::serves(placement, **server));
        let stays = self.primary.filter(|server| databases.contains(server));
        let stays =
            stays.filter(|server| topology::serves(placement, *server) || serving.is_none());
        self.primary = stays.or(serving.copied()).or(databases.first().copied());
    }

    fn observe(
        &self,
        server: ServerName,
        placement: &Placement,
        before: &BTreeMap<ServerName, Observed>,
    ) -> Observed {
        let vips = placement
            .vips
            .keys()
            .filter(|vip| self.owner(placement, **vip) == Some(server));
        Observed {
            reads: SCHEMA - u64::from(self.older.contains(&server)),
            server,
            boot: self.boots.get(&server).copied().unwrap_or_default(),
            revision: self.at,
            proxy: self.proxy(server, placement, before),
            vips: vips.copied().collect(),
            instances: self.instances(server, placement, before),
            workers: self.workers(server, placement, before),
            crons: Vec::new(),
            database: (server.tier == Tier::Database).then(|| self.database(server, placement)),
            release_run: placement
                .release_run
                .as_ref()
                .filter(|run| run.server == server)
                .filter(|run| run.stop || !self.endless.contains(&run.release.0))
                .map(|run| ReleaseOutcome {
                    release: run.release,
                    command: run.command.clone(),
                    generation: run.generation,
                    error: self
                        .unpreparable
                        .contains(&run.release.0)
                        .then(|| "exit status 1".into()),
                }),
            store_data: None,
            resources: Default::default(),
            unlimited: Vec::new(),
            troubles: Vec::new(),
        }
    }

    fn owner(&self, placement: &Placement, vip: std::net::IpAddr) -> Option<ServerName> {
        let balancers = topology::servers_of(placement, Tier::Balancer);
        let offers = balancers
            .filter(|server| !self.lost.contains(server))
            .filter_map(|server| {
                let routers = topology::vip_priorities(placement, server);
                let router = routers.into_iter().find(|router| router.vip == vip)?;
                Some((router.priority, server))
            });
        offers.max().map(|(_, server)| server)
    }

    fn proxy(
        &self,
        server: ServerName,
        placement: &Placement,
        before: &BTreeMap<ServerName, Observed>,
    ) -> Option<ObservedProxy> {
        if self.stopped.contains(&server) {
            return None;
        }
        if self.mute.contains(&server) {
            return before.get(&server)?.proxy.clone();
        }
        let instances = placement
            .instances
            .keys()
            .map(|name| TrafficTarget::Instance(*name));
        let members = placement
            .servers
            .keys()
            .map(|server| TrafficTarget::Server(*server))
            .chain(instances);
        let mine = members.filter(|member| topology::senders(placement, *member).contains(&server));
        let up = mine.filter(|member| match member {
            TrafficTarget::Instance(name) => before.get(&name.server).is_some_and(|seen| {
                let seen = seen.instances.get(name).map(|seen| seen.state);
                seen == Some(InstanceState::Ready)
                    || seen == Some(InstanceState::Unhealthy)
                        && self.busy.contains(&name.to_string())
            }),
            TrafficTarget::Server(target) => before.contains_key(target),
        });
        let held = self
            .held
            .iter()
            .filter(|((sender, _), _)| *sender == server);
        let up = up.map(|member| member.to_string());
        let (busy, up) = up.partition(|name| self.busy.contains(name));
        Some(ObservedProxy {
            revision: self.at,
            up,
            busy,
            in_flight: held
                .map(|((_, member), count)| (member.clone(), *count))
                .collect(),
            results: BTreeMap::new(),
            lacks: self.lacks(server, placement),
        })
    }

    /// It serves what it has, as agents have it do.
    fn lacks(&self, server: ServerName, placement: &Placement) -> LackingFiles {
        let wanted = topology::files_wanted(placement, server);
        let mut served = wanted.clone();
        let lacking = self.lacking.get(&server).copied();
        served.releases.retain(|release| Some(release.0) != lacking);
        topology::files_lacking(&wanted, &served)
    }

    fn instances(
        &self,
        server: ServerName,
        placement: &Placement,
        before: &BTreeMap<ServerName, Observed>,
    ) -> BTreeMap<InstanceName, ObservedInstance> {
        let mine = placement
            .instances
            .iter()
            .filter(|(name, _)| name.server == server);
        mine.map(|(name, placed)| {
            let seen = before
                .get(&server)
                .and_then(|seen| seen.instances.get(name));
            let crashes = self.crashing.contains(&placed.release.0)
                || self.crashing_behind && placed.encrypted;
            let state = match seen {
                Some(_) if crashes => InstanceState::Crashed,
                Some(_) if !self.hanging.contains(&placed.release.0) => InstanceState::Ready,
                _ => InstanceState::Starting,
            };
            let text = name.to_string();
            let state = match state {
                InstanceState::Ready if self.unanswering.contains(&text) => {
                    InstanceState::Unhealthy
                }
                state => state,
            };
            let reason = match state {
                InstanceState::Unhealthy => "GET /up: no answer within 2 s",
                InstanceState::Ready if self.late.contains(&text) => {
                    "GET /up: no answer within 2 s"
                }
                InstanceState::Crashed => "exit status 1",
                InstanceState::Starting => "connection refused",
                _ => "",
            };
            let restarts = seen.map_or(0, |seen| seen.restarts) + u32::from(crashes);
            let observed = ObservedInstance {
                release: placed.release,
                run: placed.run.clone(),
                state,
                restarts,
                reason: reason.into(),
            };
            (*name, observed)
        })
        .collect()
    }

    fn workers(
        &self,
        server: ServerName,
        placement: &Placement,
        before: &BTreeMap<ServerName, Observed>,
    ) -> BTreeMap<WorkerName, ObservedInstance> {
        let placed = placement.workers.iter();
        let mine = placed.filter(|(name, _)| name.server == server);
        let before = before.get(&server).map(|seen| &seen.workers);
        let seen = mine.map(|(name, placed)| {
            let last = before.and_then(|before| before.get(name));
            let runs =
                last.filter(|last| (last.release, &last.run) == (placed.release, &placed.run));
            let crashes = placed.run == "crash";
            let (state, reason) = match runs {
                Some(_) if crashes => (InstanceState::Crashed, "exit status 1"),
                Some(_) => (InstanceState::Ready, ""),
                None => (InstanceState::Starting, "was started just now"),
            };
            let observed = ObservedInstance {
                release: placed.release,
                run: placed.run.clone(),
                state,
                restarts: runs.map_or(0, |last| last.restarts) + u32::from(crashes),
                reason: reason.into(),
            };
            (name.clone(), observed)
        });
        let seen: BTreeMap<_, _> = seen.collect();
        // One that was stopped takes a turn to end.
        let stopped = before.into_iter().flatten();
        let stopped = stopped.filter(|(name, last)| {
            !placement.workers.contains_key(name) && last.state != InstanceState::Stopping
        });
        let stopped = stopped.map(|(name, last)| {
            let stopping = ObservedInstance {
                state: InstanceState::Stopping,
                ..last.clone()
            };
            (name.clone(), stopping)
        });
        stopped
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .chain(seen)
            .collect()
    }

    fn database(&self, server: ServerName, placement: &Placement) -> ObservedDatabase {
        let able = |other: &ServerName| !self.lost.contains(other) && Some(*other) != self.primary;
        let standbys = topology::servers_of(placement, Tier::Database).filter(able);
        let drained = |server: &ServerName| placement.servers[server].phase == Phase::Drain;
        let sync = standbys.min_by_key(drained);
        let role = match server {
            server if Some(server) == self.primary => DatabaseRole::Primary,
            server if Some(server) == sync => DatabaseRole::SyncStandby,
            _ => DatabaseRole::Standby,
        };
        let mut database = ObservedDatabase {
            role,
            state: if role == DatabaseRole::Primary {
                "running"
            } else {
                "streaming"
            }
            .into(),
            timeline: 1,
            lag_bytes: Some(0),
            requires_tls: Some(placement.encryption == Encryption::Required),
            ..ObservedDatabase::default()
        };
        for word in self.reported.get(&server).into_iter().flatten() {
            misreport(&mut database, word);
        }
        database
    }
}

fn misreport(database: &mut ObservedDatabase, word: &str) {
    let (key, value) = word.split_once('=').expect("KEY=VALUE");
    match key {
        "state" => database.state = value.replace('_', " "),
        "timeline" => database.timeline = number(value),
        "requires_tls" => database.requires_tls = Some(value == "yes"),
        "history" => database.history = Some(value.into()),
        "role" if value == "primary" => database.role = DatabaseRole::Primary,
        "role" if value == "unknown" => {
            (database.role, database.lag_bytes) = (DatabaseRole::Unknown, None);
        }
        other => panic!("nothing is reported by {other:?}"),
    }
}
