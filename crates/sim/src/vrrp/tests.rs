use super::*;
use crate::world::{each, seeds};

fn plan(seed: u64) -> Plan {
    let mut chance = fastrand::Rng::with_seed(seed);
    let nodes = chance.usize(2..5);
    Plan {
        nodes,
        vips: chance.usize(1..=nodes),
        preempt: chance.u8(0..4) == 0,
        sealed: chance.bool(),
        calm: Duration::from_millis(if chance.bool() { 1500 } else { 5000 }),
        faults: Duration::from_secs(20),
        rest: Duration::from_secs(13),
    }
}

#[test]
fn vips_come_to_rest_after_any_faults() {
    let mut worst = Outcome::default();
    let mut broken = Vec::new();
    let seeds = seeds("vrrp", 200);
    let outcomes = each(&seeds, |seed| run(&plan(seed), seed));
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
    let once = run(&plan(1), 1);
    assert_eq!(once, run(&plan(1), 1));
    assert_ne!(once, run(&plan(1), 2));
}
