//! Ejects servers that respond more slowly than the others.

use super::{Supervisor, WatchedBackend};
use gaiola_core::health::{Condition, Input, LatencyTotals, MemberPoll, slow_members};
use gaiola_model::Time;
use gaiola_model::proxy::SlowEjection;
use std::time::Duration;

/// Poll interval.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Compares the servers' response times, and ejects slow ones. Never returns.
    pub(crate) async fn watch_latency(&self) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let now = Time::from_start(self.started.elapsed());
            for backend in self.backends.borrow().iter() {
                backend.poll_answers();
                if backend.has_silent() {
                    // One that answers requests may serve.
                    self.health_changed.notify_one();
                }
                if let Some(setting) = &backend.slow_ejection {
                    backend.eject_slow(setting, now);
                }
            }
        }
    }
}

impl WatchedBackend {
    fn poll_answers(&self) {
        let members = self.members.iter();
        members.for_each(|watched| watched.poll_answers());
    }

    fn has_silent(&self) -> bool {
        let mut members = self.members.iter();
        members.any(|watched| watched.condition() == Condition::Silent)
    }

    fn eject_slow(&self, setting: &SlowEjection, now: Time) {
        let mut paces: Vec<_> = self
            .members
            .iter()
            .map(|watched| watched.pace.borrow_mut())
            .collect();
        let pairs = paces.iter_mut().zip(&self.members);
        let mut members: Vec<_> = pairs
            .map(|(pace, watched)| {
                let (count, nanos) = watched.member.answers();
                MemberPoll {
                    pace,
                    answers: LatencyTotals { count, nanos },
                    up: watched.is_up(),
                }
            })
            .collect();
        for (index, reason) in slow_members(setting, now, &mut members) {
            self.members[index].report(Input::TooSlow(reason));
        }
    }
}
