//! Processes and servers die; the rest continues.

use gaiola_e2e::{Site, Who, ended};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn the_next_agent_adopts(who: Who) {
    if !who.is_here() {
        return;
    }
    let site = Site::app(who, "adopts", 1, 2);
    site.up();
    let names = ["app1.1", "app1.2", "etcd"];
    let before = names.map(|name| site.process("app1", name).pid);
    let ((), figures) = site.under_load(100, || {
        for _ in 0..3 {
            let agent = site.process("app1", "agent");
            agent.kill();
            site.wait_for("another agent runs", SOON, || {
                site.on("app1", "agent")
                    .is_some_and(|new| new.pid != agent.pid)
            });
            site.wait_for("it is healthy again", SOON, || site.is_healthy());
        }
    });
    figures.assert_none_failed();
    assert_eq!(names.map(|name| site.process("app1", name).pid), before);
    // Adopted processes are still supervised.
    let adopted = site.process("app1", "app1.1");
    adopted.kill();
    site.wait_for("the instance is started again", SOON, || {
        site.on("app1", "app1.1")
            .is_some_and(|new| new.pid != adopted.pid)
    });
    site.wait_for("it is healthy again", SOON, || site.is_healthy());
    site.down();
    site.wait_for_nothing();
}

#[test]
fn the_next_agent_adopts_what_runs_as_root() {
    the_next_agent_adopts(Who::Root);
}

#[test]
fn the_next_agent_adopts_what_runs_rootless() {
    the_next_agent_adopts(Who::Rootless);
}

#[test]
fn an_instance_that_keeps_dying_is_started_again_and_told_of() {
    let site = Site::app(Who::caller(), "crashes", 1, 2);
    site.up();
    site.switch("app1.2", "exit");
    site.process("app1", "app1.2").kill();
    site.wait_for("it is degraded", SOON, || site.status().0 == 4);
    assert!(site.status().1.to_string().contains("app1.2"));
    site.switch("app1.2", "");
    site.wait_for("it is healthy again", SOON, || site.is_healthy());
}

fn a_dead_server_is_switched_on_by_up(who: Who) {
    if !who.is_here() {
        return;
    }
    let site = Site::app(who, "off", 2, 1);
    site.up();
    site.server("app2").unwrap().kill();
    site.wait_for("it is degraded", SOON, || site.status().0 == 4);
    assert!(site.server("app2").is_none());
    site.gaiola(&["exec", "app2", "--", "true"])
        .expect(1, &["app2 is off"]);
    site.up();
    assert!(site.is_healthy() && site.server("app2").is_some());
}

#[test]
fn a_dead_server_is_switched_on_by_up_as_root() {
    a_dead_server_is_switched_on_by_up(Who::Root);
}

#[test]
fn a_dead_server_is_switched_on_by_up_rootless() {
    a_dead_server_is_switched_on_by_up(Who::Rootless);
}

#[test]
fn power_and_cables_can_be_cut() {
    let site = Site::app(Who::caller(), "harmed", 2, 1);
    site.up();
    site.harm(&json!({ "cut_power": "app2" }));
    assert!(site.server("app2").is_none());
    site.harm(&json!({ "power_on": "app2" }));
    site.wait_for("it is on again", SOON, || site.is_healthy());
    site.harm(&json!({ "unplug": "app2" }));
    site.wait_for("its loss is noticed", SOON, || site.status().0 == 4);
    site.harm(&json!({ "plug": "app2" }));
    site.wait_for("it is healthy again", SOON, || site.is_healthy());
    site.harm(&json!({ "shut_down": "app2" }));
    assert!(site.server("app2").is_none());
    site.harm(&json!({ "power_on": "app2" }));
    site.wait_for("it is on again", SOON, || site.is_healthy());
}

#[test]
fn exec_runs_on_the_server_and_ends_as_its_command_does() {
    for who in [Who::Root, Who::Rootless]
        .into_iter()
        .filter(|who| who.is_here())
    {
        let site = Site::app(who, "inside", 1, 1);
        site.up();
        let said = site.gaiola(&[
            "exec",
            "app1",
            "--",
            "sh",
            "-c",
            "hostname; cat /proc/1/cmdline; exit 9",
        ]);
        said.expect(9, &["app1", "pid1"]);
        // An open shell does not delay the end.
        let mut shell = site.start(&["exec", "app1", "--", "sleep", "1000"]);
        site.down();
        site.wait_for_nothing();
        shell.wait().unwrap();
    }
}

#[test]
fn another_conductor_goes_on_with_a_roll_out() {
    let site = Site::app(Who::caller(), "conducts", 3, 2);
    site.up();
    site.write("page", "new");
    let up = site.start(&["up", "-d"]);
    site.wait_for("the roll-out has begun", SOON, || {
        site.get("/")
            .is_ok_and(|answer| answer.field("release") == "2")
    });
    for server in ["app1", "app2", "app3"] {
        site.process(server, "agent").kill();
    }
    ended(up).expect(0, &[]);
    assert!((0..6).all(|_| site.get("/").unwrap().field("release") == "2"));
    assert!(site.is_healthy());
}

#[test]
fn without_its_store_a_site_serves_and_says_that_it_cannot_change() {
    let site = Site::app(Who::caller(), "storeless", 2, 1);
    site.up();
    // A stopped etcd is not restarted.
    let etcd = site.process("app1", "etcd");
    gaiola_os::process::signal(etcd.pid, rustix::process::Signal::STOP);
    let (ran, figures) =
        site.under_load(50, || site.gaiola(&["scale", "app=3", "--timeout", "8s"]));
    ran.expect(5, &["the store does not answer"]);
    figures.assert_none_failed();
    assert_eq!(site.status().0, 4);
    gaiola_os::process::signal(etcd.pid, rustix::process::Signal::CONT);
    site.wait_for("it is healthy again", SOON, || site.is_healthy());
    site.gaiola(&["scale", "app=3"]).expect(0, &[]);
}
