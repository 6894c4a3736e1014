//! The system's free resources: room on file systems, memory, descriptors. Everything is only read; nothing is judged here.

use rustix::fs::{CWD, Mode, OFlags};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A file system's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its device number.
    pub device: u64,
    /// Its size in bytes.
    pub total: u64,
    /// Bytes that users other than root may still write.
    pub free: u64,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its pid in our PID namespace.
    pub pid: u32,
    /// The pid of its session's leader.
    pub session: u32,
    /// The name of its program, or of its subcommand if it is one of our processes.
    pub name: String,
    /// Its private memory in bytes.
    pub private: u64,
    /// Its open descriptors, and their limit; `None`: not readable.
    pub descriptors: Option<(u64, u64)>,
}

/// The room of the file system that a path is on.
///
/// # Errors
/// If there is no such path, or it cannot be read.
pub fn room(path: &Path) -> io::Result<Room> {
    let device = fs::metadata(path)?.dev();
    let all = rustix::fs::statvfs(path)?;
    Ok(Room {
        device,
        total: all.f_blocks.saturating_mul(all.f_frsize),
        free: all.f_bavail.saturating_mul(all.f_frsize),
    })
}

/// Writes a page to an unnamed file in `folder` that is gone at once. Does nothing where the file system has no unnamed files.
///
/// # Errors
/// If the write fails.
pub fn try_to_write(folder: &Path) -> io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => return Ok(()),
        opened => opened?,
    };
    rustix::io::write(&file, &[0x5a; 8192])?;
    Ok(())
}

/// Total and available memory in bytes: the machine's, or our cgroup's where that is less.
///
/// # Errors
/// If it cannot be read.
pub fn memory() -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let machine = meminfo(&text).ok_or(io::ErrorKind::InvalidData)?;
    Ok(match cgroup_memory() {
        Some((most, used)) if most < machine.0 => (most, machine.1.min(most.saturating_sub(used))),
        _ => machine,
    })
}

fn meminfo(text: &str) -> Option<(u64, u64)> {
    let kilobytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    Some((
        kilobytes("MemTotal:")? * 1024,
        kilobytes("MemAvailable:")? * 1024,
    ))
}

/// Our cgroup's limit, and its usage without reclaimable file cache; `None`: there is no limit.
fn cgroup_memory() -> Option<(u64, u64)> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let most = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let stat = read("memory.stat")?;
    let mut lines = stat.lines();
    let files = lines.find_map(|line| line.strip_prefix("inactive_file "));
    let files: u64 = files?.trim().parse().ok()?;
    Some((most, used.saturating_sub(files)))
}

/// The system's open files and their limit.
///
/// # Errors
/// If they cannot be read.
pub fn system_files() -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/sys/fs/file-nr")?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let (Some(Ok(open)), _, Some(Ok(limit))) = (numbers.next(), numbers.next(), numbers.next())
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    Ok((open, limit))
}

/// Every process of our PID namespace.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn processes() -> io::Result<Vec<Process>> {
    let entries = fs::read_dir("/proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A process that has ended meanwhile is skipped.
    Ok(pids.filter_map(process).collect())
}

fn process(pid: u32) -> Option<Process> {
    let folder = Path::new("/proc").join(pid.to_string());
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let (comm, session) = comm_and_session(&read("stat")?)?;
    let limit = read("limits").as_deref().and_then(open_files_limit);
    Some(Process {
        pid,
        session,
        name: own_name(&read("cmdline")?).unwrap_or(comm),
        private: private_bytes(&read("status")?),
        descriptors: open_descriptors(&folder.join("fd")).zip(limit),
    })
}

/// Fields 2 and 6 of `/proc/PID/stat`; the name may contain blanks and parentheses.
fn comm_and_session(stat: &str) -> Option<(String, u32)> {
    let (_, named) = stat.split_once('(')?;
    let (comm, rest) = named.rsplit_once(')')?;
    let session = rest.split_ascii_whitespace().nth(3)?.parse().ok()?;
    Some((comm.to_string(), session))
}

/// Resident memory that is neither of files nor shared; 0 for a process without any, such as one that has ended.
fn private_bytes(status: &str) -> u64 {
    let mut lines = status.lines();
    let anonymous = lines.find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = anonymous.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    kilobytes.unwrap_or(0_u64) * 1024
}

/// The subcommand of a process of this binary: all of them have the same program name.
fn own_name(cmdline: &str) -> Option<String> {
    let mut args = cmdline.split('\0');
    let program = args.next()?.rsplit('/').next()?;
    let command = args.next().filter(|command| !command.is_empty())?;
    matches!(program, "exe" | "gaiola").then(|| command.to_string())
}

fn open_files_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Newer kernels report the number as the directory's size.
fn open_descriptors(folder: &Path) -> Option<u64> {
    match fs::metadata(folder).ok()?.size() {
        0 => u64::try_from(fs::read_dir(folder).ok()?.count()).ok(),
        count => Some(count),
    }
}

/// For each name, the process that is nearest to its limit; `names` has the names of sessions.
pub fn nearest_to_limit(
    processes: &[Process],
    names: &BTreeMap<u32, String>,
) -> BTreeMap<String, (u64, u64)> {
    let mut nearest = BTreeMap::new();
    for process in processes {
        let Some((open, limit)) = process.descriptors else {
            continue;
        };
        let name = names.get(&process.session).unwrap_or(&process.name);
        let (most, of) = nearest.entry(name.clone()).or_insert((open, limit));
        // Compared as fractions of the limit.
        if u128::from(open) * u128::from(*of) > u128::from(*most) * u128::from(limit) {
            (*most, *of) = (open, limit);
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_descriptors() {
        let me = std::process::id();
        let held: Vec<_> = (0..20).map(|_| fs::File::open("/").unwrap()).collect();
        let all = processes().unwrap();
        let own = all.iter().find(|process| process.pid == me).unwrap();
        let (open, limit) = own.descriptors.unwrap();
        assert!(
            open >= held.len() as u64 && limit >= open,
            "{open} of {limit}"
        );
        assert!(own.private > 0);
    }

    #[test]
    fn a_folder_on_a_file_system_with_room_takes_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let room = room(folder.path()).unwrap();
        assert!(room.total > room.free && room.free > 0);
        try_to_write(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let gone = folder.path().join("gone");
        assert!(try_to_write(&gone).is_err());
    }

    #[test]
    fn what_the_system_writes_is_read() {
        let (total, available) = memory().unwrap();
        assert!(total >= available && available > 0);
        assert!(system_files().is_ok_and(|(open, limit)| open < limit));
        let limits = "Limit  Soft Limit  Hard Limit\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files_limit(limits), Some(1024));
        let stat = "7 (a b) c) S 1 9 8 0 -1 4194560";
        assert_eq!(comm_and_session(stat), Some(("a b) c".into(), 8)));
        assert_eq!(private_bytes("VmRSS:\t  9 kB\nRssAnon:\t  5 kB\n"), 5120);
        assert_eq!(
            own_name("/proc/self/exe\0agent\0--boot\0").as_deref(),
            Some("agent")
        );
        assert_eq!(own_name("/usr/bin/etcd\0--name\0"), None);
    }

    #[test]
    fn the_process_nearest_to_its_limit_stands_for_its_name() {
        let process = |pid, session, open, limit| Process {
            pid,
            session,
            name: "python3".into(),
            private: 0,
            descriptors: Some((open, limit)),
        };
        let all = [
            process(5, 5, 10, 1024),
            process(6, 5, 200, 1024),
            process(7, 5, 300, 4096),
            process(8, 8, 3, 1024),
        ];
        let names = BTreeMap::from([(5, "app1.1".to_string())]);
        let nearest = nearest_to_limit(&all, &names);
        assert_eq!(nearest["app1.1"], (200, 1024));
        assert_eq!(nearest["python3"], (3, 1024));
    }
}
