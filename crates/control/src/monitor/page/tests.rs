//! A made-up site, drawn.

use super::{Sight, render};
use crate::traffic::{Figures, Load};
use gaiola_model::event::{Event, Severity, Subject};
use gaiola_model::inventory::Location;
use gaiola_model::placement::{
    DatabaseRole, InstanceState, ObservedDatabase, ReleaseNumber, Revision,
};
use gaiola_model::resources::Resources;
use gaiola_model::status::{
    Generation, InstanceStatus, MayFail, ReleaseStatus, SCHEMA, ServerState, ServerStatus, Status,
    VipStatus,
};
use gaiola_model::{InstanceName, ServerName, Tier};

fn server(name: &str) -> ServerStatus {
    let name: ServerName = name.parse().unwrap();
    let instance = |number| InstanceStatus {
        name: InstanceName {
            server: name,
            number,
        },
        address: ([10, 77, 3, 1], 3000 + number).into(),
        release: ReleaseNumber(3),
        state: Some(InstanceState::Ready),
        doubted: false,
        busy: false,
        restarts: 0,
        reason: String::new(),
    };
    let role = if name.number == 1 {
        DatabaseRole::Primary
    } else {
        DatabaseRole::SyncStandby
    };
    let database = ObservedDatabase {
        role,
        state: "running".into(),
        timeline: 5,
        lag_bytes: Some(0),
        ..ObservedDatabase::default()
    };
    ServerStatus {
        name,
        tier: name.tier,
        location: Location::at(
            [
                10,
                77,
                1 + name.tier as u8,
                u8::try_from(name.number).unwrap(),
            ]
            .into(),
        ),
        state: ServerState::Serving,
        reason: String::new(),
        vips: if name.tier == Tier::Balancer {
            vec![[10, 77, 0, 99 + u8::try_from(name.number).unwrap()].into()]
        } else {
            Vec::new()
        },
        instances: if name.tier == Tier::App {
            vec![instance(1), instance(2)]
        } else {
            Vec::new()
        },
        workers: Vec::new(),
        database: (name.tier == Tier::Database).then_some(database),
        store_member: name.tier == Tier::Balancer,
        resources: Resources::default(),
        troubles: Vec::new(),
    }
}

/// A healthy site of four tiers with two servers each.
pub(super) fn made_up() -> Status {
    let servers: Vec<_> = ["lb1", "lb2", "web1", "web2", "app1", "app2", "db1", "db2"]
        .map(server)
        .into();
    let vip = |server: &ServerStatus| {
        server
            .vips
            .iter()
            .map(|vip| VipStatus {
                address: *vip,
                home: server.name,
                owners: vec![server.name],
            })
            .collect::<Vec<_>>()
    };
    Status {
        schema: SCHEMA,
        site: "guestbook".parse().unwrap(),
        healthy: true,
        missing: Vec::new(),
        warnings: Vec::new(),
        may_fail: Vec::new(),
        waiting: Vec::new(),
        failed: None,
        generation: Generation {
            desired: 1,
            placed: 1,
            revision: Revision(7),
        },
        release: ReleaseStatus {
            desired: ReleaseNumber(3),
            released: Some(ReleaseNumber(3)),
            running: vec![ReleaseNumber(3)],
        },
        crons: Vec::new(),
        vips: servers.iter().flat_map(vip).collect(),
        primary: Some("db1".parse().unwrap()),
        store: vec!["lb1".parse().unwrap()],
        doors: Vec::new(),
        aside: None,
        maintenance: None,
        documents: 0,
        events: Vec::new(),
        servers,
    }
}

fn drawn(status: &Status, figures: &Figures, events: &[Event]) -> String {
    let status = Status {
        events: events.to_vec(),
        ..status.clone()
    };
    render(Sight {
        site: &status.site,
        status: Some(&status),
        figures,
        now: "2026-01-02 03:04:05 UTC",
    })
}

#[test]
fn a_healthy_site_says_so_in_words() {
    let page = drawn(&made_up(), &Figures::default(), &[]);
    for words in [
        "<strong>healthy</strong>",
        "● serving",
        "VIP 10.77.0.100",
        "sync standby",
        "timeline 5",
        "Any one server may die",
        "app1.2",
    ] {
        assert!(page.contains(words), "{words} is missing in {page}");
    }
    assert!(!page.contains("Needs attention"));
}

#[test]
fn every_state_is_shown_in_a_word() {
    for state in [
        ServerState::Starting,
        ServerState::Busy,
        ServerState::Degraded,
        ServerState::Draining,
        ServerState::Drained,
        ServerState::Lost,
    ] {
        let mut status = made_up();
        status.servers[3].state = state;
        assert!(
            drawn(&status, &Figures::default(), &[])
                .contains(&format!("</span> {}</span>", state.in_words()))
        );
    }
}

#[test]
fn what_others_wrote_is_text_and_nothing_else() {
    let evil = "<script>alert(1)</script>";
    let mut status = made_up();
    status.healthy = false;
    status.missing = vec![evil.into()];
    status.waiting = vec![evil.into()];
    status.failed = Some(evil.into());
    status.may_fail = vec![MayFail {
        tier: Some(Tier::Database),
        words: evil.into(),
    }];
    for server in &mut status.servers {
        server.reason = evil.into();
        server.troubles = vec![evil.into()];
        server
            .instances
            .iter_mut()
            .for_each(|instance| instance.reason = evil.into());
    }
    let event = Event {
        time: evil.into(),
        subject: Subject::Site,
        kind: evil.into(),
        text: evil.into(),
        severity: Severity::Error,
    };
    let page = drawn(&status, &Figures::default(), &[event]);
    assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
    assert_eq!(page.matches("<script").count(), 1, "but for our own");
}

#[test]
fn figures_and_errors_are_shown() {
    let load = Load {
        requests: 1240.0,
        errors: 2.0,
        p99: Some(0.084),
    };
    let (lb1, web1) = ("lb1".parse().unwrap(), "web1".parse().unwrap());
    let figures = Figures {
        site: Some(load),
        servers: [(lb1, load)].into(),
        ways: [((lb1, web1), load)].into(),
        ..Figures::default()
    };
    let page = drawn(&made_up(), &figures, &[]);
    for words in [
        "<dd class=\"\">1240</dd>",
        "<dd class=\"bad\">2.0</dd>",
        "84 ms",
        "class=\"way bad\"",
    ] {
        assert!(page.contains(words), "{words} is missing in {page}");
    }
}

#[test]
fn events_are_told_newest_first_and_twenty_at_most() {
    let event = |number: usize| Event {
        time: "2026-01-02T03:04:05.678Z".into(),
        subject: Subject::Site,
        kind: "a.b".into(),
        text: format!("event {number}."),
        severity: Severity::Notice,
    };
    let events: Vec<_> = (1..=30).map(event).collect();
    let page = drawn(&made_up(), &Figures::default(), &events);
    assert!(page.find("event 30.") < page.find("event 29."));
    assert!(page.contains("event 11.") && !page.contains("event 10."));
}

#[test]
fn a_site_of_which_nothing_is_known_is_drawn() {
    let site = made_up().site;
    let page = render(Sight {
        site: &site,
        status: None,
        figures: &Figures::default(),
        now: "",
    });
    assert!(page.contains("being brought up"));
    let mut status = made_up();
    status.servers.clear();
    assert!(drawn(&status, &Figures::default(), &[]).contains("Not known yet."));
}

#[test]
fn an_instance_in_doubt_is_not_drawn_as_ready_and_warnings_need_attention() {
    let mut status = made_up();
    let app1 = status
        .servers
        .iter_mut()
        .find(|server| server.name.to_string() == "app1")
        .unwrap();
    app1.instances[0].doubted = true;
    app1.instances[0].reason = "is not up according to web1".into();
    status.warnings = vec!["db1: the disk is almost full: 1 GB of 50.0 GB are free".into()];
    let page = drawn(&status, &Figures::default(), &[]);
    assert!(page.contains("▲</span> in doubt"), "{page}");
    assert!(page.contains("is not up according to web1"));
    assert!(page.contains("db1: the disk is almost full"));
}

#[test]
fn a_busy_server_counts_as_one_that_serves_and_is_not_drawn_as_ready() {
    let mut status = made_up();
    for server in &mut status.servers {
        if server.tier == Tier::App {
            (server.state, server.reason) = (ServerState::Busy, "has a busy instance".into());
            server.instances[0].busy = true;
            server.instances[0].reason = "is too busy to answer the check of web1".into();
        }
    }
    let page = drawn(&status, &Figures::default(), &[]);
    assert!(page.contains("2 of 2 app servers serve"), "{page}");
    assert!(page.contains("▲</span> busy"), "{page}");
    assert!(page.contains("is too busy to answer the check of web1"));
}
