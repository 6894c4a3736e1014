use super::*;
use gaiola_model::config::Overlap;

/// Plays every seed; of a single one that fails the whole story is printed, of several each seed and rule.
fn all_hold(seeds: &[u64], run: impl Fn(u64) -> Result<Story, Box<Broken>> + Sync) {
    let stories = crate::world::each(seeds, run).into_iter();
    let broken: Vec<Box<Broken>> = stories.filter_map(Result::err).collect();
    let words: Vec<String> = match (seeds.len(), broken.as_slice()) {
        (1, [broken]) => vec![broken.to_string()],
        (_, several) => several
            .iter()
            .map(|broken| format!("SEED={}: {}", broken.seed, broken.violation))
            .collect(),
    };
    assert!(words.is_empty(), "{}", words.join("\n"));
}

#[test]
fn nothing_in_use_is_stopped_and_every_site_settles() {
    all_hold(&crate::world::seeds("rollout", 200), run);
}

#[test]
fn servers_move_between_machines_that_fail_as_a_whole_and_every_site_settles() {
    all_hold(&crate::world::seeds("machines", 200), run_on_machines);
}

#[test]
fn machines_that_are_gone_are_replaced_in_some_of_the_stories() {
    let stories = (0..100).filter_map(|seed| run_on_machines(seed).ok());
    let replaced: u64 = stories.map(|story| story.replaced).sum();
    assert!(replaced >= 5, "{replaced}");
}

#[test]
fn any_agent_may_conduct_and_every_site_settles() {
    all_hold(&crate::world::seeds("site", 200), |seed| {
        run_site(seed, None)
    });
}

#[test]
fn the_same_seed_is_the_same_story() {
    assert_eq!(run(42).unwrap(), run(42).unwrap());
    let site = || run_site(42, None).map_err(|broken| broken.violation);
    assert_eq!(site(), site());
}

/// What the checkers report first of a site in which a rule is broken on purpose.
fn reported(sabotage: Sabotage) -> Rule {
    let mut reports = (0..300).filter_map(|seed| run_site(seed, Some(sabotage)).err());
    let broken = reports.next().expect("a checker reports");
    broken.violation.rule
}

#[test]
fn a_conductor_that_writes_without_its_term_is_reported() {
    assert_eq!(reported(Sabotage::Unfenced), Rule::OneConductor);
}

#[test]
fn an_agent_that_goes_back_to_an_older_order_is_reported() {
    assert_eq!(reported(Sabotage::AnyOrder), Rule::NoOrderGoesBack);
}

#[test]
fn a_conductor_that_drains_all_that_serves_is_reported() {
    assert_eq!(reported(Sabotage::DrainsAll), Rule::Capacity);
}

#[test]
fn a_conductor_that_waits_for_nobody_is_reported() {
    assert_eq!(reported(Sabotage::Impatient), Rule::NothingInUseIsStopped);
}

#[test]
fn a_site_that_nobody_conducts_is_reported() {
    assert_eq!(reported(Sabotage::Idle), Rule::Settles);
}

#[test]
fn a_conductor_that_removes_a_member_of_the_store_that_is_well_is_reported() {
    assert_eq!(reported(Sabotage::RemovesTheWanted), Rule::StoreMembers);
}

#[test]
fn a_conductor_that_removes_a_member_of_the_store_too_early_is_reported() {
    assert_eq!(reported(Sabotage::RemovesFirst), Rule::StoreMembers);
}

#[test]
fn a_conductor_that_promotes_a_learner_that_is_down_is_reported() {
    assert_eq!(reported(Sabotage::PromotesBlindly), Rule::StoreMembers);
}

#[test]
fn a_voter_of_the_store_that_starts_without_its_log_is_reported() {
    assert_eq!(reported(Sabotage::StartsEmpty), Rule::StoreMembers);
}

#[test]
fn a_change_that_is_called_done_too_early_is_reported() {
    assert_eq!(reported(Sabotage::SeesNothingMissing), Rule::Follow);
}

#[test]
fn an_instance_that_is_started_beside_what_an_earlier_one_left_is_reported() {
    assert_eq!(reported(Sabotage::IgnoresLeftovers), Rule::OneProcess);
    assert_eq!(reported(Sabotage::AdoptsNoLeftovers), Rule::OneProcess);
}

/// The seeds that found what is mended since, each with the old behaviour.
fn found(seed: u64, sabotage: Sabotage) -> Rule {
    let broken = run_site(seed, Some(sabotage)).expect_err("the old behaviour breaks a rule");
    broken.violation.rule
}

#[test]
fn an_agent_that_does_not_notice_its_election_leaves_the_site_without_a_conductor() {
    assert_eq!(reported(Sabotage::ForgetsElection), Rule::Settles);
}

#[test]
fn a_report_that_arrives_twice_hides_a_newer_one() {
    let rule = found(1195, Sabotage::BlindReports);
    assert_eq!(rule, Rule::NothingInUseIsStopped);
}

#[test]
fn a_conductor_whose_watch_stalls_leaves_out_servers_that_are_back() {
    for seed in [148, 505] {
        let rule = found(seed, Sabotage::TrustsItsWatch);
        assert_eq!(rule, Rule::NothingInUseIsStopped);
    }
}

#[test]
fn what_is_due_every_minute_runs_sixty_times_an_hour() {
    let story = run_cron(1, Overlap::Allow, false).unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!((story.began, story.known), (56, 0)); // Of the last three minutes and the first nobody judges.
}

#[test]
fn each_due_time_begins_once_whatever_fails() {
    let mut missed = 0;
    for overlap in [Overlap::Skip, Overlap::Queue, Overlap::Allow] {
        let seeds = crate::world::seeds("cron", 4);
        let stories = crate::world::each(&seeds, |seed| run_cron(seed, overlap, true));
        let (mut began, mut broken) = (0, Vec::new());
        for story in stories {
            match story {
                Ok(story) => (began, missed) = (began + story.began, missed + story.known),
                Err(it) => broken.push(format!("SEED={}: {}", it.seed, it.violation)),
            }
        }
        assert!(broken.is_empty(), "{overlap:?}: {}", broken.join("\n"));
        assert!(began > 0, "{overlap:?}");
    }
    assert!(missed > 0);
}
