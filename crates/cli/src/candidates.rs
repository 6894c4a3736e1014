//! Completions beyond what clap knows: servers, tiers and drills of the site, the running one or else that of the file.

use crate::file;
use clap_complete::engine::CompletionCandidate;
use gaiola_agent::state::{Order, State, read_document};
use gaiola_core::drill::{Process, Target};
use gaiola_model::{Config, ServerName, SiteName, Tier};
use std::collections::BTreeSet;
use std::path::Path;

/// The first words of drills.
const DRILLS: [&str; 9] = [
    "kill", "power", "stop", "cut", "mute", "deaf", "freeze", "fill", "all",
];

/// Every server of the site.
pub(crate) fn servers() -> Vec<CompletionCandidate> {
    candidates(KnownSite::of(&typed()).server_names())
}

/// The application tier, and each of its servers.
pub(crate) fn restarts() -> Vec<CompletionCandidate> {
    let (app, known) = (Tier::App.section(), KnownSite::of(&typed()));
    let names = known.server_names().filter(|name| name.starts_with(app));
    candidates(std::iter::once(app.to_string()).chain(names))
}

/// Every tier of the site.
pub(crate) fn tiers() -> Vec<CompletionCandidate> {
    candidates(KnownSite::of(&typed()).tiers().map(|tier| tier.to_string()))
}

/// Every tier, server and machine of the site.
pub(crate) fn rolls() -> Vec<CompletionCandidate> {
    let known = KnownSite::of(&typed());
    let tiers = known.tiers().map(|tier| tier.section().to_string());
    let machines = known.config.iter().flat_map(|config| &config.machines);
    let machines = machines.flat_map(|machines| machines.all());
    let machines = machines.map(|machine| machine.ssh.clone());
    candidates(tiers.chain(known.server_names()).chain(machines))
}

/// One server more of each tier; on machines also on each spare one.
pub(crate) fn sizes() -> Vec<CompletionCandidate> {
    candidates(KnownSite::of(&typed()).sizes())
}

/// Servers, and machines that have some: what `replace` takes.
pub(crate) fn replaceable() -> Vec<CompletionCandidate> {
    let known = KnownSite::of(&typed());
    let machines = known.config.iter().flat_map(|config| &config.machines);
    let hosts = machines.flat_map(|all| all.servers.values());
    let hosts: BTreeSet<String> = hosts.map(|machine| machine.ssh.clone()).collect();
    candidates(known.server_names().chain(hosts))
}

/// Every spare machine.
pub(crate) fn spare() -> Vec<CompletionCandidate> {
    let config = KnownSite::of(&typed()).config;
    let machines = config.and_then(|config| config.machines);
    let spare = machines.into_iter().flat_map(|machines| machines.spare);
    candidates(spare.map(|machine| machine.ssh))
}

/// A drill's first word, then the servers that it can harm.
pub(crate) fn drills() -> Vec<CompletionCandidate> {
    let typed = typed();
    candidates(KnownSite::of(&typed).drills(&typed))
}

fn candidates(words: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    words.into_iter().map(CompletionCandidate::new).collect()
}

/// The words of the command line to complete; shells pass them after `--`.
fn typed() -> Vec<String> {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    words.skip_while(|word| word != "--").skip(1).collect()
}

/// What is known of the site.
#[derive(Debug, Default)]
struct KnownSite {
    servers: Vec<ServerName>,
    config: Option<Config>,
}

impl KnownSite {
    /// From the site's last placement, or else its file; empty if neither can be read.
    fn of(typed: &[String]) -> Self {
        let file = value(typed, &["-f", "--file"]).unwrap_or("gaiola.toml");
        let config = std::fs::read_to_string(file)
            .ok()
            .and_then(|text| file::load_alone(Path::new(file), &text).ok());
        let named = value(typed, &["--site"]).and_then(|site| site.parse().ok());
        let of_file = || config.as_ref().map(|config| config.site.clone());
        match named.or_else(of_file).or_else(only_site) {
            Some(site) => Self::of_site(&site).unwrap_or_else(|| Self::of_config(config)),
            None => Self::default(),
        }
    }

    fn of_site(site: &SiteName) -> Option<Self> {
        let order: Order = read_document(&State::of(site).placement()).ok()?;
        Some(Self {
            servers: order.placement.servers.keys().copied().collect(),
            config: Some(order.placement.config),
        })
    }

    fn of_config(config: Option<Config>) -> Self {
        let servers = config.iter().flat_map(Config::server_names).collect();
        Self { servers, config }
    }

    fn server_names(&self) -> impl Iterator<Item = String> {
        self.servers.iter().map(ToString::to_string)
    }

    fn tiers(&self) -> impl Iterator<Item = Tier> {
        let has = |tier: &Tier| self.servers.iter().any(|server| server.tier == *tier);
        Tier::ALL.into_iter().filter(has)
    }

    fn sizes(&self) -> Vec<String> {
        let count = |tier| {
            self.servers
                .iter()
                .filter(|server| server.tier == tier)
                .count()
        };
        let mut sizes: Vec<String> = self
            .tiers()
            .map(|tier| format!("{tier}={}", count(tier) + 1))
            .collect();
        if let Some(config) = &self.config {
            let (servers, instances) = (config.app.servers, config.app.instances);
            sizes.push(format!("app={servers}x{}", instances.saturating_add(1)));
            let machines = config.machines.iter();
            let spare = machines.flat_map(|machines| &machines.spare);
            for machine in spare {
                let onto = self.tiers().map(|tier| format!("{tier}=+{}", machine.ssh));
                sizes.extend(onto);
            }
        }
        sizes
    }

    fn drills(&self, typed: &[String]) -> Vec<String> {
        let Some(harm) = typed.iter().find(|word| DRILLS.contains(&word.as_str())) else {
            return DRILLS.map(Into::into).to_vec();
        };
        let is_drill = |target: &String| format!("{harm} {target}").parse::<Target>().is_ok();
        let servers = self.server_names();
        let roles = if self.tiers().any(|tier| tier == Tier::Database) {
            &["primary", "standby"][..]
        } else {
            &[]
        };
        let processes = self
            .servers
            .iter()
            .flat_map(|server| Process::ALL.map(|process| format!("{server}/{process}")));
        let named = servers.chain(processes).filter(is_drill);
        named.chain(roles.iter().map(ToString::to_string)).collect()
    }
}

/// The value of an option, as `--name value` or `--name=value`.
fn value<'a>(typed: &'a [String], names: &[&str]) -> Option<&'a str> {
    let mut words = typed.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (name, value) = word.split_once('=').unzip();
        if names.contains(&name.unwrap_or(word)) {
            return value.or_else(|| words.next());
        }
    }
    None
}

fn only_site() -> Option<SiteName> {
    match State::sites().as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::config::{App, Machine, Machines};

    fn known() -> KnownSite {
        let config = Config::new("shop".parse().unwrap(), App::new("run"));
        KnownSite {
            servers: ["lb1", "app1", "db1"]
                .map(|name| name.parse().unwrap())
                .to_vec(),
            config: Some(config),
        }
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(Into::into).collect()
    }

    #[test]
    fn drills_are_offered_that_there_can_be() {
        assert_eq!(known().drills(&words("gaiola drill ")), DRILLS);
        let kill = known().drills(&words("gaiola drill kill "));
        assert_eq!(kill[..3], ["lb1", "app1", "db1"]);
        assert!(kill.contains(&"db1/postgres".into()) && kill.contains(&"lb1/keeper".into()));
        assert!(!kill.contains(&"app1/postgres".into()));
        let stop = known().drills(&words("gaiola drill stop "));
        assert_eq!(stop, ["lb1", "app1", "db1", "primary", "standby"]);
        let fill = known().drills(&words("gaiola drill fill "));
        assert_eq!(fill, stop);
        for word in DRILLS.iter().filter(|word| **word != "all") {
            assert!(format!("{word} db1").parse::<Target>().is_ok(), "{word}");
        }
    }

    #[test]
    fn tiers_are_offered_with_one_server_more() {
        let config = known().config.unwrap();
        let instances = format!("app={}x{}", config.app.servers, config.app.instances + 1);
        let sizes = known().sizes();
        assert_eq!(sizes[..3], ["balancer=2", "app=2", "database=2"]);
        assert_eq!(sizes[3], instances);
    }

    #[test]
    fn spare_machines_are_offered_to_every_tier() {
        let mut known = known();
        let app1 = "app1".parse().unwrap();
        known.config.as_mut().unwrap().set_machines(Machines {
            servers: [(app1, Machine::new("a"))].into(),
            spare: vec![Machine::new("m-9")],
            ..Machines::default()
        });
        let sizes = known.sizes();
        assert_eq!(sizes[4..], ["balancer=+m-9", "app=+m-9", "database=+m-9"]);
    }

    #[test]
    fn the_file_that_is_named_is_the_one_that_is_read() {
        let names = ["-f", "--file"];
        assert_eq!(
            value(&words("gaiola exec -f a.toml "), &names),
            Some("a.toml")
        );
        assert_eq!(
            value(&words("gaiola exec --file=b.toml "), &names),
            Some("b.toml")
        );
        assert_eq!(value(&words("gaiola exec "), &names), None);
    }
}
