//! The disk of a server: whether it is its own, and filling it.

use super::Lab;
use crate::api::Disk;
use gaiola_model::{ServerName, Tier};
use gaiola_os::process::Identity;
use rustix::fd::AsFd;
use rustix::fs::{
    FallocateFlags, Mode, OFlags, fallocate, fstat, fstatfs, fstatvfs, major, minor, openat,
};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

/// The longest that filling a disk may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest that giving the room back may take while something waits for it.
const FREE_LIMIT: Duration = Duration::from_secs(10);
/// Poll interval while a disk is being filled.
const POLL: Duration = Duration::from_millis(20);
/// What cannot be had any more when a disk is full.
const PAGE: u64 = 4096;
/// The most that is taken at a time, so that it ends soon when it is to.
const LARGEST: u64 = 1 << 30;
/// The file systems that are filled, by their magic numbers: they take room when they are asked to, and give all of it back.
const EXT4: u64 = 0xEF53;
const XFS: u64 = 0x5846_5342;

/// Why a server's disk is not filled.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The whole site is being brought down.
    #[error("the site is going down")]
    GoingDown,
    /// The server has no power.
    #[error("{0} is off")]
    Off(ServerName),
    /// The server lost its power while its disk was being filled.
    #[error("{0} was switched off meanwhile")]
    SwitchedOff(ServerName),
    /// It did not answer in time.
    #[error("its disk does not answer")]
    Late,
    /// Filling it was ended before it was full.
    #[error("its disk is not full yet")]
    NotFull,
    /// The system rejected filling it.
    #[error("cannot fill the disk")]
    Fill(#[source] io::Error),
    /// Only root can mount one.
    #[error(
        "{0} has no disk of its own: without root all servers share the machine's; bring the site up as root, with [drill] disk"
    )]
    NotRoot(ServerName),
    /// The server's directory or its mounts cannot be read.
    #[error("cannot read the disk of {server}")]
    Read {
        /// The server.
        server: ServerName,
        /// Why.
        source: io::Error,
    },
    /// Other servers use its file system too.
    #[error("{server} has no disk of its own, and the machine's is not filled: {}", how_to_get_one(*server, folder))]
    Shared {
        /// The server.
        server: ServerName,
        /// Where its own would be mounted.
        folder: PathBuf,
    },
    /// Another file system than those that are filled.
    #[error(
        "the disk of {0} is not filled: only ext4 and XFS are known to free all of their space again"
    )]
    FileSystem(ServerName),
}

/// All of a disk's room: free again when this is dropped, which takes its time.
pub struct Filler {
    _file: File,
    /// After the file: whoever waits for all the room waits for that.
    _taken: OwnedRwLockReadGuard<()>,
}

/// The room that is taken on any disk.
#[derive(Default)]
pub struct Room(Arc<RwLock<()>>);

impl Room {
    /// Waits until all of it has been given back, and none is being taken; `false`: not in time.
    pub async fn is_given_back(&self) -> bool {
        timeout(FREE_LIMIT, self.0.write()).await.is_ok()
    }
}

/// Fills the disk of a server that has one of its own: by a file without a name: its room is free again when it is closed, and
/// so when this process dies.
///
/// # Errors
/// If it has none, or it does not become full. Nothing is taken then.
pub async fn fill(lab: &Lab, server: ServerName, first: Identity) -> Result<Filler, DiskError> {
    let taken = Arc::clone(&lab.room.0).try_read_owned();
    let taken = taken.map_err(|_| DiskError::GoingDown)?;
    let folder = own(lab, server, first)?;
    let stop = StopOnDrop::default();
    let stopped = Arc::clone(&stop.0);
    let filling = spawn_blocking(move || {
        take_all(&folder, &stopped).map(|file| Filler {
            _file: file,
            _taken: taken,
        })
    });
    let ends = Instant::now() + LIMIT;
    let is_on = || lab.hardware.borrow().identity(server) == Some(first);
    while !filling.is_finished() && Instant::now() < ends && is_on() && !lab.ending.get() {
        sleep(POLL).await;
    }
    drop(stop);
    let filled = timeout(FREE_LIMIT, filling).await;
    let filled = filled.map_err(|_| DiskError::Late)?;
    let filler = filled.map_err(|error| DiskError::Fill(error.into()))??;
    if is_on() && !lab.ending.get() {
        return Ok(filler);
    }
    free(filler);
    Err(if is_on() {
        DiskError::GoingDown
    } else {
        DiskError::SwitchedOff(server)
    })
}

/// Ends what is being taken, also where its caller has gone.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Gives the room back: beside everything else, as a large file takes its time.
pub fn free(filler: Filler) {
    spawn_blocking(move || drop(filler));
}

/// Whether a server's disk can be filled.
pub fn of(lab: &Lab, server: ServerName) -> Disk {
    let first = lab.hardware.borrow().identity(server);
    let own = match first {
        Some(first) => own(lab, server, first),
        None => Err(DiskError::Off(server)),
    };
    match own {
        Ok(_) => Disk::Fillable,
        Err(error) => Disk::NotFillable(gaiola_os::chain(&error)),
    }
}

/// A directory on the server's own disk; otherwise why it has none. Whatever is filled is filled by way of this descriptor, so it
/// is what was checked.
fn own(lab: &Lab, server: ServerName, first: Identity) -> Result<File, DiskError> {
    if lab.rootless {
        return Err(DiskError::NotRoot(server));
    }
    let read = |source| DiskError::Read { server, source };
    let path = where_data_is(lab, server).map_err(read)?;
    let process = Path::new("/proc").join(first.pid.to_string());
    let reached = process
        .join("root")
        .join(path.strip_prefix("/").unwrap_or(&path));
    let folder = open_folder(&reached).map_err(read)?;
    let device = fstat(&folder).map_err(|error| read(error.into()))?.st_dev;
    let mounts = fs::read_to_string(process.join("mountinfo")).map_err(read)?;
    if !is_all_of(&mounts, (major(device), minor(device)), &path) {
        let folder = path;
        return Err(DiskError::Shared { server, folder });
    }
    if can_be_filled(&folder).map_err(read)? {
        Ok(folder)
    } else {
        Err(DiskError::FileSystem(server))
    }
}

/// Where the disk of a server would be mounted.
fn where_data_is(lab: &Lab, server: ServerName) -> io::Result<PathBuf> {
    let folder = fs::canonicalize(lab.state.server(server))?;
    Ok(match server.tier {
        Tier::Database => folder.join("postgres"),
        Tier::Balancer | Tier::Web | Tier::App => folder,
    })
}

fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).expect("the kernel's flags fit");
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Whether its file system is one of those that are filled.
fn can_be_filled(folder: impl AsFd) -> io::Result<bool> {
    let kind = fstatfs(folder)?.f_type;
    Ok([EXT4, XFS].map(u64::cast_signed).contains(&kind))
}

fn how_to_get_one(server: ServerName, folder: &Path) -> String {
    match server.tier {
        Tier::Database => {
            "a database server gets one by [drill] disk when it is switched on without data, in a root lab (docs/lab.md)"
                .to_string()
        }
        Tier::Balancer | Tier::Web | Tier::App => format!(
            "only database servers get one, by [drill] disk; this one has its own where a file system is mounted at {} before `gaiola up`",
            folder.display()
        ),
    }
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
fn take_all(folder: impl AsFd, stop: &AtomicBool) -> Result<File, DiskError> {
    let failed = |error: Errno| DiskError::Fill(error.into());
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(openat(folder, ".", flags, Mode::RUSR | Mode::WUSR).map_err(failed)?);
    let disk = fstatvfs(&file).map_err(failed)?;
    let free = disk.f_bfree.saturating_mul(disk.f_frsize);
    let (mut at, mut piece) = (0_u64, LARGEST.min((free / PAGE).max(1) * PAGE));
    while !stop.load(Ordering::Relaxed) {
        match fallocate(&file, FallocateFlags::empty(), at, piece) {
            Ok(()) => at += piece,
            Err(Errno::NOSPC) if piece > PAGE => piece = (piece / 2 / PAGE).max(1) * PAGE,
            Err(Errno::NOSPC) => return Ok(file),
            Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(DiskError::NotFull)
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

    #[test]
    fn what_is_to_stop_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let opened = open_folder(folder.path()).unwrap();
        let stop = StopOnDrop::default();
        let stopped = Arc::clone(&stop.0);
        drop(stop);
        let why = take_all(&opened, &stopped).unwrap_err();
        assert!(matches!(why, DiskError::NotFull), "{why}");
    }

    #[test]
    fn only_a_folder_itself_is_opened_and_no_link_to_one() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        open_folder(folder.path()).unwrap();
        open_folder(&link).unwrap_err();
    }

    #[test]
    fn a_file_system_that_is_not_known_is_not_filled() {
        assert!(!can_be_filled(open_folder(Path::new("/proc")).unwrap()).unwrap());
    }

    #[tokio::test]
    async fn whoever_waits_for_the_room_waits_for_all_of_it() {
        let room = Room::default();
        let taken = Arc::clone(&room.0).try_read_owned().unwrap();
        let filler = Filler {
            _file: tempfile::tempfile().unwrap(),
            _taken: taken,
        };
        let soon = timeout(Duration::from_millis(20), room.is_given_back());
        assert!(soon.await.is_err());
        drop(filler);
        assert!(room.is_given_back().await);
    }
}
