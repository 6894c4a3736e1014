//! Bringing sites up and down, and what is left when all processes die.

use gaiola_e2e::{Site, Who, namespaces_of, processes};
use std::collections::BTreeSet;
use std::time::Duration;

fn comes_up_and_leaves_nothing(who: Who) {
    if !who.is_here() {
        return;
    }
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let site = Site::app(who, "plain", 2, 2);
    site.up()
        .expect(0, &["plain is up", &format!("http://{}/", site.door())]);
    assert!(site.is_healthy());
    let instances: BTreeSet<String> = (0..8)
        .map(|_| site.get("/").unwrap().field("instance"))
        .collect();
    assert_eq!(
        instances,
        ["app1.1", "app1.2", "app2.1", "app2.2"]
            .map(String::from)
            .into()
    );
    let outside = namespaces_of(&[processes()
        .into_iter()
        .find(|process| process.pid == std::process::id())
        .unwrap()]);
    let theirs: BTreeSet<String> = &namespaces_of(&site.processes()) - &outside;
    assert!(
        theirs.iter().filter(|name| name.starts_with("net")).count() >= 3,
        "{theirs:?}"
    );
    site.down().expect(0, &["plain is down"]);
    site.wait_for_nothing();
    let left: Vec<String> = namespaces_of(&processes())
        .intersection(&theirs)
        .cloned()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(mounts(), before);
    assert!(site.get("/").is_err());
    site.gaiola(&["down"]).expect(0, &["is not up"]);
    site.gaiola(&["status"])
        .expect(1, &["is not up", "gaiola up"]);
}

#[test]
fn a_site_comes_up_and_leaves_nothing_as_root() {
    comes_up_and_leaves_nothing(Who::Root);
}

#[test]
fn a_site_comes_up_and_leaves_nothing_rootless() {
    comes_up_and_leaves_nothing(Who::Rootless);
}

fn survives_the_death_of_everything(who: Who) {
    if !who.is_here() {
        return;
    }
    let site = Site::app(who, "dies", 1, 1);
    site.up();
    site.gaiola(&["scale", "app=2x2"]).expect(0, &[]);
    site.kill_everything();
    site.gaiola(&["status"]).expect(1, &["is not up"]);
    site.up();
    let answered: BTreeSet<String> = (0..8)
        .map(|_| site.get("/").unwrap().field("instance"))
        .collect();
    assert_eq!(answered.len(), 4, "scaled values stay: {answered:?}");
    site.down();
    site.wait_for_nothing();
    site.up();
    assert_eq!(
        (0..8)
            .map(|_| site.get("/").unwrap().field("instance"))
            .collect::<BTreeSet<_>>(),
        answered
    );
}

#[test]
fn when_everything_is_killed_the_data_stays_as_root() {
    survives_the_death_of_everything(Who::Root);
}

#[test]
fn when_everything_is_killed_the_data_stays_rootless() {
    survives_the_death_of_everything(Who::Rootless);
}

fn everything_dies_with_the_lab(who: Who) {
    if !who.is_here() {
        return;
    }
    let site = Site::app(who, "gone", 2, 1);
    site.up();
    site.lab().kill();
    site.wait_for_nothing();
    site.up();
    assert_eq!(site.get("/").unwrap().status, 200);
}

#[test]
fn everything_dies_with_the_lab_as_root() {
    everything_dies_with_the_lab(Who::Root);
}

#[test]
fn everything_dies_with_the_lab_rootless() {
    everything_dies_with_the_lab(Who::Rootless);
}

#[test]
fn two_sites_run_side_by_side() {
    let (one, other) = (
        Site::app(Who::caller(), "left", 1, 1),
        Site::app(Who::Rootless, "right", 1, 1),
    );
    one.up();
    other.up();
    assert!(one.is_healthy() && other.is_healthy());
    assert_ne!(one.get("/").unwrap().field("pid"), "null");
    one.down();
    one.wait_for_nothing();
    assert_eq!(other.get("/").unwrap().status, 200);
    assert!(other.is_healthy());
}

#[test]
fn down_can_be_followed_by_up_at_once() {
    let site = Site::app(Who::caller(), "again", 1, 1);
    for _ in 0..5 {
        site.up();
        site.down();
    }
}

#[test]
fn ctrl_c_in_the_foreground_brings_everything_down() {
    let site = Site::app(Who::caller(), "front", 1, 1);
    let up = site.start(&["up"]);
    site.wait_for("the site answers", Duration::from_secs(30), || {
        site.get("/").is_ok() && site.is_healthy()
    });
    gaiola_os::process::signal(up.id(), rustix::process::Signal::INT);
    gaiola_e2e::ended(up).expect(130, &["bringing front down"]);
    site.wait_for_nothing();
}
