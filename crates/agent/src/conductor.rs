//! The conductor: one agent at a time turns what is wanted into the next placement. It decides nothing itself:
//! `core::conduct` and `core::rollout` do; the store rejects a write of a conductor whose term is over.

mod members;

use super::tickets;
use crate::state::Boot;
use gaiola_core::conduct::{self, POLL, SHORTEST, StoreView};
use gaiola_core::rollout::{self, Facts, Next};
use gaiola_model::event::{Severity, Subject};
use gaiola_model::placement::{Placement, Revision};
use gaiola_model::{Config, ServerName, Time};
use gaiola_store::events::Events;
use gaiola_store::view::{Keys, View};
use gaiola_store::{Expected, Store, StoreError, Term, Txn};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

/// Between two steps of the store's membership.
const MEMBERS_STEP: Duration = Duration::from_millis(500);
/// Poll interval for the store's members: it finds changes by a conductor whose term was over.
const MEMBERS_POLL: Duration = Duration::from_secs(60);
/// Servers whose silence or report a write of the placement depends on at most: a transaction has a limit.
const MOST_SERVERS: usize = 100;
/// How often old events are pruned.
const PRUNE: Duration = Duration::from_secs(60);

/// Conducts until the term is over or the store does not answer.
pub(super) async fn run(
    store: &Store,
    keys: &Keys,
    boot: &Boot,
    term: &Term,
    mut view: watch::Receiver<View>,
) -> StoreError {
    let mut conductor = Conductor {
        store,
        keys,
        term,
        events: Events::new(store.clone(), &boot.site),
        started: Instant::now(),
        decided: conduct::Conductor::default(),
        waiting: None,
        pruned: None,
        lost: BTreeSet::new(),
        members: Membership {
            settled: None,
            due: Instant::now(),
        },
    };
    loop {
        let seen = view.borrow_and_update().clone();
        let pause = match conductor.turn(&seen).await {
            Ok(pause) => pause,
            Err(error) => return error,
        };
        if let Ok(Err(_)) = timeout(pause, view.changed()).await {
            std::future::pending::<()>().await;
        }
    }
}

/// One agent's term as conductor.
struct Conductor<'a> {
    store: &'a Store,
    keys: &'a Keys,
    term: &'a Term,
    events: Events,
    started: Instant,
    decided: conduct::Conductor,
    /// What the last step waited for, in words; `None`: nothing.
    waiting: Option<String>,
    /// When old events were last pruned.
    pruned: Option<Instant>,
    /// Servers that were reported lost.
    lost: BTreeSet<ServerName>,
    members: Membership,
}

/// The store's members, as far as the conductor has moved them.
struct Membership {
    /// For which configuration, members and lost voters they are as they should be.
    settled: Option<(Config, Vec<ServerName>, BTreeSet<ServerName>)>,
    /// When they are polled next.
    due: Instant,
}

impl Conductor<'_> {
    /// Does what there is to do, and returns how long to wait unless the store changes.
    async fn turn(&mut self, seen: &View) -> Result<Duration, StoreError> {
        let mut pause = POLL;
        if let (Some((_, desired)), Some((at, placement))) = (&seen.desired, &seen.placement) {
            let on = StoreView {
                is_current: seen.is_current(),
                desired,
                placement,
                at: *at,
                over: &seen.over,
                provider_reads: seen.provider_reads,
                wall: crate::clock::now(),
            };
            if self.decided.may_decide(&on) {
                pause = self.conduct(seen, &on).await?;
            }
        }
        if let Some((_, placement)) = seen.placement.as_ref().filter(|_| seen.is_current()) {
            tickets::renew(self.store, self.keys, self.term, placement, seen).await?;
        }
        if self.pruned.is_none_or(|at| at.elapsed() > PRUNE) {
            self.pruned = Some(Instant::now());
            self.events.prune().await?;
        }
        Ok(pause)
    }

    async fn conduct(&mut self, view: &View, seen: &StoreView<'_>) -> Result<Duration, StoreError> {
        let (at, placement) = (seen.at, seen.placement);
        let now = Time::from_start(self.started.elapsed());
        let observed = view.observed.iter();
        let observed = observed.map(|(server, (_, observed))| (*server, (**observed).clone()));
        let next = self.decided.decide(now, seen, observed.collect());
        let facts = self.decided.facts();
        report_losses(&self.events, placement, facts, &mut self.lost).await?;
        let generation = placement.generation;
        let span = tracing::info_span!("roll_out", generation, %at);
        match self.take(next, seen, view).instrument(span).await {
            Ok(()) => {}
            Err(StoreError::CompareAndSwap { key, .. }) if key == self.keys.placement() => {
                self.decided.was_overtaken(at);
            }
            // A server that counts as dead reports again: the watch delivers that in a moment.
            Err(StoreError::CompareAndSwap { .. }) => {}
            Err(error) => return Err(error),
        }
        let pause = self.decided.pause(placement.config.app.grace);
        let stands = self.decided.has_come_back(at) && !self.decided.facts().store_in_doubt;
        if stands {
            self.attend_members(placement, at).await?;
            let due = self.members.due.saturating_duration_since(Instant::now());
            Ok(pause.min(due).max(SHORTEST))
        } else {
            Ok(pause)
        }
    }

    /// Moves the store's members where that is due.
    async fn attend_members(
        &mut self,
        placement: &Placement,
        at: Revision,
    ) -> Result<(), StoreError> {
        let lost = self.decided.facts().lost_members();
        let wanted = Some((placement.config.clone(), placement.store.clone(), lost));
        if self.members.settled != wanted {
            self.members.due = self.members.due.min(Instant::now() + MEMBERS_STEP);
        }
        if Instant::now() < self.members.due {
            return Ok(());
        }
        let moved = move_members(
            self.store,
            self.keys,
            self.term,
            placement,
            at,
            &self.decided,
        );
        let span = tracing::info_span!("members", %at);
        let moved = moved.instrument(span).await;
        self.members.settled = None;
        self.members.due = Instant::now() + MEMBERS_STEP;
        match moved {
            Ok(Moved::Done) => {
                self.members.settled = wanted;
                self.members.due = Instant::now() + MEMBERS_POLL;
            }
            Ok(Moved::Named(revision)) => self.decided.wrote(revision),
            Ok(Moved::Later) | Err(StoreError::CompareAndSwap { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes one step of the roll-out.
    async fn take(
        &mut self,
        next: Next,
        seen: &StoreView<'_>,
        view: &View,
    ) -> Result<(), StoreError> {
        let (at, placement) = (seen.at, seen.placement);
        self.log_waiting(&next.waiting);
        let Some(new) = next.placement else {
            return Ok(());
        };
        let dead = self.decided.counted_dead(placement);
        let raises = new.schema > placement.schema;
        let condition = Condition {
            at,
            dead: &dead,
            reports: if raises { reports(view) } else { Vec::new() },
        };
        let put = put_placement(self.store, self.keys, self.term, &new, &condition);
        self.decided.wrote(put.await?);
        // Continuing after a release was given up is not an error.
        let severity = if next.failed != placement.failed && next.failed.is_some() {
            Severity::Error
        } else {
            Severity::Info
        };
        for happened in next.events {
            let (severity, kind) = (severity.max(happened.severity), happened.kind);
            let (subject, text) = subject_and_text(happened);
            tracing::info!(?subject, text, "a step");
            let reported = self.events.log(subject, severity, kind, text);
            reported.await?;
        }
        Ok(())
    }

    /// Logs what the roll-out waits for, when that changes.
    fn log_waiting(&mut self, waiting: &[rollout::RollOutWait]) {
        let words: Vec<&str> = waiting.iter().map(|waiting| &*waiting.text).collect();
        let words = (!words.is_empty()).then(|| words.join("; "));
        if self.waiting == words {
            return;
        }
        match &words {
            Some(what) => tracing::info!(what, "waiting"),
            None => tracing::info!("waiting for nothing"),
        }
        self.waiting = words;
    }
}

/// How far the store's members are.
enum Moved {
    Done,
    Later,
    Named(Revision),
}

/// Moves the store's members one step, and lets the placement name those there are.
async fn move_members(
    store: &Store,
    keys: &Keys,
    term: &Term,
    placement: &Placement,
    at: Revision,
    decided: &conduct::Conductor,
) -> Result<Moved, StoreError> {
    let named = match members::step(store, term, placement, at, decided.facts()).await? {
        members::MembersStep::Done => return Ok(Moved::Done),
        members::MembersStep::Later => return Ok(Moved::Later),
        members::MembersStep::Name(named) => named,
    };
    let mut new = placement.clone();
    named.write(&mut new);
    let dead = decided.counted_dead(placement);
    let condition = Condition {
        at,
        dead: &dead,
        reports: Vec::new(),
    };
    let revision = put_placement(store, keys, term, &new, &condition).await?;
    let events = Events::new(store.clone(), &keys.site);
    for (server, text) in members_moved(placement, &new) {
        tracing::info!(%server, text, "the store's members changed");
        let subject = Subject::Server(server);
        events
            .log(subject, Severity::Info, "store.members", text)
            .await?;
    }
    Ok(Moved::Named(revision))
}

/// On which servers a member came or went, in words.
fn members_moved(old: &Placement, new: &Placement) -> Vec<(ServerName, &'static str)> {
    let came = new.store.iter().filter(|one| !old.store.contains(one));
    let came = came.map(|server| (*server, "is to carry a member of the store"));
    let joined = old
        .store_joining
        .filter(|one| new.store_joining != Some(*one) && new.store.contains(one));
    let votes = joined.map(|server| (server, "votes in the store"));
    let went = old.store.iter().filter(|one| !new.store.contains(one));
    let went = went.map(|server| (*server, "carries no member of the store any more"));
    came.chain(votes).chain(went).collect()
}

/// On what a placement may be written.
struct Condition<'a> {
    /// The placement before it is still of this revision.
    at: Revision,
    /// None of these servers reports.
    dead: &'a [ServerName],
    /// These reports are still the last ones: a newer schema is for good, and each of them says that it can be read.
    reports: Vec<(ServerName, Revision)>,
}

/// The last report of each server.
fn reports(view: &View) -> Vec<(ServerName, Revision)> {
    let observed = view.observed.iter();
    observed.map(|(server, (at, _))| (*server, *at)).collect()
}

/// Writes the placement on this condition, and if the term is current.
async fn put_placement(
    store: &Store,
    keys: &Keys,
    term: &Term,
    new: &Placement,
    condition: &Condition<'_>,
) -> Result<Revision, StoreError> {
    let Condition { at, dead, reports } = condition;
    let key = keys.placement();
    // The placement itself says in which schema the site's documents are: it may be raising it.
    let text = store.to_json_over(&key, new, *at, new.schema).await?;
    let txn = Txn::new().expect(&key, Expected::At(*at)).within(term);
    let txn = dead.iter().take(MOST_SERVERS).fold(txn, |txn, server| {
        txn.expect(&keys.observed(*server), Expected::Absent)
    });
    let txn = reports
        .iter()
        .take(MOST_SERVERS)
        .fold(txn, |txn, (server, at)| {
            txn.expect(&keys.observed(*server), Expected::At(*at))
        });
    store.commit(&txn.put(&key, text, None)).await
}

/// Reports which servers have been silent for too long, and which of those are back.
async fn report_losses(
    events: &Events,
    placement: &Placement,
    facts: &Facts,
    lost: &mut BTreeSet<ServerName>,
) -> Result<(), StoreError> {
    let is_dead = |server: &&ServerName| facts.is_dead(**server);
    let now: BTreeSet<ServerName> = placement.servers.keys().filter(is_dead).copied().collect();
    for server in now.difference(lost) {
        let (subject, text) = (Subject::Server(*server), "is lost: its agent is silent");
        events
            .log(subject, Severity::Error, "server.lost", text)
            .await?;
    }
    for server in lost.difference(&now) {
        let (subject, text) = (Subject::Server(*server), "is back");
        events
            .log(subject, Severity::Notice, "server.back", text)
            .await?;
    }
    *lost = now;
    Ok(())
}

/// The subject of an event, and its text without that name, which the log has itself.
fn subject_and_text(happened: rollout::RollOutEvent) -> (Subject, String) {
    match happened.server {
        Some(server) => {
            let named = happened
                .text
                .strip_prefix(&format!("{server} "))
                .map(str::to_string);
            (Subject::Server(server), named.unwrap_or(happened.text))
        }
        None => (Subject::Site, happened.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_who_votes_and_who_went_is_reported_by_name() {
        let [app1, web1, db1] = ["app1", "web1", "db1"].map(|name| name.parse().unwrap());
        let placement = |store: &[ServerName], joining| Placement {
            store: store.into(),
            store_joining: joining,
            ..crate::state::order::tests::order("a", 7).placement
        };
        let (one, both) = (placement(&[app1], None), placement(&[app1, db1], Some(db1)));
        let came = [(db1, "is to carry a member of the store")];
        assert_eq!(members_moved(&one, &both), came);
        let voting = placement(&[app1, db1], None);
        assert_eq!(members_moved(&both, &voting), [(db1, "votes in the store")]);
        let moved = placement(&[app1, web1], None);
        let reported = [
            (web1, "is to carry a member of the store"),
            (db1, "carries no member of the store any more"),
        ];
        assert_eq!(members_moved(&voting, &moved), reported);
        assert_eq!(members_moved(&one, &one), []);
    }
}
