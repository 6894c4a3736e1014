//! The inputs of a drill: the target, the limits, and the fault injector.

use super::witness::Witness;
use super::{Acknowledged, Course, DrillError, Record};
use gaiola_core::drill::{Contents, Target, Writes};
use gaiola_model::SiteName;
use std::pin::Pin;
use std::time::Duration;

/// What an implementation of [`Harm`] answers, sooner or later.
pub type HarmFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, DrillError>> + 'a>>;

/// Fault injection and observation: the command line implements it for a site's servers, a test for its own.
///
/// Each error is a sentence for the report: [`DrillError::harm`].
pub trait Harm {
    /// Does the harm. It returns once the order is carried out.
    fn harm<'a>(&'a self, target: &'a Target) -> HarmFuture<'a, ()>;

    /// `Ok` when it is certain that the harm was done: the process that ran before is gone, the server answers no
    /// more. Asked again until it is, or until [`Limits::confirm`].
    fn confirm<'a>(&'a self, target: &'a Target) -> HarmFuture<'a, ()>;

    /// Gives back what was taken away. There may be nothing to give back, and it may be called twice.
    fn put_back<'a>(&'a self, target: &'a Target) -> HarmFuture<'a, ()>;

    /// The site's status now.
    fn status(&self) -> HarmFuture<'_, Sight>;

    /// Starts clients where they see what the site's address does not show: each VIP, and the inside of a cut. They put what
    /// they see into the record.
    fn witnesses<'a>(
        &'a self,
        target: &'a Target,
        course: &'a Course,
        record: &'a Record,
    ) -> HarmFuture<'a, Vec<Witness>> {
        let _ = (target, course, record);
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Looks writes up that were made straight into the database, and removes what they were written to.
    fn look_up<'a>(&'a self, writes: &'a [Acknowledged]) -> HarmFuture<'a, Writes> {
        let _ = writes;
        Box::pin(async { Ok(Writes::default()) })
    }

    /// Compares what the members of the database hold, once the site is whole.
    fn contents(&self) -> HarmFuture<'_, Contents> {
        Box::pin(async { Ok(Contents::NotAsked) })
    }
}

/// The site's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Every desired instance ready, every VIP owned once, every standby streaming, the store with a quorum.
    pub healthy: bool,
    /// Whether it shows the harm: by being unhealthy, or by an event, such as a process that was restarted.
    pub noticed: bool,
    /// What is missing, for people; empty when healthy.
    pub missing: String,
}

/// What is rehearsed, and within which limits.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The site's name, for the report.
    pub site: SiteName,
    /// What is rehearsed.
    pub target: Target,
    /// How long a fault lasts that leaves the servers running.
    pub hold: Duration,
    /// How the site is loaded.
    pub course: Course,
    /// How long each step may take.
    pub limits: Limits,
}

/// How long each step of a drill may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until the site is healthy before anything begins. Default 30 s.
    pub ready: Duration,
    /// How long the load must run without one failure before the harm. Default 2 s.
    pub calm: Duration,
    /// Within how long such a time must be found. Default 20 s.
    pub calm_within: Duration,
    /// How long the order to do the harm may take: a server that is shut down in order takes its time. Default 60 s.
    pub order: Duration,
    /// Until the harm is confirmed. Default 5 s.
    pub confirm: Duration,
    /// How long the status is watched for a sign of a harm that was healed at once. Default 5 s.
    pub notice: Duration,
    /// How long everything must succeed to count as recovered. Default 1 s.
    pub settle: Duration,
    /// From the harm until the site has recovered and, where it heals itself, is whole. Default 90 s.
    pub heal: Duration,
    /// From putting back until the site is whole. Default 90 s.
    pub whole: Duration,
    /// Until every acknowledged write must be found. Default 30 s.
    pub look_up: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ready: Duration::from_secs(30),
            calm: Duration::from_secs(2),
            calm_within: Duration::from_secs(20),
            order: Duration::from_secs(60),
            confirm: Duration::from_secs(5),
            notice: Duration::from_secs(5),
            settle: Duration::from_secs(1),
            heal: Duration::from_secs(90),
            whole: Duration::from_secs(90),
            look_up: Duration::from_secs(30),
        }
    }
}
