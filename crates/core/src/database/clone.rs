//! Whether to re-clone a standby that cannot follow the primary.
//!
//! Its old data is set aside, not removed: until the site is whole it may be the only other copy. One standby is cloned at
//! a time; a standby that makes any progress is left alone.

use gaiola_model::placement::{DatabaseRole, ObservedDatabase};
use gaiola_model::{ServerName, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a standby may make no progress while the primary is up. Patroni waits for the new primary's checkpoint
/// before it rewinds a standby, and is done within this time.
const STUCK: Duration = Duration::from_secs(120);
/// How long PostgreSQL may fail to start while Patroni retries.
const FAILS_TO_START: Duration = Duration::from_secs(300);
/// A standby whose history diverged from the primary's never follows. The wait only rules out a poll in the middle of a
/// failover.
const FORKED: Duration = Duration::from_secs(10);
/// How long a standby that did not follow and has since fallen silent counts as being cloned.
const BEING_CLONED: Duration = Duration::from_secs(180);
/// Shortest time between the starts of two clones.
const AGAIN: Duration = Duration::from_secs(300);
/// How long the site must have been whole before the data set aside is removed.
const WHOLE: Duration = Duration::from_secs(60);

/// What to do with this server's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set the data aside and clone the primary, for this reason.
    Clone(Why),
    /// What was set aside may be removed: every server is whole.
    Forget,
}

/// Why a standby is cloned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its history diverged from the primary's.
    Forked,
    /// It has not followed for this long.
    Stuck(Duration),
}

/// Decides for one server.
#[derive(Clone, Debug, Default)]
pub struct Clones {
    /// Its last observed progress, and since when that has not changed.
    seen: Option<(Progress, Time)>,
    forked_since: Option<Time>,
    whole_since: Option<Time>,
    cloned_at: Option<Time>,
    /// When each other member was last seen not following.
    behind_at: BTreeMap<ServerName, Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    timeline: u64,
    replayed: Option<u64>,
}

impl Clones {
    /// Takes the state of all database servers of the placement, as `me` sees them, and returns the action.
    pub fn step(
        &mut self,
        now: Time,
        me: ServerName,
        all: &BTreeMap<ServerName, ObservedDatabase>,
    ) -> Option<Action> {
        if self.is_whole(now, all) {
            return Some(Action::Forget);
        }
        let (Some(mine), Some(primary)) = (all.get(&me), primary(all)) else {
            (self.seen, self.forked_since) = (None, None);
            return None;
        };
        let others = all.iter().filter(|(name, _)| **name != me);
        let behind =
            others.filter(|(_, member)| is_behind(member, primary) || is_being_made(member));
        self.behind_at.extend(behind.map(|(name, _)| (*name, now)));
        let why = self.why(now, mine, primary)?;
        let is_first = self.is_first(now, me, all, primary);
        let may = is_first && self.cloned_at.is_none_or(|at| now - at >= AGAIN);
        if !may {
            return None;
        }
        self.cloned_at = Some(now);
        (self.seen, self.forked_since) = (None, None);
        Some(Action::Clone(why))
    }

    fn is_whole(&mut self, now: Time, all: &BTreeMap<ServerName, ObservedDatabase>) -> bool {
        let whole = primary(all).is_some_and(|primary| {
            all.values()
                .all(|member| is_same(member, primary) || member.follows(primary))
        });
        self.whole_since = whole.then(|| self.whole_since.unwrap_or(now));
        self.whole_since.is_some_and(|since| now - since >= WHOLE)
    }

    fn why(
        &mut self,
        now: Time,
        mine: &ObservedDatabase,
        primary: &ObservedDatabase,
    ) -> Option<Why> {
        if is_same(mine, primary) || mine.follows(primary) || is_being_made(mine) {
            (self.seen, self.forked_since) = (None, None);
            return None;
        }
        let progress = Progress {
            timeline: mine.timeline,
            replayed: mine.replayed,
        };
        let since = match self.seen {
            Some((before, since)) if before == progress => since,
            _ => now,
        };
        self.seen = Some((progress, since));
        let forked = mine.is_forked_from(primary);
        self.forked_since = forked.then(|| self.forked_since.unwrap_or(now));
        match self.forked_since {
            Some(since) if now - since >= FORKED => Some(Why::Forked),
            _ if fails_to_start(mine) && now - since < FAILS_TO_START => None,
            _ if now - since >= STUCK => Some(Why::Stuck(now - since)),
            _ => None,
        }
    }

    /// One at a time: nobody is being cloned, nobody silent may be, and no server before `me` in order needs it.
    fn is_first(
        &self,
        now: Time,
        me: ServerName,
        all: &BTreeMap<ServerName, ObservedDatabase>,
        primary: &ObservedDatabase,
    ) -> bool {
        let holds_up = |(name, member): (&ServerName, &ObservedDatabase)| {
            let lately = self.behind_at.get(name);
            *name != me
                && (is_being_made(member)
                    || is_unreachable(member) && lately.is_some_and(|at| now - *at < BEING_CLONED))
        };
        let mut behind = all.iter().filter(|(_, member)| is_behind(member, primary));
        !all.iter().any(holds_up) && behind.next().is_some_and(|(name, _)| *name == me)
    }
}

/// The only server that takes writes. If two claim to, nobody knows whose data is right, and nothing is discarded.
fn primary(all: &BTreeMap<ServerName, ObservedDatabase>) -> Option<&ObservedDatabase> {
    let mut primaries = all
        .values()
        .filter(|member| member.role == DatabaseRole::Primary);
    let first = primaries.next()?;
    primaries.next().is_none().then_some(first)
}

fn is_same(member: &ObservedDatabase, primary: &ObservedDatabase) -> bool {
    std::ptr::eq(member, primary)
}

/// Whether Patroni is creating its data: a clone, or the first start.
fn is_being_made(member: &ObservedDatabase) -> bool {
    member.state.contains("creating") || member.state.contains("initializing")
}

/// Whether its Patroni answers but its PostgreSQL does not start: the result of a power cut in the middle of a rewind.
fn fails_to_start(member: &ObservedDatabase) -> bool {
    matches!(member.state.as_str(), "start failed" | "crashed")
}

/// Whether its state is unknown: its server is lost or cut off, or its Patroni is starting.
fn is_unreachable(member: &ObservedDatabase) -> bool {
    member.role == DatabaseRole::Unknown
        && member.timeline == 0
        && !is_being_made(member)
        && !fails_to_start(member)
}

fn is_behind(member: &ObservedDatabase, primary: &ObservedDatabase) -> bool {
    !is_same(member, primary) && !is_unreachable(member) && !member.follows(primary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn name(text: &str) -> ServerName {
        text.parse().unwrap()
    }

    fn member(role: DatabaseRole, state: &str, timeline: u64, history: &str) -> ObservedDatabase {
        ObservedDatabase {
            role,
            state: state.into(),
            timeline,
            lag_bytes: Some(0),
            replayed: Some(100),
            history: Some(history.into()),
            requires_tls: None,
        }
    }

    fn primary() -> ObservedDatabase {
        member(DatabaseRole::Primary, "running", 3, "2 at 0/50000A0")
    }

    fn stuck() -> ObservedDatabase {
        member(DatabaseRole::Standby, "running", 2, "1 at 0/40000A0")
    }

    fn follows() -> ObservedDatabase {
        member(DatabaseRole::SyncStandby, "streaming", 3, "2 at 0/50000A0")
    }

    fn site(members: &[ObservedDatabase]) -> BTreeMap<ServerName, ObservedDatabase> {
        let names = (1..).map(|number| name(&format!("db{number}")));
        names.zip(members.iter().cloned()).collect()
    }

    /// When `me` is cloned, with one step a second.
    fn cloned_at(me: &str, members: &[ObservedDatabase]) -> Option<(u64, Why)> {
        let (mut clones, all) = (Clones::default(), site(members));
        (0..300).find_map(|second| match clones.step(at(second), name(me), &all) {
            Some(Action::Clone(why)) => Some((second, why)),
            _ => None,
        })
    }

    #[test]
    fn a_standby_without_progress_is_cloned_after_a_while() {
        let cloned = cloned_at("db2", &[primary(), stuck()]);
        assert_eq!(cloned, Some((120, Why::Stuck(STUCK))));
    }

    #[test]
    fn one_that_follows_or_makes_progress_is_left_alone() {
        assert_eq!(cloned_at("db2", &[primary(), follows()]), None);
        let mut clones = Clones::default();
        for second in 0..300 {
            let mut slow = stuck();
            slow.replayed = Some(second / 100);
            let all = site(&[primary(), slow]);
            assert_eq!(clones.step(at(second), name("db2"), &all), None);
        }
    }

    #[test]
    fn a_fork_needs_no_waiting_even_where_it_streams_on_the_same_timeline() {
        let mut forked = follows();
        forked.history = Some("2 at 0/4FFFFF8".into());
        let cloned = cloned_at("db2", &[primary(), forked]);
        assert_eq!(cloned, Some((10, Why::Forked)));
    }

    #[test]
    fn without_exactly_one_primary_nothing_is_thrown_away() {
        assert_eq!(cloned_at("db2", &[stuck(), stuck()]), None);
        assert_eq!(cloned_at("db3", &[primary(), primary(), stuck()]), None);
    }

    #[test]
    fn the_primary_itself_is_never_cloned() {
        assert_eq!(cloned_at("db1", &[primary(), stuck()]), None);
    }

    #[test]
    fn one_at_a_time_and_an_unreachable_one_holds_nobody_up() {
        let three = [primary(), stuck(), stuck()];
        assert!(cloned_at("db2", &three).is_some());
        assert_eq!(cloned_at("db3", &three), None);
        let made = member(DatabaseRole::Unknown, "creating replica", 0, "");
        assert_eq!(cloned_at("db3", &[primary(), made, stuck()]), None);
        let gone = member(DatabaseRole::Unknown, "no answer", 0, "");
        assert!(cloned_at("db3", &[primary(), gone, stuck()]).is_some());
    }

    #[test]
    fn one_that_did_not_follow_and_is_silent_now_is_being_cloned() {
        let gone = member(DatabaseRole::Unknown, "no answer", 0, "");
        let mut clones = Clones::default();
        let first = (0..600).find(|second| {
            let db2 = if *second < 125 { stuck() } else { gone.clone() };
            let all = site(&[primary(), db2, stuck()]);
            clones.step(at(*second), name("db3"), &all).is_some()
        });
        assert_eq!(first, Some(124 + 180));
    }

    #[test]
    fn one_that_does_not_start_is_cloned_after_a_longer_while() {
        let broken = member(DatabaseRole::Unknown, "start failed", 0, "");
        let mut all = site(&[primary(), broken.clone()]);
        let mut clones = Clones::default();
        let first = (0..600).find(|second| clones.step(at(*second), name("db2"), &all).is_some());
        assert_eq!(first, Some(300));
        let starting = ObservedDatabase {
            state: "starting".into(),
            ..broken
        };
        all.insert(name("db2"), starting);
        let mut clones = Clones::default();
        assert!((0..600).all(|second| clones.step(at(second), name("db2"), &all).is_none()));
    }

    #[test]
    fn a_clone_that_did_not_help_is_not_repeated_at_once() {
        let (mut clones, all) = (Clones::default(), site(&[primary(), stuck()]));
        let times: Vec<u64> = (0..800)
            .filter(|second| clones.step(at(*second), name("db2"), &all).is_some())
            .collect();
        assert_eq!(times, [120, 420, 720]);
    }

    #[test]
    fn what_was_set_aside_goes_once_the_site_has_been_whole_for_a_while() {
        let mut clones = Clones::default();
        let whole = site(&[primary(), follows()]);
        let first = (0..300)
            .find(|second| clones.step(at(*second), name("db2"), &whole) == Some(Action::Forget));
        assert_eq!(first, Some(60));
        let again = site(&[primary(), stuck()]);
        assert_eq!(clones.step(at(301), name("db2"), &again), None);
        assert_eq!(clones.step(at(302), name("db2"), &whole), None);
    }
}
