//! Rate and concurrency limits for requests that share a key.
//!
//! Requests are counted in two windows of time, the current and the previous one. The count for the window that ends now is
//! the current window's plus the share of the previous one that still overlaps it. Only allowed requests count, so a client
//! that exceeds the rate still gets the rate.
//!
//! Memory is bounded: when the table is full the least recently seen key is evicted. Keys are hashes with a secret seed, so
//! that nobody can provoke a collision.
//!
//! The balancers of a cluster exchange their counts ([`Table::export`], [`Table::import`]); windows begin at the same time
//! everywhere, because time is counted from the Unix epoch.

pub use gaiola_model::proxy::Count;

use std::time::Duration;

/// No entry.
const NONE: u32 = 0;

/// How often the oldest entry is spared because requests of its key are in flight, before it is evicted anyway.
const PATIENCE: usize = 8;

/// Counts by key, for one limit.
///
/// ```
/// use gaiola_core::limit::Table;
/// use std::time::Duration;
///
/// let second = Duration::from_secs(1);
/// let mut table = Table::new(1000, second);
/// let now = 100 * second;
/// assert_eq!(table.hit(7, now, 2), Ok(()));
/// assert_eq!(table.hit(7, now, 2), Ok(()));
/// let again = table.hit(7, now, 2).unwrap_err();
/// assert_eq!(table.hit(8, now, 2), Ok(()));
/// assert_eq!(table.hit(7, now + again, 2), Ok(()));
/// ```
#[derive(Debug)]
pub struct Table {
    window_ms: u64,
    capacity: usize,
    /// An entry's number is its index here plus one.
    entries: Vec<Entry>,
    /// The first entry of each chain, by a part of the key.
    chains: Box<[u32]>,
    newest: u32,
    oldest: u32,
    /// Entries that may have counts to export, each once.
    unexported: Vec<u32>,
}

/// The state of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: u64,
    /// Number of the current window, since the epoch.
    window: u64,
    /// In the current window and the previous one: requests allowed here, how many of those were exported, and the
    /// counts imported from others.
    own: [u32; 2],
    exported: [u32; 2],
    others: [u32; 2],
    /// Whether it is in the table's `unexported`; it stays there if another key replaces it.
    listed: bool,
    /// Requests in flight.
    held: u32,
    /// The next in its chain, and its neighbours by age.
    chained: u32,
    newer: u32,
    older: u32,
}

impl Table {
    /// An empty table for `keys` keys; all the memory it will ever use is reserved now.
    pub fn new(keys: u32, window: Duration) -> Self {
        let capacity = keys.max(1) as usize;
        Self {
            window_ms: millis(window).max(1),
            capacity,
            entries: Vec::with_capacity(capacity),
            chains: vec![NONE; capacity.next_power_of_two()].into_boxed_slice(),
            newest: NONE,
            oldest: NONE,
            unexported: Vec::with_capacity(capacity),
        }
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        let unexported = self.unexported.capacity() * size_of::<u32>();
        self.entries.capacity() * size_of::<Entry>() + size_of_val(&*self.chains) + unexported
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Counts a request if fewer than `most` lie in the window that ends `now`, the time since the Unix epoch.
    ///
    /// # Errors
    /// How long until a request is allowed.
    pub fn hit(&mut self, key: u64, now: Duration, most: u32) -> Result<(), Duration> {
        let now = millis(now);
        let window_ms = self.window_ms;
        let entry = self.entry(key);
        entry.roll(now / window_ms);
        let elapsed = now.saturating_sub(entry.window * window_ms).min(window_ms);
        let wait_ms = entry.wait(most, elapsed, window_ms);
        if wait_ms > 0 {
            return Err(Duration::from_millis(wait_ms));
        }
        entry.own[0] += 1;
        if !std::mem::replace(&mut entry.listed, true) {
            self.unexported.push(self.newest);
        }
        Ok(())
    }

    /// Counts a request as in flight if fewer than `most` of its key are. Each must be released with [`Self::release`].
    pub fn hold(&mut self, key: u64, most: u32) -> bool {
        let entry = self.entry(key);
        let fits = entry.held < most;
        entry.held += u32::from(fits);
        fits
    }

    /// A request is no longer in flight. Ignored if its key was evicted meanwhile.
    pub fn release(&mut self, key: u64) {
        if let Some(number) = self.find(key) {
            let held = &mut self.at(number).held;
            *held = held.saturating_sub(1);
        }
    }

    /// Removes every key, and with it the requests in flight; the memory stays.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.unexported.clear();
        self.chains.fill(NONE);
        (self.newest, self.oldest) = (NONE, NONE);
    }

    /// Removes the counts of this key, local and imported; its requests in flight stay counted.
    pub fn clear_key(&mut self, key: u64) {
        let Some(number) = self.find(key) else { return };
        let entry = self.at(number);
        if entry.held > 0 {
            (entry.own, entry.exported, entry.others) = Default::default();
            return;
        }
        self.unexported.retain(|exported| *exported != number);
        self.unlink(number);
        self.unchain(number);
        self.fill(number);
    }

    /// Moves the last entry into the place of this one, which nothing refers to any more.
    fn fill(&mut self, number: u32) {
        let last =
            u32::try_from(self.entries.len()).expect("no more than the keys it was made for");
        if number != last {
            let moved = *self.at(last);
            *self.before(last) = number;
            match moved.newer {
                NONE => self.newest = number,
                newer => self.at(newer).older = number,
            }
            match moved.older {
                NONE => self.oldest = number,
                older => self.at(older).newer = number,
            }
            let mut unexported = self.unexported.iter_mut();
            unexported
                .find(|exported| **exported == last)
                .into_iter()
                .for_each(|exported| *exported = number);
            *self.at(number) = moved;
        }
        self.entries.pop();
    }

    /// Appends the counts that were not exported yet, and marks them as exported. Those of keys evicted since are lost.
    ///
    /// The cost is proportional to the number of keys counted since the last export.
    pub fn export(&mut self, out: &mut Vec<Count>) {
        for number in self.unexported.drain(..) {
            let entry = &mut self.entries[number as usize - 1];
            entry.listed = false;
            for (age, (own, exported)) in entry.own.iter().zip(&mut entry.exported).enumerate() {
                let more = own - *exported;
                *exported = *own;
                if let (true, Some(window)) = (more > 0, entry.window.checked_sub(age as u64)) {
                    out.push(Count {
                        key: entry.key,
                        window,
                        more,
                    });
                }
            }
        }
    }

    /// Appends all counts of the current window and the one before, whoever counted them, the least recently seen key first.
    pub fn counts(&self, now: Duration, out: &mut Vec<Count>) {
        let current = millis(now) / self.window_ms;
        let mut next = self.oldest;
        while next != NONE {
            let entry = &self.entries[next as usize - 1];
            next = entry.newer;
            for (age, (own, others)) in entry.own.iter().zip(&entry.others).enumerate() {
                let more = own.saturating_add(*others);
                match entry.window.checked_sub(age as u64) {
                    Some(window) if more > 0 && window + 1 >= current => out.push(Count {
                        key: entry.key,
                        window,
                        more,
                    }),
                    Some(_) | None => {}
                }
            }
        }
    }

    /// Adds the counts of another balancer. Counts of past windows are ignored; those of a window that has not begun
    /// here count in the current one.
    pub fn import(&mut self, counts: &[Count], now: Duration) {
        let window = millis(now) / self.window_ms;
        for count in counts {
            let age = window.saturating_sub(count.window);
            let Ok(age @ 0..=1) = usize::try_from(age) else {
                continue;
            };
            let entry = self.entry(count.key);
            entry.roll(window);
            let sum = &mut entry.others[age];
            *sum = sum.saturating_add(count.more);
        }
    }

    /// The key's entry, which becomes the newest; created if there is none.
    fn entry(&mut self, key: u64) -> &mut Entry {
        let number = match self.find(key) {
            Some(number) => {
                self.unlink(number);
                number
            }
            None => self.make(key),
        };
        let before = self.newest;
        self.at(number).older = before;
        self.at(number).newer = NONE;
        match before {
            NONE => self.oldest = number,
            _ => self.at(before).newer = number,
        }
        self.newest = number;
        self.at(number)
    }

    fn make(&mut self, key: u64) -> u32 {
        let number = if self.entries.len() < self.capacity {
            self.entries.push(Entry::default());
            u32::try_from(self.entries.len()).expect("no more than the keys it was made for")
        } else {
            self.forget_oldest()
        };
        let chain = self.chain(key);
        *self.at(number) = Entry {
            key,
            chained: self.chains[chain],
            listed: self.at(number).listed,
            ..Entry::default()
        };
        self.chains[chain] = number;
        number
    }

    /// Removes the oldest entry, preferring one without requests in flight.
    fn forget_oldest(&mut self) -> u32 {
        for _ in 0..PATIENCE {
            let oldest = self.entries[self.oldest as usize - 1];
            if oldest.held == 0 {
                break;
            }
            self.entry(oldest.key);
        }
        let number = self.oldest;
        self.unlink(number);
        self.unchain(number);
        number
    }

    /// Takes an entry out of its chain.
    fn unchain(&mut self, number: u32) {
        *self.before(number) = self.at(number).chained;
    }

    /// The link that points to an entry in its chain.
    fn before(&mut self, number: u32) -> &mut u32 {
        let chain = self.chain(self.entries[number as usize - 1].key);
        let mut before = self.chains[chain];
        if before == number {
            return &mut self.chains[chain];
        }
        while self.entries[before as usize - 1].chained != number {
            before = self.entries[before as usize - 1].chained;
        }
        &mut self.at(before).chained
    }

    fn unlink(&mut self, number: u32) {
        let Entry { newer, older, .. } = *self.at(number);
        match newer {
            NONE => self.newest = older,
            _ => self.at(newer).older = older,
        }
        match older {
            NONE => self.oldest = newer,
            _ => self.at(older).newer = newer,
        }
    }

    fn find(&self, key: u64) -> Option<u32> {
        let mut next = self.chains[self.chain(key)];
        while next != NONE {
            let entry = &self.entries[next as usize - 1];
            if entry.key == key {
                return Some(next);
            }
            next = entry.chained;
        }
        None
    }

    /// Which chain holds the key.
    fn chain(&self, key: u64) -> usize {
        // The low bits may already have selected a table.
        let high = usize::try_from(key >> 16).unwrap_or(usize::MAX);
        high & (self.chains.len() - 1)
    }

    fn at(&mut self, number: u32) -> &mut Entry {
        &mut self.entries[number as usize - 1]
    }
}

impl Entry {
    /// Advances to a later window. A clock that went back by less than a window changes nothing.
    fn roll(&mut self, window: u64) {
        match window.wrapping_sub(self.window) {
            0 | u64::MAX => return,
            1 => {
                for counts in [&mut self.own, &mut self.exported, &mut self.others] {
                    *counts = [0, counts[0]];
                }
            }
            _ => (self.own, self.exported, self.others) = Default::default(),
        }
        self.window = window;
    }

    /// Milliseconds until another request is allowed, `elapsed` after the window's beginning; 0: now.
    fn wait(&self, most: u32, elapsed: u64, window_ms: u64) -> u64 {
        let sum = |age: usize| u64::from(self.own[age]) + u64::from(self.others[age]);
        let (current, previous) = (sum(0), sum(1));
        let Some(spare) = u64::from(most).checked_sub(1) else {
            return window_ms;
        };
        // When the part of `count` that still overlaps the window has shrunk to `room`.
        let until = |count: u64, room: u64| {
            if count > room {
                let kept = u128::from(window_ms) * u128::from(room) / u128::from(count);
                window_ms - u64::try_from(kept).unwrap_or(window_ms)
            } else {
                0
            }
        };
        match spare.checked_sub(current) {
            Some(room) => until(previous, room).saturating_sub(elapsed),
            None => window_ms - elapsed + until(current, spare),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
