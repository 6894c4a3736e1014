//! `gaiola keeper database`: parent of the PID namespace in which a server's Patroni and PostgreSQL run.
//!
//! Patroni and PostgreSQL live and die together. When Patroni exits by itself, or this keeper is killed, the kernel ends
//! every process of the namespace at once, so that no PostgreSQL keeps running as an unsupervised primary; then everything
//! is restarted. All of the keeper's files are in the server's run directory:
//!
//! - `database.json`: [`KeeperDatabase`], written by the agent. Without the file the keeper waits; if it disappears or
//!   cannot be read, the last order stays in force.
//! - `database-keeper.json`: [`KeeperReport`], written on every change.

mod aside;
mod ghost;
mod logs;
mod psql;
mod query;
mod reload;
mod running;
mod settle;
mod start;
mod watch;

use crate::engine::{EngineState, KeeperDatabase, KeeperReport, TargetState};
use gaiola_model::schema::SCHEMA;
use running::{End, Running};
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, io};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// Poll interval for the order.
const TICK: Duration = Duration::from_millis(250);
/// Timeout of PostgreSQL's clean shutdown; then it is killed, which costs a recovery and loses nothing.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Initial restart delay of Patroni, doubled with each exit until it has lived for [`STEADY`].
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
const STEADY: Duration = Duration::from_secs(30);

/// How the keeper is started.
#[derive(Clone, Debug)]
pub struct DatabaseArgs {
    /// The server's run directory, where its files are.
    pub directory: PathBuf,
}

/// The keeper could not start.
#[derive(Debug, thiserror::Error)]
#[error("the database keeper cannot {tried}")]
pub struct KeeperError {
    tried: &'static str,
    source: io::Error,
}

/// Follows the order until SIGTERM or SIGINT, then shuts Patroni and PostgreSQL down and returns.
///
/// It makes a runtime of its own on this thread, which must be the process's last.
pub fn run(args: &DatabaseArgs) -> Result<(), KeeperError> {
    let failed = |tried| move |source| KeeperError { tried, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("make a runtime"))?;
    runtime.block_on(async {
        let listen = |kind| signal(kind).map_err(failed("listen for signals"));
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut keeper = Keeper::new(args.directory.clone());
        tokio::select! {
            never = keeper.attend() => match never {},
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        keeper.stop().await;
        Ok(())
    })
}

struct Keeper {
    directory: PathBuf,
    order: Option<KeeperDatabase>,
    running: Option<Running>,
    /// Exits in a row before Patroni had lived for [`STEADY`].
    short_lives: u32,
    /// Earliest time of the next start.
    start_at: Instant,
    restarts: u32,
    last_end: Option<String>,
    /// The [`KeeperDatabase::clones`] that was carried out; `None`: what an earlier keeper did is unknown.
    clones: Option<u64>,
    reported: Option<KeeperReport>,
}

impl Keeper {
    fn new(directory: PathBuf) -> Self {
        let earlier = KeeperReport::read(&directory);
        Self {
            clones: earlier.map_or(None, |report| {
                Some(report.map_or(0, |report| report.clones))
            }),
            directory,
            order: None,
            running: None,
            short_lives: 0,
            start_at: Instant::now(),
            restarts: 0,
            last_end: None,
            reported: None,
        }
    }

    /// May be dropped at any await: what runs stays in `self.running`.
    async fn attend(&mut self) -> Infallible {
        loop {
            self.take_order();
            self.set_aside().await;
            match (
                self.order.as_ref().map(|order| order.wanted),
                &mut self.running,
            ) {
                (Some(TargetState::Run), None) => self.start().await,
                (Some(TargetState::Stop), _) => self.stop().await,
                (Some(TargetState::Run), Some(_)) | (None, _) => {}
            }
            match &mut self.running {
                Some(running) => {
                    if let Some(end) = running.attend(TICK).await {
                        self.ended(end);
                    }
                }
                None => sleep(TICK).await,
            }
        }
    }

    fn take_order(&mut self) {
        let order = match KeeperDatabase::read(&self.directory) {
            Ok(Some(order)) => order,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot read the order; the previous one stays in force");
                return;
            }
        };
        let held = self.order.as_ref().map_or(0, |held| held.generation);
        if order.generation <= held {
            return;
        }
        tracing::info!(generation = order.generation, wanted = ?order.wanted, "took an order");
        if let (TargetState::Run, Some(running)) = (order.wanted, &mut self.running) {
            running.reload(&order);
        }
        let was_running = self.running.is_some();
        self.order = Some(order);
        self.short_lives = 0;
        self.start_at = Instant::now();
        if was_running {
            self.report(EngineState::Running);
        }
    }

    /// Sets the data directory aside if ordered, once. Patroni then clones the primary.
    ///
    /// The order may be stale by now: it is carried out only while this is a standby and another server leads. A failure is not
    /// retried: Patroni starts with the data as it is.
    async fn set_aside(&mut self) {
        let Some(order) = self.order.clone() else {
            return;
        };
        let done = *self.clones.get_or_insert(order.clones);
        if order.clones <= done || order.wanted != TargetState::Run {
            return;
        }
        self.clones = Some(order.clones);
        if watch::follows_another(&order).await {
            tracing::warn!(data = %order.data.display(), "setting the data directory aside; the primary will be cloned");
            self.stop().await;
            if let Err(error) = aside::set_aside(order.data.clone(), order.aside()).await {
                tracing::error!(%error, "cannot set the data directory aside");
            }
            self.start_at = Instant::now();
            self.report(EngineState::Stopped);
        } else {
            tracing::warn!("the data directory stays: this is no standby of another leader now");
        }
    }

    async fn start(&mut self) {
        let Some(order) = self.order.clone() else {
            return;
        };
        if Instant::now() < self.start_at {
            return;
        }
        match start::start(&order).await {
            Ok(running) => {
                self.running = Some(running);
                self.report(EngineState::Running);
            }
            Err(error) => self.back_off(error.to_string()),
        }
    }

    /// Every process of the namespace has ended.
    fn ended(&mut self, end: End) {
        self.running = None;
        self.restarts += 1;
        self.last_end = Some(end.reason.clone());
        if end.lived >= STEADY {
            self.short_lives = 0;
        }
        self.back_off(end.reason);
    }

    fn back_off(&mut self, reason: String) {
        let factor = 1u32.checked_shl(self.short_lives).unwrap_or(u32::MAX);
        let delay = FIRST_DELAY.saturating_mul(factor).min(LONGEST_DELAY);
        self.short_lives += 1;
        self.start_at = Instant::now() + delay;
        tracing::warn!(
            reason,
            ?delay,
            "Patroni and PostgreSQL have ended; restarting them after the delay"
        );
        self.report(EngineState::Failed(reason));
    }

    /// Shuts down cleanly, within a limit.
    async fn stop(&mut self) {
        if let Some(running) = &mut self.running {
            running.terminate();
            self.report(EngineState::Stopping);
        }
        if let Some(running) = &mut self.running {
            if running.ended(STOP_LIMIT).await.is_none() {
                tracing::warn!(limit = ?STOP_LIMIT, "PostgreSQL did not shut down; killing it");
            }
            // Dropping it kills what is left.
            self.running = None;
        }
        self.report(EngineState::Stopped);
    }

    fn report(&mut self, state: EngineState) {
        let generation = self.order.as_ref().map_or(0, |order| order.generation);
        let schema = self.order.as_ref().map_or(SCHEMA, |order| order.schema);
        let report = KeeperReport {
            schema,
            reads: SCHEMA,
            generation,
            state,
            restarts: self.restarts,
            last_end: self.last_end.clone(),
            clones: self.clones.unwrap_or(0),
        };
        if self.reported.as_ref() == Some(&report) {
            return;
        }
        match self.write(&report) {
            Ok(()) => self.reported = Some(report),
            Err(error) => tracing::warn!(%error, "cannot write the report"),
        }
    }

    fn write(&self, report: &KeeperReport) -> io::Result<()> {
        let path = self.directory.join(KeeperReport::FILE);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(report)?)?;
        fs::rename(&fresh, &path)
    }
}
