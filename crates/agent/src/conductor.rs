//! The conductor: one agent at a time turns the desired state into the next placement. It decides nothing itself:
//! `core::rollout` does. The store rejects writes of a conductor whose term is over.

mod members;

use super::tickets;
use crate::state::Boot;
use gaiola_core::rollout::{self, Facts};
use gaiola_model::event::{Severity, Subject};
use gaiola_model::placement::{Desired, Placement, Revision};
use gaiola_model::{ServerName, Time};
use gaiola_store::events::Events;
use gaiola_store::view::{Keys, View};
use gaiola_store::{Expected, Store, StoreError, Term, Txn, to_json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Longest poll interval.
const LOOK: Duration = Duration::from_secs(5);
/// Interval between two steps of a membership change.
const MEMBERS_LATER: Duration = Duration::from_millis(500);
/// Shortest poll interval.
const SHORTEST: Duration = Duration::from_millis(50);
/// Longest interval between two checks of the store's members: finds a change by a conductor whose term was over.
const MEMBERS_LOOK: Duration = Duration::from_secs(60);

/// Conducts until the term is over or the store does not answer.
pub(super) async fn run(
    store: &Store,
    keys: &Keys,
    boot: &Boot,
    term: &Term,
    mut view: watch::Receiver<View>,
) -> StoreError {
    let started = Instant::now();
    let mut facts = Facts::default();
    let mut waiting = String::new();
    let mut stored = Revision(0);
    let mut pruned = None;
    let mut lost = BTreeSet::new();
    // The desired revision, the placement and the lost voters for which the store's members are as they should be.
    let mut members_done = None;
    let mut members_at = Instant::now();
    let events = Events::new(store.clone(), &boot.site);
    loop {
        let seen = view.borrow_and_update().clone();
        let mut deadline = LOOK;
        if let (Some((_, desired)), Some((at, placement))) = (&seen.desired, &seen.placement) {
            let now = Time::from_start(started.elapsed());
            // After a write, decide nothing until the watch has delivered that write.
            if seen.is_current() && *at >= stored {
                let observed = seen
                    .observed
                    .iter()
                    .map(|(server, (_, observed))| (*server, (**observed).clone()))
                    .collect();
                facts.over.clone_from(&seen.over);
                facts.look(now, placement, *at, observed);
                if let Err(error) = tell_losses(&events, placement, &facts, &mut lost).await {
                    return error;
                }
                facts.store_members = placement.store.iter().copied().collect();
                match step(
                    store,
                    keys,
                    term,
                    desired,
                    placement,
                    *at,
                    &facts,
                    &mut waiting,
                )
                .await
                {
                    Ok(revision) => stored = stored.max(revision),
                    // Another placement is stored; the watch delivers it shortly.
                    Err(StoreError::CompareAndSwap { .. }) => {
                        stored = stored.max(Revision(at.0 + 1))
                    }
                    Err(error) => return error,
                }
                let next = facts.next_deadline(placement.config.app.grace);
                deadline = next.map_or(LOOK, |next| next - now).clamp(SHORTEST, LOOK);
                let (config, members) = (placement.config.clone(), placement.store.clone());
                let members_for = Some((config, members, facts.lost_voters()));
                if members_done != members_for {
                    members_at = members_at.min(Instant::now() + MEMBERS_LATER);
                }
                let may_move = stored <= *at && !facts.store_in_doubt;
                if may_move && Instant::now() >= members_at {
                    let moved = move_members(store, keys, term, placement, *at, &facts).await;
                    (members_done, members_at) = (None, Instant::now() + MEMBERS_LATER);
                    match moved {
                        Ok(Moved::Done) => {
                            members_done = members_for;
                            members_at = Instant::now() + MEMBERS_LOOK;
                        }
                        Ok(Moved::Later) => {}
                        Ok(Moved::Named(revision)) => stored = revision,
                        Err(StoreError::CompareAndSwap { .. }) => {}
                        Err(error) => return error,
                    }
                }
                if may_move {
                    let due = members_at.saturating_duration_since(Instant::now());
                    deadline = deadline.min(due).max(SHORTEST);
                }
            }
        }
        if let Some((_, placement)) = seen.placement.as_ref().filter(|_| seen.is_current())
            && let Err(error) = tickets::renew(store, keys, term, placement, &seen).await
        {
            return error;
        }
        if pruned.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(60)) {
            pruned = Some(Instant::now());
            if let Err(error) = events.prune().await {
                return error;
            }
        }
        if let Ok(Err(_)) = timeout(deadline, view.changed()).await {
            std::future::pending::<()>().await;
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one step of the loop above, kept apart so that both can be read"
)]
async fn step(
    store: &Store,
    keys: &Keys,
    term: &Term,
    desired: &Desired,
    placement: &Placement,
    at: Revision,
    facts: &Facts,
    waiting: &mut String,
) -> Result<Revision, StoreError> {
    let next = rollout::next(desired, placement, at, facts);
    let words: Vec<&str> = next
        .waiting
        .iter()
        .map(|waiting| waiting.text.as_str())
        .collect();
    let words = words.join("; ");
    if *waiting != words {
        tracing::info!(
            "waiting: {}",
            if words.is_empty() {
                "for nothing"
            } else {
                &words
            }
        );
        *waiting = words;
    }
    let Some(new) = next.placement else {
        return Ok(Revision(0));
    };
    let revision = put_placement(store, keys, term, &new, at).await?;
    let events = Events::new(store.clone(), &keys.site);
    // Progress after a release was given up is no error.
    let severity = if next.failed != placement.failed && next.failed.is_some() {
        Severity::Error
    } else {
        Severity::Info
    };
    for happened in next.events {
        tracing::info!("{}", happened.text);
        let (subject, text) = tell_apart(happened);
        events
            .tell(subject, severity, "roll_out.step", text)
            .await?;
    }
    Ok(revision)
}

/// Progress of a membership change.
enum Moved {
    Done,
    Later,
    Named(Revision),
}

/// Moves the store's members one step, and names the actual ones in the placement.
async fn move_members(
    store: &Store,
    keys: &Keys,
    term: &Term,
    placement: &Placement,
    at: Revision,
    facts: &Facts,
) -> Result<Moved, StoreError> {
    let named = match members::step(store, term, placement, at, facts).await? {
        members::Step::Done => return Ok(Moved::Done),
        members::Step::Later => return Ok(Moved::Later),
        members::Step::Name(named) => named,
    };
    let mut new = placement.clone();
    (new.store, new.store_joining) = (named.members, named.joining);
    let revision = put_placement(store, keys, term, &new, at).await?;
    let events = Events::new(store.clone(), &keys.site);
    for (server, text) in members_moved(placement, &new) {
        tracing::info!("{server} {text}");
        let subject = Subject::Server(server);
        events
            .tell(subject, Severity::Info, "store.members", text)
            .await?;
    }
    Ok(Moved::Named(revision))
}

/// The servers on which a member was added or removed, in words.
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

/// Writes the placement, if it is still as it was at `at` and the term stands.
async fn put_placement(
    store: &Store,
    keys: &Keys,
    term: &Term,
    new: &Placement,
    at: Revision,
) -> Result<Revision, StoreError> {
    let key = keys.placement();
    let txn =
        Txn::new()
            .expect(&key, Expected::At(at))
            .within(term)
            .put(&key, to_json(&key, new)?, None);
    store.commit(&txn).await
}

/// Reports servers that have been silent for too long, and those that are back.
async fn tell_losses(
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
            .tell(subject, Severity::Error, "server.lost", text)
            .await?;
    }
    for server in lost.difference(&now) {
        let (subject, text) = (Subject::Server(*server), "is back");
        events
            .tell(subject, Severity::Notice, "server.back", text)
            .await?;
    }
    *lost = now;
    Ok(())
}

/// The log names the subject itself.
fn tell_apart(happened: rollout::Event) -> (Subject, String) {
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
    fn who_came_who_votes_and_who_went_is_told_by_name() {
        let [app1, web1, db1] = ["app1", "web1", "db1"].map(|name| name.parse().unwrap());
        let placement = |store: &[ServerName], joining| Placement {
            store: store.into(),
            store_joining: joining,
            ..crate::state::tests::order("a", 7).placement
        };
        let (one, both) = (placement(&[app1], None), placement(&[app1, db1], Some(db1)));
        let came = [(db1, "is to carry a member of the store")];
        assert_eq!(members_moved(&one, &both), came);
        let voting = placement(&[app1, db1], None);
        assert_eq!(members_moved(&both, &voting), [(db1, "votes in the store")]);
        let moved = placement(&[app1, web1], None);
        let told = [
            (web1, "is to carry a member of the store"),
            (db1, "carries no member of the store any more"),
        ];
        assert_eq!(members_moved(&voting, &moved), told);
        assert_eq!(members_moved(&one, &one), []);
    }
}
