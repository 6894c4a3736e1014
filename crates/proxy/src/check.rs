//! Health checks, once per process: a task per member probes it when `core::health` says so, and reports the result.

mod probe;
mod task;

pub(super) use probe::{in_words, symptom};

use super::orders::{self, Member};
use super::tls::ServerSettings;
use gaiola_core::balance;
use gaiola_core::health::{Condition, Health, Input, Pace, Unproven};
use gaiola_model::Time;
use gaiola_model::proxy::{Admin, Check, CheckKind, Ejection, KnownCheck, KnownServer};
use probe::Probe;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
pub(super) use task::HealthCounts;
use task::{WatchState, Watching};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

/// Worker reports on one member that are queued; further ones are dropped.
const INPUTS_LEN: usize = 64;

/// A member that has answered a request within this time counts as answering.
const OF_LATE: Duration = Duration::from_secs(5);

/// A watched member. Dropping this ends its task.
pub(super) struct Watched {
    pub(super) member: Arc<Member>,
    check: Option<Check>,
    /// Whether the check itself speaks TLS.
    over_tls: bool,
    ejection: Ejection,
    /// Requests answered as of the last poll, and when the number last rose.
    answers: Cell<(u64, Option<Instant>)>,
    /// The state set by the operator.
    admin: Cell<Admin>,
    /// Its response times, for the backend to compare.
    pub(super) pace: RefCell<Pace>,
    inputs: mpsc::Sender<Input>,
    seen: Rc<WatchState>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    /// Starts watching a member. At first it has what was known from `before`, including the operator's state and its
    /// age: call [`Self::set_admin`] when it takes over. `changed` is notified when it goes up or down.
    pub(super) fn start(
        member: Arc<Member>,
        admin: Admin,
        (check, ejection): (Option<&Check>, Ejection),
        tls: Option<ServerSettings>,
        before: Before<'_>,
        changed: &Rc<Notify>,
    ) -> Self {
        let check = check.filter(|_| admin != Admin::Maint).cloned();
        let seen = Rc::new(before.state(check.as_ref(), ejection));
        let over_tls = tls.is_some();
        let probe = check.as_ref().map(|check| Probe::new(check, &member, tls));
        let (inputs, reports) = mpsc::channel(INPUTS_LEN);
        let watching = Watching {
            name: format!("{}/{}", member.backend, member.name),
            probe,
            seen: Rc::clone(&seen),
            reports,
            changed: Rc::clone(changed),
        };
        let task = tokio::task::spawn_local(watching.run()).abort_handle();
        Self {
            over_tls,
            answers: Cell::new((member.answers().0, before.answered())),
            member,
            check,
            ejection,
            admin: Cell::new(before.admin().unwrap_or(admin)),
            pace: RefCell::default(),
            inputs,
            seen,
            task,
        }
    }

    /// What another process should know of it.
    pub(super) fn known(&self) -> KnownServer {
        let ms = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        KnownServer {
            backend: self.member.backend.clone(),
            server: self.member.name.clone(),
            address: self.member.address.clone(),
            health: self.seen.health.borrow().known(self.seen.now()),
            changed_ms: ms(self.seen.changed_at.get()),
            up_ms: self.seen.up_since.get().map(ms),
            answered_ms: self.answers.get().1.map(ms),
        }
    }

    /// Whether a configuration with this check and `admin` leaves it unchanged. Checks over TLS re-read their
    /// certificates with each configuration.
    pub(super) fn stays_with(
        &self,
        admin: Admin,
        (check, ejection): (Option<&Check>, Ejection),
        tls: bool,
    ) -> bool {
        let check = check.filter(|_| admin != Admin::Maint);
        self.check.as_ref() == check
            && self.ejection == ejection
            && !((tls || self.over_tls) && check.is_some())
    }

    /// Sets the operator's state; a change restarts the time in that state.
    pub(super) fn set_admin(&self, admin: Admin) {
        if self.admin.replace(admin) != admin {
            self.seen.changed_at.set(Instant::now());
        }
    }

    /// Forwards a worker's report.
    pub(super) fn report(&self, input: Input) {
        // A full queue already has many of the same.
        let _ = self.inputs.try_send(input);
    }

    /// Waits until the first probe has ended.
    pub(super) async fn proven(&self) {
        // The sender lives as long as `self`.
        let _ = self
            .seen
            .proven
            .subscribe()
            .wait_for(|&proven| proven)
            .await;
    }

    /// Polls whether it has answered requests since the last poll.
    pub(super) fn poll_answers(&self) {
        let ((before, at), (count, _)) = (self.answers.get(), self.member.answers());
        let at = if count == before {
            at
        } else {
            Some(Instant::now())
        };
        self.answers.set((count, at));
    }

    /// Whether it has answered requests recently.
    pub(super) fn answers(&self) -> bool {
        let (_, at) = self.answers.get();
        at.is_some_and(|at| at.elapsed() <= OF_LATE)
    }

    /// Its health for the workers, without what is decided for the whole backend.
    pub(super) fn health(&self, slow_start: Option<Duration>) -> orders::Health {
        orders::Health {
            downs: self.counts().downs,
            losses: self.seen.losses.get(),
            share: self.share(slow_start).0,
            ..orders::Health::default()
        }
    }

    /// Its health counters.
    pub(super) fn counts(&self) -> HealthCounts {
        self.seen.counts.get()
    }

    /// Its current share of its weight, in sixteenths, and the time until that changes.
    pub(super) fn share(&self, slow_start: Option<Duration>) -> (u8, Option<Duration>) {
        match (slow_start, self.seen.up_since.get()) {
            (Some(whole), Some(since)) => balance::slow_start(since.elapsed(), whole),
            _ => (balance::WHOLE, None),
        }
    }

    /// Whether it takes traffic.
    pub(super) fn is_up(&self) -> bool {
        self.seen.health.borrow().is_up()
    }

    /// Time since it last went up or down, or the operator changed its state.
    pub(super) fn changed(&self) -> Duration {
        self.seen.changed_at.get().elapsed()
    }

    /// What is known of it.
    pub(super) fn condition(&self) -> Condition {
        self.seen.health.borrow().condition()
    }

    /// The last result, as text.
    pub(super) fn reason(&self) -> String {
        self.seen.health.borrow().reason().into()
    }
}

/// What is known of a member before it is watched.
#[derive(Clone, Copy)]
pub(super) enum Before<'a> {
    /// Nothing.
    Nothing,
    /// It was watched with other settings.
    Watched(&'a Watched),
    /// Another process watched it.
    Handed(&'a KnownServer),
}

impl Before<'_> {
    fn state(self, check: Option<&Check>, ejection: Ejection) -> WatchState {
        let clock = Instant::now();
        let unproven = self.unproven(check);
        let fresh = || Health::new(check.cloned(), ejection, unproven, Time::ZERO);
        let ago = |ms| clock.checked_sub(Duration::from_millis(ms));
        let new = WatchState {
            clock,
            health: RefCell::new(fresh()),
            counts: Cell::default(),
            losses: Cell::default(),
            changed_at: Cell::new(clock),
            up_since: Cell::default(),
            proven: watch::Sender::new(check.is_none()),
        };
        match self {
            Self::Nothing => new,
            Self::Watched(before) => WatchState {
                counts: Cell::new(before.counts()),
                losses: Cell::new(before.seen.losses.get()),
                changed_at: Cell::new(before.seen.changed_at.get()),
                up_since: Cell::new(before.seen.up_since.get()),
                proven: watch::Sender::new(true),
                ..new
            },
            Self::Handed(known) => {
                let health = &known.health;
                let unproven = matches!(health.checked, KnownCheck::Unproven) && check.is_some();
                let health = Health::resume(
                    check.cloned(),
                    ejection,
                    self.unproven(check),
                    health,
                    Time::ZERO,
                );
                WatchState {
                    health: RefCell::new(health),
                    changed_at: Cell::new(ago(known.changed_ms).unwrap_or(clock)),
                    up_since: Cell::new(known.up_ms.and_then(ago)),
                    proven: watch::Sender::new(!unproven),
                    ..new
                }
            }
        }
    }

    /// What it counts as until its first probe. A wrong role (a standby taken for the primary) would do harm.
    fn unproven(self, check: Option<&Check>) -> Unproven {
        let up = match (self, check) {
            (Self::Watched(before), _) => before.is_up(),
            (Self::Nothing | Self::Handed(_), Some(check)) => {
                !matches!(check.kind, CheckKind::Https { .. })
            }
            (Self::Nothing | Self::Handed(_), None) => true,
        };
        if up { Unproven::Up } else { Unproven::Down }
    }

    fn admin(self) -> Option<Admin> {
        match self {
            Self::Watched(before) => Some(before.admin.get()),
            Self::Nothing | Self::Handed(_) => None,
        }
    }

    /// When it was last seen to have answered a request; a member that is watched again starts anew.
    fn answered(self) -> Option<Instant> {
        match self {
            Self::Handed(known) => {
                let ago = Duration::from_millis(known.answered_ms?);
                Instant::now().checked_sub(ago)
            }
            Self::Nothing | Self::Watched(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::proxy::Server;

    #[tokio::test]
    async fn an_operators_state_begins_when_it_is_taken_over() {
        let tasks = tokio::task::LocalSet::new();
        let at = ([127, 0, 0, 1], 80);
        let member = Arc::new(Member::new("app", &Server::new("a", at), 1));
        let start = |admin, before: Before<'_>| {
            Watched::start(
                Arc::clone(&member),
                admin,
                (None, Ejection::default()),
                None,
                before,
                &Rc::default(),
            )
        };
        let both = async {
            let before = start(Admin::Ready, Before::Nothing);
            let since = before.seen.changed_at.get();
            let new = start(Admin::Drain, Before::Watched(&before));
            for watched in [&before, &new] {
                assert_eq!(watched.seen.changed_at.get(), since);
            }
            new.set_admin(Admin::Drain);
            assert!(new.seen.changed_at.get() > since);
            assert_eq!(before.seen.changed_at.get(), since);
        };
        tasks.run_until(both).await;
    }
}
