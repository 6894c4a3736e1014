//! A database server's own disk: an ext4 file system in a file beside its data, so that it can be full while the machine's is not.
//!
//! It is mounted within the server alone, by a loop device that the kernel gives back with the mount: when the server's processes
//! are gone nothing of it is left but the file.

use crate::state::Boot;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The program that makes a disk's file system.
const MKFS: &str = "mkfs.ext4";
/// The longest that one program may take.
const PROGRAM_LIMIT: Duration = Duration::from_secs(20);
/// The kernel may still be giving back what the server's last life had mounted.
const MOUNT_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks, and between two attempts to mount.
const LOOK: Duration = Duration::from_millis(10);

/// Mounts the disk that PostgreSQL's data is on, where the server has one. It is made where one is wanted and there is no data
/// yet: data stays where it lies.
///
/// # Errors
/// Where it cannot be made or mounted; nothing may be started then, as its data would seem to be gone.
pub(super) fn attach(boot: &Boot) -> io::Result<()> {
    let (image, folder) = (boot.disk_image(), boot.postgres());
    match (image.try_exists()?, is_empty(&folder)?, boot.disk) {
        (true, true, _) => {}
        (true, false, _) => return Err(two_places(&image, &folder)),
        (false, true, Some(bytes)) => make(boot, &image, bytes)
            .map_err(|error| because(&format!("cannot make a disk of {bytes} bytes"), &error))?,
        (false, false, _) | (false, true, None) => return Ok(()),
    }
    fs::create_dir_all(&folder)?;
    let tried = format!("cannot mount {}", image.display());
    mount(boot, &image, &folder).map_err(|error| because(&tried, &error))
}

/// As a version leaves it that knows no disks. Whichever was taken, the other might be what was acknowledged.
fn two_places(image: &Path, folder: &Path) -> io::Error {
    let (image, folder) = (image.display(), folder.display());
    io::Error::other(format!(
        "data is both in {image} and in {folder}: move the one away that is not to be used"
    ))
}

fn because(tried: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{tried}: {error}"))
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        entries => Ok(entries?.next().is_none()),
    }
}

/// Made under another name until it is whole.
fn make(boot: &Boot, image: &Path, bytes: u64) -> io::Result<()> {
    let half = image.with_extension("new");
    let made = format(boot, &half, bytes).and_then(|()| fs::rename(&half, image));
    if made.is_err() {
        // It would hold the machine's room for nothing.
        let _ = fs::remove_file(&half);
    }
    made
}

/// All of its room is taken at once: a write that the server's disk has accepted finds room on the machine's too.
fn format(boot: &Boot, path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    let (uid, gid) = boot
        .database_user
        .map_or((0, 0), |user| (user.uid, user.gid));
    let with = format!("nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner={uid}:{gid}");
    let mut program = program(boot, MKFS);
    program.args(["-q", "-F", "-m", "0", "-E", &with]).arg(path);
    finish(program)?;
    file.sync_all()
}

fn mount(boot: &Boot, image: &Path, folder: &Path) -> io::Result<()> {
    let ends = Instant::now() + MOUNT_LIMIT;
    loop {
        let mut program = program(boot, "mount");
        // `loop` takes the device again that the file may still have: one file is never two file systems.
        program.args(["-t", "ext4", "-o", "loop,nosuid,nodev,noatime"]);
        program.args([image, folder]);
        match finish(program) {
            Err(_) if Instant::now() < ends => sleep(LOOK * 10),
            done => return done,
        }
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

/// Runs it to its end; an error says what it said.
fn finish(mut command: Command) -> io::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if name == MKFS => {
            because(&format!("install e2fsprogs; {name}"), &error)
        }
        _ => because(&name, &error),
    })?;
    let ends = Instant::now() + PROGRAM_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= ends {
            child.kill()?;
            child.wait()?;
            let seconds = PROGRAM_LIMIT.as_secs();
            let why = format!("{name} has not ended after {seconds} s");
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        sleep(LOOK);
    };
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(match said(&mut child) {
            nothing if nothing.is_empty() => format!("{name}: {status}"),
            words => format!("{name}: {words}"),
        })),
    }
}

/// What an ended program has written to stderr, on one line.
fn said(child: &mut Child) -> String {
    let mut text = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(4096).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::placement::BootNumber;

    fn boot(state: &Path) -> Boot {
        Boot {
            site: "shop".parse().unwrap(),
            server: "db1".parse().unwrap(),
            number: BootNumber(0),
            address: [10, 77, 4, 1].into(),
            state: state.into(),
            store_token: String::new(),
            database_user: None,
            site_user: None,
            keeper_key: None,
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
        let why = attach(&boot).unwrap_err().to_string();
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
}
