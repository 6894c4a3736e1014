//! The disk of a server: whether it is its own, and filling it.

use super::Lab;
use crate::os::process::Identity;
use gaiola_model::{ServerName, Tier};
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, fallocate, fstatvfs, major, minor, openat};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// The longest that filling a disk may take.
const LIMIT: Duration = Duration::from_secs(30);
/// What cannot be had any more when a disk is full.
const PAGE: u64 = 4096;

/// Fills the disk of a server that has one of its own: by a file without a name, whose room is free again when it is closed, and
/// so when our process dies.
///
/// # Errors
/// Where it has none, or it does not become full.
pub async fn fill(lab: &Lab, server: ServerName, first: Identity) -> io::Result<File> {
    let folder = own(lab, server, first).map_err(io::Error::other)?;
    let filling = spawn_blocking(move || take_all(&folder));
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "its disk is not full yet");
    let filled = timeout(LIMIT, filling).await.map_err(late)?;
    filled.map_err(io::Error::other)?
}

/// Gives the room back: beside everything else, as a large file takes its time.
pub fn free(filler: File) {
    spawn_blocking(move || drop(filler));
}

/// Why a server's disk cannot be filled; `None`: it can.
pub fn unfillable(lab: &Lab, server: ServerName) -> Option<String> {
    let first = lab.hardware.borrow().identity(server);
    match first {
        Some(first) => own(lab, server, first).err(),
        None => Some(format!("{server} is off")),
    }
}

/// A directory on the server's own disk, as we reach it; otherwise why it has none. The machine's must never be filled.
fn own(lab: &Lab, server: ServerName, first: Identity) -> Result<PathBuf, String> {
    if lab.rootless {
        return Err(format!(
            "{server} has no disk of its own: without root all servers share the machine's; bring the site up as root, with [drill] disk"
        ));
    }
    let folder = lab.state.server(server);
    let folder = fs::canonicalize(&folder).map_err(|error| error.to_string())?;
    let folder = match server.tier {
        Tier::Database => folder.join("postgres"),
        Tier::Balancer | Tier::Web | Tier::App => folder,
    };
    let process = Path::new("/proc").join(first.pid.to_string());
    let inside = folder.strip_prefix("/").unwrap_or(&folder);
    let reached = process.join("root").join(inside);
    let device = fs::metadata(&reached)
        .map_err(|error| format!("cannot look at the disk of {server}: {error}"))?
        .dev();
    let mounts = fs::read_to_string(process.join("mountinfo"))
        .map_err(|error| format!("cannot read the mounts of {server}: {error}"))?;
    match is_all_of(&mounts, (major(device), minor(device)), &folder) {
        true => Ok(reached),
        false => Err(shared(server, &folder)),
    }
}

fn shared(server: ServerName, folder: &Path) -> String {
    let how = match server.tier {
        Tier::Database => {
            "a database server gets one by [drill] disk when it is switched on without data, in a lab of root (docs/lab.md)"
                .to_string()
        }
        Tier::Balancer | Tier::Web | Tier::App => format!(
            "only database servers get one, by [drill] disk; this one has its own where a file system is mounted at {} before `gaiola up`",
            folder.display()
        ),
    };
    format!("{server} has no disk of its own, and the machine's is not filled: {how}")
}

/// Whether these mounts (a text as in `/proc/PID/mountinfo`) have the file system of this device once: whole, and here.
fn is_all_of(mounts: &str, device: (u32, u32), here: &Path) -> bool {
    let device = format!("{}:{}", device.0, device.1);
    let mut found = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let (of, root, at) = (fields.next()?, fields.next()?, fields.next()?);
        (of == device).then(|| (root == "/", unescaped(at)))
    });
    let first = found.next();
    let is_here = first.is_some_and(|(whole, at)| whole && Path::new(&at) == here);
    is_here && found.next().is_none()
}

/// A path as `mountinfo` writes it: blanks and backslashes are octal there.
fn unescaped(path: &str) -> String {
    let written = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n")];
    let path = written
        .iter()
        .fold(path.to_string(), |path, (code, it)| path.replace(code, it));
    path.replace("\\134", "\\")
}

/// Takes all the room that there is, in ever smaller pieces, until a page is refused. What others free later stays free.
fn take_all(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR)?);
    let disk = fstatvfs(&file)?;
    let free = disk.f_bfree.saturating_mul(disk.f_frsize);
    let (mut at, mut piece) = (0_u64, (free / PAGE).max(1) * PAGE);
    loop {
        match fallocate(&file, FallocateFlags::empty(), at, piece) {
            Ok(()) => at += piece,
            Err(Errno::NOSPC) if piece > PAGE => piece = (piece / 2 / PAGE).max(1) * PAGE,
            Err(Errno::NOSPC) => return Ok(file),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_its_own_where_it_is_mounted_whole_and_once() {
        let here = Path::new("/srv/a b/servers/db1/postgres");
        let mount = |device: &str, root: &str, at: &str| {
            format!("63 43 {device} {root} {at} rw,nosuid shared:1 - ext4 /dev/loop0 rw\n")
        };
        let machine = mount("254:0", "/", "/");
        let own = mount("7:1", "/", r"/srv/a\040b/servers/db1/postgres");
        let is_own = |mounts: &[&String]| {
            let mounts: String = mounts.iter().map(|mount| mount.as_str()).collect();
            is_all_of(&mounts, (7, 1), here)
        };
        assert!(is_own(&[&machine, &own]));
        assert!(!is_own(&[&machine]));
        assert!(!is_all_of(&machine, (254, 0), here));
        let part = mount("7:1", "/db1", r"/srv/a\040b/servers/db1/postgres");
        assert!(!is_own(&[&machine, &part]));
        let elsewhere = mount("7:1", "/", "/mnt");
        assert!(!is_own(&[&machine, &own, &elsewhere]));
        assert!(!is_own(&[&machine, &elsewhere]));
        assert!(!is_all_of("not a mount\n", (7, 1), here));
    }
}
