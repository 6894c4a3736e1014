//! What a checker reports.

/// A rule of the simulated site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing is removed or stopped while a proxy sends to it, or has requests there within the grace.
    NothingInUseIsStopped,
    /// One instance is replaced at a time, and none while a server leaves.
    OneAtATime,
    /// What serves is drained only while enough others serve.
    Capacity,
    /// Database servers leave one at a time, and never as the primary.
    Database,
    /// One machine at a time gives its place to another by itself: one that was gone for long enough, while no other is.
    Replacement,
    /// Clients are sent to an open door, and to something that serves.
    Doors,
    /// What is sent between the tiers, in plain text or by TLS, is accepted.
    Encryption,
    /// What runs finds the variables of its environment in the placement, which holds each set of them once.
    Environment,
    /// Workers run where the file wants them, and on no more servers.
    Workers,
    /// Each time at which a command is due it begins once, or it is known why not; beside itself only if it may.
    Cron,
    /// A release is prepared before it is started, and by one run of its command at a time.
    Release,
    /// Only the holder of the conductor's key writes placements.
    OneConductor,
    /// An agent never carries out an older order than it has.
    NoOrderGoesBack,
    /// Of one name one process runs, and what was asked to stop ends in time.
    OneProcess,
    /// The store's members change one at a time, and a voter votes with its log or not at all.
    StoreMembers,
    /// The command for a change ends with what is so.
    Follow,
    /// After the faults the site settles, and then rests.
    Settles,
    /// A VIP is held where it is served, announced where it is held, and offered where somebody takes it.
    VipHeld,
    /// While a server could answer for a VIP, one does.
    VipAnswered,
    /// After the faults each VIP is held once, known to the neighbours, and rests.
    VipRests,
    /// Once all is quiet, what the operator's command moves leads to the holder of the VIP.
    VipLed,
    /// What a router sends, others can read.
    Readable,
}

impl Rule {
    /// That this rule was broken, and how.
    pub fn broken(self, how: impl Into<String>) -> Violation {
        Violation {
            rule: self,
            how: how.into(),
        }
    }
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule:?}: {how}")]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// How it was broken, in words.
    pub how: String,
}
