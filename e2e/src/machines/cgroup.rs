//! Control groups: one for each machine in each hierarchy of this host, below one for the rack.

use super::programs::Tried as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";
/// Hierarchies of version 1 that a machine gets a group in. `cpuset` and `freezer` would need more than a group.
const VERSION_1: [&str; 8] = [
    "cpu", "cpuacct", "memory", "pids", "blkio", "devices", "systemd", "unified",
];
/// Microseconds of each second that real-time processes may run: of a whole rack, and of one machine, as long as the rack has
/// some left. With version 1 and CONFIG_RT_GROUP_SCHED a new group has none. A VIP keeper that has used up its machine's stands
/// still for the rest of the second.
const RACK_REAL_TIME_US: &str = "300000";
const MACHINE_REAL_TIME_US: [&str; 2] = ["80000", "10000"];
/// How long the processes of a group may take to end once they were killed.
const ENDING: Duration = Duration::from_secs(20);

/// Creates the groups of a rack, and writes their paths to `list` before, so that [`remove`] finds them whatever happens.
pub(crate) fn create(list: &Path, rack: &Path) -> io::Result<()> {
    let own = fs::read_to_string("/proc/self/cgroup").tried("read /proc/self/cgroup")?;
    let unified = Path::new(ROOT).join("cgroup.controllers").exists();
    // Racks of one name in several directories may be up at once.
    let rack = rack.display().to_string().replace('/', "-");
    let name = format!("gaiola-machines{rack}");
    let groups: Vec<PathBuf> = bases(&own, unified)
        .into_iter()
        .filter(|base| base.is_dir())
        .map(|base| base.join(&name))
        .collect();
    let lines: Vec<String> = groups
        .iter()
        .map(|group| group.display().to_string())
        .collect();
    fs::write(list, lines.join("\n")).tried(format!("write {}", list.display()))?;
    for group in groups {
        fs::create_dir_all(&group).tried(format!("create the group {}", group.display()))?;
        let _ = fs::write(group.join("cpu.rt_runtime_us"), RACK_REAL_TIME_US);
        if unified {
            for controller in ["+cpu", "+io", "+memory", "+pids"] {
                let _ = fs::write(group.join("cgroup.subtree_control"), controller);
            }
        }
    }
    Ok(())
}

/// Where a rack's group goes in each hierarchy. With version 1 that is below our own, which may have limits. With version 2 it
/// is the root: a group that has processes cannot share its controllers among groups below it.
fn bases(own: &str, unified: bool) -> Vec<PathBuf> {
    if unified {
        return vec![ROOT.into()];
    }
    let base = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let name = match parts.next()? {
            "" => "unified",
            name => name.strip_prefix("name=").unwrap_or(name),
        };
        let path = parts.next()?.trim_start_matches('/');
        let ours = name.split(',').any(|part| VERSION_1.contains(&part));
        ours.then(|| Path::new(ROOT).join(name).join(path))
    };
    own.lines().filter_map(base).collect()
}

/// Moves this process into the groups of a machine, in every hierarchy of the list.
pub(crate) fn enter(list: &Path, machine: &str) -> io::Result<()> {
    let groups = fs::read_to_string(list).tried(format!("read {}", list.display()))?;
    for group in groups.lines() {
        let group = Path::new(group).join(machine);
        fs::create_dir_all(&group).tried(format!("create the group {}", group.display()))?;
        let share = |us: &&str| fs::write(group.join("cpu.rt_runtime_us"), us).is_ok();
        let _ = MACHINE_REAL_TIME_US.iter().any(share);
        fs::write(group.join("cgroup.procs"), "0")
            .tried(format!("enter the group {}", group.display()))?;
    }
    Ok(())
}

/// Removes every group of the list, once its processes have ended, and the list.
pub(crate) fn remove(list: &Path) -> io::Result<()> {
    let Ok(groups) = fs::read_to_string(list) else {
        return Ok(());
    };
    let deadline = Instant::now() + ENDING;
    for group in groups.lines().map(Path::new) {
        while let Err(error) = remove_tree(group) {
            if Instant::now() > deadline {
                return Err(error).tried(format!("remove the group {}", group.display()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    fs::remove_file(list).tried(format!("remove {}", list.display()))
}

/// A group's files go with it; only the groups in it are removed first.
fn remove_tree(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_version_1_a_rack_is_below_our_own_group() {
        let own =
            "9:name=systemd:/\n8:pids:/\n4:memory:/api/47\n3:cpuset:/\n2:cpu,cpuacct:/user\n0::/\n";
        let bases = bases(own, false);
        let bases: Vec<_> = bases.iter().map(|base| base.to_str().unwrap()).collect();
        assert_eq!(
            bases,
            [
                "/sys/fs/cgroup/systemd/",
                "/sys/fs/cgroup/pids/",
                "/sys/fs/cgroup/memory/api/47",
                "/sys/fs/cgroup/cpu,cpuacct/user",
                "/sys/fs/cgroup/unified/"
            ]
        );
    }

    #[test]
    fn with_version_2_it_is_at_the_root() {
        assert_eq!(bases("0::/user.slice\n", true), [Path::new(ROOT)]);
    }
}
