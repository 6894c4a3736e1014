//! The inputs of a drill: the target, the limits, and the fault injector.

use super::witness::Witness;
use super::{Acknowledged, Course, DrillError, Record};
use gaiola_core::drill::{Contents, Target, Writes};
use gaiola_model::SiteName;
use std::pin::Pin;
use std::time::Duration;

/// A future of an implementation of [`Harm`].
pub type HarmFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, DrillError>> + 'a>>;

/// Fault injection and observation; the command line implements it for a site's servers, a test for its own site.
///
/// Each error is a sentence for the report: [`DrillError::harm`].
pub trait Harm {
    /// Does the harm. It returns once the order is carried out.
    fn harm<'a>(&'a self, target: &'a Target) -> HarmFuture<'a, ()>;

    /// `Ok` once it is certain that the harm was done: the process has exited, the server no longer answers.
    /// Called repeatedly until then, or until [`Limits::confirm`].
    fn confirm<'a>(&'a self, target: &'a Target) -> HarmFuture<'a, ()>;

    /// Undoes the harm. There may be nothing to undo, and it may be called twice.
    fn put_back<'a>(&'a self, target: &'a Target) -> HarmFuture<'a, ()>;

    /// How the harm is done and what else it hits, where the target does not say so: for the report.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// The site's status now.
    fn status(&self) -> HarmFuture<'_, Sight>;

    /// Starts witnesses, for what the site's address does not show: each VIP, and the inside of a cut. They write
    /// their results to the record.
    fn witnesses<'a>(
        &'a self,
        target: &'a Target,
        course: &'a Course,
        record: &'a Record,
    ) -> HarmFuture<'a, Vec<Witness>> {
        let _ = (target, course, record);
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Looks up writes that were made directly to the database, and removes their table.
    fn look_up<'a>(&'a self, writes: &'a [Acknowledged]) -> HarmFuture<'a, Writes> {
        let _ = writes;
        Box::pin(async { Ok(Writes::default()) })
    }

    /// Compares the contents of the database members, once the site is whole.
    fn contents(&self) -> HarmFuture<'_, Contents> {
        Box::pin(async { Ok(Contents::NotAsked) })
    }
}

/// The site's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Every desired instance ready, every VIP owned once, every standby streaming, the store with a quorum.
    pub healthy: bool,
    /// Whether it shows the harm: by being unhealthy, or by an event, such as a restarted process.
    pub noticed: bool,
    /// What is missing, for people; empty when healthy.
    pub missing: String,
}

/// A drill and its limits.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The site's name, for the report.
    pub site: SiteName,
    /// The target of the drill.
    pub target: Target,
    /// How long a fault lasts if it leaves the servers running.
    pub hold: Duration,
    /// The load on the site.
    pub course: Course,
    /// How long each step may take.
    pub limits: Limits,
}

/// How long each step of a drill may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long to wait for a healthy site before the drill. Default 30 s.
    pub ready: Duration,
    /// How long the load must run without a failure before the harm. Default 2 s.
    pub calm: Duration,
    /// How long to wait for such a period. Default 20 s.
    pub calm_within: Duration,
    /// How long the order to do the harm may take: a server's orderly stop takes time. Default 60 s.
    pub order: Duration,
    /// Until the harm is confirmed. Default 5 s.
    pub confirm: Duration,
    /// How long the status is watched for a sign of a harm that was repaired at once. Default 5 s.
    pub notice: Duration,
    /// How long everything must succeed to count as recovered. Default 1 s.
    pub settle: Duration,
    /// How long after the harm the site may take to recover and, if it heals itself, to be whole. Default 90 s.
    pub heal: Duration,
    /// How long the site may take to be whole after the harm was undone. Default 90 s.
    pub whole: Duration,
    /// How long acknowledged writes may take to be found. Default 30 s.
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
