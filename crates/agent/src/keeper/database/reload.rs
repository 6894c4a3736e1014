//! When Patroni is told to reload its configuration.
//!
//! A reload writes `postgresql.conf` anew, in place. A PostgreSQL that starts in that moment reads half a file: it listens on
//! another socket, without TLS, and Patroni waits for it for ever. So the reload waits until PostgreSQL answers.

use std::time::{Duration, Instant};

/// A PostgreSQL that does not start may need the very configuration that waits.
const LONGEST: Duration = Duration::from_secs(60);

/// A reload that was ordered and is not carried out yet.
#[derive(Debug, Default)]
pub(super) struct Reload {
    since: Option<Instant>,
}

impl Reload {
    /// The configuration has changed.
    pub(super) fn order(&mut self, now: Instant) {
        self.since = self.since.or(Some(now));
    }

    /// Whether to reload now; `answers`: PostgreSQL has answered since the order.
    pub(super) fn is_due(&mut self, now: Instant, answers: bool) -> bool {
        let Some(since) = self.since else {
            return false;
        };
        let is_due = answers || now - since >= LONGEST;
        if is_due {
            // One that does not answer yet is told again once it does.
            self.since = (!answers).then_some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_waits_until_postgresql_answers() {
        let now = Instant::now();
        let mut reload = Reload::default();
        assert!(!reload.is_due(now, true));
        reload.order(now);
        assert!(!reload.is_due(now + LONGEST / 2, false));
        assert!(reload.is_due(now + LONGEST / 2, true));
        assert!(!reload.is_due(now + LONGEST * 2, true));
    }

    #[test]
    fn one_that_does_not_start_is_told_now_and_then_and_once_when_it_answers() {
        let now = Instant::now();
        let mut reload = Reload::default();
        reload.order(now);
        assert!(reload.is_due(now + LONGEST, false));
        assert!(!reload.is_due(now + LONGEST, false));
        assert!(reload.is_due(now + LONGEST * 2, false));
        assert!(reload.is_due(now + LONGEST * 2, true));
        assert!(!reload.is_due(now + LONGEST * 4, false));
    }
}
