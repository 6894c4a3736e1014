//! Rules that are broken on purpose.

use gaiola_core::rollout::Facts;
use gaiola_model::Placement;
use gaiola_model::placement::{InstanceState, Phase};

/// Breaks a rule on purpose, so that a test sees its checker report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Every agent believes that it is the conductor, and writes without its term.
    Unfenced,
    /// An agent takes whatever order the store names, even an older one.
    AnyOrder,
    /// The conductor drains every instance of a server at once.
    DrainsAll,
    /// The conductor removes what is drained without waiting for anything.
    Impatient,
    /// Once the faults stop nobody conducts.
    Idle,
    /// A report is written without comparing what it replaces.
    BlindReports,
    /// An agent that is elected by a request whose answer was late does not notice.
    ForgetsElection,
    /// A conductor leaves out servers that are back, because its watch has not delivered that yet.
    TrustsItsWatch,
}

impl Sabotage {
    /// Changes what a conductor is about to write.
    pub(super) fn meddle(self, stored: &Placement, facts: &Facts, next: &mut Option<Placement>) {
        let mut changed = next.as_ref().unwrap_or(stored).clone();
        match self {
            Self::DrainsAll => {
                let reports = facts.observed.values();
                let all = reports.flat_map(|seen| &seen.instances);
                for (name, _) in all.filter(|(_, seen)| seen.state == InstanceState::Ready) {
                    let placed = changed.instances.get_mut(name);
                    placed
                        .into_iter()
                        .for_each(|placed| placed.phase = Phase::Drain);
                }
            }
            Self::Impatient => {
                let instances = &mut changed.instances;
                instances.retain(|_, placed| placed.phase != Phase::Drain);
            }
            Self::Unfenced
            | Self::AnyOrder
            | Self::Idle
            | Self::BlindReports
            | Self::ForgetsElection
            | Self::TrustsItsWatch => return,
        }
        if changed != *stored {
            *next = Some(changed);
        }
    }
}
