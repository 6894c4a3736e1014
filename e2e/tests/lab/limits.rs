//! What the site's processes may use.

use gaiola_e2e::{Site, Who};
use gaiola_os::cgroup::Base;
use gaiola_os::skip::skipped;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

const FILE: &str = r#"
[app]
servers = 1
run = "bin/guestbook"
[database]
servers = 1
"#;

/// Takes 100 MB of memory.
const HOG: &str = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo has ${#x}";

#[test]
fn a_process_that_uses_more_than_its_memory_is_killed_and_the_events_say_so() {
    if let Err(error) = Base::find(Path::new("gaiola-none")) {
        return skipped("limits", &gaiola_os::chain(&error));
    }
    let site = Site::new(Who::caller(), "limits", FILE);
    site.put_guest_book();
    site.up();
    let before = site.process("app1", "app1.1");
    site.edit(
        "[app]\n",
        "[app]\nmemory = \"64MiB\"\ncpu = 1.5\ntasks = 200\n",
    );
    let planned = "app: no limits -> 64 MiB of memory, 1.5 processors, 200 tasks for an instance: that holds at once, without a restart";
    site.gaiola(&["plan"]).expect(0, &[planned]);
    site.gaiola(&["up", "-d"]).expect(0, &[]);
    assert_eq!(site.process("app1", "app1.1").pid, before.pid);
    let status = site.gaiola(&["status"]).stdout;
    if status.contains("limits of processes do not hold here") {
        site.gaiola(&["down"]).expect(0, &[]);
        return skipped("limits", "the lab has no control groups here");
    }
    let groups = groups_of(before.pid);
    assert!(
        groups.contains("gaiola@limits/gaiola-processes@app1/app1.1"),
        "{groups}"
    );

    // A command has the limits of an instance.
    let ran = site.gaiola(&["run", "--", "sh", "-c", HOG]);
    assert!(ran.code == 137 && !ran.stdout.contains("has"), "{ran:#?}");
    let small = site.gaiola(&["run", "--", "sh", "-c", "echo within"]);
    assert_eq!((small.code, small.stdout.trim()), (0, "within"));

    // A worker has its own.
    let worker =
        format!("[worker.hog]\nmemory = \"32MiB\"\nrun = \"sleep 4; {HOG}\"\n[database]\n");
    site.edit("[database]\n", &worker.replace('\\', "\\\\"));
    site.gaiola(&["up", "-d"]);
    let killed = "app1.hog.1 was killed: it used more than its 32 MiB";
    site.wait_for("the event", SOON, || {
        site.gaiola(&["events", "--last", "50"])
            .stdout
            .contains(killed)
    });
    assert_eq!(site.process("app1", "app1.1").pid, before.pid);
    site.gaiola(&["down"]).expect(0, &[]);
    let left = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-name", "gaiola@limits"])
        .output()
        .expect("find is installed");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}

/// The control groups of a process, as the kernel has them.
fn groups_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}
