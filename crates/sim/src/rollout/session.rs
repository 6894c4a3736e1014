//! One agent's session with the store, like `agent::session` and `agent::conductor`: what it sees by its watch, its lease, its
//! report, and its terms as the conductor.

use super::crons::wall;
use super::members::{self, MembersSight};
use super::network::{Basis, Call, Purpose, Reply, Request};
use super::sabotage::Sabotage;
use super::view::View;
use crate::store::{Expected, Item, Key, LeaseId, Refused, Store, TTL, Value, Write};
use gaiola_core::conduct::{Conductor, Report, StoreView, should_campaign};
use gaiola_core::rollout::Facts;
use gaiola_model::{Observed, Placement, Revision, ServerName, Time};
use std::rc::Rc;
use std::time::Duration;

/// Interval between two attempts to get a lease, and to become the conductor.
const RETRY: Duration = Duration::from_millis(500);
/// Interval between two checks that the store answers.
const POLL: Duration = Duration::from_secs(2);

/// Its part in deciding what spans servers.
enum Office {
    /// It may campaign from this time on.
    None { from: Time },
    /// It conducts since this revision.
    Term {
        created: Revision,
        conductor: Box<Conductor>,
        /// When the store's members are polled next.
        members_at: Time,
    },
}

/// What a conductor decides on.
pub(super) struct Decision<'a> {
    pub(super) placement: &'a Placement,
    pub(super) facts: &'a Facts,
}

/// The session of one agent's process.
pub(super) struct Session {
    pub(super) server: ServerName,
    pub(super) view: View,
    /// Whether the store has answered lately.
    is_current: bool,
    polled: Time,
    /// Its lease, and when the last renewal that succeeded was asked for.
    lease: Option<(LeaseId, Time)>,
    renewed: Time,
    retry_at: Time,
    /// The report that was written last, or is being written,
    reported: Option<Rc<Observed>>,
    /// and where it stands in the store.
    report: Report,
    office: Office,
    pub(super) calls: Vec<Call>,
}

impl Session {
    pub(super) fn new(server: ServerName, now: Time) -> Self {
        Self {
            server,
            view: View::default(),
            is_current: false,
            polled: now,
            lease: None,
            renewed: now,
            retry_at: now,
            reported: None,
            report: Report::default(),
            office: Office::None { from: now },
            calls: Vec::new(),
        }
    }

    /// Its watch delivers what the store held at `until`.
    pub(super) fn watch(&mut self, store: &Store, until: Time) {
        self.is_current |= self.view.watch(store, until);
    }

    /// What it asks next, one call at a time for each purpose.
    pub(super) fn next_calls(
        &mut self,
        now: Time,
        observed: Option<Observed>,
        sabotage: Option<Sabotage>,
    ) -> Vec<(Purpose, Request)> {
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
        calls.extend(self.report(lease, observed, sabotage));
        calls.extend(self.campaign(now, lease, sabotage));
        calls
    }

    fn report(
        &mut self,
        lease: LeaseId,
        observed: Option<Observed>,
        sabotage: Option<Sabotage>,
    ) -> Option<(Purpose, Request)> {
        let observed = Rc::new(observed?);
        if self.waits_for(Purpose::Report) || self.reported.as_ref() == Some(&observed) {
            return None;
        }
        self.reported = Some(Rc::clone(&observed));
        let write = Write {
            key: Key::Observed(self.server),
            expected: match sabotage {
                Some(Sabotage::BlindReports) => Expected::Anything,
                _ => self
                    .report
                    .replaces()
                    .map_or(Expected::Absent, Expected::At),
            },
            within: None,
            silent: Vec::new(),
            value: Value::Observed(observed),
            lease: Some(lease),
        };
        Some((Purpose::Report, Request::Write(write)))
    }

    fn campaign(
        &self,
        now: Time,
        lease: LeaseId,
        sabotage: Option<Sabotage>,
    ) -> Option<(Purpose, Request)> {
        let Office::None { from } = self.office else {
            return None;
        };
        let conductor = self.view.conductor.map(|server| server.to_string());
        let own = self.server.to_string();
        let should = match sabotage {
            Some(Sabotage::ForgetsElection) => conductor.is_none(),
            _ => should_campaign(conductor.as_deref(), &own),
        };
        let should = should && self.view.is_listed();
        if !should || now < from || self.waits_for(Purpose::Campaign) {
            return None;
        }
        let write = Write {
            key: Key::Conductor,
            expected: Expected::Absent,
            within: None,
            silent: Vec::new(),
            value: Value::Conductor(self.server),
            lease: Some(lease),
        };
        Some((Purpose::Campaign, Request::Write(write)))
    }

    /// Whether it believes that it conducts.
    pub(super) fn conducts(&self) -> bool {
        matches!(self.office, Office::Term { .. })
    }

    /// Makes it conduct although nobody elected it.
    pub(super) fn usurp(&mut self, now: Time) {
        if !self.conducts() {
            self.office = Office::Term {
                created: Revision(0),
                conductor: Box::default(),
                members_at: now,
            };
        }
    }

    /// The conductor's turn: its next placement, or a change of the store's members.
    pub(super) fn conduct(
        &mut self,
        now: Time,
        members: MembersSight<'_>,
        sabotage: Option<Sabotage>,
    ) -> Option<(Purpose, Request)> {
        let Office::Term {
            created,
            conductor,
            members_at,
        } = &mut self.office
        else {
            return None;
        };
        let view = &self.view;
        let (at, stored) = view.placement.as_ref()?;
        let desired = view.desired.as_ref()?;
        let seen = StoreView {
            is_current: self.is_current,
            desired,
            placement: stored,
            at: *at,
            over: &view.over,
            provider_reads: None,
            wall: Some(wall(now)),
        };
        if !conductor.may_decide(&seen) {
            return None;
        }
        let mut placement = conductor.decide(now, &seen, view.reports()).placement;
        if let Some(sabotage) = sabotage {
            sabotage.meddle(stored, conductor.facts(), &mut placement);
        }
        if placement.is_none() && now >= *members_at && !conductor.facts().store_in_doubt {
            *members_at = now + RETRY;
            match members::next(members, (*at, stored), conductor.facts(), sabotage)? {
                Ok(named) => placement = Some(named),
                Err(step) => return Some((Purpose::Members, Request::Members(step))),
            }
        }
        let is_unfenced = sabotage == Some(Sabotage::Unfenced);
        let write = Write {
            key: Key::Placement,
            expected: Expected::At(*at),
            within: (!is_unfenced).then_some(*created),
            silent: match sabotage {
                Some(Sabotage::TrustsItsWatch) => Vec::new(),
                _ => conductor.counted_dead(stored),
            },
            value: Value::Placement(Rc::new(placement?)),
            lease: None,
        };
        let basis = Rc::new(Basis {
            desired: Rc::clone(desired),
            facts: conductor.facts().clone(),
        });
        Some((Purpose::Placement(*at), Request::Place(write, basis)))
    }

    /// On what it decides as the conductor.
    pub(super) fn decides_on(&self) -> Option<Decision<'_>> {
        let (Office::Term { conductor, .. }, Some((_, placement))) =
            (&self.office, &self.view.placement)
        else {
            return None;
        };
        let facts = conductor.facts();
        Some(Decision { placement, facts })
    }

    /// In words.
    pub(super) fn in_words(&self) -> String {
        let purposes: Vec<Purpose> = self.calls.iter().map(|call| call.purpose).collect();
        let at = self.view.placement.as_ref().map(|(at, _)| *at);
        format!(
            "{}: lease {:?}, conducts: {}, sees {:?} conduct and the placement at {at:?}, waits for {purposes:?}",
            self.server,
            self.lease.map(|(lease, _)| lease),
            self.conducts(),
            self.view.conductor,
        )
    }

    pub(super) fn waits_for(&self, purpose: Purpose) -> bool {
        self.calls.iter().any(|call| call.purpose == purpose)
    }

    /// Whether a decision of the conductor is on its way.
    pub(super) fn is_writing(&self) -> bool {
        let decides =
            |call: &Call| matches!(call.purpose, Purpose::Placement(_) | Purpose::Members);
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
            (Purpose::Report, Reply::Written(written)) => self.has_reported(now, written),
            (Purpose::Campaign, Reply::Written(written)) => self.elected(now, written),
            (Purpose::Placement(at), Reply::Written(written)) => self.placed(now, at, written),
            _ => {}
        }
    }

    /// A call got no answer in time.
    pub(super) fn failed(&mut self, now: Time, purpose: Purpose) {
        match purpose {
            Purpose::Poll => self.is_current = false,
            // It is renewed again for as long as it may be alive.
            Purpose::Renewal => {}
            Purpose::Members => self.poll_members_again(now),
            Purpose::Lease | Purpose::Report | Purpose::Campaign | Purpose::Placement(_) => {
                self.end(now);
            }
        }
    }

    fn poll_members_again(&mut self, now: Time) {
        if let Office::Term { members_at, .. } = &mut self.office {
            *members_at = now + RETRY;
        }
    }

    fn has_reported(&mut self, now: Time, written: Result<Revision, Refused>) {
        match written {
            Ok(at) => self.report.was_written(at),
            Err(Refused::CompareAndSwap(held)) => {
                self.report.was_rejected(held.map(|item| item.modified));
                self.reported = None;
            }
            Err(_) => self.end(now),
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
            // The watch delivers the report in a moment.
            Err(Refused::Reports(_)) => {}
            Err(Refused::Fenced) => self.office = Office::None { from: now + RETRY },
            Err(Refused::LeaseExpired) => self.end(now),
        }
    }

    /// The session ends; what it has sent may still arrive.
    fn end(&mut self, now: Time) {
        self.lease = None;
        self.reported = None;
        self.report = Report::default();
        self.office = Office::None { from: now };
        self.retry_at = now + RETRY;
        self.calls.retain(|call| call.purpose == Purpose::Poll);
    }
}
