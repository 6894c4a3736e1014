//! Namespaces, held by processes only: when the processes are gone, nothing remains.

use super::process::{die_with_parent, keep_capabilities_over_exec};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

/// Enters a user namespace that maps our uid to itself and gives us every capability, also after `exec`.
///
/// The process must be single-threaded.
///
/// # Errors
/// If the kernel refuses user namespaces.
pub fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(UnshareFlags::NEWUSER)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    keep_capabilities_over_exec()
}

/// Enters a new network namespace. Sockets opened before stay in the old one.
///
/// # Errors
/// If that is not permitted.
pub fn enter_network_namespace() -> io::Result<()> {
    unshare(UnshareFlags::NEWNET)
}

/// Pid 1 of a set of namespaces. It and everything in them dies when this is dropped, and with our process.
#[derive(Debug)]
pub struct Pid1 {
    pid: u32,
    _alive: mpsc::Sender<Infallible>,
}

impl Pid1 {
    /// Its pid in our namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// Starts a command as pid 1 of a new set of namespaces (PID, network, mount, UTS, IPC).
///
/// # Errors
/// If a namespace or the process cannot be made.
pub fn spawn_pid_1(mut command: Command) -> io::Result<Pid1> {
    // SAFETY: the closure runs between fork and exec and makes system calls only; it allocates nothing.
    unsafe {
        command.pre_exec(|| {
            die_with_parent()?;
            unshare(
                UnshareFlags::NEWNET
                    | UnshareFlags::NEWNS
                    | UnshareFlags::NEWUTS
                    | UnshareFlags::NEWIPC,
            )?;
            rustix::process::setsid()?;
            Ok(())
        });
    }
    let (alive, dropped) = mpsc::channel::<Infallible>();
    let (started, start) = mpsc::channel();
    // A thread of its own: without privilege over the old PID namespace there is no way back into it, and this thread's next
    // child would be inside the server. The server dies with the thread that started it.
    std::thread::Builder::new()
        .name("server".into())
        .spawn(move || {
            let child = unshare(UnshareFlags::NEWPID).and_then(|()| command.spawn());
            let is_on = child.is_ok();
            let _ = started.send(child.map(|child| child.id()));
            if is_on {
                let _ = dropped.recv();
            }
        })?;
    // The thread sends before it can end.
    let pid = start
        .recv()
        .expect("the thread sends the pid or an error")?;
    Ok(Pid1 { pid, _alive: alive })
}

/// Moves the calling thread into all namespaces of a process; its children are then in that PID namespace.
///
/// # Errors
/// If the process is gone, or it is not permitted.
pub fn join(pid: u32, user_namespace: bool) -> io::Result<()> {
    let pidfd = pidfd(pid)?;
    if user_namespace {
        rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::USER)?;
        keep_capabilities_over_exec()?;
    }
    let all = ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
    Ok(rustix::thread::move_into_thread_name_spaces(
        pidfd.as_fd(),
        all,
    )?)
}

/// Moves the calling thread into the network namespace of a process, and into no other but, on request, the user namespace
/// that permits it.
///
/// # Errors
/// If the process is gone, or it is not permitted.
pub fn join_network(pid: u32, user_namespace: bool) -> io::Result<()> {
    let pidfd = pidfd(pid)?;
    if user_namespace {
        rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::USER)?;
        keep_capabilities_over_exec()?;
    }
    let network = ThreadNameSpaceType::NETWORK;
    Ok(rustix::thread::move_into_thread_name_spaces(
        pidfd.as_fd(),
        network,
    )?)
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .ok_or(io::ErrorKind::NotFound)?;
    let flags = rustix::process::PidfdFlags::empty();
    Ok(rustix::process::pidfd_open(pid, flags)?)
}

/// Within a new server: mounts its own `/proc`, and an empty `/run` that is gone when the server is.
///
/// # Errors
/// If the kernel rejects a mount.
pub fn mount_server_folders() -> io::Result<()> {
    make_mounts_private()?;
    mount_proc()?;
    mount(
        "tmpfs",
        "/run",
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=755,size=64m",
    )?;
    Ok(())
}

/// Mounts the `/proc` of the PID namespace in which we are pid 1.
///
/// # Errors
/// If the kernel rejects the mount.
pub fn mount_proc() -> io::Result<()> {
    Ok(mount(
        "proc",
        "/proc",
        "proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    )?)
}

fn make_mounts_private() -> io::Result<()> {
    Ok(mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?)
}

/// Sets the host name of the UTS namespace.
///
/// # Errors
/// If that is not permitted.
pub fn set_host_name(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Lets every user in this network namespace bind every port.
///
/// # Errors
/// If the kernel has no such setting.
pub fn allow_low_ports() -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
}

/// What forbids user namespaces, and how to allow them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserNamespacesForbidden {
    /// The kernel was built without them.
    #[error("this kernel has no user namespaces")]
    NotBuiltIn,
    /// Debian's setting.
    #[error(
        "kernel.unprivileged_userns_clone is 0; allow them with: sudo sysctl kernel.unprivileged_userns_clone=1"
    )]
    Debian,
    /// The kernel's limit.
    #[error(
        "user.max_user_namespaces is 0; allow them with: sudo sysctl user.max_user_namespaces=10000"
    )]
    Limit,
    /// AppArmor's restriction.
    #[error(
        "AppArmor restricts them; allow them with: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    )]
    AppArmor,
}

/// Whether user namespaces are available.
///
/// # Errors
/// What forbids them.
pub fn user_namespaces_allowed() -> Result<(), UserNamespacesForbidden> {
    let refuses = |path: &str, refusal: &str| {
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == refusal)
    };
    if !Path::new("/proc/self/ns/user").exists() {
        return Err(UserNamespacesForbidden::NotBuiltIn);
    }
    if refuses("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Err(UserNamespacesForbidden::Debian);
    }
    if refuses("/proc/sys/user/max_user_namespaces", "0") {
        return Err(UserNamespacesForbidden::Limit);
    }
    if refuses(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        return Err(UserNamespacesForbidden::AppArmor);
    }
    Ok(())
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: unsharing is unsound only with FILES, which closes descriptors that Rust believes open; no caller passes it.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}
