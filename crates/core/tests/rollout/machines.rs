//! Sites on machines: `file lb=a,b app=a,c spare=m vips=10.77.0.100 encrypt=yes` begins one, or applies another file; `scale web=+m`.

use super::Site;
use gaiola_core::rollout::AutoReplace;
use gaiola_core::{merge, rollout};
use gaiola_model::config::{App, Balancer, Config, Database, Machine, Machines, Web};
use gaiola_model::inventory::Host;
use gaiola_model::placement::{Release, ReleaseNumber};
use gaiola_model::{Desired, Inventory, Placement, Revision, ServerName, Tier};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

impl Site {
    pub(super) fn apply_file(&mut self, words: &[&str]) {
        let file = file(words);
        let placed = self.placement.clone();
        let Some(desired) = &mut self.desired else {
            return self.begin_with(file);
        };
        desired.config = merge::merge(&desired.applied, &desired.config, &file, placed.as_ref());
        desired.applied = file;
        locate(desired, placed.as_ref());
    }

    pub(super) fn scale(&mut self, to: &str) -> String {
        let placed = self.placement.clone();
        let desired = self.desired.as_mut().expect("begin with `file`");
        let to = to.parse().expect("a scale");
        match merge::scale(&desired.config, &to, placed.as_ref()) {
            Ok(config) => desired.config = config,
            Err(why) => return format!("refused: {why}\n"),
        }
        locate(desired, placed.as_ref());
        String::new()
    }

    /// `replace c`, `replace c m yes`: its machine answers nobody.
    pub(super) fn replace(&mut self, words: &[&str]) -> String {
        let placed = self.placement.clone().expect("begin with `file`");
        let desired = self.desired.as_mut().expect("begin with `file`");
        let onto = words.get(1).copied().filter(|word| *word != "yes");
        let done = match merge::replace(&desired.config, words[0], onto) {
            Ok(done) => done,
            Err(why) => return format!("refused: {why}\n"),
        };
        let leaving = rollout::Leaving {
            host: &done.lost.host(),
            servers: &done.servers,
            answers: false,
            confirmed: words.last() == Some(&"yes"),
        };
        if let Err(why) = rollout::may_replace(&leaving, desired, &placed, self.at, &self.facts) {
            return format!("refused: {why}\n");
        }
        desired.config = done.config;
        locate(desired, Some(&placed));
        String::new()
    }

    /// `auto`: what becomes of a machine that is gone, and where that is due it is done. `auto b c`: the processes of these machines answer
    /// although their servers are silent; `auto -m`: the spare machine m does not answer.
    pub(super) fn auto_replace(&mut self, words: &[&str]) -> String {
        let (desired, placement) = (self.desired.clone(), self.placement.clone());
        let (desired, placement) = desired.zip(placement).expect("begin with `file`");
        let spare = desired.config.machines.iter().flat_map(|all| &all.spare);
        let mut answering: BTreeSet<Host> = spare.map(Machine::host).collect();
        for word in words {
            match word.strip_prefix('-') {
                Some(silent) => drop(answering.remove(&Host(silent.into()))),
                None => drop(answering.insert(Host((*word).into()))),
            }
        }
        let asked = rollout::machines_to_ask(&desired, &placement, &self.facts);
        answering.retain(|host| asked.contains(host));
        let found = rollout::auto_replace(&desired, &placement, self.at, &self.facts, &answering);
        let said = found.in_words().unwrap_or_else(|| "nothing".into());
        let done = match found {
            AutoReplace::Due { gone, onto, .. } => self.replace(&[&gone.0, &onto.0]),
            _ => String::new(),
        };
        format!("{said}\n{done}")
    }

    fn begin_with(&mut self, file: Config) {
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = Inventory::on_machines(&file, None).expect("addresses");
        let desired = Desired::first(file, release, inventory);
        self.placement = Some(rollout::first(&desired, "story".into()));
        self.at = Revision(1);
        self.desired = Some(desired);
    }
}

fn locate(desired: &mut Desired, placed: Option<&Placement>) {
    let mut held = desired.inventory.clone();
    let placed = placed.into_iter().flat_map(|placed| &placed.servers);
    (held.servers).extend(placed.map(|(name, placed)| (*name, placed.location.clone())));
    let inventory = Inventory::on_machines(&desired.config, Some(&held));
    desired.inventory = inventory.expect("addresses");
    desired.generation += 1;
}

fn file(words: &[&str]) -> Config {
    let mut config = Config::new("story".parse().expect("a name"), App::new("serve"));
    let mut machines = Machines::default();
    let mut vips = Vec::new();
    let mut drain = None;
    for word in words {
        let (key, value) = word.split_once('=').expect("KEY=VALUE");
        let on = value.split(',').map(machine);
        match (key, key.parse::<Tier>()) {
            ("drain", _) => {
                let seconds = value.parse().expect("seconds");
                drain = Some(Duration::from_secs(seconds));
            }
            ("encrypt", _) => machines.encrypt = value == "yes",
            ("spare", _) => machines.spare.extend(on),
            ("after", _) => {
                let seconds = value.parse().expect("seconds");
                machines.replace_after = Some(Duration::from_secs(seconds));
            }
            ("vips", _) => {
                let vip = |vip: &str| vip.parse::<IpAddr>().expect("a VIP");
                vips.extend(value.split(',').map(vip));
            }
            (_, tier) => {
                let tier = tier.expect("a tier");
                let names = (1..).map(|number| ServerName::new(tier, number));
                machines.servers.extend(names.zip(on));
                match tier {
                    Tier::Balancer => config.balancer = Some(Balancer::default()),
                    Tier::Web => config.web = Some(Web::default()),
                    Tier::App => {}
                    Tier::Database => config.database = Some(Database::default()),
                }
            }
        }
    }
    if let Some(balancer) = &mut config.balancer {
        balancer.vips = Some(vips);
        balancer.drain = drain;
    }
    config.set_machines(machines);
    config
}

/// A machine with a letter of the alphabet for its name, and its address.
fn machine(name: &str) -> Machine {
    let number = name.as_bytes()[0] - b'a' + 1;
    Machine {
        address: Some([192, 0, 2, number].into()),
        ..Machine::new(name)
    }
}
