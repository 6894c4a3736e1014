//! The store's content as a watch has delivered it.

use crate::store::{Item, Key, Store, Value};
use gaiola_model::placement::BootNumber;
use gaiola_model::{Desired, Observed, Placement, Revision, ServerName, Time};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a watch has delivered so far.
#[derive(Default)]
pub(super) struct View {
    pub(super) desired: Option<Rc<Desired>>,
    pub(super) placement: Option<(Revision, Rc<Placement>)>,
    pub(super) conductor: Option<ServerName>,
    pub(super) over: BTreeMap<ServerName, BootNumber>,
    pub(super) observed: BTreeMap<ServerName, (Revision, Rc<Observed>)>,
    /// How much of the store's log that is; `None` before the first listing.
    read: Option<usize>,
}

impl View {
    /// Whether the store was listed.
    pub(super) fn is_listed(&self) -> bool {
        self.read.is_some()
    }

    /// Reads the store's log up to what it was at `until`: everything in order, or at first all that there is. `true`: this
    /// was the first listing.
    pub(super) fn watch(&mut self, store: &Store, until: Time) -> bool {
        let log = store.log();
        let read = self.read.unwrap_or(0);
        let new = log[read..].iter().take_while(|change| change.at <= until);
        let mut count = 0;
        for change in new {
            self.take(change.key, change.item.as_ref());
            count += 1;
        }
        self.read = Some(read + count);
        read == 0
    }

    fn take(&mut self, key: Key, item: Option<&Item>) {
        let at = item.map(|item| item.modified);
        match (key, item.map(|item| &item.value)) {
            (_, Some(Value::Desired(desired))) => self.desired = Some(Rc::clone(desired)),
            (_, Some(Value::Placement(placement))) => {
                self.placement = at.map(|at| (at, Rc::clone(placement)));
            }
            (_, Some(Value::Conductor(server))) => self.conductor = Some(*server),
            (Key::Over(server), Some(Value::Over(boot))) => drop(self.over.insert(server, *boot)),
            (Key::Observed(server), Some(Value::Observed(observed))) => {
                let at = at.unwrap_or_default();
                self.observed.insert(server, (at, Rc::clone(observed)));
            }
            (Key::Conductor, _) => self.conductor = None,
            (Key::Observed(server), _) => drop(self.observed.remove(&server)),
            (Key::Desired | Key::Placement | Key::Over(_), _) => {}
        }
    }

    /// The reports.
    pub(super) fn reports(&self) -> BTreeMap<ServerName, Observed> {
        let observed = self.observed.iter();
        observed
            .map(|(server, (_, seen))| (*server, (**seen).clone()))
            .collect()
    }
}
