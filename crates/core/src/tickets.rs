//! Rotation of the keys that encrypt session tickets.

use gaiola_model::proxy::{SharedTickets, TicketKey};
use std::time::Duration;

/// How long the newest key encrypts, and how long a ticket may be used.
pub const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How many keys are accepted, the newest included.
const KEPT: usize = 3;

/// These keys, the newest first, with a new one in front and those that are not accepted any more removed.
pub fn rotated(keys: &[TicketKey], new: TicketKey) -> Vec<TicketKey> {
    let keys = std::iter::once(new).chain(keys.iter().cloned());
    keys.take(KEPT).collect()
}

/// These keys with a new one in front; `None` while the newest is young enough. `now` is in seconds since 1970.
pub fn renewed(
    held: Option<&SharedTickets>,
    now: u64,
    make: impl FnOnce() -> TicketKey,
) -> Option<SharedTickets> {
    // `abs_diff`, so that a clock set far back does not keep a key for years.
    if held.is_some_and(|held| held.made.abs_diff(now) < LIFETIME.as_secs()) {
        return None;
    }
    let before = held.map_or(&[][..], |held| &held.keys);
    Some(SharedTickets {
        keys: rotated(before, make()),
        made: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_seals_for_its_time_and_opens_for_longer() {
        let key = |byte| TicketKey([byte; 32]);
        let day = 24 * 3600;
        let one = renewed(None, day, || key(1)).unwrap();
        assert_eq!(one.keys, [key(1)]);
        let soon = day + LIFETIME.as_secs() - 1;
        assert_eq!(renewed(Some(&one), soon, || key(2)), None);
        let mut held = one;
        for number in 2..=4 {
            let now = u64::from(number) * day;
            held = renewed(Some(&held), now, || key(number)).unwrap();
        }
        assert_eq!(held.keys, [key(4), key(3), key(2)]);
        let before = renewed(Some(&held), day, || key(5)).unwrap();
        assert_eq!(before.keys[0], key(5));
    }
}
