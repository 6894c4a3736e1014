//! A site that lives goes on, and what it has acknowledged stays.

use super::{ALL, line, on, until, until_let_go, up, while_it_runs};
use crate::said;
use gaiola_e2e::Ran;
use gaiola_e2e::machines::{Client, Image, MachineSite, Seen};
use std::fs;
use std::time::{Duration, Instant};

const RATE: u32 = 30;
const STATE: &str = "var/lib/gaiola/guestbook";

#[test]
#[ignore = "make machines runs it"]
fn a_site_goes_on_through_bad_luck_and_loses_nothing() {
    let Some(site) = MachineSite::start("luck", 3, Image::Prepared) else {
        return;
    };
    site.write([ALL; 4], "");
    up(&site);
    let client = site.client(RATE);
    the_operator_has_another_computer(&site);
    another_site_and_another_version(&site);
    two_operators_at_once(&site);
    let seen = ended("operators", client);
    seen.assert_nothing_lost();
    // Nothing was wrong with the machines; a host that is busy makes everybody wait.
    assert!(seen.longest_pause_ms < 60_000, "{:?}", seen.pauses);

    let client = site.client(RATE);
    one_is_silent_in_the_middle(&site);
    the_primary_finds_its_disk_empty(&site);
    a_member_of_the_store_finds_its_disk_empty(&site);
    a_machine_finds_its_disk_empty(&site);
    the_room_loses_its_power(&site);
    ended("machines", client).assert_nothing_lost();
}

fn ended(what: &str, client: Client) -> Seen {
    let seen = client.end();
    let (sent, acknowledged) = (seen.sent, seen.acknowledged);
    println!(
        "{what}: {sent} requests, {acknowledged} writes acknowledged, failed: {:?}",
        seen.failures
    );
    println!("  pauses: {:?}; lost: {:?}", seen.pauses, seen.lost);
    assert!(acknowledged > 0, "{seen:#?}");
    seen
}

#[track_caller]
fn until_healthy(site: &MachineSite, what: &str) {
    let began = Instant::now();
    until(what, || site.is_healthy());
    println!("{what}: healthy after {:.1?}", began.elapsed());
}

fn the_operator_has_another_computer(site: &MachineSite) {
    let state = site.machines().rack().operator_state();
    assert!(state.exists(), "commands keep something there");
    fs::remove_dir_all(&state).unwrap();
    until("the site is healthy", || site.is_healthy());
    fs::remove_dir_all(&state).unwrap();
    up(site);
}

fn another_site_and_another_version(site: &MachineSite) {
    site.edit("site = \"guestbook\"", "site = \"blog\"");
    let ran = site
        .gaiola(&["up", "-d"])
        .expect(1, &["cannot carry the site yet"]);
    for machine in ALL {
        let words = [
            "refused",
            "it is part of another site, guestbook: use another machine",
        ];
        line(&ran, machine, &words);
    }
    site.edit("site = \"blog\"", "site = \"guestbook\"");
    let ran = site.other_gaiola(&["up", "-d"]);
    let ran = ran.expect(1, &["one machine at a time, with: gaiola upgrade"]);
    line(&ran, "m1", &["runs gaiola"]);
    until("the site is healthy", || site.is_healthy());
}

fn two_operators_at_once(site: &MachineSite) {
    for instances in ["instances = 3", "instances = 2"] {
        let before = if instances.ends_with('3') {
            "instances = 2"
        } else {
            "instances = 3"
        };
        site.edit(before, instances);
        let up = || site.gaiola(&["up", "-d"]);
        let both: [Ran; 2] = std::thread::scope(|scope| {
            [scope.spawn(up), scope.spawn(up)].map(|it| it.join().unwrap())
        });
        let codes = both.each_ref().map(|ran| ran.code);
        assert!(codes == [0, 7] || codes == [7, 0], "{both:#?}");
        let late = both.iter().find(|ran| ran.code == 7).unwrap();
        line(
            late,
            "m1",
            &["gaiola up of ", " since ", "is under way; wait for its end"],
        );
    }
    until("the site is healthy", || site.is_healthy());
    up(site);
}

/// A change for which m3 is needed loses it on the way: first while machines are prepared, then while instances are started.
fn one_is_silent_in_the_middle(site: &MachineSite) {
    let began = Instant::now();
    site.edit("instances = 2", "instances = 16");
    let ran = cut_off(site, "m3", "test -s /run/gaiola/lock.owner");
    let ran = ran.expect(1, &[]);
    line(&ran, "m3", &["cannot ", "it is not reached by ssh"]);
    line(&ran, "m3", &["see that the machine is on"]);
    site.machines().cable("m3", true);
    until_let_go(site, "m3");
    println!("cut off while it is prepared: {:.1?}", began.elapsed());

    let ran = cut_off(site, "m1", "test $(pgrep -xc guestbook) -gt 2");
    let last = ran.stderr.lines().last().unwrap_or_default();
    println!("cut off while instances are started: {}, {last}", ran.code);
    assert!([0, 4, 5].contains(&ran.code), "{ran:#?}");
    // The site takes changes without it.
    site.edit("instances = 16", "instances = 3");
    let without = site.gaiola(&["up", "-d", "--timeout", "60s"]);
    let silent = "m3 is silent, with lb3 web3 app3 db3: see that it is on";
    let without = without.expect(4, &[silent]);
    line(&without, "m3", &["warning", "the site goes on without it"]);
    site.machines().cable("m3", true);
    until_let_go(site, "m3");
    up(site);
    for name in ALL {
        assert_eq!(on(site, name, "pgrep -xc guestbook"), "3", "{name}");
    }
}

/// Pulls the cable of m3 in the middle of an `up`, once that is so on a machine.
fn cut_off(site: &MachineSite, machine: &str, once: &str) -> Ran {
    while_it_runs(site, &["up", "-d", "--timeout", "90s"], |ended| {
        until(once, || {
            ended() || site.machines().shell(machine, once).code == 0
        });
        site.machines().cable("m3", false);
        println!("m3 is cut off before the end: {}", !ended());
    })
}

/// Switches a machine off, removes this of what it has written, and switches it on again.
fn wiped(site: &MachineSite, machine: &str, folder: &str) {
    site.machines().crash(machine);
    let folder = site.machines().rack().written(machine).join(folder);
    assert!(
        fs::read_dir(&folder).is_ok_and(|mut all| all.next().is_some()),
        "{}",
        folder.display()
    );
    fs::remove_dir_all(&folder).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    site.machines().on(machine);
}

fn the_primary_finds_its_disk_empty(site: &MachineSite) {
    let primary = site.status()["primary"].as_str().unwrap().to_string();
    wiped(
        site,
        &primary.replace("db", "m"),
        &format!("{STATE}/servers/{primary}"),
    );
    until_healthy(site, "the old primary has a copy again");
    assert_ne!(site.status()["primary"], primary.as_str());
    up(site);
}

fn a_member_of_the_store_finds_its_disk_empty(site: &MachineSite) {
    wiped(site, "m1", &format!("{STATE}/servers/lb1"));
    until_healthy(site, "the store has three members again");
    up(site);
}

/// Everything of the site is gone, also what makes it a machine of the site.
fn a_machine_finds_its_disk_empty(site: &MachineSite) {
    wiped(site, "m1", "var/lib/gaiola");
    let missed = site.gaiola(&["status"]);
    println!("{missed:#?}");
    up(site);
    let ran = said(
        site.machines()
            .ssh("m1", "systemctl is-active gaiola-machine"),
    );
    assert_eq!(ran, "active");
}

fn the_room_loses_its_power(site: &MachineSite) {
    for machine in ALL {
        site.machines().crash(machine);
    }
    std::thread::scope(|scope| {
        for machine in ALL {
            scope.spawn(|| site.machines().on(machine));
        }
    });
    until_healthy(site, "the power is back");
    up(site);
}
