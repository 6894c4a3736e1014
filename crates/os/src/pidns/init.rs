//! Pid 1 of the namespace. After the clone it is a copy of one thread of a process that may have had others, so it only makes
//! system calls: nothing here allocates, locks, or runs code that does.

use super::StartStep;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::{io, mem, ptr};

/// Everything that pid 1 needs, prepared before the clone.
pub(super) struct Plan {
    pub(super) program: *const libc::c_char,
    pub(super) args: *const *const libc::c_char,
    pub(super) env: *const *const libc::c_char,
    pub(super) dir: *const libc::c_char,
    pub(super) input: RawFd,
    pub(super) output: RawFd,
    /// Read end of a pipe that is never written to: end of file means that the caller is dead.
    pub(super) alive: RawFd,
    /// Write end of the pipe of events.
    pub(super) events: RawFd,
    pub(super) owner: Option<(u32, u32)>,
}

pub(super) enum Cloned {
    Parent { pidfd: OwnedFd },
    Child,
}

/// Forks into the given new namespaces. glibc's own `fork` would run handlers that take locks.
pub(super) fn clone(namespaces: i32) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    match raw_clone(namespaces | libc::CLONE_PIDFD, &mut pidfd) {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel has made the descriptor for us; it is closed when a program is executed.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn raw_clone(flags: i32, pidfd: &mut RawFd) -> libc::c_long {
    // SAFETY: all zero is a valid clone_args: no stack, no thread-local storage, no cgroup.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = u64::from(flags.cast_unsigned());
    args.pidfd = ptr::from_mut(pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM the child has its own copy of this memory and continues on this stack.
    unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    }
}

/// Pid 1 from its first step to its last.
pub(super) fn run(plan: &Plan) -> ! {
    keep_only(&[plan.input, plan.output, plan.alive, plan.events]);
    let signals = block_signals();
    mount(plan);
    drop_privileges(plan);
    // SAFETY: a plain call; the mask is valid and the descriptor is new.
    let signals = unsafe {
        libc::signalfd(
            -1,
            &raw const signals,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        )
    };
    if signals < 0 {
        fail(plan, StartStep::Other);
    }
    // The caller may have died before PR_SET_PDEATHSIG was set; then no signal would come.
    if poll(plan.alive, -1, 0).0 {
        exit(1);
    }
    match raw_clone(0, &mut -1) {
        0 => execute(plan),
        child if child > 0 => attend(plan, signals, child),
        _ => fail(plan, StartStep::Other),
    }
}

/// Waits for signals and for the caller's death, until the command has ended.
fn attend(plan: &Plan, signals: RawFd, command: libc::c_long) -> ! {
    let command = libc::pid_t::try_from(command).unwrap_or(0);
    loop {
        let (orphaned, signalled) = poll(plan.alive, signals, -1);
        if orphaned {
            exit(1);
        }
        if !signalled {
            continue;
        }
        // SAFETY: all zero is a valid signalfd_siginfo.
        let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `size` bytes to `info`.
        while unsafe { libc::read(signals, (&raw mut info).cast(), size) } > 0 {
            match info.ssi_signo.cast_signed() {
                libc::SIGCHLD => reap(plan, command),
                libc::SIGUSR1 => report(plan, b"u"),
                // SAFETY: the command is our child and not yet waited for, so the pid is its own.
                signal => drop(unsafe { libc::kill(command, signal) }),
            }
        }
    }
}

/// Reaps all children that have ended. When the command has, pid 1 exits, and the kernel ends the rest.
fn reap(plan: &Plan, command: libc::pid_t) {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            pid if pid <= 0 => return,
            pid if pid != command => report(plan, b"o"),
            _ if libc::WIFEXITED(status) => exit(libc::WEXITSTATUS(status)),
            _ => exit(128 + libc::WTERMSIG(status)),
        }
    }
}

/// The command's process, up to its exec.
fn execute(plan: &Plan) -> ! {
    // SAFETY: the descriptors are open, the strings and lists were prepared to outlive this, the mask is valid.
    unsafe {
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        // Rust ignores SIGPIPE, and exec keeps ignored signals ignored.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::setsid();
        if libc::dup2(plan.input, 0) < 0
            || libc::dup2(plan.output, 1) < 0
            || libc::dup2(plan.output, 2) < 0
        {
            fail(plan, StartStep::Other);
        }
        if libc::chdir(plan.dir) != 0 {
            fail(plan, StartStep::Directory);
        }
        libc::execve(plan.program, plan.args, plan.env);
    }
    fail(plan, StartStep::Execute)
}

/// Blocks the signals that are read from a descriptor: pid 1 receives a blocked signal whoever sends it.
fn block_signals() -> libc::sigset_t {
    // SAFETY: the set is made empty before it is used, and all signals are valid ones.
    unsafe {
        let mut signals: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        for signal in [
            libc::SIGCHLD,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGUSR1,
        ] {
            libc::sigaddset(&raw mut signals, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const signals, ptr::null_mut());
        signals
    }
}

/// `/proc` shows the new namespace's processes, and shared memory is gone when it is. These mounts are not visible outside.
fn mount(plan: &Plan) {
    let safe = libc::MS_NOSUID | libc::MS_NODEV;
    // SAFETY: all strings are constants ended by zero, or null where the call allows it.
    let done = unsafe {
        libc::mount(
            ptr::null(),
            c"/".as_ptr(),
            ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            ptr::null(),
        ) == 0
            && libc::mount(
                c"proc".as_ptr(),
                c"/proc".as_ptr(),
                c"proc".as_ptr(),
                safe | libc::MS_NOEXEC,
                ptr::null(),
            ) == 0
            && libc::mount(
                c"shm".as_ptr(),
                c"/dev/shm".as_ptr(),
                c"tmpfs".as_ptr(),
                safe,
                c"mode=1777".as_ptr().cast(),
            ) == 0
    };
    if !done {
        fail(plan, StartStep::Mount);
    }
}

/// Switches to the owner, without any capability or a way to gain one, and dies with the caller.
///
/// By raw system calls: glibc's wrappers would signal all threads that the caller had.
fn drop_privileges(plan: &Plan) {
    #[repr(C)]
    struct CapHeader {
        version: u32,
        pid: i32,
    }
    /// _LINUX_CAPABILITY_VERSION_3, which takes two sets of three words.
    const VERSION: u32 = 0x2008_0522;
    let header = CapHeader {
        version: VERSION,
        pid: 0,
    };
    let none = [0u32; 6];
    let own = |(uid, gid): (u32, u32)| {
        // SAFETY: plain numbers, and an empty list of groups.
        unsafe {
            libc::syscall(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>()) == 0
                && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
                && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
        }
    };
    let owned = plan.owner.is_none_or(own);
    // SAFETY: plain numbers, and structures as the kernel defines them. The last call: changing the user has reset it.
    let dropped = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        ) == 0
            && libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) == 0
    };
    if !owned || !dropped {
        fail(plan, StartStep::Privileges);
    }
}

/// Closes every descriptor above 2 but these: above all our copy of the pipe's write end, which must close with the caller.
fn keep_only(kept: &[RawFd; 4]) {
    let mut kept = *kept;
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept.into_iter().chain([RawFd::MAX]) {
        if fd > from {
            // SAFETY: nothing that is closed here is used again.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = from.max(fd.saturating_add(1));
    }
}

/// Whether the first descriptor is at its end, and whether the second is readable. Timeout -1 waits without limit.
fn poll(alive: RawFd, signals: RawFd, timeout: i32) -> (bool, bool) {
    let wanted = |fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut fds = [wanted(alive), wanted(signals)];
    // SAFETY: two valid entries; one with a negative descriptor is passed over.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, timeout) };
    (fds[0].revents != 0, fds[1].revents != 0)
}

fn fail(plan: &Plan, step: StartStep) -> ! {
    // SAFETY: the address of this thread's own errno.
    let errno = unsafe { *libc::__errno_location() }.to_le_bytes();
    report(
        plan,
        &[b'!', step as u8, errno[0], errno[1], errno[2], errno[3]],
    );
    exit(127)
}

/// Writes of fewer bytes than PIPE_BUF are atomic; a caller that does not read for long misses events.
fn report(plan: &Plan, bytes: &[u8]) {
    let size = bytes.len();
    // SAFETY: the bytes are valid for their length.
    unsafe { libc::write(plan.events, bytes.as_ptr().cast(), size) };
}

fn exit(code: i32) -> ! {
    // SAFETY: ends this process without running anything of the caller's.
    unsafe { libc::_exit(code) }
}
