//! Faults that leave a server running: no acknowledged write is lost, and all database members hold the same data.

use gaiola_e2e::{Site, Who};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
/// Long enough for a standby to be promoted: the old primary comes back beside a new one.
const SPAN: &str = "25s";

/// All tiers, with a shell script as application: it has pages but no writes, so only clients inside the cut write.
fn site(who: Who, name: &str) -> Site {
    site_with(who, name, "")
}

/// The same with more in its `[drill]`.
fn site_with(who: Who, name: &str, drill: &str) -> Site {
    let tiers = "[balancer]\n[web]\n[app]\nservers = 2\nrun = \"{run}\"\n[database]\nservers = 2\n";
    let limits = "[drill]\nrate = 20\nmax_outage = \"60s\"\n";
    let site = Site::new(who, name, &format!("{tiers}{limits}{drill}"));
    site.write("public/page.html", "a page\n");
    site
}

/// Drills a fault: nothing may be lost, and the report must contain the results of clients inside the cut.
#[track_caller]
fn rehearse(site: &Site, fault: &str, span: &str) -> Value {
    let words: Vec<&str> = fault.split(' ').collect();
    let ran = site.gaiola(&["drill", words[0], words[1], "--for", span, "--json"]);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    let said = format!("{fault}: {report:#} {}", ran.stderr);
    assert_eq!(report["lost"], 0, "{said}");
    assert_eq!(report["unknown"], 0, "{said}");
    assert!(
        report["contents"]["same"]["rows"].as_u64() > Some(0),
        "{said}"
    );
    assert!(report["acknowledged"].as_u64() > Some(0), "{said}");
    let kinds = report["kinds"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = kinds
        .iter()
        .filter_map(|kind| kind["kind"].as_str())
        .collect();
    for kind in [
        "probe",
        "vip 10.77.0.100",
        "vip 10.77.0.101",
        "page",
        "inside db",
    ] {
        assert!(
            names.iter().any(|name| name.starts_with(kind)),
            "{kind}: {said}"
        );
    }
    assert_eq!(
        (ran.code, report["verdict"].as_str()),
        (0, Some("passed")),
        "{said}"
    );
    report
}

fn nothing_is_lost_by(fault: &str, name: &str) {
    let site = site(Who::caller(), name);
    site.up();
    rehearse(&site, fault, SPAN);
    site.wait_for("it is healthy", SOON, || site.is_healthy());
}

#[test]
fn a_primary_that_hears_and_does_not_answer_costs_no_acknowledged_write() {
    nothing_is_lost_by("mute primary", "muted");
}

#[test]
fn a_primary_whose_server_stands_still_costs_no_acknowledged_write() {
    nothing_is_lost_by("freeze primary", "frozen");
}

#[test]
fn a_primary_cut_off_with_a_member_of_the_store_costs_no_acknowledged_write() {
    nothing_is_lost_by("cut primary,app1", "cutoff");
}

fn primary(site: &Site) -> String {
    let (_, status) = site.status();
    status["primary"].as_str().unwrap_or_default().to_string()
}

/// The servers' disks that the kernel keeps.
fn disks(site: &Site) -> Vec<String> {
    let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
    let files = devices.map(|device| device.path().join("loop/backing_file"));
    let files = files.filter_map(|path| std::fs::read_to_string(path).ok());
    let state = site.state().display().to_string();
    files.filter(|file| file.contains(&state)).collect()
}

#[test]
fn a_primary_whose_disk_is_full_costs_no_acknowledged_write_and_leaves_nothing_behind() {
    if !Who::Root.is_here() {
        return;
    }
    let site = site_with(Who::Root, "filled", "disk = \"700MiB\"\n");
    site.up();
    assert_eq!(disks(&site).len(), 2);
    let before = primary(&site);
    let report = rehearse(&site, "fill primary", "20s");
    assert!(report["detected_ms"].is_u64(), "{report:#}");
    site.wait_for("it is healthy", SOON, || site.is_healthy());
    let after = primary(&site);
    assert_ne!(after, before);
    let standby = format!("fill {before}");
    site.harm(&serde_json::json!({ "begin": { "target": standby, "for_ms": 15_000 } }));
    site.wait_for("the full disk is named", SOON, || {
        let status = site.gaiola(&["status"]).stdout;
        status.contains(&format!(
            "{before}: the disk with PostgreSQL's data is full"
        ))
    });
    site.wait_for("there is room again by itself", SOON, || site.is_healthy());
    site.harm(&serde_json::json!({ "begin": { "target": standby, "for_ms": 600_000 } }));
    site.gaiola(&["power", "off", &before]).expect(0, &[]);
    site.wait_for("its disk is let go", SOON, || disks(&site).len() == 1);
    site.kill_everything();
    site.wait_for("no disk is held", SOON, || disks(&site).is_empty());
    site.up();
    site.wait_for("all of it is found again", SOON, || site.is_healthy());
    assert_eq!(disks(&site).len(), 2);
}

fn a_disk_that_others_share_is_not_filled(who: Who, why: &str) {
    if !who.is_here() {
        return;
    }
    let site = Site::app(who, "shared", 1, 1);
    site.edit("[app]", "[drill]\ndisk = \"4GiB\"\n[app]");
    site.up();
    site.gaiola(&["drill", "fill", "app1"])
        .expect(1, &["app1 has no disk of its own", why]);
    assert!(site.is_healthy());
}

#[test]
fn a_disk_that_others_share_is_not_filled_as_root() {
    a_disk_that_others_share_is_not_filled(Who::Root, "the machine's is not filled");
}

#[test]
fn a_disk_that_others_share_is_not_filled_rootless() {
    a_disk_that_others_share_is_not_filled(Who::Rootless, "without root");
}

/// Whether a server reaches another.
fn reaches(site: &Site, from: &str, to: &str) -> bool {
    let connect = format!("exec 3<>/dev/tcp/{to}/2379");
    let ran = site.gaiola(&["exec", from, "--", "timeout", "1", "bash", "-c", &connect]);
    ran.code == 0
}

fn a_cut_is_undone_by_the_lab_where_nobody_else_does(who: Who) {
    if !who.is_here() {
        return;
    }
    let site = Site::app(who, "islands", 3, 1);
    site.up();
    let store = "10.77.3.1"; // app1 runs the store's member
    assert!(reaches(&site, "app2", store) && reaches(&site, "app3", store));
    let target = "cut app1,app2";
    site.harm(&serde_json::json!({ "begin": { "target": target, "for_ms": 8000 } }));
    assert!(reaches(&site, "app2", store), "they are cut off together");
    assert!(!reaches(&site, "app3", store));
    site.wait_for("the cut has ended by itself", SOON, || {
        reaches(&site, "app3", store)
    });
    for (fault, heard) in [
        ("mute app1", false),
        ("deaf app1", false),
        ("freeze app1", true),
    ] {
        site.harm(&serde_json::json!({ "begin": { "target": fault, "for_ms": 60_000 } }));
        // The kernel of a frozen server keeps accepting connections.
        assert_eq!(reaches(&site, "app3", store), heard, "{fault}");
        site.harm(&serde_json::json!({ "end": fault }));
        site.wait_for("it is undone", SOON, || reaches(&site, "app3", store));
    }
    site.wait_for("it is healthy", SOON, || site.is_healthy());
}

#[test]
fn a_cut_is_undone_by_the_lab_where_nobody_else_does_as_root() {
    a_cut_is_undone_by_the_lab_where_nobody_else_does(Who::Root);
}

#[test]
fn a_cut_is_undone_by_the_lab_where_nobody_else_does_rootless() {
    a_cut_is_undone_by_the_lab_where_nobody_else_does(Who::Rootless);
}
