//! Processes: started so that they outlive us where they should, identified by pid and start time, watched by pidfd.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio::io::unix::AsyncFd;

/// The program of this process, whatever its file is called by now.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// Identifies a process uniquely: pids are reused, a pid with its start time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Its pid in our PID namespace.
    pub pid: u32,
    /// When it was started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
}

/// The user that a process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id; no supplementary groups are kept.
    pub gid: u32,
}

/// A program to start, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The program; looked up in PATH when it has no slash.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment: nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// The log that its output is appended to.
    pub log: PathBuf,
    /// User it runs as; `None`: the current one.
    pub user: Option<User>,
    /// Whether it keeps our capabilities. Otherwise it has none, even in a user namespace.
    pub privileged: bool,
}

/// Starts a process in a session of its own. It lives on when we die.
///
/// # Errors
/// If its log cannot be opened or the program cannot be started.
pub fn launch(launch: &Launch) -> io::Result<Identity> {
    launch_into(launch, Vec::new())
}

/// The same within control groups, by their [entrances](crate::cgroup::Group::entrances). A process that cannot enter one runs outside
/// of it.
///
/// # Errors
/// As of [`launch`].
pub fn launch_into(launch: &Launch, entrances: Vec<OwnedFd>) -> io::Result<Identity> {
    let log = open_log(&launch.log, launch.user)?;
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.args)
        .env_clear()
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&launch.cwd)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    if let Some(user) = launch.user {
        command.gid(user.gid).uid(user.uid);
    }
    let privileged = launch.privileged;
    // SAFETY: the closure runs between fork and exec and makes system calls only; it allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            for entrance in &entrances {
                // The one who started it sees whether it is in, and reports it.
                let _ = rustix::io::write(entrance, b"0");
            }
            if !privileged {
                drop_ambient_capabilities()?;
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    // The handle is dropped on purpose: the process is watched by pidfd, and reaped by `reap`.
    identify(child.id())
}

/// Becomes another program, as this user and without capabilities; what is open of the terminal stays open. The environment is this alone.
/// Returns only where that fails.
pub fn replace_by(
    program: &OsStr,
    args: &[OsString],
    env: &[(OsString, OsString)],
    cwd: &Path,
    user: Option<User>,
) -> io::Error {
    if let Err(error) = drop_ambient_capabilities() {
        return error;
    }
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir(cwd);
    if let Some(user) = user {
        command.gid(user.gid).uid(user.uid);
    }
    command.exec()
}

/// Opens a log for appending, owned by `user`. Its parent directories must exist.
///
/// # Errors
/// If it cannot be opened or its owner changed.
pub fn open_log(path: &Path, user: Option<User>) -> io::Result<File> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)?;
    if let Some(user) = user {
        std::os::unix::fs::fchown(&log, Some(user.uid), Some(user.gid))?;
    }
    Ok(log)
}

/// Drops the ambient capabilities, so that the next `exec` has none.
///
/// # Errors
/// If the kernel refuses.
pub fn drop_ambient_capabilities() -> io::Result<()> {
    Ok(rustix::thread::clear_ambient_capability_set()?)
}

/// Makes our capabilities survive `exec` (in a user namespace our uid is not 0, so they would not).
///
/// # Errors
/// If the kernel refuses.
pub fn keep_capabilities_over_exec() -> io::Result<()> {
    use rustix::thread::CapabilitySet;
    let mut held = rustix::thread::capabilities(None)?;
    held.inheritable = held.permitted;
    let wanted = held.permitted;
    rustix::thread::set_capabilities(None, held)?;
    for capability in wanted.iter() {
        if capability.bits().count_ones() == 1 && CapabilitySet::all().contains(capability) {
            rustix::thread::configure_capability_in_ambient_set(capability, true)?;
        }
    }
    Ok(())
}

/// Ends this process as soon as its parent has died.
///
/// # Errors
/// If the kernel refuses.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(
        Signal::KILL,
    ))?)
}

/// The identity of a running process.
///
/// # Errors
/// `NotFound` where there is no such process.
pub fn identify(pid: u32) -> io::Result<Identity> {
    let start_time = start_time(&stat(pid)?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "cannot read /proc/PID/stat"))?;
    Ok(Identity { pid, start_time })
}

/// `/proc/PID/stat`. The name in it is cut after 15 bytes, perhaps within a character.
fn stat(pid: u32) -> io::Result<String> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    Ok(String::from_utf8_lossy(&stat).into_owned())
}

/// Field 22.
fn start_time(stat: &str) -> Option<u64> {
    field(stat, 22)?.parse().ok()
}

/// Field 3.
pub(crate) fn state(stat: &str) -> Option<&str> {
    field(stat, 3)
}

/// A field of `/proc/PID/stat`, by its number in `proc(5)`, from 3 on. The name in field 2 may contain blanks and
/// parentheses, so counting starts after the last parenthesis.
fn field(stat: &str, number: usize) -> Option<&str> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_ascii_whitespace().nth(number - 3)
}

/// A running process that can be signalled and waited for without a race.
#[derive(Debug)]
pub struct Process {
    identity: Identity,
    pidfd: AsyncFd<OwnedFd>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// Another process reaped it (it was adopted).
    Unknown,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exited with status {status}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::Unknown => f.write_str("ended"),
        }
    }
}

impl Process {
    /// Opens a process; `NotFound` when it is gone or its pid was reused.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If it is gone, or no pidfd can be had.
    pub fn open(identity: Identity) -> io::Result<Self> {
        let pid = to_pid(identity.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        if identify(identity.pid)? != identity {
            return Err(io::ErrorKind::NotFound.into());
        }
        // SAFETY: the descriptor is owned by the AsyncFd and stays open until it is deregistered.
        let pidfd = unsafe { AsyncFd::register(pidfd) }?;
        Ok(Self { identity, pidfd })
    }

    /// Its pid and start time.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Sends a signal; no error if the process has ended.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal);
    }

    /// Waits until it has ended, and reaps it if it is our child.
    ///
    /// # Errors
    /// If the pidfd cannot be polled.
    pub async fn ended(&self) -> io::Result<Exit> {
        let mut ready = self.pidfd.readable().await?;
        ready.retain_ready();
        Ok(self.reap())
    }

    fn reap(&self) -> Exit {
        use std::os::fd::AsFd as _;
        let waited = rustix::process::waitid(
            WaitId::PidFd(self.pidfd.get_ref().as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
        match waited {
            Ok(Some(status)) => exit_of(&status),
            _ => Exit::Unknown,
        }
    }
}

/// The session that a process began with [`launch`]: the process itself, and its descendants, whichever process group they
/// moved to. Descendants that began a session of their own are not part of it.
///
/// The kernel gives the number of a session to no new process while one of its members lives, so a session can be found
/// after its leader has ended, as long as one member is left.
impl Identity {
    /// Sends a signal to every process of its session.
    pub fn signal_session(self, signal: Signal) {
        let Ok(leader) = to_pid(self.pid) else { return };
        if self.is_reused() {
            return;
        }
        // The group in one call first: a process that forks meanwhile cannot leave a child out.
        let _ = rustix::process::kill_process_group(leader, signal);
        for member in self.session().unwrap_or_default() {
            if member.group != self.pid {
                member.signal(signal);
            }
        }
    }

    /// Whether no process of its session is alive. One that has ended and is not reaped holds nothing, and does not count.
    pub fn session_is_empty(self) -> bool {
        if self.is_reused() {
            return true;
        }
        self.session().is_ok_and(|members| members.is_empty())
    }

    /// The pids of its living processes.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn session_pids(self) -> io::Result<Vec<u32>> {
        match self.is_reused() {
            true => Ok(Vec::new()),
            false => Ok(self
                .session()?
                .iter()
                .map(|member| member.identity.pid)
                .collect()),
        }
    }

    /// Whether its pid is another process's by now, so that its session has ended.
    fn is_reused(self) -> bool {
        identify(self.pid).is_ok_and(|found| found != self)
    }

    #[cfg(test)]
    fn group_is_empty(self) -> bool {
        to_pid(self.pid)
            .is_ok_and(|pid| rustix::process::test_kill_process_group(pid) == Err(Errno::SRCH))
    }

    /// The living processes of its session.
    fn session(self) -> io::Result<Vec<Member>> {
        let mut members = Vec::new();
        for pid in pids()? {
            let found = Member::find(pid)?;
            members.extend(found.filter(|member| member.session == self.pid));
        }
        Ok(members)
    }
}

/// A process as `/proc/PID/stat` shows it.
struct Member {
    identity: Identity,
    group: u32,
    session: u32,
}

impl Member {
    /// The process with this pid, if it is alive.
    fn find(pid: u32) -> io::Result<Option<Self>> {
        match stat(pid) {
            Ok(stat) => Ok(Self::parse(pid, &stat)),
            // It has ended: before the file was opened, or while it was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(pid: u32, stat: &str) -> Option<Self> {
        let number = |n| field(stat, n)?.parse::<u32>().ok();
        // The first thread of a process may have ended before the others.
        let has_ended = matches!(field(stat, 3)?, "Z" | "X") && number(20)? <= 1;
        let start_time = start_time(stat)?;
        (!has_ended).then_some(Self {
            identity: Identity { pid, start_time },
            group: number(5)?,
            session: number(6)?,
        })
    }

    /// Sends a signal, unless its pid is another process's by now.
    fn signal(&self, signal: Signal) {
        let pid = self.identity.pid;
        let Ok(pidfd) = to_pid(pid).and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))
        else {
            return;
        };
        if identify(pid).is_ok_and(|found| found == self.identity) {
            let _ = rustix::process::pidfd_send_signal(pidfd, signal);
        }
    }
}

/// The processes of this PID namespace.
fn pids() -> io::Result<impl Iterator<Item = u32>> {
    let entries = std::fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()))
}

/// Whether a process of this PID namespace was started with this variable. Processes that we may not inspect do not count.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn with_environment(name: &str, value: &str) -> io::Result<bool> {
    let wanted = format!("{name}={value}").into_bytes();
    let is_wanted = |pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|it| it == wanted)
    };
    Ok(pids()?.any(is_wanted))
}

/// Identifies the file that this process runs: another one in its place, or a changed one, has another identity.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn own_program() -> io::Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(OWN_PROGRAM)?;
    let (device, inode) = (file.dev(), file.ino());
    Ok(format!(
        "{device}:{inode}:{}.{}",
        file.mtime(),
        file.mtime_nsec()
    ))
}

/// Signals a process by pid; no error if it is gone.
pub fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = to_pid(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn to_pid(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The children of this process, those that it has adopted among them.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn children() -> io::Result<Vec<u32>> {
    let own = std::process::id();
    let is_own = |pid: &u32| {
        // It may have ended meanwhile.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        parent(&stat) == Some(own)
    };
    Ok(pids()?.filter(is_own).collect())
}

fn parent(stat: &str) -> Option<u32> {
    field(stat, 4)?.parse().ok()
}

/// Makes this process the parent of all descendants whose parents end.
///
/// # Errors
/// If the kernel refuses.
pub fn adopt_orphans() -> io::Result<()> {
    let own = Some(rustix::process::getpid());
    Ok(rustix::process::set_child_subreaper(own)?)
}

/// What is left of this process's children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// Some run; this is how one ended that was reaped, if any: one that failed, if there is such a one.
    Some(Option<Exit>),
    /// None.
    None(Option<Exit>),
}

/// Reaps the children that have ended.
pub fn reap_children() -> Children {
    let mut last = None;
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::process::waitid(WaitId::All, options) {
            Ok(Some(status)) => {
                let exit = exit_of(&status);
                last = last.filter(|last| *last != Exit::Status(0)).or(Some(exit));
            }
            Ok(None) => return Children::Some(last),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Children::None(last),
        }
    }
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Exit::Status(status),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// Reaps every child that has ended, and returns their pids; for pid 1.
pub fn reap_all() -> Vec<u32> {
    let mut ended = Vec::new();
    while let Ok(Some((pid, _))) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
        ended.push(pid.as_raw_nonzero().get().unsigned_abs());
    }
    ended
}

/// The user of that name in `/etc/passwd`.
pub fn find_user(name: &str) -> Option<User> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = passwd
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(User { uid, gid })
}

/// Whether we run as root (outside any user namespace that we made).
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_hide_the_start_time() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 4711 1000 200";
        assert_eq!(start_time(stat), Some(4711));
        assert_eq!(parent(stat), Some(1));
    }

    #[test]
    fn a_pid_that_is_used_again_is_another_process() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _guard = runtime.enter();
        let me = identify(std::process::id()).unwrap();
        assert!(Process::open(me).is_ok());
        let earlier = Identity {
            start_time: me.start_time - 1,
            ..me
        };
        assert_eq!(
            Process::open(earlier).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    fn shell(folder: &Path, script: &str) -> Launch {
        Launch {
            program: "sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: folder.into(),
            log: folder.join("log"),
            user: None,
            privileged: false,
        }
    }

    /// A launched shell that has ended, once what it has left running has written `up`.
    fn leftovers(folder: &Path, script: &str) -> Identity {
        let log = folder.join("log");
        let identity = launch(&shell(folder, script)).unwrap();
        let pid = to_pid(identity.pid).unwrap();
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        eventually(|| std::fs::read_to_string(&log).unwrap().contains("up"));
        identity
    }

    fn eventually(is_so: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !is_so() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn what_a_process_has_left_running_is_found_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let script = "sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.02; done' & exit 0";
        let identity = leftovers(folder.path(), script);
        assert!(!identity.session_is_empty());
        identity.signal_session(Signal::TERM);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!identity.session_is_empty());
        identity.signal_session(Signal::KILL);
        eventually(|| identity.session_is_empty());
    }

    #[test]
    fn descendants_in_a_process_group_of_their_own_are_ended_too() {
        let folder = tempfile::tempdir().unwrap();
        // With job control a shell puts each job into a group of its own.
        let script = "exec bash -c 'set -m; (echo up; exec sleep 60) & exit 0'";
        let identity = leftovers(folder.path(), script);
        assert!(identity.group_is_empty() && !identity.session_is_empty());
        identity.signal_session(Signal::TERM);
        eventually(|| identity.session_is_empty());
    }

    #[test]
    fn the_session_of_a_pid_that_is_used_again_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let leader = launch(&shell(folder.path(), "exec sleep 60")).unwrap();
        let earlier = Identity {
            start_time: leader.start_time - 1,
            ..leader
        };
        assert!(earlier.session_is_empty() && !leader.session_is_empty());
        earlier.signal_session(Signal::KILL);
        assert!(!leader.session_is_empty());
        leader.signal_session(Signal::KILL);
        eventually(|| leader.session_is_empty());
    }

    #[test]
    fn a_process_whose_name_is_cut_within_a_character_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("серверный");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let script = format!("exec {} 60", program.display());
        let identity = launch(&shell(folder.path(), &script)).unwrap();
        let name = format!("/proc/{}/comm", identity.pid);
        eventually(|| std::fs::read(&name).is_ok_and(|name| name.starts_with("сер".as_bytes())));
        assert_eq!(identify(identity.pid).unwrap(), identity);
        assert!(!identity.session_is_empty());
        identity.signal_session(Signal::KILL);
        eventually(|| identity.session_is_empty());
    }

    #[test]
    fn an_ended_child_tells_its_status() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let exit = runtime.block_on(async {
            let identity = launch(&Launch {
                program: "sh".into(),
                args: vec!["-c".into(), "echo said; sleep 0.2; exit 3".into()],
                env: vec![("PATH".into(), "/usr/bin:/bin".into())],
                cwd: folder.path().into(),
                log: folder.path().join("log"),
                user: None,
                privileged: false,
            })
            .unwrap();
            Process::open(identity).unwrap().ended().await.unwrap()
        });
        assert_eq!(exit, Exit::Status(3));
        assert_eq!(
            std::fs::read_to_string(folder.path().join("log")).unwrap(),
            "said\n"
        );
    }
}
