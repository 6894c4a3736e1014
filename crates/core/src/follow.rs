//! Follows a change until the desired state is observed, the change failed, or the deadline passed.

use crate::rollout;
use gaiola_model::inventory::Host;
use gaiola_model::placement::{InstanceState, ObservedInstance, ReleaseNumber};
use gaiola_model::status::{ServerState, Status};
use gaiola_model::{Observed, Placement, ServerName, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// The site must stay settled this long before a change counts as done.
pub const CALM: Duration = Duration::from_millis(500);

/// Inputs of one poll.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// The site's state.
    pub status: &'a Status,
    /// What the store holds.
    pub placement: Option<&'a Placement>,
    /// Reports of servers with a lease.
    pub observed: &'a [&'a Observed],
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Poll again.
    Wait,
    /// The desired state is reached.
    Done,
    /// It will not be reached, for this reason.
    Failed(String),
    /// The deadline passed; this is missing.
    Late(Vec<String>),
}

/// An instance or a worker, and its server.
type Process = (ServerName, String);

/// One change.
#[derive(Clone, Debug)]
pub struct Follow {
    deploys: bool,
    deadline: Time,
    settled_since: Option<Time>,
    /// Instances that are not ready while there are no old ones: since when each is waited for, and how often it had
    /// crashed by then. The conductor has nothing to roll back to and keeps retrying.
    unready: BTreeMap<Process, (Time, u32)>,
}

impl Follow {
    /// A change that must be done by `deadline`. `deploys`: giving up the release is an error; any other change
    /// continues with the last good one.
    pub const fn new(deploys: bool, deadline: Time) -> Self {
        Self {
            deploys,
            deadline,
            settled_since: None,
            unready: BTreeMap::new(),
        }
    }

    /// Evaluates one poll. `None`: the store has not reported the change yet, so nothing is concluded.
    pub fn step(&mut self, now: Time, sight: Option<Sight<'_>>) -> Next {
        let missing = match sight {
            None => vec!["the store has not reported this change yet".into()],
            Some(sight) => match self.failed(now, sight) {
                Some(why) => return Next::Failed(why),
                None => self.missing(sight),
            },
        };
        self.settled_since = missing
            .is_empty()
            .then(|| self.settled_since.unwrap_or(now));
        match self.settled_since {
            Some(since) if now - since >= CALM => Next::Done,
            // What is settled only now is waited for.
            None if now >= self.deadline => Next::Late(missing),
            _ => Next::Wait,
        }
    }

    fn failed(&mut self, now: Time, sight: Sight<'_>) -> Option<String> {
        let status = sight.status;
        let placement = sight.placement;
        let good = placement.and_then(|placement| placement.good.as_ref());
        let failed = placement.and_then(|placement| placement.failed.as_ref());
        let is_placed = status.generation.desired == status.generation.placed;
        match failed {
            Some(failure) if is_placed && (self.deploys || good.is_none()) => {
                let words = failure.in_words();
                Some(format!("{words}; what ran before goes on"))
            }
            _ => self.hopeless(now, sight),
        }
    }

    /// What is missing, except for a release that was given up if that is no error.
    fn missing(&self, sight: Sight<'_>) -> Vec<String> {
        let failed = sight
            .placement
            .and_then(|placement| placement.failed.as_ref());
        let given_up = failed.map(|failure| failure.in_words());
        let missing = sight.status.missing.iter();
        let counts = |why: &&String| self.deploys || Some(*why) != given_up.as_ref();
        missing.filter(counts).cloned().collect()
    }

    /// Why waiting longer will not make an instance ready.
    fn hopeless(&mut self, now: Time, sight: Sight<'_>) -> Option<String> {
        let unready = unready(sight);
        self.unready.retain(|name, _| unready.contains_key(name));
        unready.into_iter().find_map(|(process, seen)| {
            let first = (now, seen.restarts);
            let (server, name) = process.clone();
            let (since, ended) = *self.unready.entry(process).or_insert(first);
            let ends = seen.restarts.saturating_sub(ended) >= rollout::MAX_CRASHES;
            let crashes = seen.state == InstanceState::Crashed && ends;
            let why = if crashes { "keeps ending" } else { "does not get ready" };
            (crashes || now - since >= rollout::READY_DEADLINE).then(|| {
                format!(
                    "{name} {why}: {}; it is restarted again and again; for its output run: gaiola logs -n {server}",
                    seen.reason
                )
            })
        })
    }
}

/// What is missing when the deadline has passed, in words; and whether it is nothing but machines that are silent. Servers of a machine
/// that is silent altogether are named with it.
pub fn in_words(missing: &[String], status: &Status) -> (String, bool) {
    let (mut words, mut named) = (Vec::new(), Vec::new());
    for (host, servers) in silent_machines(status) {
        let silent = servers.iter().map(|server| format!("{server} is silent"));
        let silent: Vec<String> = silent.filter(|it| missing.contains(it)).collect();
        if !silent.is_empty() {
            let all: Vec<String> = servers.iter().map(ToString::to_string).collect();
            words.push(format!(
                "{host} is silent, with {}: see that it is on and reached, it follows by itself then",
                all.join(" ")
            ));
            named.extend(silent);
        }
    }
    let others = missing.iter().filter(|why| !named.contains(why));
    let others: Vec<String> = others.cloned().collect();
    let is_silence = others.is_empty() && !words.is_empty();
    words.extend(others);
    (words.join("; "), is_silence)
}

/// Machines none of whose servers is heard; in the lab there are no machines.
fn silent_machines(status: &Status) -> BTreeMap<&Host, Vec<ServerName>> {
    let mut machines: BTreeMap<&Host, Vec<ServerName>> = BTreeMap::new();
    let mut heard: Vec<&Host> = Vec::new();
    for server in &status.servers {
        let host = &server.location.host;
        if server.state != ServerState::Lost || *host == Host::default() {
            heard.push(host);
        }
        machines.entry(host).or_default().push(server.name);
    }
    machines.retain(|host, _| !heard.contains(host));
    machines
}

/// Instances and workers that are not ready, if all are of the release that this change leads to: others are still to be exchanged.
fn unready(sight: Sight<'_>) -> BTreeMap<Process, &ObservedInstance> {
    let Some(placement) = sight.placement else {
        return BTreeMap::new();
    };
    let last = last_release(sight.status, placement);
    let mut releases = placement.instances.values().map(|placed| placed.release);
    if last.is_none() || releases.any(|release| Some(release) != last) {
        return BTreeMap::new();
    }
    let observed = sight.observed.iter();
    let instances = observed.clone().flat_map(|seen| &seen.instances);
    let instances = instances.filter(|(name, _)| placement.instances.contains_key(name));
    let instances = instances.map(|(name, seen)| ((name.server, name.to_string()), seen));
    let workers = observed.flat_map(|seen| &seen.workers);
    let workers = workers.filter(|(name, _)| placement.workers.contains_key(name));
    let workers = workers.map(|(name, seen)| ((name.server, name.to_string()), seen));
    let all = instances.chain(workers);
    let unready = all.filter(|(_, seen)| seen.state != InstanceState::Ready);
    unready.collect()
}

/// The release of all instances once this change is done: the desired one, or the last good one if that was given up. `None`
/// while the conductor has not taken up the change.
fn last_release(status: &Status, placement: &Placement) -> Option<ReleaseNumber> {
    if status.generation.desired != status.generation.placed {
        return None;
    }
    match &placement.failed {
        None => Some(status.release.desired),
        Some(_) => placement.good.as_ref().map(|good| good.release),
    }
}

#[cfg(test)]
mod tests;
