//! Eight machines, two for each tier: at rest, restarted one after another, and harmed, under 100 requests a second.

use crate::drill::{drilled, load};
use crate::said;
use gaiola_e2e::machines::{Image, MachineSite};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const RATE: u32 = 100;
const TIERS: [&[&str]; 4] = [&["m1", "m2"], &["m3", "m4"], &["m5", "m6"], &["m7", "m8"]];
/// How many times each harm is done, in `GAIOLA_RUNS`.
const RUNS: &str = "GAIOLA_RUNS";
const WHOLE_WITHIN: Duration = Duration::from_secs(120);

/// `holder`: the balancer that has the VIP.
const HARMS: [&str; 8] = [
    "kill holder/proxy",
    "power holder",
    "kill holder/keeper",
    "power web1",
    "power app1",
    "kill primary/postgres",
    "power standby",
    "power primary",
];

#[test]
#[ignore = "make machines runs it"]
fn eight_machines_rest_restart_and_are_harmed() {
    let Some(site) = MachineSite::start("eight", 8, Image::Prepared) else {
        return;
    };
    site.write(TIERS, &load(RATE));
    let begun = Instant::now();
    site.up();
    println!("eight prepared machines: up within {:?}", begun.elapsed());
    it_changes_nothing_again(&site);
    it_rests(&site);
    every_machine_restarts(&site);
    harms(&site);
}

#[test]
#[ignore = "make machines runs it"]
fn eight_machines_are_upgraded_under_open_websockets() {
    const SOCKETS: u32 = 200;
    let Some(site) = MachineSite::start("newer", 8, Image::Prepared) else {
        return;
    };
    site.write(TIERS, "");
    site.up();
    let client = site.client_with(RATE, SOCKETS);
    let begun = Instant::now();
    site.other_gaiola(&["upgrade"]).expect(0, &[]);
    let took = begun.elapsed();
    let seen = client.end();
    println!("eight machines upgraded within {took:?}: {seen:?}");
    seen.assert_nothing_failed();
    let sockets = &seen.sockets;
    assert_eq!(sockets.kept, u64::from(SOCKETS), "{sockets:?}");
    assert!(site.is_healthy());
}

#[test]
#[ignore = "make machines runs it"]
fn eight_bare_machines_become_a_site() {
    let Some(site) = MachineSite::start("bare", 8, Image::Bare) else {
        return;
    };
    site.write(TIERS, "");
    let begun = Instant::now();
    site.up();
    println!("eight bare machines: up within {:?}", begun.elapsed());
    it_changes_nothing_again(&site);
}

fn it_changes_nothing_again(site: &MachineSite) {
    let begun = Instant::now();
    site.gaiola(&["up", "-d"]).expect(0, &["nothing to change"]);
    println!("a second up: {:?}", begun.elapsed());
}

/// Megabytes (PSS) of all processes that run Gaiola's program, and their processor time in milliseconds.
const USED: &str = "pss=0; ticks=0; for exe in /proc/[0-9]*/exe; do \
     case \"$(readlink $exe)\" in /opt/gaiola/*) ;; *) continue;; esac; of=${exe%exe}; \
     kb=$(grep '^Pss:' $of/smaps_rollup | tr -dc 0-9); pss=$((pss + kb)); \
     set -- $(sed 's/.*) //' $of/stat); ticks=$((ticks + ${12} + ${13})); done; \
     echo $((pss / 1024)) $((ticks * 1000 / $(getconf CLK_TCK)))";

/// What Gaiola's processes need on each machine while nobody uses the site.
fn it_rests(site: &MachineSite) {
    const SPAN: Duration = Duration::from_secs(30);
    // After somebody has asked for its status a machine looks at all the others for half a minute.
    const UNWATCHED: Duration = Duration::from_secs(45);
    std::thread::sleep(UNWATCHED);
    let used = |machine: &str| -> [u64; 2] {
        let said = said(site.machines().ssh(machine, USED));
        let numbers: Vec<u64> = said.split(' ').filter_map(|it| it.parse().ok()).collect();
        numbers.try_into().expect("it says two numbers")
    };
    let all = || site.machines().names().into_iter();
    let before: Vec<[u64; 2]> = all().map(|machine| used(&machine)).collect();
    std::thread::sleep(SPAN);
    for (machine, [_, before]) in all().zip(before) {
        let [megabytes, after] = used(&machine);
        let share = (after - before) as f64 / SPAN.as_millis() as f64 * 100.0;
        println!("at rest {machine}: {megabytes} MB, {share:.2} % of a core");
        assert!(megabytes < 40, "{machine}: {megabytes} MB");
    }
}

/// Pages and reads may be repeated: none of them fails. A write in flight may.
fn every_machine_restarts(site: &MachineSite) {
    let client = site.client(RATE);
    for machine in site.machines().names() {
        site.machines().reboot(&machine);
        let deadline = Instant::now() + WHOLE_WITHIN;
        while !site.is_healthy() {
            assert!(Instant::now() < deadline, "{machine}: {:#}", site.status());
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    let seen = client.end();
    println!("every machine restarted: {seen:?}");
    seen.assert_nothing_lost();
    let repeatable = |failed: &&String| !failed.contains(" write: ");
    let failed: Vec<&String> = seen.failures.iter().filter(repeatable).collect();
    assert!(failed.is_empty(), "{seen:#?}");
}

fn harms(site: &MachineSite) {
    let runs = std::env::var(RUNS).ok();
    let runs: u32 = runs.and_then(|runs| runs.parse().ok()).unwrap_or(1);
    let mut rows = Vec::new();
    for harm in HARMS {
        for run in 1..=runs {
            let harm_now = harm.replace("holder", &holder(site));
            let words: Vec<&str> = harm_now.split(' ').collect();
            let report = drilled(site, &words);
            rows.push(format!("{harm:<24} {run:>3} {}", row(&report)));
        }
    }
    println!(
        "{:<24} run   outage  page read write failed   of  lost",
        "harm"
    );
    println!("{}", rows.join("\n"));
}

/// The balancer that has a VIP.
fn holder(site: &MachineSite) -> String {
    let status = site.status();
    let mut servers = status["servers"].as_array().into_iter().flatten();
    let holds = |server: &&Value| {
        let vips = server["vips"].as_array();
        vips.is_some_and(|vips| !vips.is_empty())
    };
    let holder = servers.find(holds).and_then(|it| it["name"].as_str());
    holder.expect("one holds it").to_string()
}

/// The worst outage of any kind of request in milliseconds, failed pages, reads and writes, all requests, lost writes.
fn row(report: &Value) -> String {
    let kinds = report["kinds"].as_array().cloned().unwrap_or_default();
    let failed = |kind: &Value| {
        let name = kind["kind"].as_str().unwrap_or_default().to_string();
        (name, kind["failed"].as_u64().unwrap_or_default())
    };
    let failed: BTreeMap<String, u64> = kinds.iter().map(failed).collect();
    let failed = |kind: &str| failed.get(kind).copied().unwrap_or_default();
    let sent = kinds.iter().filter_map(|kind| kind["sent"].as_u64());
    format!(
        "{:>5} ms {:>5} {:>4} {:>5} {:>13} {:>5}",
        report["outage_ms"],
        failed("page"),
        failed("read"),
        failed("write"),
        sent.sum::<u64>(),
        report["lost"],
    )
}
