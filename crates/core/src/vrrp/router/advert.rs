//! What an advertisement of another router changes.

use super::{Router, State, stop};
use crate::vrrp::{CONTEST, Output, Reason, Role, YIELD_PATIENCE};
use gaiola_model::Time;
use gaiola_model::vrrp::{Advertisement, Priority};
use std::net::IpAddr;

impl Router {
    /// Whether an advertisement is from another router and for our VIP.
    pub(super) fn concerns(&self, from: IpAddr, advert: &Advertisement) -> bool {
        from != self.settings.address && advert.vips.contains(&self.settings.vip)
    }

    pub(super) fn heard(
        &mut self,
        now: Time,
        state: State,
        from: IpAddr,
        advert: &Advertisement,
        out: &mut Vec<Output>,
    ) -> State {
        let beats_us = (advert.priority, from) > (self.settings.priority, self.settings.address);
        match state {
            State::Initialize | State::Stopped => state,
            State::Resuming { .. } if advert.releases() => state,
            State::Resuming { .. } if self.settings.preempt && !beats_us => state,
            State::Resuming { ready, .. } => {
                out.push(Output::RemoveAddress);
                if !ready {
                    return State::Initialize;
                }
                self.follow(now, from, advert, Reason::Heard, now, out)
            }
            State::Backup { .. } => self.heard_in_backup(now, state, from, advert, out),
            State::Active(_) if !advert.releases() && beats_us && !self.is_deaf(now, from) => {
                out.push(Output::RemoveAddress);
                // The winner may not have heard us yet: this makes it announce the VIP.
                out.push(Output::Advertise(self.settings.priority));
                self.follow(now, from, advert, Reason::LostDuel, now, out)
            }
            State::Active(timers) if !timers.may_answer() => State::Active(timers),
            State::Active(timers) => {
                self.note_contest(now);
                out.push(Output::Announce);
                out.push(Output::Advertise(self.settings.priority));
                if let Some(greeting) = &mut self.greeting {
                    // Informs the other router that it is heard.
                    greeting.next = now;
                }
                State::Active(timers.answered(now, self.settings.interval))
            }
            State::Yielding { .. } if advert.releases() || self.is_deaf(now, from) => state,
            State::Yielding { stopping, .. } => {
                out.push(Output::RemoveAddress);
                // Makes the new holder announce the VIP again, after our address is gone.
                out.push(Output::Advertise(Priority::RELEASE));
                if stopping {
                    return stop(out);
                }
                let patient_until = now + YIELD_PATIENCE;
                self.follow(now, from, advert, Reason::Yielded, patient_until, out)
            }
        }
    }

    /// Another router holds the VIP as well, or held it until now, and this one keeps it.
    fn note_contest(&mut self, now: Time) {
        let is_known = self.contested_at.is_some_and(|at| now - at < CONTEST);
        if !is_known {
            self.contested_at = Some(now);
            self.claims += 1;
        }
    }

    fn heard_in_backup(
        &self,
        now: Time,
        state: State,
        from: IpAddr,
        advert: &Advertisement,
        out: &mut Vec<Output>,
    ) -> State {
        let State::Backup {
            active,
            interval,
            take_over_at,
            patient_until,
            ..
        } = state
        else {
            return state;
        };
        // A release by a router that is not the holder, such as the former holder's last advertisement, changes
        // nothing.
        let another_holds = active.is_some_and(|active| active != from);
        match advert.releases() {
            true if another_holds => state,
            false if another_holds && self.is_deaf(now, from) => state,
            true => {
                if active.is_some() {
                    let role = Role::Backup { active: None };
                    out.push(Output::Became(role, Reason::Released));
                }
                State::Backup {
                    active: None,
                    interval,
                    take_over_at: take_over_at.min(now + self.settings.skew(interval)),
                    because: Reason::Released,
                    patient_until,
                }
            }
            false => {
                let lower = advert.priority < self.settings.priority;
                if lower && self.settings.preempt && now >= patient_until {
                    return state;
                }
                if active != Some(from) {
                    let role = Role::Backup { active: Some(from) };
                    out.push(Output::Became(role, Reason::Heard));
                }
                if self.stays_deaf(now, from) {
                    return State::Backup {
                        active: Some(from),
                        interval,
                        take_over_at: take_over_at.min(now + self.settings.skew(interval)),
                        because: Reason::Deaf,
                        patient_until,
                    };
                }
                self.backup(now, Some(from), advert.interval)
                    .patient(patient_until)
            }
        }
    }

    fn follow(
        &self,
        now: Time,
        from: IpAddr,
        advert: &Advertisement,
        reason: Reason,
        patient_until: Time,
        out: &mut Vec<Output>,
    ) -> State {
        let active = Some(from);
        out.push(Output::Became(Role::Backup { active }, reason));
        self.backup(now, active, advert.interval)
            .patient(patient_until)
    }
}
