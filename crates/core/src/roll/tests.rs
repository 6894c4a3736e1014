use super::*;
use crate::rollout::{self, Facts};
use gaiola_model::config::{App, Balancer, Config, Database};
use gaiola_model::inventory::Host;
use gaiola_model::placement::{
    Aside, DatabaseRole, Desired, ObservedDatabase, Release, ReleaseNumber, Revision,
};
use gaiola_model::status::{MayFail, ServerState, ServerStatus, Status, StoreMemberStatus};
use gaiola_model::{Inventory, ServerName, Tier, Time};
use std::collections::BTreeSet;
use std::time::Duration;

fn name(text: &str) -> ServerName {
    text.parse().unwrap()
}

fn host(text: &str) -> Host {
    Host(text.into())
}

/// A healthy site of these servers, each on its machine; the first database server is the primary.
fn site(standing: &[(&str, &str)]) -> Status {
    let mut config = Config::new("shop".parse().unwrap(), App::new("run"));
    config.balancer = Some(Balancer::default());
    config.database = Some(Database::default());
    let release = Release {
        number: ReleaseNumber(1),
        digest: String::new(),
    };
    let inventory = Inventory::numbered(&config, [10, 77]);
    let desired = Desired::first(config, release, inventory);
    let placement = rollout::first(&desired, "a".into());
    let known = crate::status::status(&desired, &placement, Revision(1), &Facts::default());
    let template = known.servers[0].clone();
    let servers: Vec<ServerStatus> = standing
        .iter()
        .map(|(server, on)| server_on(&template, name(server), on))
        .collect();
    let primary = servers.iter().find(|it| it.tier == Tier::Database);
    Status {
        healthy: true,
        missing: Vec::new(),
        may_fail: Vec::new(),
        primary: primary.map(|server| server.name),
        servers,
        ..known
    }
}

fn server_on(template: &ServerStatus, name: ServerName, on: &str) -> ServerStatus {
    let mut server = ServerStatus {
        name,
        tier: name.tier,
        state: ServerState::Serving,
        reason: String::new(),
        ..template.clone()
    };
    server.location.host = host(on);
    server.database = (name.tier == Tier::Database).then(|| database("streaming"));
    server
}

fn database(state: &str) -> ObservedDatabase {
    ObservedDatabase {
        role: DatabaseRole::Standby,
        state: state.into(),
        timeline: 1,
        lag_bytes: Some(0),
        replayed: None,
        history: None,
        requires_tls: None,
    }
}

const THREE: [(&str, &str); 8] = [
    ("lb1", "a"),
    ("lb2", "b"),
    ("app1", "a"),
    ("app2", "b"),
    ("app3", "c"),
    ("db1", "a"),
    ("db2", "b"),
    ("db3", "c"),
];

fn hosts(turns: &[Turn]) -> Vec<&str> {
    turns.iter().map(|turn| turn.host.0.as_str()).collect()
}

fn roll(status: &Status, words: &[&str]) -> Result<Vec<Turn>, NoTurn> {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    turns(status, true, &[host("m-9")], &words, Purpose::Command)
}

#[test]
fn the_primarys_machine_has_the_last_turn_and_spare_machines_the_first() {
    let turns = roll(&site(&THREE), &[]).unwrap();
    assert_eq!(hosts(&turns), ["m-9", "b", "c", "a"]);
    assert!(turns[0].drain.is_empty() && turns[0].servers.is_empty());
    assert_eq!(turns[3].drain, ["lb1", "app1", "db1"].map(name).into());
    assert!(turns.iter().all(|turn| turn.alone.is_empty()));
}

#[test]
fn an_upgrade_drains_the_database_alone() {
    let upgrade = |status: &Status| turns(status, true, &[], &[], Purpose::Upgrade).unwrap();
    let all = upgrade(&site(&THREE));
    assert_eq!(all[2].drain, ["db1"].map(name).into());
    assert_eq!(all[2].servers.len(), 3);
    let all = upgrade(&site(&[("lb1", "a"), ("app1", "a")]));
    assert!(all[0].drain.is_empty() && all[0].alone.is_empty());
}

#[test]
fn tiers_servers_and_machines_can_be_named() {
    let status = site(&THREE);
    assert_eq!(hosts(&roll(&status, &["balancer"]).unwrap()), ["b", "a"]);
    assert_eq!(
        hosts(&roll(&status, &["app3", "m-9"]).unwrap()),
        ["m-9", "c"]
    );
    let why = roll(&status, &["b", "web"]).unwrap_err().to_string();
    assert!(
        why.starts_with("web is no tier, server or machine of the site; there are "),
        "{why}"
    );
    assert!(why.contains("database") && why.contains("m-9"), "{why}");
}

#[test]
fn what_stands_on_one_machine_alone_is_named() {
    let mut status = site(&[("lb1", "a"), ("app1", "a"), ("app2", "b")]);
    let turns = roll(&status, &["a"]).unwrap();
    assert_eq!(turns[0].alone, [name("lb1")]);
    assert_eq!(turns[0].drain, [name("app1")].into());
    // One that does not serve takes over from nobody.
    status.servers[2].state = ServerState::Drained;
    let turns = roll(&status, &["a"]).unwrap();
    assert_eq!(turns[0].alone, ["lb1", "app1"].map(name));
}

#[test]
fn in_the_lab_each_server_has_a_turn_of_its_own() {
    let status = site(&[("app1", "localhost"), ("app2", "localhost")]);
    let turns = turns(&status, false, &[], &[], Purpose::Command).unwrap();
    assert_eq!(hosts(&turns), ["app1", "app2"]);
    assert_eq!(turns[0].drain, [name("app1")].into());
}

#[test]
fn nothing_begins_where_something_is_missing() {
    let mut status = site(&THREE);
    (status.healthy, status.missing) = (false, vec!["lb1 is silent".into()]);
    let why = roll(&status, &[]).unwrap_err().to_string();
    assert!(why.ends_with("lb1 is silent"), "{why}");
}

#[test]
fn a_machine_that_was_left_set_aside_has_the_first_turn() {
    let mut status = site(&THREE);
    for server in [4, 7] {
        status.servers[server].state = ServerState::Drained;
    }
    status.aside = Some(Aside {
        host: host("c"),
        servers: [name("app3")].into(),
        by: "gaiola roll of root@laptop".into(),
    });
    let turns = roll(&status, &[]).unwrap();
    assert_eq!(hosts(&turns), ["c", "m-9", "b", "a"]);
    // db3 was drained by the operator before, and stays so.
    assert_eq!(turns[0].drain, [name("app3")].into());
    let why = roll(&status, &["a"]).unwrap_err().to_string();
    assert!(
        why.starts_with("c is still set aside by gaiola roll of root@laptop"),
        "{why}"
    );
}

#[test]
fn what_was_left_set_aside_takes_over_from_the_others_once_it_had_its_turn() {
    let mut status = site(&[("lb1", "a"), ("lb2", "b")]);
    status.servers[0].state = ServerState::Drained;
    status.aside = Some(Aside {
        host: host("a"),
        servers: [name("lb1")].into(),
        by: "gaiola roll of root@laptop".into(),
    });
    let turns = roll(&status, &["a", "b"]).unwrap();
    assert_eq!(turns[1].drain, [name("lb2")].into());
    assert!(turns.iter().all(|turn| turn.alone.is_empty()));
}

#[test]
fn the_next_turn_waits_for_the_standby_and_for_what_was_safe_before() {
    let mut status = site(&THREE);
    let turns = roll(&status, &["c"]).unwrap();
    let before = Before::of(&status);
    let missing = |status: &Status, stage| missing(status, &turns[0], stage, &before);
    assert!(missing(&status, Stage::Aside).is_empty());
    status.servers[7].database = Some(database("starting"));
    let words = ["db3 does not follow the primary yet"];
    assert_eq!(missing(&status, Stage::Aside), words);
    assert!(missing(&status, Stage::Back).is_empty());
    status.may_fail = vec![MayFail {
        tier: None,
        words: "2 of the store's 3 members are up".into(),
    }];
    assert_eq!(
        missing(&status, Stage::Back),
        ["2 of the store's 3 members are up"]
    );
    let worse = Before::of(&status);
    assert!(super::missing(&status, &turns[0], Stage::Back, &worse).is_empty());
}

#[test]
fn what_is_whole_has_been_so_for_a_while() {
    let at = |seconds| Time::from_start(Duration::from_secs(seconds));
    let mut whole = Whole::new(Duration::from_secs(3));
    let gone = ["app1 is silent".to_string()];
    let seen = [
        (0, true),
        (2, true),
        (3, false),
        (4, true),
        (6, true),
        (7, true),
    ];
    let seen = seen.map(|(second, is_there)| {
        let missing: &[String] = if is_there { &[] } else { &gone };
        whole.step(at(second), missing)
    });
    assert_eq!(seen, [false, false, false, false, false, true]);
}

#[test]
fn how_it_ended_says_how_to_go_on() {
    let ended = Ended {
        done: vec![host("b")],
        failed: Some(Failed {
            host: host("c"),
            why: "the command ended with 1".into(),
            aside: false,
        }),
        left: vec![host("a")],
        again: "gaiola roll --reboot".into(),
        then: Some(" -- apt-get -y upgrade".into()),
    };
    assert_eq!(
        ended.to_string(),
        "stopped at c: the command ended with 1; it takes traffic again\n  done: b\n  not begun: a\n  \
         once the reason is gone, go on with: gaiola roll --reboot c a -- apt-get -y upgrade"
    );
    let upgrade = Ended {
        again: "gaiola upgrade".into(),
        then: None,
        ..ended
    };
    assert!(upgrade.to_string().ends_with("go on with: gaiola upgrade"));
    let all: BTreeSet<bool> = [may_go_back(2, 2), may_go_back(2, 3)].into();
    assert_eq!(all.len(), 2);
}

fn member(server: &str, trouble: &str) -> StoreMemberStatus {
    StoreMemberStatus {
        server: name(server),
        trouble: (!trouble.is_empty()).then(|| trouble.into()),
    }
}

#[test]
fn a_turn_waits_for_a_member_of_the_store_that_is_not_back() {
    let members = [
        member("lb1", ""),
        member("app2", "does not answer"),
        member("db3", ""),
    ];
    assert_eq!(
        members_missing(&members),
        ["the store's member on app2 does not answer"]
    );
    assert_eq!(members_missing(&members[..1]), [""; 0]);
}

#[test]
fn no_turn_costs_the_store_its_majority() {
    let turns = roll(&site(&THREE), &[]).unwrap();
    let of = |on: &str| turns.iter().find(|turn| turn.host == host(on)).unwrap();
    let well = ["lb1", "app2", "db3"].map(|server| member(server, ""));
    assert!(turns.iter().all(|turn| keeps_quorum(&well, turn).is_ok()));
    let mut ill = well.clone();
    ill[1] = member("app2", "does not answer");
    // The machine that has the member which is lost already may have its turn, and one without any.
    assert_eq!(keeps_quorum(&ill, of("b")), Ok(()));
    assert_eq!(keeps_quorum(&ill, of("m-9")), Ok(()));
    assert_eq!(
        keeps_quorum(&ill, of("a")).unwrap_err().to_string(),
        "without a 1 of the store's 3 members would work, which is no majority: the store's member on app2 does not answer"
    );
    // All members on one machine, and a store of one member.
    let crowded = ["lb1", "app1", "db1"].map(|server| member(server, ""));
    let why = keeps_quorum(&crowded, of("a")).unwrap_err().to_string();
    assert!(why.ends_with("the others are on it"), "{why}");
    assert_eq!(keeps_quorum(&well[..1], of("a")), Ok(()));
    assert_eq!(keeps_quorum(&[], of("a")), Ok(()));
}
