//! However a rack ends, nothing of it is left; one made by hand keeps its disks.

use crate::said;
use gaiola_e2e::machines::{Image, Machines, impossible};
use gaiola_e2e::{Process, Ran, processes};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Names, for the process that this test starts and kills, the file that it reports to.
const VICTIM: &str = "GAIOLA_E2E_VICTIM";

/// What is still there of a rack.
fn left(folder: &Path) -> Vec<String> {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let about = |process: &Process| process.is_about(folder) && process.pid != std::process::id();
    let running = processes()
        .into_iter()
        .filter(about)
        .map(|process| process.args.join(" "));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounted = mounts
        .lines()
        .filter(|line| line.contains(folder.to_str().unwrap()));
    let mut find = Command::new("find");
    find.args([
        "/sys/fs/cgroup",
        "-type",
        "d",
        "-name",
        &format!("gaiola-machines-{name}"),
    ]);
    let groups = String::from_utf8(find.output().unwrap().stdout).unwrap();
    let found = mounted.chain(groups.lines()).map(String::from);
    running.chain(found).collect()
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "make machines runs it"]
fn nothing_is_left_of_a_test_that_ends() {
    let Some(machines) = Machines::start("ends", 2, Image::Bare) else {
        return;
    };
    let folder = machines.rack().folder().to_path_buf();
    // Also a process of the operator's that nobody waits for.
    said(machines.run(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & ssh -fN -o ControlMaster=yes -o ControlPath=/run/m1 m1"]));
    assert!(left(&folder).len() > 5, "{:?}", left(&folder));
    drop(machines);
    assert_eq!(left(&folder), [""; 0]);
    assert!(!folder.exists());
}

#[test]
#[ignore = "make machines runs it"]
fn nothing_is_left_of_a_test_that_is_killed() {
    if let Some(report) = std::env::var_os(VICTIM) {
        let machines = Machines::start("killed", 2, Image::Bare).expect("there can be machines");
        fs::write(report, machines.rack().folder().to_str().unwrap()).unwrap();
        std::thread::sleep(Duration::from_secs(1000));
    }
    if let Some(why) = impossible(Image::Bare) {
        gaiola_os::skip::skipped("nothing_is_left_of_a_test_that_is_killed", why);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("rack");
    let test = "ends::nothing_is_left_of_a_test_that_is_killed";
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(VICTIM, &report)
        .spawn()
        .unwrap();
    until("its machines are up", || {
        fs::read_to_string(&report).is_ok_and(|text| !text.is_empty())
    });
    let rack = PathBuf::from(fs::read_to_string(&report).unwrap());
    victim.kill().unwrap();
    victim.wait().unwrap();
    until("nothing is left", || {
        left(&rack).is_empty() && !rack.exists()
    });
}

/// The binary, with a state directory of its own in which the images are those of all.
struct ByHand {
    state: tempfile::TempDir,
}

impl ByHand {
    fn new() -> Self {
        let state = tempfile::Builder::new()
            .prefix("gaiola-by-hand-")
            .tempdir()
            .unwrap();
        let all = std::env::var_os("GAIOLA_MACHINES")
            .map_or_else(|| "/var/lib/gaiola-machines".into(), PathBuf::from);
        for shared in ["images", "packages"] {
            fs::create_dir_all(all.join(shared)).unwrap();
            std::os::unix::fs::symlink(all.join(shared), state.path().join(shared)).unwrap();
        }
        Self { state }
    }

    fn machines(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_machines"));
        command.args(args).env("GAIOLA_MACHINES", self.state.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran {
            code: output.status.code().unwrap_or(128),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn rack(&self) -> PathBuf {
        self.state.path().join("racks/by-hand")
    }

    fn holder(&self) -> Process {
        let holds = |process: &Process| {
            process.args.get(1).is_some_and(|arg| arg == "hold")
                && process.is_about(self.state.path())
        };
        processes()
            .into_iter()
            .find(holds)
            .expect("a process holds the rack")
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        self.machines(&["wipe"]);
    }
}

#[test]
#[ignore = "make machines runs it"]
fn machines_made_by_hand_outlive_the_command_until_they_are_taken_down() {
    if let Some(why) = impossible(Image::Bare) {
        gaiola_os::skip::skipped("machines_made_by_hand_outlive_the_command", why);
        return;
    }
    let hand = ByHand::new();
    let says = |args: &[&str]| said(hand.machines(args));
    says(&["up", "2"]);
    assert_eq!(says(&["ssh", "m1", "hostname; touch /root/kept"]), "m1");
    assert_eq!(says(&["ssh", "ops@m2", "sudo hostname"]), "m2");
    assert_eq!(
        says(&["run", "sh", "-c", "hostname; ssh m2 hostname"]),
        "operator\nm2"
    );
    says(&["crash", "m1"]);
    hand.machines(&["ssh", "m1", "true"]).expect(255, &[]);
    assert!(says(&["list"]).starts_with("m1\t10.78.0.11\toff\nm2\t10.78.0.12\ton, pid 1 is "));
    says(&["on", "m1"]);
    says(&["cable", "m1", "down"]);
    assert_eq!(
        says(&["shell", "m1", "cat", "/sys/class/net/host0/carrier"]),
        "0"
    );
    hand.machines(&["crash", "m7"]).expect(1, &["m7 is off"]);
    hand.machines(&["cloud"])
        .expect(2, &["machines cloud on|off"]);

    says(&["down"]);
    assert_eq!(left(&hand.rack()), [""; 0]);
    hand.machines(&["ssh", "m1", "true"])
        .expect(1, &["the rack by-hand is not up"]);
    says(&["up", "1"]);
    assert_eq!(says(&["ssh", "m1", "ls /root"]), "kept");

    hand.holder().kill();
    until("the machines have ended with it", || {
        left(&hand.rack())
            .iter()
            .all(|it| it.starts_with("/sys/fs/cgroup"))
    });
    says(&["up", "2"]);
    assert_eq!(says(&["ssh", "m1", "ls /root"]), "kept");
    says(&["wipe"]);
    assert!(left(&hand.rack()).is_empty() && !hand.rack().exists());
}
