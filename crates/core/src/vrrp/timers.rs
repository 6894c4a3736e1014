//! What is due while an address is held: advertisements, refreshes, announcements.

use super::REFRESH_INTERVAL;
use gaiola_model::Time;
use std::time::Duration;

/// Gaps between the gratuitous ARPs of a new holder: short at first, since one may be lost or overtaken by the former
/// holder's last answer; the last gap then repeats, for neighbours that missed all of them.
const ANNOUNCE_GAPS: [Duration; 6] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Most answers to lower holders between two of our own advertisements: enough for a few routers' last words, and a
/// limit on what a forger can make us send.
const MOST_ANSWERS: u8 = 8;

/// What is due while the address is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    /// In Yielding: when to repeat the release.
    pub(super) advertise_at: Time,
    pub(super) refresh_at: Time,
    pub(super) announce_at: Time,
    announced: usize,
    answers: u8,
}

impl Timers {
    pub(super) fn new(now: Time, interval: Duration) -> Self {
        Self {
            advertise_at: now + interval,
            refresh_at: now + REFRESH_INTERVAL,
            announce_at: now + ANNOUNCE_GAPS[0],
            announced: 0,
            answers: 0,
        }
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Time {
        self.advertise_at.min(self.refresh_at).min(self.announce_at)
    }

    pub(super) fn advertised(self, now: Time, interval: Duration) -> Self {
        Self {
            advertise_at: now + interval,
            answers: 0,
            ..self
        }
    }

    pub(super) fn announced(self, now: Time) -> Self {
        let announced = (self.announced + 1).min(ANNOUNCE_GAPS.len() - 1);
        Self {
            announce_at: now + ANNOUNCE_GAPS[announced],
            announced,
            ..self
        }
    }

    /// Another holder was answered: the VIP is announced as often as after a take-over.
    pub(super) fn answered(self, now: Time, interval: Duration) -> Self {
        Self {
            advertise_at: now + interval,
            answers: self.answers + 1,
            ..self.announced_anew(now)
        }
    }

    /// The VIP was announced, possibly after another holder's announcement.
    pub(super) fn announced_anew(self, now: Time) -> Self {
        Self {
            announce_at: now + ANNOUNCE_GAPS[0],
            announced: 0,
            ..self
        }
    }

    /// Whether another lower holder may be answered before our next advertisement.
    pub(super) fn may_answer(&self) -> bool {
        self.answers < MOST_ANSWERS
    }
}
