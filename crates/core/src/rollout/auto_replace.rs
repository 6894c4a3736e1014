//! When a spare machine takes the place of one that is gone without an operator: `[machines] replace = "auto"`.
//!
//! The time is that for which one process has seen the machine's servers without a lease. Another process that decides counts anew, so a
//! machine may be replaced later than the file says, never earlier.

use super::{
    Facts, Leaving, ReplaceRefused, SILENCE, Unmet, View, dated, is_elsewhere, may_replace,
};
use crate::words::{Long, all_of};
use gaiola_model::config::Machines;
use gaiola_model::inventory::Host;
use gaiola_model::placement::{Phase, PlacedServer};
use gaiola_model::{Desired, Placement, Revision, ServerName, Tier, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What becomes of a machine that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AutoReplace {
    /// No machine is gone, or the file leaves it to an operator.
    Nothing,
    /// It may come back yet.
    Waits {
        /// The machine.
        gone: Host,
        /// The one that will take its place.
        onto: Host,
        /// How long it has been silent.
        silent: Duration,
        /// How long it has to be.
        after: Duration,
    },
    /// Another machine is to take its place now.
    Due {
        /// The machine.
        gone: Host,
        /// The other one.
        onto: Host,
        /// How long it has been silent.
        silent: Duration,
    },
    /// Its servers leave it, by themselves or because an operator said so.
    UnderWay {
        /// The machine.
        gone: Host,
        /// The one that takes its place.
        onto: Host,
    },
    /// No machine takes its place.
    Kept {
        /// The machines that are gone.
        gone: BTreeSet<Host>,
        /// How long all of them have been silent.
        silent: Duration,
        /// How long one has to be.
        after: Duration,
        /// Why none does.
        why: Kept,
    },
}

/// Why no machine takes the place of one that is gone, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Kept {
    /// The network or the power of the site may have failed, not its machines.
    #[error(
        "more than one is gone; once the others are back it goes on, and where one is lost for good: gaiola replace"
    )]
    SeveralGone,
    /// A command works on the site's machines.
    #[error("{0} has set a machine aside")]
    SetAside(String),
    /// An operator works on it.
    #[error("{0} on it is drained; return it to traffic with: gaiola undrain {0}")]
    Drained(ServerName),
    /// One change after the other.
    #[error("another change of the site is not done")]
    Unsettled,
    /// There is none.
    #[error(
        "no machine is spare; add one to `spare` of [machines] in the file and run `gaiola up`"
    )]
    NoneSpare,
    /// None of the spare ones can be reached.
    #[error("no spare machine answers: {}", all_of(.0))]
    SpareSilent(Vec<Host>),
    /// An operator would be refused too.
    #[error(transparent)]
    Refused(#[from] ReplaceRefused),
    /// A copy of the data is not there yet: the last replacement may be going on.
    #[error("{server} {why}")]
    DatabaseNotWhole {
        /// The database server.
        server: ServerName,
        /// What it lacks, after its name.
        why: String,
    },
    /// It may be needed more by a machine that is lost next.
    #[error(
        "{0} is the last spare machine, and without a replacement the site survives another loss; to use it: gaiola replace"
    )]
    LastSpare(Host),
}

impl AutoReplace {
    /// In words for an operator; `None`: there is nothing to say, or not yet.
    pub fn in_words(&self) -> Option<String> {
        match self {
            Self::Waits { silent, .. } | Self::Kept { silent, .. } if *silent < SILENCE => None,
            Self::Nothing => None,
            Self::Waits {
                gone,
                onto,
                silent,
                after,
            } => {
                let (silent, after) = (Long(*silent), Long(*after));
                Some(format!(
                    "{gone} has been gone for {silent}: {onto} takes its place after {after}"
                ))
            }
            Self::Due { gone, onto, silent } => {
                let silent = Long(*silent);
                Some(format!(
                    "{gone} has been gone for {silent}: {onto} takes its place"
                ))
            }
            Self::UnderWay { gone, onto } => Some(format!("{onto} takes the place of {gone}")),
            Self::Kept { gone, why, .. } => {
                let be = if gone.len() == 1 { "is" } else { "are" };
                let gone = all_of(gone);
                Some(format!(
                    "{gone} {be} gone and not replaced without an operator: {why}"
                ))
            }
        }
    }
}

/// What becomes of a machine that is gone. A machine is gone while each of its servers is silent and it is not among `answering`, the
/// machines whose process answers; those of [`machines_to_ask`] are to be asked before.
///
/// One machine at a time gives its place away, and none while more than one is gone. The last spare machine is kept while everything that
/// was on the lost one survives another loss.
pub fn auto_replace(
    desired: &Desired,
    placement: &Placement,
    at: Revision,
    facts: &Facts,
    answering: &BTreeSet<Host>,
) -> AutoReplace {
    let Some(machines) = &desired.config.machines else {
        return AutoReplace::Nothing;
    };
    if let Some((gone, onto)) = under_way(machines, desired, placement) {
        return AutoReplace::UnderWay { gone, onto };
    }
    let Some(after) = machines.replace_after.filter(|_| !facts.store_in_doubt) else {
        return AutoReplace::Nothing;
    };
    let mut gone = silent_machines(placement, facts);
    gone.retain(|host, _| !answering.contains(host));
    let Some(since) = gone.values().max() else {
        return AutoReplace::Nothing;
    };
    let silent = facts.now - *since;
    let stored = dated(placement, at);
    let case = Case {
        machines,
        desired,
        answering,
        view: View::new(&stored, at, facts),
    };
    match case.successor(&gone.keys().copied().collect::<Vec<_>>()) {
        Ok((gone, onto)) if silent < after => AutoReplace::Waits {
            gone,
            onto,
            silent,
            after,
        },
        Ok((gone, onto)) => AutoReplace::Due { gone, onto, silent },
        Err(why) => {
            let gone = gone.into_keys().cloned().collect();
            AutoReplace::Kept {
                gone,
                silent,
                after,
                why,
            }
        }
    }
}

/// The machines that are to be asked whether they answer: those whose servers are all silent, and the spare ones, one of which may be
/// needed. None while nothing depends on it.
pub fn machines_to_ask(desired: &Desired, placement: &Placement, facts: &Facts) -> BTreeSet<Host> {
    let machines = desired.config.machines.as_ref();
    let Some(machines) = machines.filter(|machines| machines.replace_after.is_some()) else {
        return BTreeSet::new();
    };
    let silent = silent_machines(placement, facts);
    if silent.is_empty() {
        return BTreeSet::new();
    }
    let spare = machines.spare.iter().map(|spare| spare.host());
    silent.into_keys().cloned().chain(spare).collect()
}

/// The machines of which every server is silent, and since when the last one is.
fn silent_machines<'a>(placement: &'a Placement, facts: &Facts) -> BTreeMap<&'a Host, Time> {
    let mut all: BTreeMap<&Host, Option<Time>> = BTreeMap::new();
    for (server, placed) in &placement.servers {
        let since = facts.silent_since.get(server).copied();
        let so_far = all.entry(&placed.location.host).or_insert(since);
        *so_far = so_far.zip(since).map(|(one, other)| one.max(other));
    }
    let silent = all.into_iter();
    silent
        .filter_map(|(host, since)| Some((host, since?)))
        .collect()
}

/// A machine that gave its place away and still has a server, and where that server goes.
fn under_way(
    machines: &Machines,
    desired: &Desired,
    placement: &Placement,
) -> Option<(Host, Host)> {
    let mut servers = placement.servers.iter();
    servers.find_map(|(name, placed)| {
        let host = &placed.location.host;
        let onto = desired.inventory.servers.get(name)?;
        let leaves = machines.is_lost(host) && is_elsewhere(desired, placement, *name);
        leaves.then(|| (host.clone(), onto.host.clone()))
    })
}

/// What there is to decide on.
struct Case<'a> {
    machines: &'a Machines,
    desired: &'a Desired,
    answering: &'a BTreeSet<Host>,
    view: View<'a>,
}

impl Case<'_> {
    /// The machine that is gone, and the one that takes its place.
    fn successor(&self, gone: &[&Host]) -> Result<(Host, Host), Kept> {
        let [gone] = gone else {
            return Err(Kept::SeveralGone);
        };
        let lost = self.servers_on(gone);
        self.nothing_else_is_done(&lost)?;
        let onto = self.spare()?;
        let (desired, at) = (self.desired, self.view.at);
        let leaving = Leaving {
            host: gone,
            servers: &lost,
            answers: false,
            confirmed: false,
        };
        may_replace(&leaving, desired, self.view.placement, at, self.view.facts)?;
        self.database_is_whole(&lost)?;
        self.last_spare_is_kept(&lost)?;
        Ok(((*gone).clone(), onto))
    }

    fn servers_on(&self, host: &Host) -> BTreeSet<ServerName> {
        let placed = self.view.placement.servers.iter();
        let on_it = placed.filter(|(_, placed)| placed.location.host == *host);
        on_it.map(|(name, _)| *name).collect()
    }

    /// Each server that is wanted is where it is wanted, none is leaving, and nobody works on the machine.
    fn nothing_else_is_done(&self, lost: &BTreeSet<ServerName>) -> Result<(), Kept> {
        let (desired, placement) = (self.desired, self.view.placement);
        if let Some(aside) = &desired.aside {
            return Err(Kept::SetAside(aside.by.clone()));
        }
        if let Some(drained) = lost.intersection(&desired.drained).next() {
            return Err(Kept::Drained(*drained));
        }
        let wanted: BTreeSet<ServerName> = desired.config.server_names().collect();
        let is_there = |(name, placed): (&ServerName, &PlacedServer)| {
            let stays = placed.phase == Phase::Serve || desired.drained.contains(name);
            wanted.contains(name) && stays && !is_elsewhere(desired, placement, *name)
        };
        let is_at_rest = desired.generation == placement.generation
            && placement.store_joining.is_none()
            && placement.servers.len() == wanted.len()
            && placement.servers.iter().all(is_there);
        is_at_rest.then_some(()).ok_or(Kept::Unsettled)
    }

    /// The first spare machine that answers.
    fn spare(&self) -> Result<Host, Kept> {
        let spare: Vec<Host> = self.machines.spare.iter().map(|it| it.host()).collect();
        if spare.is_empty() {
            return Err(Kept::NoneSpare);
        }
        let mut answering = spare.iter().filter(|it| self.answering.contains(it));
        let first = answering.next().cloned();
        first.ok_or(Kept::SpareSilent(spare))
    }

    /// A new standby copies the primary: one at a time.
    fn database_is_whole(&self, lost: &BTreeSet<ServerName>) -> Result<(), Kept> {
        let placed = self.view.placement.servers.iter();
        let others = placed.filter(|(name, placed)| {
            name.tier == Tier::Database && placed.phase == Phase::Serve && !lost.contains(name)
        });
        for (server, _) in others {
            let serves = self.view.server_serves(*server);
            serves.map_err(|why: Unmet| Kept::DatabaseNotWhole {
                server: *server,
                why: why.to_string(),
            })?;
        }
        Ok(())
    }

    fn last_spare_is_kept(&self, lost: &BTreeSet<ServerName>) -> Result<(), Kept> {
        let spare = self.machines.spare.iter().map(|it| it.host());
        let mut usable = spare.filter(|it| self.answering.contains(it));
        match (usable.next(), usable.next()) {
            (Some(last), None) if self.survives_another(lost) => Err(Kept::LastSpare(last)),
            _ => Ok(()),
        }
    }

    /// Whether what these servers were part of survives the loss of one more machine: servers on two other machines do the work of each of
    /// their tiers, and the store keeps its majority.
    fn survives_another(&self, lost: &BTreeSet<ServerName>) -> bool {
        let placed = &self.view.placement.servers;
        let machines_of = |tier: Tier| {
            let others = placed
                .iter()
                .filter(|(name, _)| name.tier == tier && !lost.contains(name));
            let serving = others.filter(|(name, _)| self.view.server_serves(**name).is_ok());
            let hosts = serving.map(|(_, placed)| &placed.location.host);
            hosts.collect::<BTreeSet<_>>().len()
        };
        let members = &self.view.placement.store;
        let had_member = members.iter().any(|member| lost.contains(member));
        let is_left = |member: &&ServerName| self.view.live(**member).is_some();
        let left = members.iter().filter(is_left).count();
        let store_survives = !had_member || left > members.len() / 2 + 1;
        store_survives && lost.iter().all(|server| machines_of(server.tier) >= 2)
    }
}
