//! One agent's session with the store, like `agent::session` and `agent::conductor`: what it sees by its watch, its lease, its
//! report, and its terms as the conductor.

use super::network::{Call, Purpose, Reply, Request};
use crate::store::{Expected, Item, Key, LeaseId, Refused, Store, TTL, Value, Write};
use gaiola_core::conduct::{Conductor, Seen, should_campaign};
use gaiola_model::placement::BootNumber;
use gaiola_model::{Desired, Observed, Placement, Revision, ServerName, Time};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Interval between two attempts to get a lease, and to become the conductor.
const RETRY: Duration = Duration::from_millis(500);
/// Interval between two checks that the store answers.
const POLL: Duration = Duration::from_secs(2);

/// The store's content as a watch has delivered it.
#[derive(Default)]
pub(super) struct View {
    pub(super) desired: Option<Rc<Desired>>,
    pub(super) placement: Option<(Revision, Rc<Placement>)>,
    pub(super) conductor: Option<ServerName>,
    pub(super) over: BTreeMap<ServerName, BootNumber>,
    pub(super) observed: BTreeMap<ServerName, (Revision, Rc<Observed>)>,
}

impl View {
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
}

/// Its part in deciding what spans servers.
pub(super) enum Office {
    /// It may campaign from this time on.
    None { from: Time },
    /// It conducts since this revision.
    Term {
        created: Revision,
        conductor: Box<Conductor>,
        /// When the store's members are looked at next.
        members_at: Time,
    },
}

/// The session of one agent's process.
pub(super) struct Session {
    pub(super) server: ServerName,
    pub(super) view: View,
    /// How much of the store's log the watch has delivered; `None` before its first listing.
    read: Option<usize>,
    /// Whether the store has answered lately.
    is_current: bool,
    polled: Time,
    /// Its lease, and when the last renewal that succeeded was asked for.
    lease: Option<(LeaseId, Time)>,
    renewed: Time,
    retry_at: Time,
    /// The report that was written last, or is being written.
    reported: Option<Rc<Observed>>,
    pub(super) office: Office,
    pub(super) calls: Vec<Call>,
}

impl Session {
    pub(super) fn new(server: ServerName, now: Time) -> Self {
        Self {
            server,
            view: View::default(),
            read: None,
            is_current: false,
            polled: now,
            lease: None,
            renewed: now,
            retry_at: now,
            reported: None,
            office: Office::None { from: now },
            calls: Vec::new(),
        }
    }

    /// Reads the store's log up to what it was at `until`: everything in order, or at first all that there is.
    pub(super) fn watch(&mut self, store: &Store, until: Time) {
        let log = store.log();
        let read = *self.read.get_or_insert(0);
        let new = log[read..].iter().take_while(|change| change.at <= until);
        let mut count = 0;
        for change in new {
            self.view.take(change.key, change.item.as_ref());
            count += 1;
        }
        self.read = Some(read + count);
        self.is_current |= read == 0;
    }

    /// What it asks next, one call at a time for each purpose.
    pub(super) fn next_calls(&mut self, now: Time, observed: Option<Observed>) -> Vec<(Purpose, Request)> {
        let mut calls = Vec::new();
        if now - self.polled >= POLL && !self.waits_for(Purpose::Poll) {
            self.polled = now;
            calls.push((Purpose::Poll, Request::Ask));
        }
        if self.lease.is_some_and(|(_, renewed)| now - renewed >= TTL) {
            self.end(now);
        }
        let Some((lease, _)) = self.lease else {
            if now >= self.retry_at && !self.waits_for(Purpose::Lease) {
                calls.push((Purpose::Lease, Request::Grant));
            }
            return calls;
        };
        if now - self.renewed >= TTL / 4 && !self.waits_for(Purpose::Renewal) {
            self.renewed = now;
            calls.push((Purpose::Renewal, Request::KeepAlive(lease)));
        }
        calls.extend(self.report(lease, observed));
        calls.extend(self.campaign(now, lease));
        calls
    }

    fn report(&mut self, lease: LeaseId, observed: Option<Observed>) -> Option<(Purpose, Request)> {
        let observed = Rc::new(observed?);
        if self.waits_for(Purpose::Report) || self.reported.as_ref() == Some(&observed) {
            return None;
        }
        self.reported = Some(Rc::clone(&observed));
        let write = Write {
            key: Key::Observed(self.server),
            expected: Expected::Anything,
            within: None,
            value: Value::Observed(observed),
            lease: Some(lease),
        };
        Some((Purpose::Report, Request::Write(write)))
    }

    fn campaign(&self, now: Time, lease: LeaseId) -> Option<(Purpose, Request)> {
        let Office::None { from } = self.office else {
            return None;
        };
        let conductor = self.view.conductor.map(|server| server.to_string());
        let own = self.server.to_string();
        let should = self.read.is_some() && should_campaign(conductor.as_deref(), &own);
        if !should || now < from || self.waits_for(Purpose::Campaign) {
            return None;
        }
        let write = Write {
            key: Key::Conductor,
            expected: Expected::Absent,
            within: None,
            value: Value::Conductor(self.server),
            lease: Some(lease),
        };
        Some((Purpose::Campaign, Request::Write(write)))
    }

    /// What a conductor may decide on now.
    pub(super) fn seen(&self) -> Option<Seen<'_>> {
        let (at, placement) = self.view.placement.as_ref()?;
        Some(Seen {
            is_current: self.is_current,
            desired: self.view.desired.as_ref()?,
            placement,
            at: *at,
            over: &self.view.over,
        })
    }

    pub(super) fn waits_for(&self, purpose: Purpose) -> bool {
        self.calls.iter().any(|call| call.purpose == purpose)
    }

    /// Whether a decision of the conductor is on its way.
    pub(super) fn is_writing(&self) -> bool {
        let decides = |call: &Call| matches!(call.purpose, Purpose::Placement(_) | Purpose::Members);
        self.calls.iter().any(decides)
    }

    /// Takes the answer to a call.
    pub(super) fn answered(&mut self, now: Time, call: &Call, reply: Reply) {
        match (call.purpose, reply) {
            (Purpose::Poll, _) => self.is_current = true,
            (Purpose::Lease, Reply::Granted(lease)) => {
                self.lease = Some((lease, call.begun));
                self.renewed = call.begun;
                self.office = Office::None { from: now };
            }
            (Purpose::Renewal, Reply::Renewed(true)) => {
                if let Some((_, renewed)) = &mut self.lease {
                    *renewed = call.begun;
                }
            }
            (Purpose::Renewal, _) => self.end(now),
            (Purpose::Campaign, Reply::Written(written)) => self.elected(now, written),
            (Purpose::Placement(at), Reply::Written(written)) => self.placed(now, at, written),
            (_, Reply::Written(Err(Refused::LeaseExpired))) => self.end(now),
            _ => {}
        }
    }

    /// A call got no answer in time.
    pub(super) fn failed(&mut self, now: Time, purpose: Purpose) {
        match purpose {
            Purpose::Poll => self.is_current = false,
            // It is renewed again for as long as it may be alive.
            Purpose::Renewal => {}
            Purpose::Members => self.look_at_members_again(now),
            Purpose::Lease | Purpose::Report | Purpose::Campaign | Purpose::Placement(_) => {
                self.end(now);
            }
        }
    }

    fn look_at_members_again(&mut self, now: Time) {
        if let Office::Term { members_at, .. } = &mut self.office {
            *members_at = now + RETRY;
        }
    }

    fn elected(&mut self, now: Time, written: Result<Revision, Refused>) {
        let own = |item: &Item| {
            let lease = self.lease.map(|(lease, _)| lease);
            item.value == Value::Conductor(self.server) && item.lease == lease
        };
        let created = match written {
            Ok(created) => Some(created),
            Err(Refused::CompareAndSwap(held)) => held.filter(own).map(|item| item.created),
            Err(_) => return self.end(now),
        };
        self.office = match created {
            Some(created) => Office::Term {
                created,
                conductor: Box::default(),
                members_at: now,
            },
            None => Office::None { from: now + RETRY },
        };
    }

    fn placed(&mut self, now: Time, at: Revision, written: Result<Revision, Refused>) {
        let Office::Term { conductor, .. } = &mut self.office else {
            return;
        };
        match written {
            Ok(revision) => conductor.wrote(revision),
            Err(Refused::CompareAndSwap(_)) => conductor.was_overtaken(at),
            Err(Refused::Fenced) => self.office = Office::None { from: now + RETRY },
            Err(Refused::LeaseExpired) => self.end(now),
        }
    }

    /// The session ends; what it has sent may still arrive.
    fn end(&mut self, now: Time) {
        self.lease = None;
        self.reported = None;
        self.office = Office::None { from: now };
        self.retry_at = now + RETRY;
        self.calls.retain(|call| call.purpose == Purpose::Poll);
    }
}
