use super::*;
use crate::violation::Rule;
use crate::world::{each, seeds};

fn plan(seed: u64) -> Plan {
    let mut chance = fastrand::Rng::with_seed(!seed);
    any_plan(seed).with_relays(&mut chance)
}

fn any_plan(seed: u64) -> Plan {
    let mut chance = fastrand::Rng::with_seed(seed);
    let nodes = chance.usize(2..5);
    Plan {
        nodes,
        vips: chance.usize(1..=nodes),
        preempt: chance.u8(0..4) == 0,
        sealed: chance.bool(),
        calm: Duration::from_millis(if chance.bool() { 1500 } else { 5000 }),
        faults: Duration::from_secs(20),
        rest: Duration::from_secs(32),
        relays: 0,
    }
}

impl Plan {
    /// Two in three sealed sites have relays.
    fn with_relays(self, chance: &mut fastrand::Rng) -> Self {
        match chance.usize(0..3) {
            0 => self,
            _ if !self.sealed => self,
            relays => Self { relays, ..self },
        }
    }
}

#[test]
fn vips_come_to_rest_after_any_faults() {
    let mut worst = Outcome::default();
    let mut broken = Vec::new();
    let seeds = seeds("vrrp", 200);
    let outcomes = each(&seeds, |seed| run(&plan(seed), seed, None));
    for (seed, outcome) in seeds.into_iter().zip(outcomes) {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(violation) => {
                broken.push(violation.to_string());
                continue;
            }
        };
        if !plan(seed).preempt {
            worst.owned_after = worst.owned_after.max(outcome.owned_after);
            worst.known_after = worst.known_after.max(outcome.known_after);
        }
        worst.takeovers += outcome.takeovers;
    }
    println!("worst: {worst:?}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_run_is_decided_by_its_seed() {
    let once = run(&plan(1), 1, None);
    assert_eq!(once, run(&plan(1), 1, None));
    assert_ne!(once, run(&plan(1), 2, None));
}

/// Whether the checkers report that rule of a sealed site without relays in which it is broken on purpose.
fn reports(rule: Rule, sabotage: Sabotage) -> bool {
    reports_in(rule, sabotage, any_plan)
}

fn reports_in(rule: Rule, sabotage: Sabotage, plan: impl Fn(u64) -> Plan) -> bool {
    let sealed = |seed| Plan {
        sealed: true,
        preempt: false,
        ..plan(seed)
    };
    let broken = |seed| run(&sealed(seed), seed, Some(sabotage)).err();
    (0..300)
        .filter_map(broken)
        .any(|broken| broken.rule == rule)
}

#[test]
fn a_drained_balancer_that_keeps_its_vips_is_reported() {
    assert!(reports(Rule::VipRests, Sabotage::KeepsWhenDrained));
}

#[test]
fn a_drained_balancer_that_drops_its_vips_is_reported() {
    assert!(reports(Rule::VipAnswered, Sabotage::DropsWhenDrained));
}

#[test]
fn a_hand_over_that_answers_nobody_meanwhile_is_reported() {
    assert!(reports(Rule::VipAnswered, Sabotage::CapturesNothing));
}

#[test]
fn an_agent_that_leaves_a_vip_closed_is_reported() {
    assert!(reports(Rule::VipAnswered, Sabotage::ForgetsHandOver));
}

#[test]
fn a_keeper_that_keeps_what_it_lost_is_reported() {
    assert!(reports(Rule::VipHeld, Sabotage::KeepsAddress));
}

#[test]
fn a_keeper_that_does_not_have_what_it_holds_is_reported() {
    assert!(reports(Rule::VipHeld, Sabotage::AddsNoAddress));
}

#[test]
fn keepers_that_take_nothing_over_are_reported() {
    assert!(reports(Rule::VipRests, Sabotage::NeverTakesOver));
}

#[test]
fn a_vip_that_is_offered_to_nobody_is_reported() {
    // While the other balancer is down for a while, and nothing else happens.
    let two = |seed| Plan {
        nodes: 2,
        vips: 2,
        calm: Duration::from_secs(5),
        ..any_plan(seed)
    };
    assert!(reports_in(Rule::VipHeld, Sabotage::Trusts, two));
}

/// Two balancers and one relay.
fn relayed(seed: u64) -> Plan {
    Plan {
        nodes: 2,
        vips: 2,
        relays: 1,
        ..plan(seed)
    }
}

#[test]
fn a_relay_that_forwards_nothing_is_reported() {
    assert!(reports_in(Rule::VipRests, Sabotage::RelaysNothing, relayed));
}

#[test]
fn a_balancer_that_holds_what_nobody_reaches_is_reported() {
    assert!(reports_in(
        Rule::VipRests,
        Sabotage::HoldsWhenCutOff,
        relayed
    ));
}

#[test]
fn a_keeper_that_is_exchanged_without_a_word_is_reported() {
    assert!(reports(Rule::VipRests, Sabotage::LeavesUnannounced));
}

#[test]
fn what_cannot_be_read_is_reported() {
    assert!(reports(Rule::Readable, Sabotage::AnotherKey));
}
