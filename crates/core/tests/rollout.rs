//! Stories of the conductor among agents that do at once what is ordered, unless a scenario says otherwise.

mod common;

use gaiola_core::rollout::{self, Facts};
use gaiola_core::status;
use gaiola_core::topology::{self, TrafficTarget};
use gaiola_model::config::{App, Balancer, Config, Database, Web};
use gaiola_model::placement::{
    BootNumber, DatabaseRole, InstanceState, ObservedDatabase, ObservedInstance, ObservedProxy,
    Phase, Release, ReleaseNumber, ReleaseOutcome,
};
use gaiola_model::{
    Desired, InstanceName, Inventory, Observed, Placement, Revision, ServerName, Tier, Time,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

#[test]
fn scenarios() {
    common::play("rollout", Site::default);
}

/// A site and what a scenario did to it.
#[derive(Default)]
struct Site {
    now: Time,
    at: Revision,
    desired: Option<Desired>,
    placement: Option<Placement>,
    facts: Facts,
    observed: BTreeMap<ServerName, Observed>,
    lost: BTreeSet<ServerName>,
    /// Proxies that take no configuration.
    mute: BTreeSet<ServerName>,
    /// Proxies that answer nothing.
    stopped: BTreeSet<ServerName>,
    /// Requests that do not end, by proxy and member.
    held: BTreeMap<(ServerName, String), u64>,
    /// Releases whose instances end at once, never answer, and whose command fails.
    crashing: BTreeSet<u64>,
    hanging: BTreeSet<u64>,
    unpreparable: BTreeSet<u64>,
    /// Members that answer no proxy's check: accepted connections say that they are there, and they are sent to for lack of
    /// others.
    busy: BTreeSet<String>,
    /// Instances that do not answer their own agent: for a moment, or for long.
    late: BTreeSet<String>,
    unanswering: BTreeSet<String>,
    /// What is reported of a PostgreSQL against what is so: `state=running`, `timeline=2`, `history=...`, `role=primary`.
    reported: BTreeMap<ServerName, Vec<String>>,
    /// Releases whose command does not end by itself.
    endless: BTreeSet<u64>,
    /// How often each server was switched off.
    boots: BTreeMap<ServerName, BootNumber>,
    primary: Option<ServerName>,
}

impl common::World for Site {
    fn command(&mut self, words: &[&str]) -> String {
        let (verb, rest) = words.split_first().expect("a command has a verb");
        match *verb {
            "site" => self.begin(rest),
            "set" => {
                let desired = self.desired.as_mut().expect("begin with `site`");
                rest.iter().for_each(|word| set(desired, word));
                desired.generation += 1;
            }
            "retry" | "restart" => {
                let desired = self.desired.as_mut().expect("begin with `site`");
                desired.attempt += u64::from(*verb == "retry");
                for server in servers(rest) {
                    *desired.restarts.entry(server).or_default() += 1;
                }
                desired.generation += 1;
            }
            "drain" | "undrain" => return self.drain(*verb == "drain", rest),
            "lose" => self.lost.extend(servers(rest)),
            "return" => self.lost.retain(|server| !servers(rest).contains(server)),
            "mute" => self.mute.extend(servers(rest)),
            "unmute" => self.mute.retain(|server| !servers(rest).contains(server)),
            "stop-proxy" => self.stopped.extend(servers(rest)),
            "start-proxy" => self
                .stopped
                .retain(|server| !servers(rest).contains(server)),
            "hold" => {
                let key = (rest[0].parse().expect("a server"), rest[1].into());
                self.held.insert(key, rest[2].parse().expect("a count"));
            }
            "finish" => self.held.clear(),
            "crashing" => drop(self.crashing.insert(number(rest[0]))),
            "hanging" => drop(self.hanging.insert(number(rest[0]))),
            "unpreparable" => drop(self.unpreparable.insert(number(rest[0]))),
            "busy" => self.busy.extend(words_of(rest)),
            "late" => self.late.extend(words_of(rest)),
            "unanswering" => self.unanswering.extend(words_of(rest)),
            "calm" => {
                for busy in [&mut self.busy, &mut self.late, &mut self.unanswering] {
                    busy.clear();
                }
            }
            "reports" => {
                let server = rest[0].parse().expect("a server");
                self.reported.insert(server, words_of(&rest[1..]).collect());
            }
            "endless" => drop(self.endless.insert(number(rest[0]))),
            "ending" => self.endless.clear(),
            "off" => servers(rest)
                .iter()
                .for_each(|server| self.switch_off(*server)),
            "wait" => self.now = self.now + Duration::from_secs(number(rest[0])),
            "step" => return self.step(),
            "run" => return self.run(),
            "show" => return self.show(),
            other => panic!("no command {other:?}"),
        }
        String::new()
    }
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

fn words_of(words: &[&str]) -> impl Iterator<Item = String> {
    words.iter().map(ToString::to_string)
}

fn servers(words: &[&str]) -> Vec<ServerName> {
    words
        .iter()
        .map(|word| word.parse().expect("a server"))
        .collect()
}

fn set(desired: &mut Desired, word: &str) {
    let (key, value) = word.split_once('=').expect("KEY=VALUE");
    let count = || value.parse::<u16>().expect("a count");
    let config = &mut desired.config;
    match key {
        "lb" => {
            config.balancer = (value != "none").then(|| Balancer {
                servers: count(),
                vips: None,
                listen: vec![80],
                tls: None,
            });
        }
        "web" => {
            config.web = (value != "none").then(|| Web {
                servers: count(),
                root: "public".into(),
            });
        }
        "app" => {
            let (servers, instances) = value.split_once('x').expect("SERVERSxINSTANCES");
            config.app.servers = servers.parse().expect("a count");
            config.app.instances = instances.parse().expect("a count");
        }
        "db" => {
            config.database = (value != "none").then(|| Database {
                servers: count(),
                strict: false,
                ..Database::default()
            });
        }
        "listen" => config.balancer.as_mut().expect("a balancer").listen = vec![count()],
        "run" => config.app.run = value.into(),
        "command" => config.app.release = Some(value.into()),
        "release" => desired.release.number = ReleaseNumber(number(value)),
        other => panic!("no key {other:?}"),
    }
    desired.inventory = Inventory::numbered(&desired.config, [10, 77]);
}

impl Site {
    fn begin(&mut self, words: &[&str]) {
        let app = App {
            servers: 1,
            instances: 1,
            run: "serve".into(),
            release: None,
            health: "/up".into(),
            maxconn: None,
            grace: Duration::from_secs(10),
        };
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let config = Config::new("story".parse().expect("a name"), app);
        let mut desired = Desired::first(config, release, Inventory::default());
        words.iter().for_each(|word| set(&mut desired, word));
        desired.inventory = Inventory::numbered(&desired.config, [10, 77]);
        self.placement = Some(rollout::first(&desired, "story".into()));
        self.at = Revision(1);
        self.desired = Some(desired);
    }

    /// Nothing of this boot of the server runs any more, and the lab says so.
    fn switch_off(&mut self, server: ServerName) {
        let boot = self.boots.entry(server).or_default();
        self.facts.over.insert(server, *boot);
        boot.0 += 1;
        self.lost.insert(server);
    }

    /// As the lab does: what is never done is refused.
    fn drain(&mut self, drained: bool, words: &[&str]) -> String {
        for server in servers(words) {
            let (desired, placement) = self.parts();
            let may = rollout::may_drain(server, desired, placement, self.at, &self.facts);
            let desired = self.desired.as_mut().expect("begin with `site`");
            match may {
                _ if !drained => _ = desired.drained.remove(&server),
                Ok(()) => _ = desired.drained.insert(server),
                Err(why) => return format!("refused: {why}\n"),
            }
            desired.generation += 1;
        }
        String::new()
    }

    fn parts(&self) -> (&Desired, &Placement) {
        let begun = self.desired.as_ref().zip(self.placement.as_ref());
        begun.expect("begin with `site`")
    }

    /// A second passes: agents obey, and the conductor takes a step.
    fn step(&mut self) -> String {
        self.now = self.now + Duration::from_secs(1);
        self.obey();
        let (desired, placement) = self.parts();
        let (desired, placement) = (desired.clone(), placement.clone());
        self.facts
            .observe(self.now, &placement, self.at, self.observed.clone());
        let next = rollout::next(&desired, &placement, self.at, &self.facts);
        let mut printed = String::new();
        let mut line = |kind: &str, text: &str| {
            let _ = writeln!(
                printed,
                "{:4} s  {kind}{text}",
                self.now.since_start().as_secs()
            );
        };
        next.events.iter().for_each(|event| line("", &event.text));
        match next.placement {
            Some(placement) => {
                self.placement = Some(placement);
                self.at = Revision(self.at.0 + 1);
            }
            None => next
                .waiting
                .iter()
                .for_each(|waiting| line("... ", &waiting.text)),
        }
        printed
    }

    /// Steps until nothing happens any more, and whether the site is settled then. What is only waited for on the way
    /// is left out.
    fn run(&mut self) -> String {
        let mut printed = String::new();
        let mut quiet = 0;
        while quiet < 15 {
            let at = self.at;
            let said = self.step();
            quiet = if self.at == at { quiet + 1 } else { 0 };
            match quiet {
                0 => printed += &said,
                15 => printed += &said,
                _ => {}
            }
        }
        let (desired, placement) = self.parts();
        match rollout::settled(desired, placement, self.at, &self.facts) {
            Ok(()) => printed += "settled\n",
            Err(missing) => missing
                .iter()
                .for_each(|why| printed += &format!("missing: {why}\n")),
        }
        printed
    }

    fn show(&self) -> String {
        let (desired, placement) = self.parts();
        let status = status::status(desired, placement, self.at, &self.facts);
        status::render(&status, false)
    }

    fn obey(&mut self) {
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
            reads: gaiola_model::schema::SCHEMA,
            server,
            boot: self.boots.get(&server).copied().unwrap_or_default(),
            revision: self.at,
            proxy: self.proxy(server, placement, before),
            vips: vips.copied().collect(),
            instances: self.instances(server, placement, before),
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
        })
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
            let crashes = self.crashing.contains(&placed.release.0);
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
        "history" => database.history = Some(value.into()),
        "role" if value == "primary" => database.role = DatabaseRole::Primary,
        "role" if value == "unknown" => {
            (database.role, database.lag_bytes) = (DatabaseRole::Unknown, None);
        }
        other => panic!("nothing is reported by {other:?}"),
    }
}
