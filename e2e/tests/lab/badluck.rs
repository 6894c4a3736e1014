//! Bad luck: missing or failing programs, full disks, and leftovers of an earlier run.

use gaiola_e2e::{Ran, Site, Who};
use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

#[test]
fn a_command_that_is_not_there_is_told_before_anything_starts() {
    let site = Site::new(
        Who::caller(),
        "absent",
        "[app]\nrun = \"bin/absent --port 1\"\n",
    );
    site.gaiola(&["up", "-d"]).expect(1, &["bin/absent"]);
}

#[test]
fn a_command_that_the_shell_does_not_find_is_quoted() {
    let site = Site::new(
        Who::caller(),
        "notfound",
        "[app]\nservers = 1\nrun = \"no-such-program\"\n",
    );
    site.gaiola(&["up", "-d"]).expect(
        1,
        &[
            "app1.1 keeps ending",
            "no-such-program",
            "not found",
            "gaiola logs",
        ],
    );
    assert_eq!(site.status().0, 4);
    site.edit("no-such-program", "{run}");
    site.up();
}

#[test]
fn a_command_that_ends_at_once_is_given_up_with_its_last_words() {
    let site = Site::app(Who::caller(), "quits", 1, 1);
    site.switch("all", "exit");
    site.gaiola(&["up", "-d"])
        .expect(1, &["app1.1", "exited with status 3", "exits on request"]);
    assert_eq!(site.status().0, 4);
    site.switch("all", "");
    site.up();
    assert!(site.is_healthy());
}

#[test]
fn a_release_that_fails_touches_nothing_of_the_old_one() {
    let site = Site::app(Who::caller(), "release", 2, 1);
    site.edit(
        "servers",
        "release = \"PW='two hushhush' sh -c 'test -e broken && { echo no such table: $PW; exit 9; } || true'\"\nservers",
    );
    site.up();
    let pids = |site: &Site| ["app1.1", "app2.1"].map(|name| site.process(&name[..4], name).pid);
    let before = pids(&site);
    site.write("broken", "yes");
    site.gaiola(&["up", "-d"])
        .expect(1, &["status 9", "no such table: ***", "goes on"]);
    let page = gaiola_e2e::get(site.page(), "/").unwrap();
    let shown = [
        site.gaiola(&["status"]).stdout,
        site.status().1.to_string(),
        site.gaiola(&["events"]).stdout,
        page.body,
    ];
    for shown in shown {
        assert!(shown.contains("no such table: ***"), "{shown}");
        assert!(!shown.contains("hushhush"), "{shown}");
    }
    assert_eq!(pids(&site), before);
    assert_eq!(site.get("/").unwrap().field("release"), "1");
    fs::remove_file(site.folder().join("broken")).unwrap();
    site.write("mended", "yes");
    site.up();
    assert_eq!(site.get("/").unwrap().field("release"), "3");
}

#[test]
fn a_new_release_that_never_answers_is_given_up_and_the_old_one_goes_on() {
    let site = Site::app(Who::caller(), "mute", 1, 1);
    site.up();
    site.write("switches", "exit");
    let (ran, figures) = site.under_load(50, || site.gaiola(&["up", "-d"]));
    ran.expect(1, &["release 2 was given up", "exited with status 3"]);
    figures.assert_none_failed();
    assert_eq!(site.get("/").unwrap().field("release"), "1");
    site.write("switches", "");
    site.up();
    assert_eq!(site.get("/").unwrap().field("release"), "3");
}

#[test]
fn without_etcd_it_says_what_to_install() {
    if !Who::Root.is_here() {
        return;
    }
    let site = Site::app(Who::Root, "noetcd", 1, 1);
    let hide = "mount --bind /dev/null /usr/bin/etcd";
    let ran = site.prepared(hide, &["up", "-d"]);
    ran.expect(1, &["etcd", "not found", "install", "etcd-server"]);
    assert!(site.processes().is_empty());
}

#[test]
fn without_user_namespaces_it_says_which_setting_forbids_them() {
    if !Who::Root.is_here() {
        return;
    }
    let site = Site::app(Who::Rootless, "nouserns", 1, 1);
    let none = site.base().join("none");
    fs::write(&none, "0\n").unwrap();
    let forbid = format!(
        "mount --bind {} /proc/sys/user/max_user_namespaces",
        none.display()
    );
    site.prepared(&forbid, &["up", "-d"])
        .expect(1, &["user.max_user_namespaces", "sysctl"]);
}

#[test]
fn what_a_crash_left_behind_is_no_obstacle() {
    let site = Site::app(Who::caller(), "crashed", 1, 1);
    site.up();
    site.write("page", "another");
    let state = site.state();
    site.kill_everything();
    // A stale socket, a lock that nobody holds, and an incomplete copy of a release.
    assert!(state.join("control.sock").exists() && state.join("lock").exists());
    for half in ["2.new", ".2", "2.tmp", "new"] {
        let half = state.join("releases").join(half);
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("page"), "half").unwrap();
    }
    fs::write(state.join("placement.new"), "{").unwrap();
    site.up();
    assert_eq!(site.get("/").unwrap().field("release"), "2");
    assert_eq!(
        fs::read_to_string(state.join("releases/2/page")).unwrap(),
        "another"
    );
}

#[test]
fn a_socket_without_a_lab_behind_it_is_replaced() {
    let site = Site::app(Who::caller(), "socket", 1, 1);
    fs::create_dir_all(site.state()).unwrap();
    std::os::unix::fs::chown(site.state(), None, None).unwrap();
    drop(UnixListener::bind(site.state().join("control.sock")).unwrap());
    site.gaiola(&["down"]).expect(0, &["is not up"]);
    site.up();
}

#[test]
fn an_up_that_was_killed_before_the_store_stood_is_taken_up_by_the_next() {
    let site = Site::app(Who::caller(), "early", 1, 1);
    let mut up = site.start(&["up", "-d"]);
    site.wait_for("the server is on", Duration::from_secs(10), || {
        site.server("app1").is_some()
    });
    site.kill_everything();
    up.wait().unwrap();
    site.up();
    assert!(site.is_healthy());
}

#[test]
fn a_disk_that_is_full_from_the_start_is_said() {
    if !Who::Root.is_here() {
        return;
    }
    let site = Site::app(Who::Root, "tiny", 1, 1);
    let full = format!(
        "mount -t tmpfs -o size=1m,mode=755 tmpfs {}",
        site.base().join("state").display()
    );
    let ran = site.prepared(&full, &["up", "-d", "--timeout", "15s"]);
    assert!(ran.code == 1 || ran.code == 5, "{ran:?}");
    assert!(
        ran.stderr.to_lowercase().contains("no space left"),
        "{ran:?}"
    );
}

#[test]
fn a_disk_that_fills_up_does_not_stop_the_traffic() {
    if !Who::Root.is_here() {
        return;
    }
    let site = Site::app(Who::Root, "fills", 1, 1);
    let small = format!(
        "mount -t tmpfs -o size=150m,mode=755 tmpfs {}",
        site.base().join("state").display()
    );
    site.prepared(&small, &["up", "-d"]).expect(0, &[]);
    let inside = |command: &[&str]| -> Ran { site.beside_the_lab(command) };
    let filler = site.base().join("state/filler");
    let fill = format!("cat /dev/zero > {}", filler.display());
    inside(&["sh", "-c", &fill]);
    let binary = site.base().join("bin/gaiola");
    let gaiola =
        |args: &[&str]| inside(&[&[binary.to_str().unwrap(), "--timeout=40s"], args].concat());
    let reports = |code, words: &str| {
        let status = gaiola(&["status"]);
        status.code == code && status.stdout.contains(words)
    };
    let limit = Duration::from_secs(20);
    site.wait_for("the full disk is named", limit, || {
        reports(4, "app1: the disk is full: ")
    });
    site.write("page", "x".repeat(100_000).as_str());
    let (ran, figures) = site.under_load(50, || gaiola(&["up", "-d"]));
    assert!(
        ran.code == 1 && ran.stderr.contains("No space left"),
        "{ran:?}"
    );
    figures.assert_none_failed();
    inside(&["rm", filler.to_str().unwrap()]).expect(0, &[]);
    site.wait_for("there is room again", limit, || reports(0, "healthy"));
    gaiola(&["up", "-d"]).expect(0, &[]);
    assert_eq!(site.get("/").unwrap().field("release"), "2");
    gaiola(&["down"]).expect(0, &[]);
}
