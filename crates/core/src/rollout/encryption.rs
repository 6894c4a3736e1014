//! How the tiers come to speak TLS with each other, and back: everyone accepts both before anyone uses the other.

use super::RollOutStep;
use crate::topology;
use gaiola_model::placement::Encryption;
use gaiola_model::schema::SCHEMA;
use gaiola_model::{Config, Placement, ServerName, Tier};
use std::time::Duration;

/// How long the rules that accept plain text have been installed everywhere before it is used again: PostgreSQL reads them anew in
/// its own time.
pub(super) const SETTLE: Duration = Duration::from_secs(10);

/// What a configuration asks for.
pub(super) fn wanted(config: &Config) -> Encryption {
    match config.encrypts() {
        true => Encryption::Required,
        false => Encryption::Off,
    }
}

/// Whether that is reached, by every instance too.
pub(super) fn is_reached(config: &Config, stored: &Placement) -> bool {
    let mut instances = stored.instances.values();
    stored.encryption == wanted(config)
        && instances.all(|placed| placed.encrypted == config.encrypts())
}

/// What is missing while it is not reached.
pub(super) fn in_words(config: &Config) -> &'static str {
    match config.encrypts() {
        true => "the tiers do not speak TLS alone yet",
        false => "the tiers do not speak plain text yet",
    }
}

impl RollOutStep<'_> {
    /// Moves one step once every server has carried out the one before. A silent server is waited for: it may still send and accept
    /// as it did, and nothing is urgent.
    pub(super) fn lead_encryption(&mut self) {
        let held = self.view.placement.encryption;
        let next = held.towards(wanted(&self.desired.config));
        if next == held {
            return;
        }
        match self.may_change(held, next) {
            Ok(()) => {
                self.plan.encryption = next;
                self.report(None, step_in_words(held, next));
            }
            Err((server, why)) => {
                let to = in_progress(next > held);
                self.wait(server, format!("{to}: {why}"));
            }
        }
    }

    fn may_change(
        &self,
        held: Encryption,
        next: Encryption,
    ) -> Result<(), (Option<ServerName>, String)> {
        if held.is_off() && self.view.placement.schema < SCHEMA {
            let why = "an older gaiola may still read the site's documents";
            return Err((None, why.into()));
        }
        for server in self.view.placement.servers.keys() {
            self.has_carried_out(*server)
                .map_err(|why| (Some(*server), why))?;
        }
        if matches!(next, Encryption::Required | Encryption::Off) {
            self.instances_follow(next)?;
        }
        let facts = self.view.facts;
        let since = facts.encryption_since.map_or(facts.now, |(_, since)| since);
        if (held, next) == (Encryption::Used, Encryption::Accepted) && facts.now - since < SETTLE {
            return Err((None, "for PostgreSQL to accept plain text".into()));
        }
        Ok(())
    }

    /// Whether every instance is where the last step has it, and will be: none is left that was started before, none is started
    /// again from a template of before. Where a release was given up neither is known.
    fn instances_follow(&self, next: Encryption) -> Result<(), (Option<ServerName>, String)> {
        let stored = self.view.placement;
        if let Some(failure) = stored.failed.as_ref().filter(|_| !next.is_off()) {
            return Err((None, failure.in_words()));
        }
        let mut instances = stored.instances.iter();
        if let Some((name, _)) = instances.find(|(_, placed)| placed.encrypted == next.is_off()) {
            return Err((Some(name.server), format!("{name} is not replaced yet")));
        }
        match &stored.good {
            Some(good) if good.encrypted == next.is_off() => {
                Err((None, "not all instances serve yet".into()))
            }
            _ => Ok(()),
        }
    }

    /// Whether a server does what the present placement says: its proxy, and on a database server its agent.
    fn has_carried_out(&self, server: ServerName) -> Result<(), String> {
        let (view, at) = (&self.view, self.view.at);
        if topology::has_proxy(view.placement, server) {
            let known = view.proxy_at(server, at).map(|_| ());
            return known.map_err(|why| format!("{server} {why}"));
        }
        match view.live(server) {
            None => Err(format!("{server} is silent")),
            Some(seen) if server.tier == Tier::Database && seen.revision < at => {
                Err(format!("{server} has not carried out revision {at} yet"))
            }
            Some(_) if server.tier == Tier::Database => {
                let accepts = view.database_accepts(server);
                accepts.map_err(|why| format!("{server} {why}"))
            }
            Some(_) => Ok(()),
        }
    }
}

fn in_progress(up: bool) -> &'static str {
    match up {
        true => "to speak TLS between the tiers",
        false => "to speak plain text between the tiers",
    }
}

fn step_in_words(held: Encryption, next: Encryption) -> &'static str {
    match (next, next > held) {
        (Encryption::Accepted, true) => "every tier accepts TLS from the others",
        (Encryption::Used, true) => "the tiers speak TLS with each other",
        (Encryption::Required, _) => "no tier accepts plain text from another",
        (Encryption::Used, false) => "every tier accepts plain text from the others",
        (Encryption::Accepted, false) => "the tiers speak plain text with each other",
        (Encryption::Off, _) => "no tier accepts TLS from another",
    }
}
