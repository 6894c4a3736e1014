//! All tiers except the database: balancers with their VIPs, web servers, application servers.

use gaiola_e2e::{Site, Who, ended};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn site(who: Who, name: &str) -> Site {
    let file = "[balancer]\nservers = 2\n[web]\nservers = 2\n[app]\nservers = 2\ninstances = 2\ngrace = \"3s\"\nrun = \"{run}\"\n";
    let site = Site::new(who, name, file);
    site.write("public/page.html", "a page\n");
    site
}

fn instances(site: &Site) -> BTreeSet<String> {
    (0..40)
        .map(|_| site.get("/").unwrap().field("instance"))
        .collect()
}

fn comes_up(who: Who) {
    if !who.is_here() {
        return;
    }
    let site = site(who, "tiers");
    site.up();
    assert!(site.is_healthy());
    assert_eq!(instances(&site).len(), 4);
    let page = site.get("/page.html").unwrap();
    assert_eq!((page.status, page.body.as_str()), (200, "a page\n"));
    site.kill_everything();
    site.up();
    assert!(site.is_healthy());
    site.down();
    site.wait_for_nothing();
}

#[test]
fn every_tier_comes_up_as_root() {
    comes_up(Who::Root);
}

#[test]
fn every_tier_comes_up_rootless() {
    comes_up(Who::Rootless);
}

#[test]
fn no_request_fails_while_tiers_are_scaled() {
    let site = site(Who::caller(), "scales");
    site.up();
    let ((), figures) = site.under_load(100, || {
        for to in [
            "app=3x2",
            "app=1x1",
            "web=3",
            "web=1",
            "balancer=3",
            "balancer=2",
        ] {
            site.gaiola(&["scale", to]).expect(0, &[]);
        }
    });
    figures.assert_none_failed();
    assert!(site.is_healthy());
}

#[test]
fn no_request_fails_while_servers_are_drained() {
    let site = site(Who::caller(), "drains");
    site.up();
    let ((), figures) = site.under_load(100, || {
        for server in ["app2", "web1", "lb1"] {
            site.gaiola(&["drain", server]).expect(0, &[]);
            site.gaiola(&["undrain", server]).expect(0, &[]);
        }
    });
    figures.assert_none_failed();
    assert!(site.is_healthy());
}

#[test]
fn no_request_fails_while_a_release_rolls_through() {
    let site = site(Who::caller(), "rolls");
    site.up();
    site.write("public/page.html", "another page\n");
    let ((), figures) = site.under_load(100, || drop(site.up()));
    figures.assert_none_failed();
    assert!((0..8).all(|_| site.get("/").unwrap().field("release") == "2"));
    assert_eq!(site.get("/page.html").unwrap().body, "another page\n");
}

#[test]
fn another_conductor_goes_on_without_a_failed_request() {
    let site = site(Who::caller(), "conducted");
    site.up();
    site.write("public/page.html", "another page\n");
    let ((), figures) = site.under_load(100, || {
        let up = site.start(&["up", "-d"]);
        site.wait_for("the roll-out has begun", SOON, || {
            (0..4).any(|_| site.get("/").unwrap().field("release") == "2")
        });
        for server in ["lb1", "lb2", "web1", "web2", "app1", "app2"] {
            site.process(server, "agent").kill();
        }
        ended(up).expect(0, &[]);
    });
    figures.assert_none_failed();
    assert!(site.is_healthy());
}

#[test]
fn the_store_survives_a_member_and_traffic_survives_the_store() {
    let site = site(Who::caller(), "stores");
    site.up();
    let stop = |server: &str| {
        gaiola_os::process::signal(
            site.process(server, "etcd").pid,
            rustix::process::Signal::STOP,
        )
    };
    let go_on = |server: &str| {
        gaiola_os::process::signal(
            site.process(server, "etcd").pid,
            rustix::process::Signal::CONT,
        )
    };
    let ((), figures) = site.under_load(100, || {
        stop("lb1");
        site.gaiola(&["scale", "app=1x2"]).expect(0, &[]);
        stop("web1");
        site.gaiola(&["scale", "app=2x2", "--timeout", "8s"])
            .expect(5, &["the store does not answer"]);
        site.gaiola(&["up", "-d", "--timeout", "8s"])
            .expect(5, &["the store does not answer"]);
        go_on("web1");
        go_on("lb1");
        site.wait_for("it is healthy again", SOON, || site.is_healthy());
        site.gaiola(&["scale", "app=2x2"]).expect(0, &[]);
    });
    figures.assert_none_failed();
}

/// The servers with a store member, according to `status` and by their processes.
fn store_members(site: &Site) -> Vec<String> {
    let (_, status) = site.status();
    let servers = status["servers"].as_array().cloned().unwrap_or_default();
    let names = servers.iter().filter_map(|server| server["name"].as_str());
    let runs = names.filter(|name| site.on(name, "etcd").is_some());
    let runs: Vec<String> = runs.map(String::from).collect();
    assert_eq!(status["store"], json!(runs), "{status}");
    runs
}

#[test]
fn the_store_follows_the_tiers_from_one_server_to_three_and_back() {
    let site = Site::app(Who::caller(), "grows", 2, 1);
    site.write("public/page.html", "a page\n");
    site.up();
    assert_eq!(store_members(&site), ["app1"]);
    site.edit(
        "[app]",
        "[balancer]\nservers = 1\n[web]\nservers = 1\n[app]",
    );
    site.up();
    assert_eq!(store_members(&site), ["lb1", "web1", "app1"]);
    // Earlier writes are on all of them: any two can continue alone.
    for server in ["app1", "lb1", "web1"] {
        site.process(server, "etcd").kill();
        site.gaiola(&["drain", "app2"]).expect(0, &[]);
        site.gaiola(&["undrain", "app2"]).expect(0, &[]);
    }
    site.edit("[web]\nservers = 1\n", "");
    let ((), figures) = site.under_load(50, || drop(site.up()));
    figures.assert_none_failed();
    assert_eq!(store_members(&site), ["app1"]);
    assert!(site.server("web1").is_none());
    // A former member joins again without its old data.
    site.edit("[app]", "[web]\nservers = 1\n[app]");
    site.up();
    assert_eq!(store_members(&site), ["lb1", "web1", "app1"]);
    assert!(site.is_healthy());
}

#[test]
fn a_voter_of_the_store_that_lost_its_data_comes_again_as_a_learner() {
    let site = Site::app(Who::caller(), "voter", 2, 1);
    site.edit(
        "[app]",
        "[balancer]\nservers = 1\n[web]\nservers = 1\n[app]",
    );
    site.write("public/page.html", "a page\n");
    site.up();
    assert_eq!(store_members(&site), ["lb1", "web1", "app1"]);
    site.harm(&json!({ "cut_power": "web1" }));
    site.wait_for("web1 is off", SOON, || site.server("web1").is_none());
    let data = site.state().join("servers/web1/etcd/member");
    std::fs::remove_dir_all(&data).unwrap();
    site.up();
    assert_eq!(store_members(&site), ["lb1", "web1", "app1"]);
    assert!(data.join("wal").exists());
    // It has all data again, and its vote counts.
    site.process("app1", "etcd").kill();
    site.gaiola(&["drain", "app2"]).expect(0, &[]);
    site.gaiola(&["undrain", "app2"]).expect(0, &[]);
    assert!(site.is_healthy());
}

#[test]
fn old_orders_on_the_disk_end_no_member_of_the_store() {
    let site = Site::app(Who::caller(), "stale", 2, 1);
    site.write("public/page.html", "a page\n");
    site.up();
    let order = |server: &str| match server {
        "" => site.state().join("placement.json"),
        server => site
            .state()
            .join(format!("servers/{server}/placement.json")),
    };
    let old = std::fs::read(order("")).unwrap();
    site.edit(
        "[app]",
        "[balancer]\nservers = 1\n[web]\nservers = 1\n[app]",
    );
    site.up();
    site.down();
    // The old order names neither lb1 nor web1, whose votes are needed. Only app2 keeps its last order.
    for server in ["", "lb1", "web1", "app1"] {
        std::fs::write(order(server), &old).unwrap();
    }
    site.up();
    assert_eq!(store_members(&site), ["lb1", "web1", "app1"]);
    assert!(site.is_healthy());
}

#[test]
fn a_web_or_app_server_that_loses_power_costs_no_request_that_can_be_repeated() {
    let site = site(Who::caller(), "power");
    site.up();
    for server in ["web2", "app2"] {
        let ((), figures) = site.under_load(100, || {
            site.harm(&json!({ "cut_power": server }));
            std::thread::sleep(Duration::from_secs(3));
        });
        figures.assert_none_failed();
        site.up();
        assert!(site.is_healthy());
    }
}
