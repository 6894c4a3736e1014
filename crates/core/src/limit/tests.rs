use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};

const WINDOW: Duration = Duration::from_secs(10);

/// Somewhere within a window.
const START: Duration = Duration::from_millis(1_700_000_004_321);

fn admitted(table: &mut Table, times: impl Iterator<Item = Duration>, most: u32) -> Vec<Duration> {
    times
        .filter(|&now| table.hit(1, now, most).is_ok())
        .collect()
}

#[test]
fn a_hundred_thousand_keys_fit_sixteen_megabytes() {
    let mut table = Table::new(100_000, WINDOW);
    for key in 0..300_000u64 {
        table
            .hit(key.wrapping_mul(0x9e37_79b9_7f4a_7c15), START, 5)
            .unwrap();
        assert!(table.memory() < 16 * 1024 * 1024, "{}", table.memory());
    }
    assert_eq!(table.len(), 100_000);
}

#[test]
fn the_key_that_was_not_seen_for_longest_is_forgotten() {
    let mut table = Table::new(2, WINDOW);
    for key in [1, 2, 1, 3] {
        table.hit(key, START, 2).unwrap();
    }
    assert!(table.hit(1, START, 2).is_err());
    assert!(table.hit(2, START, 1).is_ok(), "it was forgotten");
}

#[test]
fn a_key_in_flight_outlives_others() {
    let mut table = Table::new(2, WINDOW);
    assert!(table.hold(1, 1));
    for key in 2..20 {
        assert!(table.hold(key, 1));
        table.release(key);
    }
    assert!(!table.hold(1, 1));
    table.release(1);
    assert!(table.hold(1, 1));
}

#[test]
fn a_clock_that_goes_back_locks_nobody_out() {
    let mut table = Table::new(10, WINDOW);
    table.hit(1, START + 1000 * WINDOW, 1).unwrap();
    assert!(table.hit(1, START, 1).is_ok());
    assert!(
        table.hit(1, START - WINDOW, 1).is_err(),
        "a little is not believed"
    );
}

#[test]
fn a_limit_of_nothing_allows_nothing() {
    assert!(Table::new(10, WINDOW).hit(1, START, 0).is_err());
}

#[test]
fn counts_of_others_count_here() {
    let (mut one, mut two) = (Table::new(10, WINDOW), Table::new(10, WINDOW));
    let mut exported = Vec::new();
    for _ in 0..3 {
        one.hit(1, START, 4).unwrap();
    }
    one.export(&mut exported);
    assert_eq!(
        exported.iter().map(|count| count.more).collect::<Vec<_>>(),
        [3]
    );
    two.import(&exported, START);
    assert!(two.hit(1, START, 4).is_ok());
    assert!(two.hit(1, START, 4).is_err());
    // What was exported is not exported again, and never what others exported.
    exported.clear();
    one.export(&mut exported);
    assert_eq!(exported, []);
    two.export(&mut exported);
    assert_eq!(
        exported.iter().map(|count| count.more).collect::<Vec<_>>(),
        [1]
    );
    // What was counted before a window's end is exported after it, for that window.
    let later = START + WINDOW;
    one.hit(1, START, 4).unwrap();
    assert!(one.hit(1, later, 4).is_ok());
    exported.clear();
    one.export(&mut exported);
    let windows: Vec<_> = exported
        .iter()
        .map(|count| (count.window, count.more))
        .collect();
    let this = millis(later) / millis(WINDOW);
    assert_eq!(windows, [(this, 1), (this - 1, 1)]);
    two.import(&exported, later);
    assert!(two.hit(1, later, 3).is_err());
    // Counts of long ago mean nothing.
    let mut three = Table::new(10, WINDOW);
    three.import(&exported, START + 5 * WINDOW);
    assert!(three.is_empty());
}

proptest! {
    /// However requests come: no more than the limit in a window of the clock, and never twice as much in any.
    #[test]
    fn no_window_has_more(gaps in prop::collection::vec(0u64..3000, 1..400), most in 1u32..20) {
        let mut now = START;
        let times = gaps.iter().map(|gap| { now += Duration::from_millis(*gap); now });
        let admitted = admitted(&mut Table::new(4, WINDOW), times, most);
        let mut within = VecDeque::new();
        let mut by_window = HashMap::<u64, u32>::new();
        for time in admitted {
            *by_window.entry(millis(time) / millis(WINDOW)).or_default() += 1;
            within.push_back(time);
            while within.front().is_some_and(|first| *first + WINDOW <= time) {
                within.pop_front();
            }
            prop_assert!(within.len() < 2 * most as usize + 1);
        }
        prop_assert!(by_window.values().all(|count| *count <= most));
    }

    /// Steady requests below the limit are never refused; of those above it about the limit is allowed.
    #[test]
    fn a_steady_rate_is_measured_well(most in 4u32..200, offset in 0u64..10_000) {
        let start = START + Duration::from_millis(offset);
        let times = |per_window: u32| (0..per_window * 10).map(move |n| start + WINDOW * n / per_window);
        // A window may hold one more, depending on where it begins.
        let below = most - 3;
        prop_assert_eq!(admitted(&mut Table::new(4, WINDOW), times(below), most).len(), below as usize * 10);
        let above = admitted(&mut Table::new(4, WINDOW), times(most * 5), most).len();
        let ideal = most as usize * 10;
        prop_assert!(above <= ideal + most as usize, "{} of {}", above, ideal);
        prop_assert!(above + most as usize + 20 >= ideal, "{} of {}", above, ideal);
    }

    /// A client that waits as long as requested is allowed; one that comes sooner is not.
    #[test]
    fn the_wait_is_exact(gaps in prop::collection::vec(0u64..2000, 1..100), most in 1u32..10) {
        let mut table = Table::new(4, WINDOW);
        let mut now = START;
        for gap in gaps {
            now += Duration::from_millis(gap);
            if let Err(wait) = table.hit(1, now, most) {
                prop_assert!(!wait.is_zero());
                let early = now + wait - Duration::from_millis(1);
                prop_assert!(table.hit(1, early, most).is_err());
                now += wait;
                prop_assert_eq!(table.hit(1, now, most), Ok(()));
            }
        }
    }

    /// With room for all keys each is counted as if it were alone; with less, those that were seen last are.
    #[test]
    fn keys_are_distinguished(keys in prop::collection::vec(0u64..12, 1..300), room in 1u32..12) {
        let mut table = Table::new(room, WINDOW);
        let mut recent: Vec<(u64, u32)> = Vec::new();
        for key in keys {
            let key = key << 13;
            let known = recent.iter().position(|(other, _)| *other == key);
            let mut counted = known.map_or((key, 0), |place| recent.remove(place));
            let allowed = counted.1 < 3;
            prop_assert_eq!(table.hit(key, START, 3).is_ok(), allowed);
            counted.1 += u32::from(allowed);
            recent.push(counted);
            if recent.len() > room as usize {
                recent.remove(0);
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Hit(u64),
    Heard(u64),
    Clear(Option<u64>),
    Wait(u64),
    Export,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        12 => (0u64..12).prop_map(Act::Hit),
        2 => (0u64..12).prop_map(Act::Heard),
        1 => prop::option::of(0u64..12).prop_map(Act::Clear),
        3 => (0u64..15_000).prop_map(Act::Wait),
        3 => Just(Act::Export),
    ];
    prop::collection::vec(act, 1..200)
}

/// What is not exported yet, by a search of every entry.
fn unreported(table: &Table) -> Vec<(u64, u64, u32)> {
    let counts = table.entries.iter().flat_map(|entry| {
        (0..2).map(move |age| {
            let more = entry.own[age] - entry.exported[age];
            (entry.key, entry.window - age as u64, more)
        })
    });
    let mut counts: Vec<_> = counts.filter(|(_, _, more)| *more > 0).collect();
    counts.sort_unstable();
    counts
}

proptest! {
    /// Every count is exported once, however little room there is, and never more than was allowed.
    #[test]
    fn all_that_changed_is_reported(acts in acts(), room in 1u32..16) {
        let mut table = Table::new(room, WINDOW);
        let mut now = START;
        let mut allowed = HashMap::<(u64, u64), u32>::new();
        let mut exported = HashMap::<(u64, u64), u32>::new();
        for act in acts.into_iter().chain([Act::Export]) {
            let window = millis(now) / millis(WINDOW);
            match act {
                Act::Hit(key) => {
                    if table.hit(key << 13, now, 5).is_ok() {
                        *allowed.entry((key << 13, window)).or_default() += 1;
                    }
                }
                Act::Heard(key) => {
                    table.import(&[Count { key: key << 13, window, more: 2 }], now);
                }
                Act::Clear(Some(key)) => table.clear_key(key << 13),
                Act::Clear(None) => table.clear(),
                Act::Wait(gap) => now += Duration::from_millis(gap),
                Act::Export => {
                    let expected = unreported(&table);
                    let mut counts = Vec::new();
                    table.export(&mut counts);
                    let mut counts: Vec<_> = counts.iter().map(|count| (count.key, count.window, count.more)).collect();
                    counts.sort_unstable();
                    prop_assert_eq!(&counts, &expected);
                    prop_assert_eq!(unreported(&table), []);
                    prop_assert!(table.unexported.is_empty());
                    for (key, window, more) in counts {
                        *exported.entry((key, window)).or_default() += more;
                    }
                }
            }
            prop_assert!(table.unexported.len() <= table.len());
            prop_assert_eq!(table.unexported.capacity(), room as usize);
        }
        for (key, count) in exported {
            prop_assert!(count <= allowed[&key]);
        }
    }

    /// With room for all keys, and exported at least once a window, nothing is missing in the end.
    #[test]
    fn nothing_is_lost(hits in prop::collection::vec((0u64..12, 0u64..10_000, any::<bool>()), 1..200)) {
        let mut table = Table::new(12, WINDOW);
        let mut now = START;
        let mut counts = Vec::new();
        let mut missing = HashMap::<(u64, u64), u32>::new();
        for (key, gap, exports) in hits {
            if exports || millis(now) / millis(WINDOW) != (millis(now) + gap) / millis(WINDOW) {
                table.export(&mut counts);
            }
            now += Duration::from_millis(gap);
            if table.hit(key, now, 5).is_ok() {
                *missing.entry((key, millis(now) / millis(WINDOW))).or_default() += 1;
            }
        }
        table.export(&mut counts);
        for count in counts {
            *missing.get_mut(&(count.key, count.window)).unwrap() -= count.more;
        }
        prop_assert!(missing.values().all(|count| *count == 0));
    }
}

#[test]
fn a_key_that_is_cleared_is_allowed_again_and_what_is_in_flight_is_not() {
    let mut table = Table::new(2, WINDOW);
    for key in [1, 2] {
        table.hit(key, START, 1).unwrap();
    }
    table.clear_key(1);
    table.clear_key(3);
    assert!(table.hit(1, START, 1).is_ok());
    assert!(table.hit(2, START, 1).is_err());
    assert!(table.hold(1, 1));
    table.clear_key(1);
    assert!(!table.hold(1, 1));
}

#[test]
fn a_table_that_is_cleared_is_as_a_new_one_in_the_same_memory() {
    let mut table = Table::new(4, WINDOW);
    let memory = table.memory();
    for _ in 0..3 {
        // More keys than there is room for, so that some were forgotten already.
        for key in (0..6).map(|key| key << 16) {
            table.hit(key, START, 1).unwrap();
        }
        table.clear();
        assert!(table.is_empty());
        let mut exported = Vec::new();
        table.export(&mut exported);
        assert_eq!(exported, []);
    }
    assert_eq!(table.memory(), memory);
}

#[test]
fn a_table_with_all_counts_of_another_goes_on_where_that_one_was() {
    let second = Duration::from_secs(1);
    let (mut old, mut new) = (Table::new(10, second), Table::new(10, second));
    let begin = 100 * second;
    for key in [1, 2, 1] {
        assert_eq!(old.hit(key, begin, 5), Ok(()));
    }
    let now = begin + second;
    assert_eq!(old.hit(1, now, 5), Ok(()));
    let others = Count {
        key: 2,
        window: 101,
        more: 4,
    };
    old.import(&[others], now);
    let mut counts = Vec::new();
    old.counts(now, &mut counts);
    new.import(&counts, now);
    for key in [1, 2] {
        let answers = |table: &mut Table| {
            let wait = table.hit(key, now, 5);
            (wait, table.hit(key, now + second / 2, 5))
        };
        assert_eq!(answers(&mut old), answers(&mut new), "{key}");
    }
    let mut exported = Vec::new();
    new.export(&mut exported);
    assert!(exported.iter().all(|count| count.more <= 2), "{exported:?}");
    let mut later = Vec::new();
    old.counts(now + 3 * second, &mut later);
    assert_eq!(later, []);
}
