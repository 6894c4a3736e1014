//! Rules that are broken on purpose.

/// Breaks a rule on purpose, so that a test sees its checker report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The agent of a drained balancer hands nothing over.
    KeepsWhenDrained,
    /// The agent of a drained balancer takes its VIPs from it at once.
    DropsWhenDrained,
    /// An agent that starts does not end the hand-over that the one before it left.
    ForgetsHandOver,
    /// A keeper does not remove the address of a VIP that it lost.
    KeepsAddress,
    /// A keeper does not add the address of a VIP that it takes.
    AddsNoAddress,
    /// Once the faults have stopped no keeper takes a VIP that nobody holds.
    NeverTakesOver,
    /// A drained balancer offers its VIPs without knowing who stands by.
    Trusts,
    /// A keeper captures no SYNs, although it says so.
    CapturesNothing,
    /// A relay answers balancers and forwards nothing.
    RelaysNothing,
    /// A keeper holds what it holds although nobody hears it.
    HoldsWhenCutOff,
    /// A keeper that is exchanged does not ask the others to wait.
    LeavesUnannounced,
    /// The first balancer has another key.
    AnotherKey,
}
