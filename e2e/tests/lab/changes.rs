//! Changes of a running site under load: only an application tier, to which the front door forwards directly.

use gaiola_e2e::{Site, Who};
use std::collections::BTreeSet;

fn instances(site: &Site) -> BTreeSet<String> {
    (0..24)
        .map(|_| site.get("/").unwrap().field("instance"))
        .collect()
}

#[test]
fn load_servers_and_instances_are_added_and_taken_away() {
    let site = Site::app(Who::caller(), "scaled", 1, 1);
    site.up();
    let ((), figures) = site.under_load(100, || {
        site.gaiola(&["scale", "app=3x2"]).expect(0, &[]);
        assert_eq!(instances(&site).len(), 6);
        site.gaiola(&["scale", "app=1x1"]).expect(0, &[]);
        assert_eq!(instances(&site), ["app1.1".to_string()].into());
    });
    figures.assert_none_failed();
    assert!(site.server("app2").is_none() && !site.state().join("servers/app2").exists());
}

#[test]
fn load_a_drained_server_takes_no_request_until_it_is_undrained() {
    let site = Site::app(Who::caller(), "drained", 2, 1);
    site.up();
    let ((), figures) = site.under_load(100, || {
        site.gaiola(&["drain", "app2"]).expect(0, &[]);
        assert_eq!(instances(&site), ["app1.1".to_string()].into());
        site.gaiola(&["drain", "app2"]).expect(0, &[]);
        site.gaiola(&["undrain", "app2"]).expect(0, &[]);
        assert_eq!(instances(&site).len(), 2);
    });
    figures.assert_none_failed();
}

#[test]
fn load_a_changed_release_rolls_through() {
    let site = Site::app(Who::caller(), "rolled", 2, 2);
    site.up();
    site.write("page", "new");
    let ((), figures) = site.under_load(100, || drop(site.up()));
    figures.assert_none_failed();
    let releases: BTreeSet<String> = (0..8)
        .map(|_| site.get("/").unwrap().field("release"))
        .collect();
    assert_eq!(releases, ["2".to_string()].into());
}

#[test]
fn the_file_wins_over_what_was_scaled_by_hand_only_where_it_changed() {
    let site = Site::app(Who::caller(), "merged", 1, 1);
    site.up();
    site.gaiola(&["scale", "app=2"]).expect(0, &[]);
    site.edit("instances = 1", "instances = 2");
    site.gaiola(&["plan"]).expect(0, &["instances"]);
    site.up();
    assert_eq!(
        instances(&site).len(),
        4,
        "two servers by hand, two instances by the file"
    );
    site.edit("servers = 1", "servers = 3");
    site.up();
    assert_eq!(instances(&site).len(), 6);
}

#[test]
fn nothing_is_started_again_by_an_up_that_changes_nothing() {
    let site = Site::app(Who::caller(), "same", 1, 2);
    site.up();
    let pids = || ["app1.1", "app1.2"].map(|name| site.process("app1", name).pid);
    let before = pids();
    site.up();
    assert_eq!(pids(), before);
    site.edit("grace = \"1s\"", "grace = \"3s\"\nhealth = \"/\"");
    site.up();
    assert_eq!(
        pids(),
        before,
        "another grace and health path need no restart"
    );
    assert_eq!(site.get("/").unwrap().field("release"), "1");
}
