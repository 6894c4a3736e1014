//! A server that nobody hears lets its VIP go, and takes none.

use super::{Router, State, stop};
use crate::vrrp::{Output, Reason, Role};
use gaiola_model::Time;
use gaiola_model::vrrp::Priority;

impl Router {
    /// Nobody hears this server (`true`), or somebody does again.
    pub(super) fn be_cut_off(
        &mut self,
        now: Time,
        state: State,
        cut_off: bool,
        out: &mut Vec<Output>,
    ) -> State {
        let was_cut_off = std::mem::replace(&mut self.cut_off, cut_off);
        if was_cut_off == cut_off {
            return state;
        }
        match (state, cut_off) {
            (State::Resuming { ready: false, .. }, true) => {
                self.give_up(out);
                State::Initialize
            }
            (
                state @ (State::Active(_) | State::Yielding { .. } | State::Resuming { .. }),
                true,
            ) => {
                out.push(Output::RemoveAddress);
                // Whoever hears it after all need not wait.
                out.push(Output::Advertise(Priority::RELEASE));
                if matches!(state, State::Yielding { stopping: true, .. }) {
                    return stop(out);
                }
                out.push(Output::Became(
                    Role::Backup { active: None },
                    Reason::CutOff,
                ));
                self.backup(now, None, self.settings.interval)
            }
            // It first listens for as long as one that has just started.
            (
                State::Backup {
                    active,
                    interval,
                    patient_until,
                    ..
                },
                false,
            ) => self.backup(now, active, interval).patient(patient_until),
            (state, _) => state,
        }
    }
}
