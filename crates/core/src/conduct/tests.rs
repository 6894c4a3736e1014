use super::*;
use gaiola_model::Inventory;
use gaiola_model::config::{App, Config};
use gaiola_model::placement::{Release, ReleaseNumber};

fn site() -> (Desired, Placement) {
    let config = Config::new("site".parse().unwrap(), App::new("run"));
    let inventory = Inventory::numbered(&config, [10, 77]);
    let release = Release {
        number: ReleaseNumber(1),
        digest: String::new(),
    };
    let desired = Desired::first(config, release, inventory);
    let placement = rollout::first(&desired, "a".into());
    (desired, placement)
}

#[test]
fn nothing_is_decided_on_an_old_view_or_before_ones_own_placement_is_back() {
    let (desired, placement) = site();
    let over = BTreeMap::new();
    let seen = |is_current, at| StoreView {
        is_current,
        desired: &desired,
        placement: &placement,
        at: Revision(at),
        over: &over,
        provider_reads: None,
        wall: None,
    };
    let mut conductor = Conductor::default();
    assert!(conductor.may_decide(&seen(true, 7)));
    assert!(!conductor.may_decide(&seen(false, 7)));
    conductor.wrote(Revision(9));
    assert!(!conductor.may_decide(&seen(true, 7)));
    assert!(conductor.may_decide(&seen(true, 9)));
    conductor.was_overtaken(Revision(9));
    assert!(!conductor.may_decide(&seen(true, 9)));
    assert!(conductor.may_decide(&seen(true, 10)));
}

#[test]
fn a_step_is_decided_on_what_is_seen() {
    let (mut desired, placement) = site();
    desired.config.app.servers = 3;
    desired.inventory = Inventory::numbered(&desired.config, [10, 77]);
    desired.generation += 1;
    let (at, over) = (Revision(7), BTreeMap::new());
    let seen = StoreView {
        is_current: true,
        desired: &desired,
        placement: &placement,
        at,
        over: &over,
        provider_reads: None,
        wall: None,
    };
    let mut conductor = Conductor::default();
    let next = conductor.decide(Time::ZERO, &seen, BTreeMap::new());
    let servers = next.placement.unwrap().servers;
    assert!(servers.contains_key(&"app3".parse().unwrap()));
    // A silent server counts as dead after a while: that is the next time to observe.
    assert_eq!(conductor.pause(Duration::from_secs(30)), POLL);
}

#[test]
fn an_order_that_is_older_or_of_another_store_is_rejected() {
    let order = |incarnation, revision| OrderId {
        incarnation,
        revision: Revision(revision),
    };
    assert!(order("a", 7).yields_to(&order("a", 8)));
    assert!(!order("a", 7).yields_to(&order("a", 7)));
    assert!(!order("a", 7).yields_to(&order("a", 6)));
    assert!(!order("a", 7).yields_to(&order("b", 8)));
}

#[test]
fn an_agent_campaigns_where_nobody_conducts_or_it_was_elected_unknowingly() {
    assert!(should_campaign(None, "app1"));
    assert!(should_campaign(Some("app1"), "app1"));
    assert!(!should_campaign(Some("app2"), "app1"));
}

#[test]
fn a_report_replaces_the_one_before_it_and_what_is_found_instead() {
    let mut report = Report::default();
    assert_eq!(report.replaces(), None);
    report.was_rejected(Some(Revision(7)));
    assert_eq!(report.replaces(), Some(Revision(7)));
    report.was_written(Revision(9));
    assert_eq!(report.replaces(), Some(Revision(9)));
    report.was_rejected(None);
    assert_eq!(report.replaces(), None);
}

#[test]
fn a_placement_depends_on_the_silence_of_those_who_count_as_dead() {
    let (desired, placement) = site();
    let over = BTreeMap::new();
    let seen = StoreView {
        is_current: true,
        desired: &desired,
        placement: &placement,
        at: Revision(7),
        over: &over,
        provider_reads: None,
        wall: None,
    };
    let mut conductor = Conductor::default();
    conductor.decide(Time::ZERO, &seen, BTreeMap::new());
    assert_eq!(conductor.counted_dead(&placement), []);
    let later = Time::ZERO + rollout::SILENCE;
    conductor.decide(later, &seen, BTreeMap::new());
    let all: Vec<ServerName> = placement.servers.keys().copied().collect();
    assert_eq!(conductor.counted_dead(&placement), all);
}
