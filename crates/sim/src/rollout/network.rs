//! Requests to the store and their answers, on a network that delays, reorders and loses them.

use crate::store::{LeaseId, Refused, Write};
use gaiola_core::members::MemberChange;
use gaiola_core::rollout::Facts;
use gaiola_model::{Desired, Revision, ServerName, Time};
use std::rc::Rc;
use std::time::Duration;

/// Timeout of one attempt; then the request is sent again.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Timeout of a call with all its attempts.
const DEADLINE: Duration = Duration::from_secs(5);

/// What an agent asks of the store.
#[derive(Clone)]
pub(super) enum Request {
    Grant,
    KeepAlive(LeaseId),
    Write(Write),
    /// A placement, with what it was decided on.
    Place(Write, Rc<Basis>),
    /// A change of the store's members, which takes no condition.
    Members(MemberChange),
    /// Whether it answers.
    Ask,
}

/// What a conductor decided on.
pub(super) struct Basis {
    pub(super) desired: Rc<Desired>,
    pub(super) facts: Facts,
}

/// The store's answer.
pub(super) enum Reply {
    Granted(LeaseId),
    /// Whether the lease is alive.
    Renewed(bool),
    Written(Result<Revision, Refused>),
    Done,
}

/// Why an agent asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Lease,
    Renewal,
    Report,
    Campaign,
    /// The placement follows the one at this revision.
    Placement(Revision),
    Members,
    Poll,
}

/// A call that is not answered yet.
pub(super) struct Call {
    pub(super) id: u64,
    pub(super) purpose: Purpose,
    pub(super) request: Request,
    pub(super) begun: Time,
    sent: Time,
    pub(super) attempt: u32,
}

impl Call {
    pub(super) fn new(id: u64, purpose: Purpose, request: Request, now: Time) -> Self {
        Self {
            id,
            purpose,
            request,
            begun: now,
            sent: now,
            attempt: 1,
        }
    }

    /// Whether to send it again now.
    pub(super) fn repeats(&mut self, now: Time) -> bool {
        let is_late = now - self.sent >= ATTEMPT;
        if is_late {
            self.sent = now;
            self.attempt += 1;
        }
        is_late
    }

    pub(super) fn has_failed(&self, now: Time) -> bool {
        now - self.begun >= DEADLINE
    }
}

/// Something on its way.
pub(super) struct Flight {
    pub(super) arrives: Time,
    /// The agent that asked.
    pub(super) agent: ServerName,
    pub(super) call: u64,
    /// The client waits for the answer to its last attempt alone.
    pub(super) attempt: u32,
    pub(super) leg: Leg,
}

pub(super) enum Leg {
    There(Request),
    Back(Reply),
}
