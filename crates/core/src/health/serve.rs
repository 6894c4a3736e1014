//! Which members of a backend serve, given the condition of each.
//!
//! Traffic and checks take members out one by one, each on its own record; whether the others can do without them shows
//! only when all are considered together. One page that kills every process that answers it, or an application too busy for
//! its checks, must not leave a backend without servers that would still answer.

use super::{Condition, Ejected};
use gaiola_model::Time;

/// One member, as far as it matters to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its condition.
    pub condition: Condition,
    /// Whether it should take new traffic while it is up.
    pub wanted: bool,
    /// Whether it is a spare.
    pub spare: bool,
    /// Whether it has answered requests recently, whatever its checks say.
    pub answers: bool,
}

/// Which members serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServingMembers {
    /// For each member, whether it takes new traffic.
    pub takes: Vec<bool>,
    /// For each, whether it takes requests whose cookie names it: also while only errors of its requests ejected it.
    pub named: Vec<bool>,
    /// Too few would be left: some serve although their checks took them down.
    pub panic: bool,
}

impl ServingMembers {
    /// For backends of which at most one member may be up, such as a database's primary: while several are, it is
    /// unknown which of them is right, and none takes new traffic.
    ///
    /// ```
    /// use gaiola_core::health::ServingMembers;
    ///
    /// let both = ServingMembers { takes: vec![true, true], named: vec![true, true], panic: false };
    /// assert_eq!(both.one_at_most().takes, [false, false]);
    /// ```
    #[must_use]
    pub fn one_at_most(mut self) -> Self {
        if self.takes.iter().filter(|&&takes| takes).count() > 1 {
            self.takes.fill(false);
        }
        self
    }
}

/// What serves when no member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastResort {
    /// Nothing.
    Nothing,
    /// Another backend: members that cannot be reached need not be tried.
    Fallback,
    /// Members that checks found silent.
    Silent,
}

/// Decides which members serve. At most `max_share` percent, and at least one, may be ejected for errors of their
/// requests; further ones stay in. If no other member serves, ejected members that accept connections do, before
/// spares; if still none serves, so do the other ejected ones, unless there is a fallback.
///
/// With [`LastResort::Silent`], members that checks found silent serve if nobody else does; if more than half of the members are
/// silent, those of them that have answered requests recently serve beside the others.
///
/// ```
/// use gaiola_core::health::{Condition, LastResort, Standing, who_serves};
///
/// let silent = Standing { condition: Condition::Silent, wanted: true, spare: false, answers: false };
/// let up = Standing { condition: Condition::Up, ..silent };
/// assert_eq!(who_serves(&[up, silent], 33, LastResort::Silent).takes, [true, false]);
/// assert_eq!(who_serves(&[silent, silent], 33, LastResort::Silent).takes, [true, true]);
/// ```
pub fn who_serves(members: &[Standing], max_share: u8, last_resort: LastResort) -> ServingMembers {
    let stays_out = stays_out(members, max_share);
    let is_up = |index: usize| match members[index].condition {
        Condition::Up => true,
        Condition::Ejected(..) => !stays_out[index],
        Condition::Silent | Condition::Down => false,
    };
    let mut takes: Vec<_> = (0..members.len()).map(is_up).collect();
    let mut named = takes.clone();
    for (named, member) in named.iter_mut().zip(members) {
        *named |= is_ejected(member) && is_reachable(member);
    }
    let is_regular = |member: &Standing| member.wanted && !member.spare;
    if !any(members, &takes, is_regular) {
        add(members, &mut takes, |member| {
            is_regular(member) && is_ejected(member) && is_reachable(member)
        });
    }
    let has_fallback = last_resort == LastResort::Fallback;
    if !has_fallback && !any(members, &takes, |member| member.wanted) {
        add(members, &mut takes, is_ejected);
    }
    let before = takes.clone();
    let panics = last_resort == LastResort::Silent;
    if panics && !any(members, &takes, |member| member.wanted) {
        add(members, &mut takes, is_silent);
    } else if panics && most_are_silent(members) {
        add(members, &mut takes, |member| {
            is_silent(member) && member.answers
        });
    }
    for (named, takes) in named.iter_mut().zip(&takes) {
        *named |= takes;
    }
    ServingMembers {
        panic: takes != before,
        takes,
        named,
    }
}

/// For each member, whether it stays ejected: of those whose requests failed the ones that have been out longest, of
/// the others all.
fn stays_out(members: &[Standing], max_share: u8) -> Vec<bool> {
    let mut for_errors: Vec<(Time, usize)> = Vec::new();
    for (index, member) in members.iter().enumerate() {
        if let Condition::Ejected(Ejected::Errors, since) = member.condition {
            for_errors.push((since, index));
        }
    }
    for_errors.sort_unstable();
    let most = ((members.len() * usize::from(max_share) + 50) / 100).max(1);
    let mut stays: Vec<_> = members.iter().map(is_ejected).collect();
    for &(_, index) in for_errors.iter().skip(most) {
        stays[index] = false;
    }
    stays
}

fn is_ejected(member: &Standing) -> bool {
    matches!(member.condition, Condition::Ejected(..))
}

fn is_reachable(member: &Standing) -> bool {
    !matches!(
        member.condition,
        Condition::Ejected(Ejected::Unreachable, _)
    )
}

fn is_silent(member: &Standing) -> bool {
    member.condition == Condition::Silent
}

/// Whether more than half of the members that are no spares are silent.
fn most_are_silent(members: &[Standing]) -> bool {
    let regular = || {
        let mut all = members.iter();
        std::iter::from_fn(move || all.find(|member| member.wanted && !member.spare))
    };
    2 * regular().filter(|member| is_silent(member)).count() > regular().count()
}

fn any(members: &[Standing], takes: &[bool], which: impl Fn(&Standing) -> bool) -> bool {
    let mut all = members.iter().zip(takes);
    all.any(|(member, &takes)| takes && which(member))
}

fn add(members: &[Standing], takes: &mut [bool], which: impl Fn(&Standing) -> bool) {
    for (takes, member) in takes.iter_mut().zip(members) {
        *takes |= which(member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::bool::ANY as BOOL;
    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use std::time::Duration;

    const UP: Standing = Standing {
        condition: Condition::Up,
        wanted: true,
        spare: false,
        answers: false,
    };
    const SILENT: Standing = Standing {
        condition: Condition::Silent,
        ..UP
    };
    const DOWN: Standing = Standing {
        condition: Condition::Down,
        ..UP
    };
    const SPARE: Standing = Standing { spare: true, ..UP };

    fn ejected(why: Ejected, millis: u64) -> Standing {
        let since = Time::ZERO + Duration::from_millis(millis);
        Standing {
            condition: Condition::Ejected(why, since),
            ..UP
        }
    }

    fn takes<const N: usize>(members: [Standing; N]) -> [bool; N] {
        let serving = who_serves(&members, 33, LastResort::Silent);
        serving.takes.try_into().unwrap()
    }

    #[test]
    fn one_page_puts_no_more_than_a_share_out() {
        let bad = |millis| ejected(Ejected::Errors, millis);
        assert_eq!(takes([bad(1), UP]), [false, true]);
        assert_eq!(takes([bad(2), bad(1)]), [true, false]);
        assert_eq!(takes([bad(3), bad(1), bad(2)]), [true, false, true]);
        assert_eq!(takes([bad(0); 6]), [false, false, true, true, true, true]);
    }

    #[test]
    fn a_spare_does_not_serve_for_one_that_only_failed_requests() {
        let bad = ejected(Ejected::Errors, 1);
        let serving = who_serves(&[bad, SPARE], 33, LastResort::Silent);
        assert_eq!(
            serving.takes,
            [true, true],
            "the balancer passes over the spare"
        );
        assert_eq!(
            takes([ejected(Ejected::Unreachable, 1), SPARE]),
            [false, true]
        );
        assert_eq!(takes([SILENT, SPARE]), [false, true]);
    }

    #[test]
    fn who_cannot_be_connected_to_is_better_than_nobody_alone() {
        let gone = ejected(Ejected::Unreachable, 1);
        assert_eq!(takes([gone, gone]), [true, true]);
        assert_eq!(takes([gone, UP]), [false, true]);
        assert_eq!(takes([gone, ejected(Ejected::Slow, 1)]), [false, true]);
    }

    #[test]
    fn who_cannot_be_connected_to_is_left_to_the_fallback() {
        let takes = |member| who_serves(&[member], 33, LastResort::Fallback).takes[0];
        assert!(!takes(ejected(Ejected::Unreachable, 1)));
        assert!(takes(ejected(Ejected::Errors, 1)));
        assert!(takes(ejected(Ejected::Slow, 1)));
    }

    #[test]
    fn a_cookie_leads_to_one_whose_requests_failed_but_not_to_one_that_is_gone() {
        let named = |member| who_serves(&[member, UP], 33, LastResort::Silent).named[0];
        assert!(named(ejected(Ejected::Errors, 1)));
        assert!(named(ejected(Ejected::Slow, 1)));
        for member in [ejected(Ejected::Unreachable, 1), SILENT, DOWN] {
            assert!(!named(member));
        }
    }

    #[test]
    fn the_silent_serve_where_nobody_else_does() {
        let serving = who_serves(&[SILENT, SILENT, DOWN], 33, LastResort::Silent);
        assert_eq!(serving.takes, [true, true, false]);
        assert!(serving.panic);
        assert_eq!(takes([SILENT, SILENT, UP]), [false, false, true]);
        let serving = who_serves(&[SILENT, SILENT], 33, LastResort::Nothing);
        assert_eq!(
            serving,
            ServingMembers {
                takes: vec![false; 2],
                named: vec![false; 2],
                panic: false
            }
        );
        let drained = Standing {
            wanted: false,
            ..UP
        };
        assert_eq!(takes([SILENT, drained]), [true, true]);
    }

    #[test]
    fn where_most_are_silent_those_that_answer_requests_serve_beside_the_others() {
        let busy = Standing {
            answers: true,
            ..SILENT
        };
        assert_eq!(takes([busy, SILENT, UP]), [true, false, true]);
        assert_eq!(takes([busy, UP]), [false, true]);
        assert_eq!(takes([busy, UP, SPARE]), [false, true, true]);
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        let why = prop_oneof![
            Just(Ejected::Unreachable),
            Just(Ejected::Errors),
            Just(Ejected::Slow)
        ];
        let ejected = (why, 0u64..5).prop_map(|(why, at)| ejected(why, at).condition);
        let condition = prop_oneof![
            Just(Condition::Up),
            ejected,
            Just(Condition::Silent),
            Just(Condition::Down)
        ];
        (condition, BOOL, BOOL, BOOL).prop_map(|(condition, wanted, spare, answers)| Standing {
            condition,
            wanted,
            spare,
            answers,
        })
    }

    fn any_last_resort() -> impl Strategy<Value = LastResort> {
        prop_oneof![
            Just(LastResort::Nothing),
            Just(LastResort::Fallback),
            Just(LastResort::Silent)
        ]
    }

    proptest! {
        #[test]
        fn who_is_up_serves_and_who_is_down_does_not(
            members in proptest::collection::vec(any_standing(), 0..8),
            last_resort in any_last_resort(),
        ) {
            let serving = who_serves(&members, 33, last_resort);
            let panics = last_resort == LastResort::Silent;
            for (index, member) in members.iter().enumerate() {
                match member.condition {
                    Condition::Up => prop_assert!(serving.takes[index]),
                    Condition::Down => prop_assert!(!serving.named[index]),
                    Condition::Silent => prop_assert!(panics || !serving.takes[index]),
                    Condition::Ejected(why, _) => prop_assert!(
                        last_resort != LastResort::Fallback
                            || why != Ejected::Unreachable
                            || !serving.takes[index]
                    ),
                }
                prop_assert!(serving.named[index] || !serving.takes[index]);
            }
            let may = |member: &Standing| member.wanted && member.condition != Condition::Down
                && (panics || member.condition != Condition::Silent);
            let any_takes = any(&members, &serving.takes, |member| member.wanted);
            if last_resort != LastResort::Fallback {
                prop_assert_eq!(any_takes, members.iter().any(may));
            }
        }
    }
}
