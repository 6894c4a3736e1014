//! Limits of the site's processes on machines: their groups stand beside their agent's unit.

use crate::said;
use gaiola_e2e::machines::{Image, MachineSite};
use gaiola_os::skip::skipped;

/// Takes 200 MB of memory.
const HOG: &str = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo has ${#x}";
/// The pids of the instances of a machine with one application server, and where the first one stands.
const INSTANCES: &str = "pgrep -x guestbook | sort -n | tr '\\n' ' '";
const GROUPS: &str = "cat /proc/$(pgrep -xo guestbook)/cgroup";
const GROUPS_LEFT: &str = "find /sys/fs/cgroup -name 'gaiola@*'";

#[test]
#[ignore = "make machines runs it"]
fn limited_processes_outlive_their_agent_and_end_with_their_site() {
    let Some(site) = MachineSite::start("limits", 2, Image::Prepared) else {
        return;
    };
    let both: &[&str] = &["m1", "m2"];
    site.write([both; 4], "");
    site.up();
    let on = |machine: &str, command: &str| said(site.machines().ssh(machine, command));
    let before = on("m1", INSTANCES);
    site.edit("[app]\n", "[app]\nmemory = \"100MiB\"\ntasks = 300\n");
    site.gaiola(&["up", "-d"]).expect(0, &[]);
    let status = site.gaiola(&["status"]).expect(0, &[]).stdout;
    if status.contains("limits of processes do not hold here") {
        return skipped("limits", &status);
    }
    let group = "gaiola@guestbook/gaiola-processes@app1/app1.";
    let groups = on("m1", GROUPS);
    assert!(groups.contains(group), "{groups}");
    let ran = site.gaiola(&["run", "--", "sh", "-c", HOG]);
    // ssh has no status for a command that was killed.
    assert!(ran.code == 255 && !ran.stdout.contains("has"), "{ran:#?}");
    let killed = "a process of gaiola run was killed: it used more memory than [app] allows";
    site.gaiola(&["events", "--last", "50"])
        .expect(0, &[killed]);

    // The next agent finds them, and the limits stay.
    on(
        "m1",
        "systemctl kill --kill-who=main -s KILL gaiola-agent@app1",
    );
    site.gaiola(&["up", "-d"]).expect(0, &["nothing to change"]);
    assert_eq!(on("m1", INSTANCES), before);
    assert!(on("m1", GROUPS).contains(group));

    site.gaiola(&["down"]).expect(0, &[]);
    for machine in both {
        assert_eq!(on(machine, GROUPS_LEFT), "", "{machine}");
    }
}
