//! Rules that are broken on purpose.

use gaiola_core::members::{MemberChange, StoreMember};
use gaiola_core::rollout::Facts;
use gaiola_model::placement::{InstanceState, Phase};
use gaiola_model::{Placement, ServerName};

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
    /// No answer to an election arrives, and an agent that was elected does not notice.
    ForgetsElection,
    /// A conductor leaves out servers that are back, because its watch has not delivered that yet.
    TrustsItsWatch,
    /// The conductor removes a member of the store that is wanted and well.
    RemovesTheWanted,
    /// The conductor removes a member of the store before the one that replaces it votes.
    RemovesFirst,
    /// The conductor promotes a learner at once, without asking whether it runs.
    PromotesBlindly,
    /// A voter of the store that has lost its log starts with an empty one.
    StartsEmpty,
    /// The operator's command does not look at what is missing.
    SeesNothingMissing,
    /// An agent does not wait for the descendants of a process that has ended.
    IgnoresLeftovers,
    /// An agent does not adopt the descendants of a process that ended before it started.
    AdoptsNoLeftovers,
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
            | Self::TrustsItsWatch
            | Self::RemovesTheWanted
            | Self::RemovesFirst
            | Self::PromotesBlindly
            | Self::StartsEmpty
            | Self::SeesNothingMissing
            | Self::IgnoresLeftovers
            | Self::AdoptsNoLeftovers => return,
        }
        if changed != *stored {
            *next = Some(changed);
        }
    }

    /// Changes what a conductor is about to do with the store's members.
    pub(super) fn meddle_with_members(
        self,
        step: MemberChange,
        list: &[StoreMember],
        wanted: &[ServerName],
    ) -> MemberChange {
        let is_wanted = |member: &StoreMember| member.server.is_some_and(|it| wanted.contains(&it));
        let mut voters = list.iter().filter(|member| !member.is_learner);
        let victim = match self {
            Self::RemovesTheWanted => voters.find(|member| is_wanted(member)),
            Self::RemovesFirst => voters.find(|member| !is_wanted(member)),
            Self::PromotesBlindly => {
                let learner = list.iter().find(|member| member.is_learner);
                return learner.map_or(step, |member| MemberChange::Promote(member.id));
            }
            _ => None,
        };
        victim.map_or(step, |member| MemberChange::Remove(member.id))
    }
}
