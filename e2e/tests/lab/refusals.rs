//! Bad input: a clear message that says what to do, and the documented exit code.

use gaiola_e2e::{Site, Who, ended};
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn a_taken_port_is_named_with_the_option_that_chooses_another() {
    let site = Site::app(Who::caller(), "ports", 1, 1);
    let taken = TcpListener::bind(site.door()).unwrap();
    let address = site.door().to_string();
    site.gaiola(&["up", "-d"])
        .expect(1, &["the front door", &address, "in use", "--front-door"]);
    drop(taken);
    let taken = TcpListener::bind(site.page()).unwrap();
    let address = site.page().to_string();
    site.gaiola(&["up", "-d"])
        .expect(1, &["the status page", &address, "in use", "--page"]);
    drop(taken);
    site.wait_for_nothing();
    site.up();
}

#[test]
fn every_mistake_in_the_file_is_told_with_its_place() {
    let site = Site::new(
        Who::caller(),
        "wrong",
        "[app]\nrun = \"true\"\nservres = 2\n[web]\nservers = \"two\"\n",
    );
    for command in [&["up", "-d"][..], &["check"], &["plan"], &["status"]] {
        site.gaiola(command)
            .expect(3, &["gaiola.toml:4:1: ", "servers", "gaiola.toml:6:11: "]);
    }
    assert!(site.processes().is_empty() && !site.state().exists());
    site.gaiola(&["up", "-d", "-f", "absent.toml"])
        .expect(1, &["absent.toml", "-f"]);
    site.gaiola(&["upp"]).expect(2, &["up"]);
    site.gaiola(&["scale"]).expect(2, &["TIER=N"]);
}

#[test]
fn what_cannot_be_scaled_or_drained_is_said() {
    let site = Site::app(Who::caller(), "limits", 1, 1);
    site.gaiola(&["scale", "app=2"]).expect(1, &["is not up"]);
    site.up();
    site.gaiola(&["scale", "web=2"]).expect(2, &["web"]);
    site.gaiola(&["scale", "app=0"]).expect(2, &["app"]);
    site.gaiola(&["scale", "app=many"]).expect(2, &["app=many"]);
    site.gaiola(&["drain", "app9"])
        .expect(2, &["app9", "gaiola status"]);
    site.gaiola(&["exec", "app9", "--", "true"])
        .expect(1, &["there is no app9; there are app1"]);
    site.gaiola(&["logs", "-n", "app9"])
        .expect(1, &["there is no app9; there are app1"]);
    site.gaiola(&["up", "-d", "--front-door", "127.0.0.1:9"])
        .expect(
            1,
            &["is up, and the site is at", "gaiola down, then gaiola up"],
        );
    assert!(site.is_healthy());
}

#[test]
fn a_second_change_is_refused_while_one_runs() {
    let site = Site::app(Who::caller(), "second", 1, 1);
    site.up();
    site.switch("app1.2", "sick");
    let first = site.start(&["scale", "app=1x2"]);
    site.wait_for("the change is in progress", Duration::from_secs(20), || {
        site.on("app1", "app1.2").is_some()
    });
    site.gaiola(&["scale", "app=2"])
        .expect(7, &["another change is in progress"]);
    site.gaiola(&["up", "-d"])
        .expect(7, &["another change is in progress"]);
    site.switch("app1.2", "");
    ended(first).expect(0, &[]);
    site.gaiola(&["scale", "app=2"]).expect(0, &[]);
}

#[test]
fn who_goes_away_does_not_keep_others_from_changing() {
    let site = Site::app(Who::caller(), "away", 1, 1);
    site.up();
    site.switch("app1.2", "sick");
    let mut first = site.start(&["scale", "app=1x2"]);
    site.wait_for("the change is in progress", Duration::from_secs(20), || {
        site.on("app1", "app1.2").is_some()
    });
    first.kill().unwrap();
    first.wait().unwrap();
    site.wait_for("others may change", Duration::from_secs(20), || {
        site.gaiola(&["scale", "app=1x1"]).code == 0
    });
    assert!(site.on("app1", "app1.2").is_none());
}

#[test]
fn a_change_that_takes_too_long_says_what_it_waits_for() {
    let site = Site::app(Who::caller(), "late", 1, 1);
    site.switch("all", "hang");
    site.gaiola(&["up", "-d", "--timeout", "6s"])
        .expect(5, &["app1.1", "GET /up"]);
    assert_eq!(site.status().0, 4);
    site.switch("all", "");
    site.up();
    assert!(site.is_healthy());
}

#[test]
fn two_at_a_time_bring_one_site_up_once() {
    let site = Site::app(Who::caller(), "twice", 1, 1);
    let (one, other) = (site.start(&["up", "-d"]), site.start(&["up", "-d"]));
    let mut codes = [ended(one), ended(other)].map(|ran| ran.code);
    codes.sort_unstable();
    assert!(codes == [0, 0] || codes == [0, 7], "{codes:?}");
    assert!(site.is_healthy());
}
