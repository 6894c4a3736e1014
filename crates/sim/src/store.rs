//! The store as a site uses it, after etcd: revisions, leases, transactions, and a log that watches read.

use gaiola_model::placement::BootNumber;
use gaiola_model::{Desired, Observed, Placement, Revision, ServerName, Time};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Lifetime of a lease that is not renewed.
pub const TTL: Duration = Duration::from_secs(5);

/// A key of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// What the operator wants.
    Desired,
    /// The conductor's decision.
    Placement,
    /// The conductor.
    Conductor,
    /// The last boot of a server that is over.
    Over(ServerName),
    /// A server's report.
    Observed(ServerName),
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Key::Desired`].
    Desired(Rc<Desired>),
    /// Of [`Key::Placement`].
    Placement(Rc<Placement>),
    /// Of [`Key::Conductor`].
    Conductor(ServerName),
    /// Of [`Key::Over`].
    Over(BootNumber),
    /// Of [`Key::Observed`].
    Observed(Rc<Observed>),
}

/// The number of a lease.
pub type LeaseId = u64;

/// A key's value and its revisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The value.
    pub value: Value,
    /// The revision that created the key.
    pub created: Revision,
    /// The last revision that changed it.
    pub modified: Revision,
    /// It is deleted when this lease ends.
    pub lease: Option<LeaseId>,
}

/// What a write requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Anything,
    /// The key does not exist.
    Absent,
    /// The key was last changed at this revision.
    At(Revision),
}

/// A write: a transaction of one put.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What it must be before.
    pub expected: Expected,
    /// The conductor's key must have been created at this revision.
    pub within: Option<Revision>,
    /// The store must hold no report of these servers.
    pub silent: Vec<ServerName>,
    /// The new value.
    pub value: Value,
    /// The lease that the key depends on.
    pub lease: Option<LeaseId>,
}

/// Why a write was rejected.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// The key is not as expected; it holds this.
    CompareAndSwap(Option<Item>),
    /// The term is over.
    Fenced,
    /// A server that must be silent reports.
    Reports(ServerName),
    /// There is no such lease.
    LeaseExpired,
}

/// One entry of the log: a key that was put, or deleted (`None`).
#[derive(Clone, Debug)]
pub struct Change {
    /// When.
    pub at: Time,
    /// The key.
    pub key: Key,
    /// What it holds since.
    pub item: Option<Item>,
}

/// The store's content.
#[derive(Debug, Default)]
pub struct Store {
    revision: u64,
    items: BTreeMap<Key, Item>,
    /// Each lease and when it ends.
    leases: BTreeMap<LeaseId, Time>,
    granted: LeaseId,
    log: Vec<Change>,
}

impl Store {
    /// What a key holds.
    pub fn get(&self, key: Key) -> Option<&Item> {
        self.items.get(&key)
    }

    /// Everything.
    pub fn items(&self) -> impl Iterator<Item = (&Key, &Item)> {
        self.items.iter()
    }

    /// Every change so far, in order.
    pub fn log(&self) -> &[Change] {
        &self.log
    }

    /// Carries out a write, or rejects it; returns its revision.
    ///
    /// # Errors
    ///
    /// Why it was rejected; nothing is changed then.
    pub fn write(&mut self, now: Time, write: &Write) -> Result<Revision, Refused> {
        let held = self.items.get(&write.key);
        let conductor = self.items.get(&Key::Conductor);
        let stands = |term: Revision| conductor.is_some_and(|held| held.created == term);
        if write.within.is_some_and(|term| !stands(term)) {
            return Err(Refused::Fenced);
        }
        let is_as_expected = match write.expected {
            Expected::Anything => true,
            Expected::Absent => held.is_none(),
            Expected::At(at) => held.is_some_and(|item| item.modified == at),
        };
        if !is_as_expected {
            return Err(Refused::CompareAndSwap(held.cloned()));
        }
        let reports = |server: &&ServerName| self.items.contains_key(&Key::Observed(**server));
        if let Some(server) = write.silent.iter().find(reports) {
            return Err(Refused::Reports(*server));
        }
        if write.lease.is_some_and(|id| !self.leases.contains_key(&id)) {
            return Err(Refused::LeaseExpired);
        }
        self.revision += 1;
        let modified = Revision(self.revision);
        let item = Item {
            value: write.value.clone(),
            created: held.map_or(modified, |item| item.created),
            modified,
            lease: write.lease,
        };
        self.set(now, write.key, Some(item));
        Ok(modified)
    }

    /// A new lease.
    pub fn grant(&mut self, now: Time) -> LeaseId {
        self.granted += 1;
        self.leases.insert(self.granted, now + TTL);
        self.granted
    }

    /// Renews a lease; `false`: it has ended.
    pub fn keep_alive(&mut self, now: Time, lease: LeaseId) -> bool {
        let held = self.leases.get_mut(&lease);
        held.map(|ends| *ends = now + TTL).is_some()
    }

    /// An election of the store's leader extends every lease.
    pub fn extend_leases(&mut self, now: Time) {
        self.leases.values_mut().for_each(|ends| *ends = now + TTL);
    }

    /// Ends the leases whose time is over, and deletes their keys.
    pub fn expire(&mut self, now: Time) {
        let ended = self.leases.iter().filter(|(_, ends)| **ends <= now);
        let ended: Vec<LeaseId> = ended.map(|(lease, _)| *lease).collect();
        for lease in ended {
            self.leases.remove(&lease);
            let depends = |item: &Item| item.lease == Some(lease);
            let keys = self.items.iter().filter(|(_, item)| depends(item));
            let keys: Vec<Key> = keys.map(|(key, _)| *key).collect();
            self.revision += u64::from(!keys.is_empty());
            keys.into_iter().for_each(|key| self.set(now, key, None));
        }
    }

    fn set(&mut self, at: Time, key: Key, item: Option<Item>) {
        match item.clone() {
            Some(item) => self.items.insert(key, item),
            None => self.items.remove(&key),
        };
        self.log.push(Change { at, key, item });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> ServerName {
        name.parse().unwrap()
    }

    fn campaign(name: &str, lease: LeaseId) -> Write {
        Write {
            key: Key::Conductor,
            expected: Expected::Absent,
            within: None,
            silent: Vec::new(),
            value: Value::Conductor(server(name)),
            lease: Some(lease),
        }
    }

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn a_conductor_whose_lease_ended_writes_nothing_more() {
        let mut store = Store::default();
        let [first, second] = [0, 1].map(|_| store.grant(at(0)));
        let term = store.write(at(0), &campaign("app1", first)).unwrap();
        let late = store.write(at(1), &campaign("app2", second));
        assert!(matches!(late, Err(Refused::CompareAndSwap(Some(_)))));
        let over = |term| Write {
            key: Key::Over(server("app3")),
            expected: Expected::Anything,
            within: Some(term),
            silent: Vec::new(),
            value: Value::Over(BootNumber(1)),
            lease: None,
        };
        assert!(store.write(at(1), &over(term)).is_ok());
        assert!(store.keep_alive(at(4), second));
        store.expire(at(5));
        assert_eq!(store.write(at(5), &over(term)), Err(Refused::Fenced));
        let next = store.write(at(5), &campaign("app2", second)).unwrap();
        assert!(next > term);
        assert_eq!(store.write(at(5), &over(term)), Err(Refused::Fenced));
        assert!(store.write(at(5), &over(next)).is_ok());
        let expired = store.write(at(6), &campaign("app1", first));
        assert!(matches!(expired, Err(Refused::CompareAndSwap(_))));
        assert!(!store.keep_alive(at(6), first));
    }

    #[test]
    fn a_write_is_compared_with_what_the_key_holds() {
        let mut store = Store::default();
        let write = |expected| Write {
            key: Key::Over(server("app1")),
            expected,
            within: None,
            silent: Vec::new(),
            value: Value::Over(BootNumber(1)),
            lease: None,
        };
        let first = store.write(at(0), &write(Expected::Absent)).unwrap();
        let second = store.write(at(0), &write(Expected::At(first))).unwrap();
        let stale = store.write(at(0), &write(Expected::At(first)));
        let Err(Refused::CompareAndSwap(Some(held))) = stale else {
            panic!("{stale:?}");
        };
        assert_eq!((held.created, held.modified), (first, second));
        assert_eq!(store.log().len(), 2);
    }
}
