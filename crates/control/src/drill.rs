//! Drills: load the site, do the harm, watch the recovery, and report its cost.
//!
//! [`run`] is a whole drill; [`Load`] and [`Probe`] also measure a roll-out or a
//! `scale`. `core::drill` evaluates the figures.

mod calibrate;
mod client;
mod error;
mod load;
mod look_up;
mod plan;
mod probe;
mod run;
mod sql;
#[cfg(test)]
mod tests;
pub mod witness;

pub use error::{DrillError, NoPath, SqlError, WitnessError};
pub use load::{Acknowledged, Load};
pub use look_up::check_lost;
pub use plan::{Harm, HarmFuture, Limits, Plan, Sight};
pub use probe::Probe;
pub use run::run;
pub use sql::{Database, Query, Route};

use gaiola_core::drill::{Kind, Ledger, Sample};
use gaiola_model::Time;
use gaiola_model::config::Drill;
use rustls::ClientConfig;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::mpsc;

/// A drill's requests, and their addresses.
#[derive(Clone, Debug)]
pub struct Course {
    /// The site's address.
    pub door: SocketAddr,
    /// The file's `[drill]`.
    pub drill: Drill,
    /// VIPs that a client in another network probes separately.
    pub vips: Vec<IpAddr>,
    /// The request of a new connection.
    probed: Probed,
    /// Requests per second if the file has no rate.
    rate: u32,
    /// The only kind of load, instead of all kinds in the file.
    only: Option<Kind>,
    /// The `Host` of requests; `None`: the address.
    host: Option<String>,
    /// The address that connections come from; `None`: whichever the kernel takes.
    from: Option<IpAddr>,
    /// TLS, if the site uses it.
    tls: Option<Arc<ClientConfig>>,
}

/// A probe's request and its interval.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Probed {
    kind: Kind,
    path: String,
    every: Duration,
    /// Whether Gaiola's own proxies answer it, at no cost to the site.
    by_proxies: bool,
}

impl Course {
    /// The file's load; without `[drill]` only the page.
    pub fn new(door: SocketAddr, drill: Option<Drill>) -> Self {
        let drill = drill.unwrap_or_default();
        Self {
            door,
            probed: Probed {
                kind: Kind::Probe,
                path: drill.page.clone(),
                every: probe::EVERY,
                by_proxies: false,
            },
            drill,
            vips: Vec::new(),
            rate: RATE,
            only: None,
            host: None,
            from: None,
            tls: None,
        }
    }

    /// The same with probes of `path`. Paths that Gaiola's own proxies answer can be probed at any rate.
    pub fn probing(mut self, path: &str, by_proxies: bool) -> Self {
        self.probed.path = path.into();
        self.probed.by_proxies = by_proxies;
        self
    }

    /// The same for this name of the site.
    pub fn named(self, host: Option<&str>) -> Self {
        let host = host.map(Into::into);
        Self { host, ..self }
    }

    /// The same over TLS. Any certificate is accepted: the site is accessed by its address, which no certificate need contain.
    ///
    /// # Errors
    /// If TLS cannot be configured.
    pub fn over_tls(self) -> Result<Self, DrillError> {
        Ok(Self {
            tls: Some(gaiola_proxy::trusting().map_err(DrillError::Tls)?),
            ..self
        })
    }

    /// The kinds in use, each with the usual interval of its requests.
    pub fn paces(&self) -> Vec<(Kind, Duration)> {
        let kinds = self.kinds();
        let each = Duration::from_secs(1) * u32::try_from(kinds.len()).unwrap_or(1) / self.rate();
        let loaded = kinds.into_iter().map(|kind| (kind, each));
        let vips = self.vips.iter().map(|vip| (Kind::Vip(*vip), probe::EVERY));
        [(Kind::Probe, self.probed.every)]
            .into_iter()
            .chain(vips)
            .chain(loaded)
            .collect()
    }

    /// The kinds of the steady load, in turn.
    fn kinds(&self) -> Vec<Kind> {
        if let Some(only) = self.only {
            return vec![only];
        }
        let read = self.drill.read.as_ref().map(|_| Kind::Read);
        let write = self.drill.write.as_ref().map(|_| Kind::Write);
        [Some(Kind::Page), read, write]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Requests per second, within the range that can be measured well.
    fn rate(&self) -> u32 {
        self.drill.rate.unwrap_or(self.rate).clamp(1, 10_000)
    }
}

/// Requests per second if the file has no rate and the site is fast.
const RATE: u32 = 100;

/// The one ledger and clock that a drill's tasks share.
#[derive(Clone, Debug)]
pub struct Record {
    /// On the kernel's monotonic clock, which all processes of a machine share.
    started: Duration,
    ledger: Arc<Mutex<Ledger>>,
    /// Receives a report of each request.
    reported_to: Option<mpsc::Sender<witness::Line>>,
}

impl Default for Record {
    fn default() -> Self {
        Self::since(monotonic())
    }
}

/// The kernel's monotonic clock.
fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

impl Record {
    fn since(started: Duration) -> Self {
        Self {
            started,
            ledger: Arc::default(),
            reported_to: None,
        }
    }

    /// The time on this record's clock.
    pub fn now(&self) -> Time {
        Time::from_start(monotonic().saturating_sub(self.started))
    }

    /// The records so far. Hold it only briefly: every request waits for it.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("nothing panics while it is held")
    }

    fn take(&self, kind: Kind, sent: Time, resent: bool, outcome: &Result<(), impl Display>) {
        let done = self.now();
        let sample = Sample {
            kind,
            sent,
            done,
            ok: outcome.is_ok(),
            resent,
        };
        let why = outcome.as_ref().err().map(ToString::to_string);
        if let Some(reports) = &self.reported_to {
            // If the channel is full, its reader is stuck or gone, and the report is dropped.
            let _ = reports.try_send(witness::Line::ended(&sample, why.clone()));
        }
        self.ledger().took(sample, why.as_deref());
    }
}
