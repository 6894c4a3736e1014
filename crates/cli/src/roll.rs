//! `gaiola roll`: runs a command on every machine of the site, one at a time.

mod command;
mod exchange;
mod reboot;
mod rolling;
mod store;
mod upgrade;

pub(crate) use upgrade::upgrade;

use crate::args::{Global, Roll};
use crate::connect::{Place, SiteClient, place};
use crate::install::lock;
use crate::machines::Machines;
use crate::output::Exit;
use anyhow::{Context as _, bail};
use gaiola_control::ssh::quote;
use gaiola_core::roll::{NoTurn, Purpose, Turn, turns};
use gaiola_model::inventory::Host;
use gaiola_model::status::Status;
use rolling::{Plan, Rolling, Work, agree};

/// `gaiola roll`.
pub(crate) fn roll(global: &Global, roll: &Roll) -> anyhow::Result<Exit> {
    let site = RunningSite::find(global, &place(global, &roll.of.file)?)?;
    let status: Status = site.client.get("/status")?;
    let turns = turns(
        &status,
        site.machines.is_some(),
        &site.spare(&status),
        &roll.what,
        Purpose::Command,
    );
    let turns = match turns {
        Ok(turns) => turns,
        Err(why) => return Ok(no_turn(&why)),
    };
    agree(global, &turns)?;
    let plan = Plan {
        doing: "gaiola roll",
        again: format!("gaiola roll{}", if roll.reboot { " --reboot" } else { "" }),
        then: Some(then(&roll.command)),
        turns,
        status,
    };
    let work = Work::Command {
        words: roll.command.clone(),
        reboot: roll.reboot,
    };
    Rolling::start(global, site, plan)?.run(&work)
}

/// Says why nothing begins.
fn no_turn(why: &NoTurn) -> Exit {
    eprint_line!("gaiola: {why}");
    match why {
        NoTurn::NotHealthy(_) => Exit::Degraded,
        NoTurn::Unknown { .. } => Exit::Usage,
        NoTurn::Aside { .. } => Exit::ChangeUnderWay,
    }
}

/// What follows the machines on the command line.
fn then(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    if words.is_empty() {
        String::new()
    } else {
        format!(" -- {}", words.join(" "))
    }
}

/// A site that is up.
struct RunningSite {
    client: SiteClient,
    /// `None`: it stands in the lab.
    machines: Option<Machines>,
    /// The machines that the file, or the command line, names.
    named: Vec<Host>,
    /// Whether the command line names one to ask, and no more.
    by_one: bool,
}

impl RunningSite {
    fn find(global: &Global, place: &Place) -> anyhow::Result<Self> {
        let found = SiteClient::at(place)?.filter(SiteClient::is_running);
        let client = found.with_context(|| {
            format!(
                "the site {} is not up; bring it up with: gaiola up",
                place.site
            )
        })?;
        let named = place.machines.clone().unwrap_or_default();
        Ok(Self {
            client,
            machines: place
                .machines
                .as_ref()
                .map(|_| Machines::new([]))
                .transpose()?,
            named,
            by_one: global.machine.is_some(),
        })
    }

    /// Machines without servers.
    fn spare(&self, status: &Status) -> Vec<Host> {
        let serving = |host: &Host| {
            let mut servers = status.servers.iter();
            servers.any(|server| server.location.host == *host)
        };
        let named = self.named.iter().filter(|_| !self.by_one);
        named.filter(|host| !serving(host)).cloned().collect()
    }

    /// Opens connections to all of its machines.
    fn connect(&mut self, status: &Status) -> anyhow::Result<()> {
        if self.machines.is_none() {
            return Ok(());
        }
        let servers = status.servers.iter();
        let mut hosts: Vec<Host> = servers.map(|server| server.location.host.clone()).collect();
        hosts.extend(self.spare(status));
        hosts.sort();
        hosts.dedup();
        self.machines = Some(Machines::new(hosts)?);
        Ok(())
    }

    /// Takes the lock of its machines.
    async fn lock(&self, doing: &str) -> anyhow::Result<Option<lock::Lock>> {
        match &self.machines {
            Some(machines) => lock::take(machines, doing).await.map(Some),
            None => Ok(None),
        }
    }
}

/// Asks whether turns may begin that interrupt the site.
fn interruption(turns: &[Turn]) -> Option<String> {
    let alone = turns.iter().filter(|turn| !turn.alone.is_empty());
    let parts = alone.map(|turn| {
        let names: Vec<String> = turn.alone.iter().map(ToString::to_string).collect();
        format!(
            "{}: no other machine takes over from {}",
            turn.host,
            names.join(", ")
        )
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| format!("this interrupts the site:\n  {}", parts.join("\n  ")))
}

/// Refuses what was not agreed to.
fn not_agreed(why: &str) -> anyhow::Result<()> {
    bail!("{why}\nto do it nevertheless: --yes")
}
