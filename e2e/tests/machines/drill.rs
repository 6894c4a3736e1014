//! Drills on machines: done over ssh, undone by the drill or, without it, by the machine itself.

use crate::said;
use gaiola_e2e::machines::{Image, MachineSite};
use serde_json::Value;
use std::time::{Duration, Instant};

/// The `[drill]` of the guest book's file, at this many requests a second.
pub(crate) fn load(rate: u32) -> String {
    format!(
        r#"
[drill]
rate = {rate}
read = "/api/entries"
max_outage = "60s"
[drill.write]
path = "/api/entries"
body = '{{"author": "drill", "text": "{{id}}"}}'
look_up = "/api/entries/{{id}}"
"#
    )
}

#[test]
#[ignore = "make machines runs it"]
fn machines_are_drilled_and_lose_no_acknowledged_write() {
    let Some(site) = MachineSite::start("drill", 3, Image::Prepared) else {
        return;
    };
    let all: &[&str] = &["m1", "m2", "m3"];
    site.write([all; 4], &load(60));
    site.up();

    assert_eq!(drilled(&site, &["kill", "web1"])["notes"], Value::Null);
    drilled(&site, &["kill", "primary/postgres"]);
    drilled(&site, &["kill", "primary"]);
    let report = drilled(&site, &["cut", "primary", "--for", "15s"]);
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("harmed with it: ") && notes.contains("web"),
        "{notes}"
    );
    let report = drilled(&site, &["power", "lb1"]);
    let notes = report["notes"].to_string();
    assert!(notes.contains("m1 was cut off from the network"), "{notes}");
    drilled(&site, &["freeze", "app1", "--for", "10s"]);

    site.gaiola(&["drill", "fill", "primary"])
        .expect(1, &["possible in the lab only"]);
    undoes_it_by_itself(&site);
}

/// Runs a drill that must pass, and leave nothing behind.
#[track_caller]
pub(crate) fn drilled(site: &MachineSite, what: &[&str]) -> Value {
    let arguments = [&["drill", "--json"], what].concat();
    let ran = site.gaiola(&arguments);
    println!("{what:?}: {}\n{}", ran.stdout, ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).expect("it prints a report");
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(report["acknowledged"].as_u64() > Some(0), "{report:#}");
    assert_eq!(report["lost"], 0, "{report:#}");
    for machine in site.machines().names() {
        assert_eq!(left(site, &machine), "null", "{machine}");
    }
    report
}

/// What is left of a drill on a machine.
fn left(site: &MachineSite, machine: &str) -> String {
    let look = "/opt/gaiola/current/gaiola machine harmed; nft list tables | grep drill; \
                ls /run/systemd/system | grep '^gaiola-.*\\.d$'; systemctl is-active -q gaiola-drill-undo.timer && echo timer; true";
    said(site.machines().ssh(machine, look))
}

/// As if the operator's computer had died in the middle of a drill.
fn undoes_it_by_itself(site: &MachineSite) {
    let order = r#"{"target":"mute app1","together":[],"for_s":3}"#;
    let harm = format!("echo '{order}' | /opt/gaiola/current/gaiola machine harm guestbook");
    said(site.machines().ssh("m1", &harm));
    assert!(left(site, "m1").starts_with("\"mute app1\""));
    let deadline = Instant::now() + Duration::from_secs(30);
    while left(site, "m1") != "null" {
        assert!(Instant::now() < deadline, "{}", left(site, "m1"));
        std::thread::sleep(Duration::from_millis(500));
    }
}
