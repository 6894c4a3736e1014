//! Places for what takes long, of which each machine gets a part only.

use gaiola_model::inventory::Host;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Places, up to a limit.
#[derive(Clone)]
pub(super) struct Shares {
    /// The most of all machines, and of one.
    most: (usize, usize),
    taken: Arc<Mutex<BTreeMap<Host, usize>>>,
}

/// A place, until it is dropped.
pub(super) struct Share {
    host: Host,
    taken: Arc<Mutex<BTreeMap<Host, usize>>>,
}

impl Shares {
    /// At most so many, and so many of one machine.
    pub(super) fn new(most: usize, each: usize) -> Self {
        Self {
            most: (most, each),
            taken: Arc::default(),
        }
    }

    /// A place for a machine; `None`: there is none now.
    pub(super) fn take(&self, host: &Host) -> Option<Share> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(host).copied().unwrap_or(0);
        if own >= self.most.1 || taken.values().sum::<usize>() >= self.most.0 {
            return None;
        }
        taken.insert(host.clone(), own + 1);
        Some(Share {
            host: host.clone(),
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.host) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = taken.remove(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_gets_its_part_and_leaves_places_to_others() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Host(name.into()));
        let shares = Shares::new(3, 2);
        let first = shares.take(&a);
        let second = shares.take(&a);
        assert!(first.is_some() && second.is_some());
        assert!(shares.take(&a).is_none());
        let theirs = shares.take(&b);
        assert!(theirs.is_some() && shares.take(&c).is_none());
        drop(first);
        assert!(shares.take(&c).is_some());
        assert!(shares.take(&a).is_some());
    }
}
