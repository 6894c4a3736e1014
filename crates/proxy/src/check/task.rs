//! The task that probes one member, and reports when it goes up or down.

use super::probe::{Finding, Probe};
use gaiola_core::health::{Health, Input, Output};
use gaiola_model::Time;
use std::cell::{Cell, RefCell};
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

/// What is known of a member.
pub(super) struct WatchState {
    /// The start of the clock that its health uses.
    pub(super) clock: Instant,
    pub(super) health: RefCell<Health>,
    pub(super) counts: Cell<HealthCounts>,
    /// How often it became unreachable.
    pub(super) losses: Cell<u64>,
    /// When it last went up or down, or was first seen.
    pub(super) changed_at: Cell<Instant>,
    /// When it last came up again.
    pub(super) up_since: Cell<Option<Instant>>,
    /// Whether its first probe has ended, or there is none to wait for.
    pub(super) proven: watch::Sender<bool>,
}

impl WatchState {
    /// The current time on its clock.
    pub(super) fn now(&self) -> Time {
        Time::from_start(self.clock.elapsed())
    }
}

/// Health counters of a member.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HealthCounts {
    /// How often it went down, by its checks or its traffic.
    pub(crate) downs: u64,
    /// How often its traffic got it ejected.
    pub(crate) ejections: u64,
    /// Checks that failed.
    pub(crate) checks_failed: u64,
}

/// A member's task.
pub(super) struct Watching {
    pub(super) name: String,
    pub(super) probe: Option<Probe>,
    pub(super) seen: Rc<WatchState>,
    pub(super) reports: mpsc::Receiver<Input>,
    pub(super) changed: Rc<Notify>,
}

type Asking = Pin<Box<dyn Future<Output = Finding>>>;

impl Watching {
    /// Probes whenever it is due. Never returns.
    pub(super) async fn run(mut self) {
        let mut asking: Option<Asking> = None;
        let mut outputs = Vec::new();
        loop {
            let deadline = deadline(self.until_deadline());
            let input = tokio::select! {
                input = self.reports.recv() => match input {
                    Some(input) => input,
                    None => return,
                },
                finding = answer(&mut asking) => {
                    asking = None;
                    match finding {
                        Ok(words) => Input::ProbePassed(words),
                        Err(trouble) => Input::ProbeFailed(trouble.symptom, trouble.words),
                    }
                }
                () = deadline => Input::Deadline,
            };
            let probed = matches!(input, Input::ProbePassed(_) | Input::ProbeFailed(..));
            self.step(input, &mut outputs);
            for output in outputs.drain(..) {
                match output {
                    Output::Probe => asking = self.ask(),
                    Output::Up(reason) => self.record(true, &reason),
                    Output::Down(reason) => self.record(false, &reason),
                    Output::Lost => self.lose(),
                }
            }
            if probed {
                self.seen.proven.send_replace(true);
            }
        }
    }

    /// Applies one event, and counts its consequences.
    fn step(&self, input: Input, outputs: &mut Vec<Output>) {
        let mut health = self.seen.health.borrow_mut();
        let mut counts = self.seen.counts.get();
        counts.checks_failed += u64::from(matches!(input, Input::ProbeFailed(..)));
        let was_ejected = health.is_ejected();
        health.step(self.now(), input, outputs);
        counts.ejections += u64::from(!was_ejected && health.is_ejected());
        self.seen.counts.set(counts);
    }

    fn now(&self) -> Time {
        self.seen.now()
    }

    fn until_deadline(&self) -> Option<Duration> {
        let deadline = self.seen.health.borrow().next_deadline();
        deadline.map(|at| at.saturating_since(self.now()))
    }

    fn ask(&self) -> Option<Asking> {
        let probe = self.probe.clone()?;
        Some(Box::pin(async move { probe.ask().await }))
    }

    /// Makes the workers close its connections.
    fn lose(&self) {
        tracing::warn!(
            server = self.name,
            "cannot connect: closing its idle connections"
        );
        self.seen.losses.set(self.seen.losses.get() + 1);
        self.changed.notify_one();
    }

    fn record(&self, up: bool, reason: &str) {
        self.seen.changed_at.set(Instant::now());
        if up {
            tracing::info!(server = self.name, reason, "up");
            let again = self.seen.counts.get().downs > 0;
            self.seen.up_since.set(again.then(Instant::now));
        } else {
            tracing::warn!(server = self.name, reason, "down");
            let mut counts = self.seen.counts.get();
            counts.downs += 1;
            self.seen.counts.set(counts);
        }
        self.changed.notify_one();
    }
}

async fn deadline(after: Option<Duration>) {
    match after {
        Some(wait) => tokio::time::sleep(wait).await,
        None => pending().await,
    }
}

/// The result of the running probe; never ready without one.
async fn answer(asking: &mut Option<Asking>) -> Finding {
    match asking {
        Some(asking) => asking.await,
        None => pending().await,
    }
}
