//! A database server's own disk: an ext4 file system in a file beside its data, so that it can fill up while the machine's disk
//! does not.
//!
//! It is mounted within the server only, by a loop device that the kernel releases with the mount: when the server's processes
//! are gone, nothing but the file is left.

use crate::state::Boot;
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The program that makes a disk's file system.
const MKFS: &str = "mkfs.ext4";
/// Timeout of one program.
const PROGRAM_LIMIT: Duration = Duration::from_secs(20);
/// Timeout of the mount: the kernel may still be releasing the mount of the server's last life.
const MOUNT_LIMIT: Duration = Duration::from_secs(10);
/// Poll interval; a tenth of the interval between two attempts to mount.
const POLL: Duration = Duration::from_millis(10);
/// A new disk leaves this many bytes of the machine's free, or a [`SPARE_SHARE`]th of its own size where that is more.
const SPARE: u64 = 1 << 30;
const SPARE_SHARE: u64 = 10;

/// Mounts the disk for PostgreSQL's data, where the server has one. A wanted disk is made only while there is no data yet:
/// existing data stays in place.
///
/// # Errors
/// If it cannot be made or mounted; then nothing may be started, as the data would seem to be gone.
pub(super) fn attach(boot: &Boot) -> Result<(), DiskError> {
    let (image, folder) = (boot.disk_image(), boot.postgres());
    // An incomplete image, left by a process that was killed.
    remove(&half(&image))?;
    match (image.try_exists()?, is_empty(&folder)?, boot.disk) {
        (true, true, _) => {}
        (true, false, _) => return Err(DiskError::TwoPlaces { image, folder }),
        (false, true, Some(bytes)) => {
            make(boot, &image, bytes).map_err(|source| DiskError::Make {
                bytes,
                source: source.into(),
            })?
        }
        (false, false, _) | (false, true, None) => return Ok(()),
    }
    fs::create_dir_all(&folder)?;
    refill(&image)
        .and_then(|()| mount(boot, &image, &folder))
        .map_err(|source| DiskError::Mount {
            image,
            source: source.into(),
        })
}

/// Why a server has no disk of its own.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file or directory cannot be used.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Data in both places, as left by a version without disks. Either of the two may hold the acknowledged writes.
    #[error(
        "data is both in {} and in {}: move the one away that is not to be used",
        image.display(),
        folder.display()
    )]
    TwoPlaces {
        /// The disk's image.
        image: PathBuf,
        /// The directory that it is mounted on.
        folder: PathBuf,
    },
    /// No new one could be made.
    #[error("cannot make a disk of {bytes} bytes")]
    Make {
        /// Its size.
        bytes: u64,
        /// Why.
        source: Box<Self>,
    },
    /// It could not be mounted.
    #[error("cannot mount {}", image.display())]
    Mount {
        /// The disk's image.
        image: PathBuf,
        /// Why.
        source: Box<Self>,
    },
    /// The machine has too little room for all its blocks.
    #[error(
        "the machine's disk has {} MiB free, {} MiB are needed: {} for this disk, {} to be left over",
        free >> 20,
        wanted.div_ceil(1 << 20),
        missing.div_ceil(1 << 20),
        spare >> 20
    )]
    NoRoom {
        /// Free bytes.
        free: u64,
        /// Bytes that must be free.
        wanted: u64,
        /// Bytes that the disk still takes.
        missing: u64,
        /// Bytes that must stay free.
        spare: u64,
    },
    /// A program cannot be started.
    #[error("{}{name}", hint(name, source))]
    Start {
        /// The program.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A program took too long.
    #[error("{name} has not ended after {} s", PROGRAM_LIMIT.as_secs())]
    Late {
        /// The program.
        name: String,
    },
    /// A program failed; with its error output.
    #[error("{name}: {words}")]
    Failed {
        /// The program.
        name: String,
        /// Its error output, or how it ended.
        words: String,
    },
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        entries => Ok(entries?.next().is_none()),
    }
}

/// The path of a disk image until it is complete.
fn half(image: &Path) -> PathBuf {
    image.with_extension("new")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn make(boot: &Boot, image: &Path, bytes: u64) -> Result<(), DiskError> {
    let half = half(image);
    let made = format(boot, &half, bytes).and_then(|()| Ok(fs::rename(&half, image)?));
    if made.is_err() {
        // It would take up the machine's room for nothing.
        let _ = remove(&half);
    }
    made
}

fn format(boot: &Boot, path: &Path, bytes: u64) -> Result<(), DiskError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    take_room(&file, bytes, SPARE.max(bytes / SPARE_SHARE))?;
    let (uid, gid) = boot
        .database_user
        .map_or((0, 0), |user| (user.uid, user.gid));
    // With lazy zeroing the kernel would free the blocks later: a loop device turns zeroed ranges into holes.
    let with = format!("nodiscard,lazy_itable_init=0,lazy_journal_init=1,root_owner={uid}:{gid}");
    let mut program = program(boot, MKFS);
    program.args(["-q", "-F", "-m", "0", "-E", &with]).arg(path);
    finish(program)?;
    Ok(file.sync_all()?)
}

/// Reallocates the blocks that the file system's zeroing has turned into holes.
fn refill(image: &Path) -> Result<(), DiskError> {
    let file = OpenOptions::new().write(true).open(image)?;
    let bytes = file.metadata()?.len();
    take_room(&file, bytes, 0)
}

/// Allocates all blocks of a file: a write that the server's disk has accepted must find room on the machine's too. `spare`
/// bytes of the machine's must stay free for users other than root.
fn take_room(file: &File, bytes: u64, spare: u64) -> Result<(), DiskError> {
    let missing = bytes.saturating_sub(file.metadata()?.blocks().saturating_mul(512));
    let disk = fstatvfs(file).map_err(io::Error::from)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let wanted = missing.saturating_add(spare);
    if missing > 0 && free < wanted {
        return Err(DiskError::NoRoom {
            free,
            wanted,
            missing,
            spare,
        });
    }
    fallocate(file, FallocateFlags::empty(), 0, bytes).map_err(io::Error::from)?;
    Ok(())
}

/// Mounts the image, once the kernel has released the mount of the server's last life.
fn mount(boot: &Boot, image: &Path, folder: &Path) -> Result<(), DiskError> {
    let ends = Instant::now() + MOUNT_LIMIT;
    loop {
        let was_held = is_held(boot, image);
        let mut program = program(boot, "mount");
        // `loop` reuses a device that the file may still have: one file is never mounted as two file systems.
        let options = "loop,nosuid,nodev,noatime,errors=remount-ro";
        program.args(["-t", "ext4", "-o", options]);
        program.args([image, folder]);
        match finish(program) {
            Err(error) if Instant::now() < ends && (was_held || is_busy(&error)) => {
                sleep(POLL * 10);
            }
            done => return done.map(drop),
        }
    }
}

/// Whether a loop device is still attached to the image.
fn is_held(boot: &Boot, image: &Path) -> bool {
    let mut program = program(boot, "losetup");
    program.stdout(Stdio::piped());
    program
        .args(["--noheadings", "--output", "NAME", "--associated"])
        .arg(image);
    finish(program).is_ok_and(|devices| !devices.is_empty())
}

fn is_busy(error: &DiskError) -> bool {
    match error {
        DiskError::Failed { words, .. } => {
            words.contains("busy") || words.contains("overlapping loop device")
        }
        _ => false,
    }
}

fn program(boot: &Boot, name: &str) -> Command {
    let mut command = Command::new(name);
    command
        .env_clear()
        .env("PATH", &boot.path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Runs a program to its end and returns its stdout, if piped. An error quotes its stderr.
fn finish(mut command: Command) -> Result<String, DiskError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(source) => return Err(DiskError::Start { name, source }),
    };
    let ends = Instant::now() + PROGRAM_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= ends {
            child.kill()?;
            child.wait()?;
            return Err(DiskError::Late { name });
        }
        sleep(POLL);
    };
    if status.success() {
        return Ok(child.stdout.take().map(printed).unwrap_or_default());
    }
    let words = child.stderr.take().map(printed);
    let words = words.filter(|words| !words.is_empty());
    let words = words.unwrap_or_else(|| status.to_string());
    Err(DiskError::Failed { name, words })
}

/// What to do about a program that cannot be started.
fn hint(name: &str, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound if name == MKFS => "install e2fsprogs; ",
        _ => "",
    }
}

/// A program's output, on one line.
fn printed(output: impl Read) -> String {
    let mut text = Vec::new();
    let _ = output.take(4096).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;
    use gaiola_model::inventory::Location;
    use gaiola_model::placement::BootNumber;

    fn boot(state: &Path) -> Boot {
        Boot {
            site: "shop".parse().unwrap(),
            server: "db1".parse().unwrap(),
            number: BootNumber(0),
            location: Location::at([10, 77, 4, 1].into()),
            interface: "eth0".into(),
            prefix_length: 16,
            further: Vec::new(),
            directories: State::at(state.into()).directories("db1".parse().unwrap()),
            store_token: String::new(),
            database_user: None,
            site_user: None,
            keeper_key: None,
            program: None,
            path: "/usr/sbin:/usr/bin:/sbin:/bin".into(),
            disk: None,
        }
    }

    #[test]
    fn only_a_server_without_data_gets_a_disk_and_one_that_cannot_be_made_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut boot = boot(folder.path());
        let (image, data) = (boot.disk_image(), boot.postgres());
        fs::create_dir_all(data.join("data")).unwrap();
        attach(&boot).unwrap();
        boot.disk = Some(64 << 20);
        attach(&boot).unwrap();
        assert!(!image.exists() && data.join("data").exists());
        fs::write(&image, "").unwrap();
        let why = attach(&boot).unwrap_err().to_string();
        assert!(why.contains("data is both in"), "{why}");
        fs::remove_file(&image).unwrap();
        fs::remove_dir(data.join("data")).unwrap();
        boot.path = folder.path().display().to_string();
        fs::write(half(&image), "of one that was killed").unwrap();
        let why = gaiola_os::chain(&attach(&boot).unwrap_err());
        assert!(why.contains("install e2fsprogs; mkfs.ext4: "), "{why}");
        let left = fs::read_dir(boot.folder()).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["postgres"]);
    }

    #[test]
    fn a_disk_is_whole_before_it_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let boot = boot(folder.path());
        fs::create_dir_all(boot.folder()).unwrap();
        let image = boot.disk_image();
        make(&boot, &image, 64 << 20).unwrap();
        let magic = fs::read(&image).unwrap()[1024 + 56..][..2].to_vec();
        assert_eq!(magic, [0x53, 0xef]);
        assert!(!image.with_extension("new").exists());
    }

    #[test]
    fn room_that_the_machine_needs_is_not_taken() {
        let file = tempfile::tempfile().unwrap();
        let disk = fstatvfs(&file).unwrap();
        let all = disk.f_blocks * disk.f_frsize;
        let why = take_room(&file, 1 << 20, all).unwrap_err();
        assert!(matches!(why, DiskError::NoRoom { spare, .. } if spare == all));
        assert!(
            why.to_string().starts_with("the machine's disk has "),
            "{why}"
        );
        assert_eq!(file.metadata().unwrap().blocks(), 0);
        take_room(&file, 1 << 20, 0).unwrap();
        // A file with all its blocks needs no more.
        take_room(&file, 1 << 20, all).unwrap();
    }

    #[test]
    fn room_that_was_given_back_is_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        let bytes = 8 << 20;
        let file = File::create(&image).unwrap();
        file.set_len(bytes).unwrap();
        let taken = || file.metadata().unwrap().blocks() * 512;
        assert!(taken() < bytes);
        refill(&image).unwrap();
        assert!(taken() >= bytes);
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, hole, 1 << 20, 1 << 20).unwrap();
        assert!(taken() < bytes);
        refill(&image).unwrap();
        assert!(taken() >= bytes && file.metadata().unwrap().len() == bytes);
    }

    /// A program that does this, and writes its name to `tries` each time.
    fn stand_in(folder: &Path, name: &str, does: &str) {
        let script = format!(
            "#!/bin/sh\necho {name} >>{}/tries\n{does}\n",
            folder.display()
        );
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .mode(0o755)
            .open(&path)
            .unwrap();
        io::Write::write_all(&mut file, script.as_bytes()).unwrap();
    }

    #[test]
    fn only_what_is_busy_is_mounted_again() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let mut boot = boot(here);
        boot.path = here.display().to_string();
        let mounts = || {
            let tries = fs::read_to_string(here.join("tries")).unwrap();
            fs::remove_file(here.join("tries")).unwrap();
            tries.lines().filter(|line| *line == "mount").count()
        };
        stand_in(here, "losetup", "");
        stand_in(here, "mount", "echo bad superblock >&2; exit 32");
        let why = mount(&boot, here, here).unwrap_err().to_string();
        assert_eq!(why, "mount: bad superblock");
        assert_eq!(mounts(), 1);

        let once = |what: &str| format!("[ -e {0}/{what} ] || {{ : >{0}/{what}; ", here.display());
        let busy = once("was_busy") + "echo mount point busy >&2; exit 32; }";
        fs::remove_file(here.join("mount")).unwrap();
        stand_in(here, "mount", &busy);
        mount(&boot, here, here).unwrap();
        assert_eq!(mounts(), 2);

        fs::remove_file(here.join("mount")).unwrap();
        fs::remove_file(here.join("losetup")).unwrap();
        stand_in(here, "losetup", &(once("was_held") + "echo /dev/loop7; }"));
        let gone = once("was_gone") + "echo bad superblock >&2; exit 32; }";
        stand_in(here, "mount", &gone);
        mount(&boot, here, here).unwrap();
        assert_eq!(mounts(), 2);
    }
}
