//! Signals read from a descriptor, for loops without a runtime.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// TERM and INT, read instead of ending the process.
pub struct Termination {
    descriptor: OwnedFd,
}

/// HUP, read instead of ending the process.
pub struct HangUp(Termination);

impl HangUp {
    /// As [`Termination::block`], for HUP.
    pub fn block() -> io::Result<Self> {
        Termination::block_these(&[libc::SIGHUP]).map(Self)
    }

    /// Has it do nothing while it is not blocked: between a program and the one that takes its place. One that arrives while it is
    /// blocked is read all the same.
    pub fn ignore() {
        // SAFETY: no handler is installed, and the one of SIG_IGN needs none of our memory.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    }

    /// Whether it has arrived since the last call.
    pub fn came(&self) -> bool {
        self.0.came()
    }
}

impl AsFd for HangUp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Termination {
    /// Blocks TERM and INT for the calling thread and those it starts from now on, and opens the descriptor that becomes
    /// readable when one of them arrives.
    pub fn block() -> io::Result<Self> {
        Self::block_these(&[libc::SIGTERM, libc::SIGINT])
    }

    fn block_these(signals: &[libc::c_int]) -> io::Result<Self> {
        let set = set_of(signals);
        // SAFETY: `set` is initialised, and the old mask is not asked for.
        let blocked =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: -1 asks for a new descriptor, and `set` is initialised.
        let descriptor = unsafe { libc::signalfd(-1, &raw const set, flags) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened, and nobody else has it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { descriptor })
    }

    /// Whether a signal has arrived since the last call.
    pub fn came(&self) -> bool {
        let mut buffer = [0u8; size_of::<libc::signalfd_siginfo>()];
        matches!(rustix::io::read(&self.descriptor, &mut buffer), Ok(1..))
    }
}

impl AsFd for Termination {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Starts a thread that receives none of the process's signals: a thread that blocks or handles one does so for the others.
///
/// # Errors
/// If no thread can be started.
pub fn spawn_undisturbed(
    thread: std::thread::Builder,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<std::thread::JoinHandle<()>> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: `sigfillset` initialises `all`, and the call initialises `before` where it succeeds.
    let blocked = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
    };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    let spawned = thread.spawn(run);
    // SAFETY: `before` was initialised above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    spawned
}

/// Makes USR1, USR2 and SIGXFSZ harmless, which would end the process otherwise: the first two are sent by hand or by log
/// rotation, the third by the kernel when a file has reached the process's size limit; the write then fails. Programs that
/// are started do not inherit it.
pub fn outlive_stray_signals() {
    extern "C" fn nothing(_: libc::c_int) {}
    for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGXFSZ] {
        // SAFETY: all zero is a valid sigaction: no mask and no flags.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_flags = libc::SA_RESTART;
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler does nothing, so it may run at any time, and `action` lives until the call returns.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the whole set, and callers name valid signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}
