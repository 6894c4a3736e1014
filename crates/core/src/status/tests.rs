//! What becomes of a status whose servers do not answer.

use super::*;
use gaiola_model::Inventory;
use gaiola_model::config::{App, Config};
use gaiola_model::placement::{Release, ReleaseNumber};

fn status_of_app1() -> Status {
    let config = Config::new("site".parse().unwrap(), App::new("run"));
    let release = Release {
        number: ReleaseNumber(1),
        digest: String::new(),
    };
    let inventory = Inventory::numbered(&config, [10, 77]);
    let desired = Desired::first(config, release, inventory);
    let placement = rollout::first(&desired, "a".into());
    let mut status = status(&desired, &placement, Revision(1), &Facts::default());
    let server = &mut status.servers[0];
    (server.state, server.reason) = (ServerState::Serving, String::new());
    server.instances = vec![InstanceStatus {
        name: "app1.1".parse().unwrap(),
        address: ([10, 77, 3, 1], 3001).into(),
        release: ReleaseNumber(1),
        state: Some(InstanceState::Ready),
        doubted: false,
        busy: false,
        restarts: 0,
        reason: String::new(),
    }];
    status.missing.clear();
    status.healthy = true;
    status
}

fn silent(of: Silent, seconds: u64) -> BTreeMap<ServerName, Silence> {
    let since = Duration::from_secs(seconds);
    BTreeMap::from([(ServerName::new(Tier::App, 1), Silence { of, since })])
}

#[test]
fn what_a_silent_agent_reported_is_shown_as_old() {
    let mut status = status_of_app1();
    mark_silent(&mut status, &BTreeMap::new());
    assert!(status.healthy && render(&status, false).contains("1/1 ready"));
    mark_silent(&mut status, &silent(Silent::Agent, 4));
    let words = "has not answered for 4 s, so its last report is outdated";
    assert_eq!(status.missing, [format!("app1 {words}")]);
    assert!(!status.healthy && status.servers[0].state == ServerState::Degraded);
    let reported = status.may_fail.len();
    mark_silent(&mut status, &silent(Silent::Agent, 5));
    assert_eq!(status.may_fail.len(), reported);
    status.may_fail.clear();
    mark_silent(&mut status, &silent(Silent::Agent, 4));
    let doubt = "unknown whether the app tier survives a loss while app1 does not answer";
    assert_eq!(status.may_fail[0].words, doubt);
    let text = render(&status, false);
    assert!(text.contains("0/1 ready") && text.contains(words), "{text}");
}

#[test]
fn a_server_that_is_off_is_missing_while_its_last_report_stands() {
    let mut status = status_of_app1();
    assert!(status.healthy);
    let off = BTreeSet::from([status.servers[0].name]);
    mark_off(&mut status, &off);
    assert_eq!(status.missing, ["app1 is switched off"]);
    assert!(!status.healthy && status.servers[0].state == ServerState::Lost);
    // What is reported of it already is not reported twice.
    status.missing = vec!["app1 is silent".into()];
    mark_off(&mut status, &off);
    assert_eq!(status.missing, ["app1 is silent"]);
}

#[test]
fn a_silent_proxy_is_named_and_its_servers_instances_are_not_doubted() {
    let mut status = status_of_app1();
    mark_silent(&mut status, &silent(Silent::Proxy, 3));
    assert_eq!(
        status.missing,
        ["app1 has a proxy that has not answered for 3 s"]
    );
    assert!(!status.servers[0].instances[0].doubted);
    // What is reported of it already is not reported twice.
    status.missing = vec!["app1 has a proxy that does not answer".into()];
    mark_silent(&mut status, &silent(Silent::Proxy, 4));
    assert_eq!(status.missing.len(), 1);
}

#[test]
fn a_server_with_an_instance_in_doubt_is_not_green() {
    let mut status = status_of_app1();
    let green = |status: &Status| render(status, true).contains("\u{1b}[32mserving");
    assert!(green(&status));
    let instance = &mut status.servers[0].instances[0];
    (instance.doubted, instance.reason) = (true, "GET /up: no answer within 2 s".into());
    assert!(!green(&status));
    let words = "0/1 ready; store; app1.1 is in doubt: GET /up: no answer within 2 s";
    let text = render(&status, false);
    assert!(text.contains(words), "{text}");
}

#[test]
fn a_busy_server_serves_and_is_not_green() {
    let mut status = status_of_app1();
    let server = &mut status.servers[0];
    (server.state, server.reason) = (ServerState::Busy, "has app1.1, which is busy".into());
    server.instances[0].busy = true;
    assert!(!render(&status, true).contains("\u{1b}[32mbusy"));
    let text = render(&status, false);
    let words = "1/1 serve, 1 of them busy; store; has app1.1, which is busy";
    assert!(text.contains(words), "{text}");
    // What its agent reported is old: it does not count as serving any more.
    mark_silent(&mut status, &silent(Silent::Agent, 4));
    assert!(status.servers[0].state == ServerState::Degraded);
    assert!(render(&status, false).contains("0/1 ready"));
}
