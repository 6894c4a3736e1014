//! Commands that roll over the machines of a site, one at a time, under load.

use crate::said;
use gaiola_e2e::machines::{Image, MachineSite};
use serde_json::Value;
use std::time::Duration;

const RATE: u32 = 30;
const SOCKETS: u32 = 200;
/// Three turns, each with two waits of five minutes at most.
const LIMIT: Duration = Duration::from_secs(1800);
const ALL: &[&str] = &["m1", "m2", "m3"];

/// Three machines with everything on each.
fn site(name: &str) -> Option<MachineSite> {
    let site = MachineSite::start(name, 3, Image::Prepared)?;
    site.write([ALL; 4], "");
    site.up();
    Some(site)
}

/// What a shell says on each machine.
fn on_each(site: &MachineSite, script: &str) -> Vec<String> {
    let ssh = |name: &&str| said(site.machines().ssh(name, script));
    ALL.iter().map(ssh).collect()
}

fn is_whole(site: &MachineSite) {
    let status = site.status();
    assert_eq!(status["healthy"], true, "{status:#}");
    assert_eq!(status["aside"], Value::Null, "{status:#}");
    assert_eq!(
        status["may_fail"],
        serde_json::json!([]),
        "any one may be lost"
    );
}

#[test]
#[ignore = "make machines runs it"]
fn machines_are_restarted_one_at_a_time() {
    let Some(site) = site("roll") else {
        return;
    };
    let boots = "cat /proc/sys/kernel/random/boot_id";
    let before = on_each(&site, boots);
    let primary = site.status()["primary"].clone();
    let client = site.client(RATE);
    let roll = [
        "roll",
        "--reboot",
        "--",
        "sh",
        "-c",
        "echo it is $(hostname)",
    ];
    let rolled = site.gaiola_within(&roll, LIMIT).expect(0, &[]);
    let seen = client.end();
    println!("restarted: {seen:?}");
    seen.assert_nothing_failed();
    let after = on_each(&site, boots);
    assert!(std::iter::zip(&before, &after).all(|(before, after)| before != after));
    let lines: Vec<&str> = rolled.stdout.lines().collect();
    for name in ALL {
        assert!(
            lines.contains(&&*format!("{name}: it is {name}")),
            "{rolled:#?}"
        );
    }
    // The primary's machine was the last one.
    let primary = primary.as_str().unwrap().replace("db", "m");
    assert!(lines[2].starts_with(&primary), "{lines:?}, {primary}");
    is_whole(&site);
    it_stops_at_the_first_failure(&site);
}

#[test]
#[ignore = "make machines runs it"]
fn a_version_of_a_newer_schema_takes_the_place_of_the_one_that_runs() {
    let Some(site) = site("schema") else {
        return;
    };
    let client = site.client_with(RATE, SOCKETS);
    site.next_gaiola(&["upgrade"]).expect(0, &[]);
    let seen = client.end();
    println!("upgraded across schemas: {seen:?}");
    seen.assert_nothing_failed();
    assert_eq!(seen.sockets.kept, u64::from(SOCKETS), "{:?}", seen.sockets);
    site.next_gaiola(&["up", "-d"])
        .expect(0, &["nothing to change"]);
    let back = site.gaiola(&["up", "-d"]);
    assert_ne!(back.code, 0, "{back:#?}");
    println!("an older program: {}", back.stderr);
    is_whole(&site);
}

fn it_stops_at_the_first_failure(site: &MachineSite) {
    let unknown = site.gaiola(&["roll", "web9", "--", "true"]);
    unknown.expect(2, &["web9 is no tier, server or machine of the site"]);
    let failed = site.gaiola_within(&["roll", "m1", "m2", "--", "false"], LIMIT);
    let failed = failed.expect(1, &["the command ended with 1; it takes traffic again"]);
    assert!(failed.stderr.contains("done: none"), "{failed:#?}");
    assert!(
        failed.stderr.contains("go on with: gaiola roll m"),
        "{failed:#?}"
    );
    is_whole(site);
}

#[test]
#[ignore = "make machines runs it"]
fn another_version_takes_the_place_of_the_one_that_runs() {
    let Some(site) = site("upgrade") else {
        return;
    };
    let version = "readlink /opt/gaiola/current";
    let before = on_each(&site, version);
    let refused = site.other_gaiola(&["up", "-d"]);
    refused.expect(
        1,
        &["exchange it first, one machine at a time, with: gaiola upgrade"],
    );
    assert_eq!(on_each(&site, version), before);
    it_goes_back_where_it_fails(&site);
    assert_eq!(on_each(&site, version), before);
    let instances = "pgrep -x guestbook | sort | tr '\\n' ' '";
    let running = on_each(&site, instances);
    let client = site.client_with(RATE, SOCKETS);
    site.other_gaiola(&["upgrade"]).expect(0, &[]);
    let seen = client.end();
    println!("upgraded: {seen:?}");
    seen.assert_nothing_failed();
    let sockets = &seen.sockets;
    assert_eq!(sockets.kept, u64::from(SOCKETS), "{sockets:?}");
    assert_eq!(on_each(&site, instances), running, "instances go on");
    let after = on_each(&site, version);
    assert!(std::iter::zip(&before, &after).all(|(before, after)| before != after));
    is_whole(&site);
    site.other_gaiola(&["upgrade"])
        .expect(0, &["every machine runs gaiola"]);
    site.other_gaiola(&["up", "-d"]).expect(0, &[]);
}

/// A machine whose systemd refuses one order, once.
fn it_goes_back_where_it_fails(site: &MachineSite) {
    let refuses = "printf '%s\\n' '#!/bin/sh' 'case \"$*\" in *HUP*keeper*) rm -f /usr/local/bin/systemctl; exit 9;; esac' \
         'exec /usr/bin/systemctl \"$@\"' >/usr/local/bin/systemctl; chmod +x /usr/local/bin/systemctl";
    on_each(site, refuses);
    let failed = site.other_gaiola(&["upgrade"]);
    let failed = failed.expect(1, &["it takes traffic again"]);
    assert!(
        failed.stderr.contains("again\n") && failed.stderr.contains("done: none"),
        "{failed:#?}"
    );
    on_each(site, "rm -f /usr/local/bin/systemctl");
    is_whole(site);
}
