//! A command in a PID namespace of its own, whose end, whatever its cause, ends every process in it at once.
//!
//! Pid 1 of the namespace is a fork of the caller that never returns to its code: it gives the command fresh `/proc`
//! and `/dev/shm`, drops every privilege, starts it, reaps orphans and reports them. It dies with the caller, by
//! `PR_SET_PDEATHSIG` and by the end of a pipe; the kernel then ends the rest.

mod init;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The command to run.
#[derive(Debug)]
pub struct Command {
    /// The program's path.
    pub program: CString,
    /// Its arguments, with `argv[0]` first.
    pub args: Vec<CString>,
    /// The whole environment, `NAME=value`.
    pub env: Vec<CString>,
    /// Its working directory.
    pub dir: CString,
    /// Its standard output and error.
    pub output: File,
    /// User and group it runs as, without supplementary groups; `None`: the caller's. Capabilities are dropped either way.
    pub owner: Option<(u32, u32)>,
}

/// An event that pid 1 reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pid1Event {
    /// An orphan, reparented to pid 1, has ended.
    OrphanEnded,
    /// A process inside sent pid 1 SIGUSR1.
    Signalled,
    /// The command could not be started.
    Failed {
        /// The step that failed.
        step: StartStep,
        /// Its error number.
        errno: i32,
    },
}

/// What pid 1 does before the command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StartStep {
    /// Mounting.
    Mount = b'm',
    /// Dropping privileges.
    Privileges = b'p',
    /// Entering the directory.
    Directory = b'd',
    /// Starting the program.
    Execute = b'x',
    /// Anything else.
    Other = b'o',
}

/// How the command ended, and with it the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code; after a signal, 128 plus its number.
    Code(i32),
    /// Pid 1 was killed by this signal.
    Killed(i32),
}

/// A running namespace. Dropping it ends it.
#[derive(Debug)]
pub struct Namespace {
    pidfd: OwnedFd,
    events: File,
    /// Pid 1 ends when the last copy of this is closed.
    _alive: OwnedFd,
    ended: Option<Exit>,
}

impl Namespace {
    /// Starts `command`. Needs CAP_SYS_ADMIN in the caller's user namespace.
    ///
    /// The calling thread must live as long as the namespace should.
    pub fn spawn(command: &Command) -> io::Result<Self> {
        let (alive_here, alive_there) = pipe()?;
        let (events_here, events_there) = pipe()?;
        rustix::io::ioctl_fionbio(&events_here, true)?;
        let null = File::open("/dev/null")?;
        let args = pointers(&command.args);
        let env = pointers(&command.env);
        let plan = init::Plan {
            program: command.program.as_ptr(),
            args: args.as_ptr(),
            env: env.as_ptr(),
            dir: command.dir.as_ptr(),
            input: null.as_raw_fd(),
            output: command.output.as_raw_fd(),
            alive: alive_here.as_raw_fd(),
            events: events_there.as_raw_fd(),
            owner: command.owner,
        };
        let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC;
        match init::clone(namespaces)? {
            // The child has a copy of everything that `plan` points to, and a single thread.
            init::Cloned::Child => init::run(&plan),
            init::Cloned::Parent { pidfd } => Ok(Self {
                pidfd,
                events: File::from(events_here),
                _alive: alive_there,
                ended: None,
            }),
        }
    }

    /// The pid of pid 1 in our namespace; `None` once it is gone.
    pub fn pid(&self) -> Option<u32> {
        let path = format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd());
        let text = std::fs::read_to_string(path).ok()?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        pid.trim().parse().ok()
    }

    /// Sends a signal to pid 1, which forwards TERM, INT and HUP to the command. No effect when it has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: we own the descriptor; there is no siginfo and there are no flags.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match sent {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Kills every process in it at once.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// How it ended; `None` while it runs. Once it returns an exit, no process of the namespace is left.
    pub fn try_wait(&mut self) -> io::Result<Option<Exit>> {
        if self.ended.is_none() {
            self.ended = self.wait(libc::WNOHANG)?;
        }
        Ok(self.ended)
    }

    /// The events that pid 1 reported since the last call; never waits.
    pub fn events(&mut self) -> Vec<Pid1Event> {
        let mut bytes = [0; 256];
        // Nothing to read, and a pipe that is closed, both mean no events.
        let length = self.events.read(&mut bytes).unwrap_or(0);
        decode(&bytes[..length])
    }

    /// Becomes readable when it has ended. To be called within a tokio runtime.
    pub fn watch_end(&self) -> io::Result<AsyncFd<OwnedFd>> {
        watch(self.pidfd.as_fd())
    }

    /// Becomes readable when there are events, or when it has ended. To be called within a tokio runtime.
    pub fn watch_events(&self) -> io::Result<AsyncFd<OwnedFd>> {
        watch(self.events.as_fd())
    }

    fn wait(&self, flags: i32) -> io::Result<Option<Exit>> {
        // SAFETY: all zero is a valid siginfo_t, and the kernel writes no further than its end.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id =
            libc::id_t::try_from(self.pidfd.as_raw_fd()).expect("descriptors are not negative");
        // SAFETY: we own the descriptor and `info` outlives the call.
        let done = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | flags) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: waitid has succeeded, so these fields are set; the pid is 0 where nothing has ended.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        Ok((pid != 0).then_some(match info.si_code {
            libc::CLD_EXITED => Exit::Code(status),
            _ => Exit::Killed(status),
        }))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.ended.is_none() && self.kill().is_ok() {
            // It has been killed, so this wait is short; it leaves no zombie.
            let _ = self.wait(0);
        }
    }
}

/// A copy of a descriptor, registered with the runtime.
fn watch(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let copy = fd.try_clone_to_owned()?;
    // SAFETY: the copy is an open descriptor that the AsyncFd owns and closes.
    Ok(unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) }?)
}

/// Each event is one byte, but for a failure: `!`, the step, and the error number in four.
fn decode(mut bytes: &[u8]) -> Vec<Pid1Event> {
    let mut events = Vec::new();
    loop {
        bytes = match bytes {
            [b'o', rest @ ..] => {
                events.push(Pid1Event::OrphanEnded);
                rest
            }
            [b'u', rest @ ..] => {
                events.push(Pid1Event::Signalled);
                rest
            }
            [b'!', step, a, b, c, d, rest @ ..] => {
                events.push(Pid1Event::Failed {
                    step: match step {
                        b'm' => StartStep::Mount,
                        b'p' => StartStep::Privileges,
                        b'd' => StartStep::Directory,
                        b'x' => StartStep::Execute,
                        _ => StartStep::Other,
                    },
                    errno: i32::from_le_bytes([*a, *b, *c, *d]),
                });
                rest
            }
            _ => return events,
        }
    }
}

/// Both ends are close-on-exec.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made both, and nobody else has them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// A null-terminated list for execve; valid for as long as `strings`.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let all = strings.iter().map(|string| string.as_ptr());
    all.chain([ptr::null()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Whether namespaces are allowed here; prints a note if not.
    fn allowed() -> bool {
        let allowed = Namespace::spawn(&command("true")).is_ok();
        if !allowed {
            crate::skip::skipped("pidns", "no right to make namespaces here");
        }
        allowed
    }

    fn command(script: &str) -> Command {
        command_to(script, File::open("/dev/null").unwrap())
    }

    fn command_to(script: &str, output: File) -> Command {
        let text = |text: &str| CString::new(text).unwrap();
        let root = rustix::process::geteuid().is_root();
        Command {
            program: text("/bin/sh"),
            args: vec![text("sh"), text("-c"), text(script)],
            env: vec![text("PATH=/usr/bin:/bin")],
            dir: text("/"),
            output,
            owner: root.then_some((65534, 65534)),
        }
    }

    fn wait(namespace: &mut Namespace) -> Exit {
        let start = Instant::now();
        loop {
            if let Some(exit) = namespace.try_wait().unwrap() {
                return exit;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "it never ended");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn output(script: &str) -> (Exit, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let command = command_to(script, file.reopen().unwrap());
        let exit = wait(&mut Namespace::spawn(&command).unwrap());
        (exit, std::fs::read_to_string(file.path()).unwrap())
    }

    #[test]
    fn the_command_is_alone_and_without_privileges() {
        if !allowed() {
            return;
        }
        let (exit, text) =
            output("echo $PPID; grep -E 'CapEff|CapPrm|CapAmb|NoNew' /proc/self/status; id -u");
        assert_eq!(exit, Exit::Code(0));
        assert!(text.starts_with("1\n"), "{text}");
        assert_eq!(text.matches("\t0000000000000000").count(), 3, "{text}");
        assert!(text.contains("NoNewPrivs:\t1"), "{text}");
        assert!(!text.ends_with("\n0\n"), "{text}");
    }

    #[test]
    fn the_commands_code_and_signal_come_through() {
        if !allowed() {
            return;
        }
        assert_eq!(output("exit 7").0, Exit::Code(7));
        assert_eq!(output("kill -9 $$").0, Exit::Code(128 + 9));
    }

    #[test]
    fn what_cannot_be_started_is_reported() {
        if !allowed() {
            return;
        }
        let missing = Command {
            program: c"/nonexistent".into(),
            ..command("")
        };
        let mut namespace = Namespace::spawn(&missing).unwrap();
        assert_ne!(wait(&mut namespace), Exit::Code(0));
        let failed = Pid1Event::Failed {
            step: StartStep::Execute,
            errno: libc::ENOENT,
        };
        assert_eq!(namespace.events(), [failed]);
    }

    #[test]
    fn orphans_are_reaped_and_reported() {
        if !allowed() {
            return;
        }
        // The first sleep becomes an orphan of pid 1; the second is the command's own child.
        let mut namespace = Namespace::spawn(&command("(sleep 0.05 &); sleep 0.4")).unwrap();
        assert_eq!(wait(&mut namespace), Exit::Code(0));
        assert_eq!(namespace.events(), [Pid1Event::OrphanEnded]);
    }

    #[test]
    fn signals_are_handed_on_and_a_poke_is_reported() {
        if !allowed() {
            return;
        }
        let script = "trap 'exit 5' TERM; kill -USR1 1; while :; do sleep 0.05; done";
        let mut namespace = Namespace::spawn(&command(script)).unwrap();
        let start = Instant::now();
        while namespace.events() != [Pid1Event::Signalled] {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
        namespace.signal(libc::SIGTERM).unwrap();
        assert_eq!(wait(&mut namespace), Exit::Code(5));
    }

    #[test]
    fn nothing_outlives_the_end() {
        if !allowed() {
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        // Sessions of their own that ignore TERM and HUP: the lock is free only when all of them are dead.
        let script = "trap '' TERM HUP; flock 1; for i in 1 2 3; do setsid sleep 600 & done; echo ready; wait";
        let command = command_to(script, file.reopen().unwrap());
        let namespace = Namespace::spawn(&command).unwrap();
        let start = Instant::now();
        while !std::fs::read_to_string(file.path())
            .unwrap()
            .contains("ready")
        {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
        drop((namespace, command));
        let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        rustix::fs::flock(file.as_file(), lock).unwrap();
    }

    #[test]
    fn torn_events_are_no_events() {
        assert_eq!(
            decode(b"ou!x\x02"),
            [Pid1Event::OrphanEnded, Pid1Event::Signalled]
        );
        assert_eq!(decode(b"?o"), []);
    }
}
