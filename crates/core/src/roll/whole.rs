//! What is waited for after a machine's turn.

use super::Turn;
use gaiola_model::placement::DatabaseRole;
use gaiola_model::status::Status;
use gaiola_model::{Tier, Time};
use std::collections::BTreeSet;
use std::time::Duration;

/// How the site was before the first turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// What would not have survived a loss then; `None`: the store.
    fragile: BTreeSet<Option<Tier>>,
}

impl Before {
    /// Of a site, as its status says.
    pub fn of(status: &Status) -> Self {
        let parts = status.may_fail.iter().map(|part| part.tier);
        Self {
            fragile: parts.collect(),
        }
    }
}

/// How far a turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The machine is set aside, and its part is done.
    Aside,
    /// It is taken back.
    Back,
}

/// What is missing before a turn may go on, in words; nothing: the machine is whole again, and the site with it.
pub fn missing(status: &Status, turn: &Turn, stage: Stage, before: &Before) -> Vec<String> {
    let mut missing = status.missing.clone();
    let of_turn =
        |server: &&gaiola_model::status::ServerStatus| turn.servers.contains(&server.name);
    match stage {
        Stage::Aside => {
            // A drained standby counts as healthy whatever it does.
            for server in status.servers.iter().filter(of_turn) {
                let database = server.database.as_ref();
                let follows = database.is_none_or(|database| {
                    database.role == DatabaseRole::Primary || database.state == "streaming"
                });
                if server.tier == Tier::Database && !(database.is_some() && follows) {
                    missing.push(format!("{} does not follow the primary yet", server.name));
                }
            }
        }
        Stage::Back => {
            if status.aside.is_some() {
                missing.push(format!("{} is still set aside", turn.host));
            }
            let parts = status.may_fail.iter();
            let worse = parts.filter(|part| !before.fragile.contains(&part.tier));
            missing.extend(worse.map(|part| part.words.clone()));
        }
    }
    missing
}

/// Waits until nothing has been missing for a while.
#[derive(Clone, Debug)]
pub struct Whole {
    calm: Duration,
    since: Option<Time>,
}

impl Whole {
    /// `calm`: for how long nothing may be missing. A server that is gone is missing only once it was silent for a while.
    pub const fn new(calm: Duration) -> Self {
        Self { calm, since: None }
    }

    /// Takes what is missing now; `true`: all is whole.
    pub fn step(&mut self, now: Time, missing: &[String]) -> bool {
        self.since = missing.is_empty().then(|| self.since.unwrap_or(now));
        self.since.is_some_and(|since| now - since >= self.calm)
    }
}
