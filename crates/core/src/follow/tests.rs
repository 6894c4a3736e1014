//! A change of a site with one application server, from the outside.

use super::*;
use crate::rollout::Facts;
use gaiola_model::InstanceName;
use gaiola_model::Inventory;
use gaiola_model::config::{App, Config};
use gaiola_model::placement::{
    Desired, Failure, Phase, PlacedInstance, Release, ReleaseNumber, Template,
};
use gaiola_model::{Revision, ServerName, Tier};

const LIMIT: Duration = Duration::from_secs(600);

/// A site, as a change is followed.
struct Case {
    status: Status,
    placement: Placement,
    observed: Vec<Observed>,
}

fn at(seconds: u64) -> Time {
    Time::from_start(Duration::from_secs(seconds))
}

fn instance(number: u16) -> InstanceName {
    let server = ServerName::new(Tier::App, 1);
    InstanceName { server, number }
}

impl Case {
    /// All that is desired is there.
    fn settled() -> Self {
        let config = Config::new("site".parse().unwrap(), App::new("run"));
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = Inventory::numbered(&config, [10, 77]);
        let desired = Desired::first(config, release, inventory);
        let placement = rollout::first(&desired, "a".into());
        let status = crate::status::status(&desired, &placement, Revision(1), &Facts::default());
        let mut case = Self {
            status,
            placement,
            observed: vec![Observed::nothing_on(instance(1).server)],
        };
        case.status.missing.clear();
        case
    }

    fn missing(mut self, why: &str) -> Self {
        self.status.missing.push(why.into());
        self
    }

    /// An instance of a release that is there and not ready.
    fn unready(mut self, number: u16, release: u64, restarts: u32) -> Self {
        let placed = PlacedInstance {
            release: ReleaseNumber(release),
            run: "run".into(),
            health: None,
            database: false,
            encrypted: false,
            env: 0,
            restart: 0,
            phase: Phase::Serve,
            since: Revision(1),
        };
        self.placement.instances.insert(instance(number), placed);
        let seen = ObservedInstance {
            state: InstanceState::Crashed,
            restarts,
            reason: "exited with status 1".into(),
            release: ReleaseNumber(release),
            run: "run".into(),
        };
        self.observed[0].instances.insert(instance(number), seen);
        self.missing("app1 has 0 of 1 instances")
    }

    fn given_up(mut self) -> Self {
        let failure = Failure {
            generation: 1,
            release: ReleaseNumber(2),
            attempt: 0,
            instance: None,
            settings: false,
            reason: "exit status 1".into(),
        };
        let words = failure.in_words();
        self.placement.failed = Some(failure);
        self.status.failed = Some("exit status 1".into());
        self.missing(&words)
    }

    fn good(mut self) -> Self {
        self.placement.good = Some(Template {
            release: ReleaseNumber(1),
            run: "run".into(),
            health: "/up".into(),
            database: false,
            encrypted: false,
            env: 0,
        });
        self
    }

    fn step(&self, follow: &mut Follow, now: Time) -> Next {
        let observed: Vec<&Observed> = self.observed.iter().collect();
        let sight = Sight {
            status: &self.status,
            placement: Some(&self.placement),
            observed: &observed,
        };
        follow.step(now, Some(sight))
    }
}

fn follow(deploys: bool) -> Follow {
    Follow::new(deploys, Time::ZERO + LIMIT)
}

#[test]
fn what_is_there_for_a_while_is_done() {
    let (case, mut follow) = (Case::settled(), follow(false));
    assert_eq!(case.step(&mut follow, at(1)), Next::Wait);
    let broken = Case::settled().missing("lb1 is switched off");
    assert_eq!(broken.step(&mut follow, at(2)), Next::Wait);
    assert_eq!(case.step(&mut follow, at(3)), Next::Wait);
    assert_eq!(case.step(&mut follow, at(3) + CALM), Next::Done);
}

#[test]
fn nothing_is_concluded_before_the_store_has_reported_the_change() {
    let mut follow = follow(true);
    assert_eq!(follow.step(at(1), None), Next::Wait);
    assert_eq!(follow.step(at(2), None), Next::Wait);
    let Next::Late(missing) = follow.step(Time::ZERO + LIMIT, None) else {
        panic!("it waits without end");
    };
    assert_eq!(missing, ["the store has not reported this change yet"]);
}

#[test]
fn what_is_missing_when_time_is_over_is_named() {
    let (case, mut follow) = (Case::settled().missing("lb1 is silent"), follow(false));
    let late = Next::Late(vec!["lb1 is silent".into()]);
    assert_eq!(case.step(&mut follow, Time::ZERO + LIMIT), late);
}

#[test]
fn what_is_there_just_in_time_is_done() {
    let (case, mut follow) = (Case::settled(), follow(false));
    let end = Time::ZERO + LIMIT;
    assert_eq!(case.step(&mut follow, end), Next::Wait);
    assert_eq!(case.step(&mut follow, end + CALM), Next::Done);
}

#[test]
fn a_release_that_is_given_up_fails_its_deployment_and_no_other_change() {
    let why = "release 2 was given up: exit status 1; what ran before goes on";
    let case = Case::settled().given_up().good();
    assert_eq!(
        case.step(&mut follow(true), at(1)),
        Next::Failed(why.into())
    );
    let mut other = follow(false);
    assert_eq!(case.step(&mut other, at(1)), Next::Wait);
    assert_eq!(case.step(&mut other, at(2)), Next::Done);
    let without_good = Case::settled().given_up();
    assert_eq!(
        without_good.step(&mut follow(false), at(1)),
        Next::Failed(why.into())
    );
}

#[test]
fn instances_that_keep_ending_or_never_get_ready_are_not_waited_for() {
    let mut follow = follow(true);
    let crashes = |restarts| Case::settled().unready(1, 1, restarts);
    assert_eq!(crashes(5).step(&mut follow, at(1)), Next::Wait);
    let again = 5 + rollout::MAX_CRASHES;
    let Next::Failed(why) = crashes(again).step(&mut follow, at(2)) else {
        panic!("it is waited for");
    };
    assert!(
        why.starts_with("app1.1 keeps ending: exited with status 1"),
        "{why}"
    );
    let mut slow = Follow::new(true, Time::ZERO + LIMIT * 10);
    assert_eq!(crashes(0).step(&mut slow, at(1)), Next::Wait);
    let late = at(1) + rollout::READY_DEADLINE;
    let Next::Failed(why) = crashes(0).step(&mut slow, late) else {
        panic!("it is waited for");
    };
    assert!(why.starts_with("app1.1 does not get ready"), "{why}");
}

#[test]
fn while_old_instances_run_the_conductor_goes_back_by_itself() {
    let mut follow = Follow::new(true, Time::ZERO + LIMIT * 10);
    let rolls = |restarts| Case::settled().unready(1, 1, 0).unready(2, 2, restarts);
    assert_eq!(rolls(0).step(&mut follow, at(1)), Next::Wait);
    assert_eq!(rolls(99).step(&mut follow, at(2)), Next::Wait);
    let late = at(2) + rollout::READY_DEADLINE;
    assert_eq!(rolls(99).step(&mut follow, late), Next::Wait);
}

#[test]
fn instances_that_the_change_exchanges_do_not_make_it_fail() {
    let rolls = |release, placed, restarts| {
        let mut case = Case::settled().unready(1, 1, restarts);
        case.status.release.desired = ReleaseNumber(release);
        case.status.generation.placed = placed;
        case
    };
    for (release, placed) in [(2, 1), (1, 0)] {
        let mut follow = follow(true);
        let before = rolls(release, placed, 0);
        assert_eq!(before.step(&mut follow, at(1)), Next::Wait);
        let after = rolls(release, placed, 99);
        assert_eq!(after.step(&mut follow, at(2)), Next::Wait);
    }
}

#[test]
fn a_machine_that_is_silent_is_named_once_with_what_to_do() {
    let mut status = Case::settled().status;
    let template = status.servers[0].clone();
    let server = |name: &str, host: &str, state| {
        let mut server = template.clone();
        server.name = name.parse().unwrap();
        server.location.host = Host(host.into());
        server.state = state;
        server
    };
    status.servers = vec![
        server("web1", "m1", ServerState::Serving),
        server("app1", "m1", ServerState::Lost),
        server("web2", "m2", ServerState::Lost),
        server("app2", "m2", ServerState::Lost),
    ];
    let missing = |all: &[&str]| {
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        in_words(&all, &status)
    };
    let m2 =
        "m2 is silent, with web2 app2: see that it is on and reached, it follows by itself then";
    let both = ["web2 is silent", "app2 is silent"];
    assert_eq!(missing(&both), (m2.into(), true));
    let more = ["web2 is silent", "app1 is silent", "app2 is silent"];
    assert_eq!(missing(&more), (format!("{m2}; app1 is silent"), false));
    let other = "app1 is starting";
    assert_eq!(missing(&[other]), (other.into(), false));
    assert_eq!(missing(&[]), (String::new(), false));
}
