//! Where groups can be made: beside our own, in the hierarchy of each controller.

use super::{Group, write};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Version {
    /// One hierarchy for each controller, or for a few.
    One,
    /// One for all.
    Two,
}

/// A group as a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) version: Version,
}

/// Why no groups can be made.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The kernel's tables.
    #[error("cannot read {file}")]
    Read {
        /// The table.
        file: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// No controller is mounted, or none for us.
    #[error("no control groups are mounted here")]
    None,
    /// It is not ours to change.
    #[error("cannot make the control group {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The directories under which a server's processes have their groups; a controller that is not there has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    memory: Option<Folder>,
    cpu: Option<Folder>,
    tasks: Option<Folder>,
}

impl Base {
    /// Makes the directories of this name, relative and perhaps with several parts, beside our own group. A controller whose directory
    /// cannot be made counts as not there.
    ///
    /// # Errors
    /// If there is none at all.
    pub fn beside_own(name: &Path) -> Result<Self, BaseError> {
        let found = Self::find(name)?;
        let mut refused = None;
        let mut made = |folder: Option<Folder>| {
            let folder = folder?;
            match make(&folder) {
                Ok(()) => Some(folder),
                Err(source) => {
                    let path = folder.path;
                    let error = BaseError::Make { path, source };
                    tracing::warn!(error = crate::chain(&error), "a controller is missing");
                    refused = Some(error);
                    None
                }
            }
        };
        let base = Self {
            memory: made(found.memory),
            cpu: made(found.cpu),
            tasks: made(found.tasks),
        };
        match base.is_nowhere() {
            true => Err(refused.unwrap_or(BaseError::None)),
            false => Ok(base),
        }
    }

    /// Those directories, whether or not they are there.
    ///
    /// # Errors
    /// If there is no controller at all.
    pub fn find(name: &Path) -> Result<Self, BaseError> {
        let read =
            |file| fs::read_to_string(file).map_err(|source| BaseError::Read { file, source });
        let (own, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
        Self::beside(&own, &mounts, name).ok_or(BaseError::None)
    }

    fn beside(own: &str, mounts: &str, name: &Path) -> Option<Self> {
        let folder = |controller| Some(beside(own, mounts, controller)?.join(name));
        let base = Self {
            memory: folder("memory"),
            cpu: folder("cpu"),
            tasks: folder("pids"),
        };
        (!base.is_nowhere()).then_some(base)
    }

    /// The group of one process, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn group(&self, process: &str) -> io::Result<Group> {
        let make = |base: &Option<Folder>| {
            let folder = base.as_ref().map(|base| base.join(Path::new(process)));
            folder.map(|folder| fs::create_dir_all(&folder.path).map(|()| folder))
        };
        Ok(Group {
            memory: make(&self.memory).transpose()?,
            cpu: make(&self.cpu).transpose()?,
            tasks: make(&self.tasks).transpose()?,
        })
    }

    /// The names of the groups that there are.
    pub fn names(&self) -> BTreeSet<String> {
        let groups = self.folders().flat_map(|folder| groups_in(&folder.path));
        let names = groups.filter_map(|group| Some(group.file_name()?.to_str()?.to_string()));
        names.collect()
    }

    /// Removes the groups without processes, but for those that are to stay.
    pub fn prune(&self, stays: impl Fn(&str) -> bool) {
        for folder in self.folders() {
            for group in groups_in(&folder.path) {
                let name = group.file_name().unwrap_or_default();
                if !stays(&name.to_string_lossy()) {
                    // Processes are in it.
                    let _ = fs::remove_dir(&group);
                }
            }
        }
    }

    /// Removes all of it that has no processes, and the groups above it that were made with it: so many.
    pub fn remove(&self, above: usize) {
        self.prune(|_| false);
        for folder in self.folders() {
            for path in folder.path.ancestors().take(above + 1) {
                // Another server's groups are in it.
                let _ = fs::remove_dir(path);
            }
        }
    }

    fn is_nowhere(&self) -> bool {
        self.folders().next().is_none()
    }

    fn folders(&self) -> impl Iterator<Item = &Folder> {
        [&self.memory, &self.cpu, &self.tasks].into_iter().flatten()
    }
}

impl Folder {
    fn join(&self, name: &Path) -> Self {
        Self {
            path: self.path.join(name),
            version: self.version,
        }
    }
}

fn groups_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).collect()
}

/// Removes a group without processes; one that is not there is removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes a group whose own groups have limits, and every group above it.
fn make(folder: &Folder) -> io::Result<()> {
    fs::create_dir_all(&folder.path)?;
    if folder.version == Version::Two {
        let above: Vec<&Path> = folder.path.ancestors().collect();
        for path in above.into_iter().rev() {
            enable(path);
        }
    }
    Ok(())
}

/// Has the groups of a group have limits. Where that cannot be, they have none of the files for it, which is found out then.
fn enable(path: &Path) {
    let switch = path.join("cgroup.subtree_control");
    let Ok(on) = fs::read_to_string(&switch) else {
        return;
    };
    for controller in ["memory", "cpu", "pids"] {
        if !on.split_ascii_whitespace().any(|one| one == controller) {
            let _ = write(&switch, &format!("+{controller}"));
        }
    }
}

/// The group above our own in the hierarchy of a controller; our own if there is none above it.
fn beside(own: &str, mounts: &str, controller: &str) -> Option<Folder> {
    let of_one = || {
        let path = own_path(own, |controllers| {
            controllers.split(',').any(|one| one == controller)
        })?;
        let is_its = |mount: &Mount<'_>| {
            mount.kind == "cgroup" && mount.options.split(',').any(|one| one == controller)
        };
        Some(Folder {
            path: parent(mounts, is_its, path)?,
            version: Version::One,
        })
    };
    let of_two = || {
        let path = own_path(own, str::is_empty)?;
        let folder = parent(mounts, |mount| mount.kind == "cgroup2", path)?;
        Some(Folder {
            path: folder,
            version: Version::Two,
        })
    };
    // Of a controller that version 1 has, version 2 has nothing.
    of_one().or_else(of_two)
}

/// Our own group's path in `/proc/self/cgroup`, where the controllers of the hierarchy are these.
fn own_path(own: &str, is_its: impl Fn(&str) -> bool) -> Option<&str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        is_its(controllers).then_some(path)
    })
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    /// The directory of the file system that is mounted.
    root: &'a str,
    at: &'a str,
    kind: &'a str,
    /// Those of the file system.
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, at) = (mount.next()?, mount.next()?);
        let mut system = system.split(' ');
        let (kind, _source, options) = (system.next()?, system.next()?, system.next()?);
        Some(Self {
            root,
            at,
            kind,
            options,
        })
    }
}

/// The directory above that of the group with this path.
fn parent(mounts: &str, is_its: impl Fn(&Mount<'_>) -> bool, path: &str) -> Option<PathBuf> {
    let mount = mounts.lines().filter_map(Mount::parse).find(is_its)?;
    let within = Path::new(path).strip_prefix(mount.root).ok()?;
    let above = within.parent().unwrap_or(Path::new(""));
    Some(Path::new(mount.at).join(above))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEMD: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
    const FIRST: &str = "\
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    fn folder(path: &str, version: Version) -> Option<Folder> {
        let path = path.into();
        Some(Folder { path, version })
    }

    #[test]
    fn with_version_2_all_controllers_share_a_directory_beside_the_unit() {
        let own = "0::/system.slice/system-gaiola.slice/gaiola-agent@app1.service\n";
        let base = Base::beside(own, SYSTEMD, Path::new("gaiola@shop/app1")).unwrap();
        let path = "/sys/fs/cgroup/system.slice/system-gaiola.slice/gaiola@shop/app1";
        let all = folder(path, Version::Two);
        assert_eq!([&base.memory, &base.cpu, &base.tasks], [&all, &all, &all]);
    }

    #[test]
    fn with_version_1_each_controller_has_a_directory_of_its_own() {
        let own = "5:memory:/a/b\n4:cpu,cpuacct:/\n0::/\n";
        let base = Base::beside(own, FIRST, Path::new("x")).unwrap();
        assert_eq!(
            base.memory,
            folder("/sys/fs/cgroup/memory/a/x", Version::One)
        );
        assert_eq!(
            base.cpu,
            folder("/sys/fs/cgroup/cpu,cpuacct/x", Version::One)
        );
        // Version 2 has those that version 1 has not.
        assert_eq!(base.tasks, folder("/sys/fs/cgroup/unified/x", Version::Two));
    }

    #[test]
    fn a_container_sees_a_part_of_the_hierarchy() {
        let own = "5:memory:/docker/c0ffee\n";
        let mounts = "31 30 0:27 /docker/c0ffee /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        let base = Base::beside(own, mounts, Path::new("x")).unwrap();
        assert_eq!(base.memory, folder("/sys/fs/cgroup/memory/x", Version::One));
        assert_eq!((base.cpu, base.tasks), (None, None));
        assert_eq!(Base::beside(own, "", Path::new("x")), None);
    }
}
