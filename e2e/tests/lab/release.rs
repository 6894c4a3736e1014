//! Failing releases: given up, or silent during a migration; and instances that are restarted by hand.

use gaiola_e2e::{Site, Who, ended};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn what_is_scaled_after_a_release_was_given_up_runs_the_good_one() {
    let site = Site::app(Who::caller(), "givenup", 2, 1);
    site.up();
    site.write("switches", "exit");
    site.gaiola(&["up", "-d"])
        .expect(1, &["release 2 was given up"]);
    site.gaiola(&["scale", "app=3x1"]).expect(0, &[]);
    assert!(site.on("app3", "app3.1").is_some());
    site.gaiola(&["drain", "app1"]).expect(0, &[]);
    site.gaiola(&["undrain", "app1"]).expect(0, &[]);
    let before = site.process("app3", "app3.1").pid;
    site.gaiola(&["restart", "app3"]).expect(0, &[]);
    assert!(site.processes().iter().all(|process| process.pid != before));
    assert_eq!(site.get("/").unwrap().field("release"), "1");
    site.gaiola(&["plan"]).expect(0, &["tried again"]);
    site.gaiola(&["up", "-d"])
        .expect(1, &["release 2 was given up"]);
    site.write("switches", "");
    site.gaiola(&["plan"]).expect(0, &["release 2 -> 3"]);
    site.up();
    assert!(site.is_healthy());
}

#[test]
fn the_last_server_of_a_tier_is_not_drained() {
    let site = Site::app(Who::caller(), "lastone", 1, 1);
    site.up();
    site.gaiola(&["drain", "app1"])
        .expect(1, &["only app server", "gaiola scale app=2"]);
    site.gaiola(&["restart", "web1"])
        .expect(2, &["application server"]);
}

#[test]
fn a_release_command_whose_server_is_silent_runs_nowhere_else_until_that_one_is_off() {
    let site = Site::app(Who::caller(), "fenced", 2, 1);
    let (runs, hold) = (site.base().join("runs"), site.base().join("hold"));
    fs::write(&runs, "").unwrap();
    fs::set_permissions(&runs, Permissions::from_mode(0o666)).unwrap();
    let say = |word: &str| format!("echo {word} $RELEASE >>{}", runs.display());
    let (begin, end) = (say("begin"), say("end"));
    let hold_on = format!("while [ -e {} ]; do sleep 0.1; done", hold.display());
    let command = format!("release = \"SECRET=hush; {begin}; {hold_on}; {end}\"\nservers");
    site.edit("servers", &command);
    site.up();
    // Not on the server with the store's member.
    site.gaiola(&["drain", "app1"]).expect(0, &[]);
    let said = || fs::read_to_string(&runs).unwrap();
    fs::write(&hold, "").unwrap();
    site.write("page", "another");
    let mut up = site.start(&["up", "-d"]);
    site.wait_for("the command runs", LIMIT, || said().ends_with("begin 2\n"));
    let agent = site.process("app2", "agent").pid;
    gaiola_os::process::signal(agent, rustix::process::Signal::STOP);
    let status = || site.status().1.to_string();
    site.wait_for("its server is called lost", LIMIT, || {
        status().contains("is lost: its agent is silent")
    });
    site.wait_for("status says what can be done", LIMIT, || {
        status().contains("gaiola power off app2")
    });
    assert!(!status().contains("hush"), "{}", status());
    // Another server could run it once it is undrained.
    up.kill().unwrap();
    ended(up);
    site.wait_for("undrain waits for it and says why", LIMIT, || {
        let ran = site.gaiola(&["undrain", "app1", "--timeout", "5s"]);
        ran.code == 5 && ran.stderr.contains("power off app2")
    });
    assert_eq!(said(), "begin 1\nend 1\nbegin 2\n");
    site.gaiola(&["power", "off", "app2"]).expect(0, &[]);
    site.wait_for("it runs on the other", LIMIT, || {
        said() == "begin 1\nend 1\nbegin 2\nbegin 2\n"
    });
    fs::remove_file(&hold).unwrap();
    site.up();
    assert!(site.is_healthy());
    assert_eq!(said(), "begin 1\nend 1\nbegin 2\nbegin 2\nend 2\n");
    assert_eq!(site.get("/").unwrap().field("release"), "2");
}

#[test]
fn check_refuses_what_up_would() {
    let site = Site::app(Who::caller(), "checked", 1, 1);
    site.write("config/master.key", "secret");
    let key = site.folder().join("config/master.key");
    fs::set_permissions(key, Permissions::from_mode(0o600)).unwrap();
    site.gaiola(&["check"]).expect(0, &["config/master.key"]);
    site.write("venv/pyvenv.cfg", "");
    fs::create_dir_all(site.folder().join("venv/bin")).unwrap();
    let link = site.folder().join("venv/bin/python3");
    std::os::unix::fs::symlink("/usr/bin/env", link).unwrap();
    for command in [&["check"][..], &["up", "-d"]] {
        site.gaiola(command).expect(1, &["venv --copies"]);
    }
}
