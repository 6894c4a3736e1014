//! Stories of the conductor among agents that do at once what is ordered, unless a scenario says otherwise.

#[path = "rollout/agents.rs"]
mod agents;
mod common;
#[path = "rollout/machines.rs"]
mod machines;

use gaiola_core::rollout::{self, Facts};
use gaiola_core::status;
use gaiola_model::config::{App, Balancer, Config, Database, Web, Worker};
use gaiola_model::placement::{BootNumber, Maintenance, Release, ReleaseNumber};
use gaiola_model::schema::SCHEMA;
use gaiola_model::{
    Desired, Inventory, Observed, Placement, Revision, ServerName, Time, WorkerKind,
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
    /// Servers on which a program runs that reads no schema but the one before.
    older: BTreeSet<ServerName>,
    /// Instances behind their servers' proxies end at once, whatever their release: `crashing behind`.
    crashing_behind: bool,
    unpreparable: BTreeSet<u64>,
    /// Members that answer no proxy's check: accepted connections say that they are there, and they are sent to for lack of
    /// others.
    busy: BTreeSet<String>,
    /// Instances that do not answer their own agent: for a moment, or for long.
    late: BTreeSet<String>,
    unanswering: BTreeSet<String>,
    /// What is reported of a PostgreSQL against what is so: `state=running`, `timeline=2`, `history=...`, `role=primary`.
    reported: BTreeMap<ServerName, Vec<String>>,
    /// Releases whose files have not arrived on a server.
    lacking: BTreeMap<ServerName, u64>,
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
            "file" => self.apply_file(rest),
            "scale" => return self.scale(rest[0]),
            "replace" => return self.replace(rest),
            "auto" => return self.auto_replace(rest),
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
            // Alone it leaves the generation as it is.
            "maintenance" => {
                let desired = self.desired.as_mut().expect("begin with `site`");
                desired.maintenance = (rest[0] != "off").then(|| maintenance(rest[0]));
            }
            "drain" | "undrain" => return self.drain(*verb == "drain", rest),
            "lose" => self.lost.extend(servers(rest)),
            "return" => self.lost.retain(|server| !servers(rest).contains(server)),
            "older" => {
                self.older.extend(servers(rest));
                let placement = self.placement.as_mut().expect("begin with `file`");
                placement.schema = SCHEMA - 1;
            }
            "upgrade" => self.older.clear(),
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
            "crashing" if rest[0] == "behind" => self.crashing_behind = true,
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
            "lack" => {
                let server = rest[0].parse().expect("a server");
                self.lacking.insert(server, number(rest[1]));
            }
            "arrive" => self.lacking.clear(),
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

fn maintenance(by: &str) -> Maintenance {
    Maintenance {
        since: "2026-01-02T03:04:05.678Z".into(),
        by: by.into(),
        page: None,
        allow: vec!["10.0.0.0/8".parse().expect("a network")],
        retry_after: 60,
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
                ..Balancer::default()
            });
        }
        "web" => {
            config.web = (value != "none").then(|| Web {
                servers: count(),
                ..Web::default()
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
        "env" => config.env = [("COLOUR".into(), value.into())].into(),
        // COMMAND, COMMAND-on-SERVERS or none
        "mail" | "beat" => {
            let kind: WorkerKind = key.parse().expect("a kind");
            let (run, servers) = value.split_once("-on-").unwrap_or((value, ""));
            config.workers.remove(&kind);
            if run != "none" {
                let worker = Worker {
                    servers: servers.parse().ok(),
                    ..Worker::new(run)
                };
                config.workers.insert(kind, worker);
            }
        }
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
            env: Default::default(),
            ..App::new("")
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
}
