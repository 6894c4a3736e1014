//! Rehearsed failures: loads the site, does the harm, watches it heal, and reports what it cost.
//!
//! [`run`] is the whole course; [`Load`] and [`Probe`] also serve whoever wants figures around a roll-out or a
//! `scale`. What the figures mean is decided in `core::drill`.

mod client;
mod load;
mod look_up;
mod plan;
mod probe;
mod run;
#[cfg(test)]
mod tests;

pub use load::{Acknowledged, Load};
pub use look_up::check_lost;
pub use plan::{Answer, Harm, Limits, Plan, Sight};
pub use probe::Probe;
pub use run::run;

use gaiola_core::drill::{Kind, Ledger};
use gaiola_model::Time;
use gaiola_model::config::Drill;
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What is asked, and where.
#[derive(Clone, Debug)]
pub struct Course {
    /// The address that the site is reached at: the front door.
    pub door: SocketAddr,
    /// `[drill]` of the file.
    pub drill: Drill,
    /// TLS, where the site speaks it.
    tls: Option<Arc<ClientConfig>>,
}

impl Course {
    /// As the file says; without a `[drill]`, the page alone.
    pub fn new(door: SocketAddr, drill: Option<Drill>) -> Self {
        let alone = || Drill {
            rate: 100,
            page: "/".into(),
            read: None,
            write: None,
        };
        Self {
            door,
            drill: drill.unwrap_or_else(alone),
            tls: None,
        }
    }

    /// The same over TLS. Whose the certificate is does not matter: it is the site's, which is asked by an address.
    ///
    /// # Errors
    /// Where the cryptography does not fit.
    pub fn over_tls(self) -> Result<Self, String> {
        Ok(Self {
            tls: Some(crate::worker::trusting()?),
            ..self
        })
    }

    /// The kinds in use, each with the usual distance of its requests.
    pub fn paces(&self) -> Vec<(Kind, Duration)> {
        let kinds = self.kinds();
        let each = Duration::from_secs(1) * u32::try_from(kinds.len()).unwrap_or(1) / self.rate();
        let loaded = kinds.into_iter().map(|kind| (kind, each));
        [(Kind::Probe, probe::EVERY)]
            .into_iter()
            .chain(loaded)
            .collect()
    }

    /// The kinds of the steady load, in turn.
    fn kinds(&self) -> Vec<Kind> {
        let read = self.drill.read.as_ref().map(|_| Kind::Read);
        let write = self.drill.write.as_ref().map(|_| Kind::Write);
        [Some(Kind::Page), read, write]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Requests a second, within what this measures well.
    fn rate(&self) -> u32 {
        self.drill.rate.clamp(1, 10_000)
    }
}

/// The one ledger and clock that a drill's tasks share.
#[derive(Clone, Debug)]
pub struct Record {
    started: Instant,
    ledger: Arc<Mutex<Ledger>>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            ledger: Arc::default(),
        }
    }
}

impl Record {
    /// The time on this record's clock.
    pub fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }

    /// What was recorded so far. Hold it for a moment only: every request waits for it.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("nothing panics while it is held")
    }

    fn take(&self, kind: Kind, sent: Time, resent: bool, outcome: &Result<(), String>) {
        let mut ledger = self.ledger();
        let done = self.now();
        match outcome {
            Ok(()) => ledger.succeeded(kind, sent, done, resent),
            Err(why) => ledger.failed(kind, sent, done, resent, why),
        }
    }
}
