//! The process that a rack hangs on. When it ends, so does pid 1 of the rack, and with it every machine, mount and link. It ends
//! when whoever started it does, or on request, and removes what is left: control groups, and disks that are not to be kept.

use super::operator;
use super::programs::Tried as _;
use super::rack::Rack;
use super::{apt_cache, cgroup, image};
use crate::binaries;
use gaiola_os::namespace::{Pid1, spawn_pid_1};
use gaiola_os::process;
use gaiola_os::signal::Termination;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take until the last process of a rack has ended and its groups are removed.
const END: Duration = Duration::from_secs(40);

/// How long pid 1 of a rack may take to set up its network.
const START: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

/// A holder, as whoever started it sees it. Dropping it ends the rack.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
    /// Its end is the order to end.
    stdin: Option<ChildStdin>,
}

impl Holder {
    /// Brings a rack up, without machines. It ends with this process, however that ends.
    pub(crate) fn start(rack: &Rack) -> io::Result<Self> {
        let mut child = start(rack, Stdio::piped(), "while-read")?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Brings a rack up that stays when this process ends.
pub(crate) fn detach(rack: &Rack) -> io::Result<()> {
    start(rack, Stdio::null(), "until-told").map(drop)
}

/// Ends a rack that was brought up with [`detach`], and waits until it is gone.
pub(crate) fn end(rack: &Rack) -> io::Result<()> {
    let deadline = Instant::now() + END;
    while let Some(holder) = rack.process("hold", None) {
        process::signal(holder.pid, Signal::TERM);
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "process {} does not end",
                holder.pid
            )));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn start(rack: &Rack, stdin: Stdio, until: &str) -> io::Result<Child> {
    let mut command = Command::new(binaries::machines());
    command.arg("hold").arg(rack.folder()).arg(until);
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .tried("start the process that holds the rack")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = BufReader::new(stdout).read_line(&mut line);
    }
    if line == "ready\n" {
        return Ok(child);
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut said);
    }
    let _ = child.wait();
    Err(io::Error::other(format!(
        "cannot bring the rack up: {}",
        said.trim()
    )))
}

/// Holds a rack: until standard input ends where `while_read`, and until SIGTERM in any case.
pub(crate) fn hold(rack: &Rack, while_read: bool) -> io::Result<()> {
    let termination = Termination::block().tried("block SIGTERM")?;
    // Ctrl-C and the end of a terminal are for whoever started us.
    let _ = rustix::process::setsid();
    let _claim = rack.claim()?;
    let held = bring_up(rack).and_then(|pid_1| {
        let held = report().and_then(|()| wait(&termination, while_read));
        take_down(pid_1);
        held
    });
    held.and(rack.clear())
}

fn report() -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "ready")
        .and_then(|()| stdout.flush())
        .tried("report")
}

/// Starts pid 1 of a rack, and what serves its machines from outside.
fn bring_up(rack: &Rack) -> io::Result<Pid1> {
    rack.furnish_operator()?;
    cgroup::create(&rack.folder().join("groups"), rack.folder())?;
    let (ready, report) = io::pipe().tried("make a pipe")?;
    let mut command = Command::new(binaries::machines());
    command.arg("pid-1").arg(rack.folder());
    command.stdin(Stdio::null()).stdout(report);
    let pid_1 = spawn_pid_1(command).tried("start pid 1 of the rack")?;
    // Its end of the pipe stays open with us, so a pid 1 that fails is not the end of what is read.
    let mut reported = [PollFd::new(&ready, PollFlags::IN)];
    if poll(&mut reported, Some(&START)).tried("wait for pid 1")? == 0 {
        return Err(io::Error::other("pid 1 of the rack does not report"));
    }
    apt_cache::serve(
        pid_1.pid(),
        &image::mirrors()?,
        super::rack::state().join("packages"),
    )?;
    Ok(pid_1)
}

fn wait(termination: &Termination, while_read: bool) -> io::Result<()> {
    let stdin = io::stdin();
    loop {
        let mut descriptors = vec![PollFd::new(termination, PollFlags::IN)];
        if while_read {
            descriptors.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        poll(&mut descriptors, None).tried("wait for the end")?;
        let readable = descriptors
            .get(1)
            .is_some_and(|it| !it.revents().is_empty());
        // Whoever started us never writes.
        if readable || termination.came() {
            return Ok(());
        }
    }
}

/// Ends pid 1 of a rack; the kernel ends every process in it with it.
fn take_down(pid_1: Pid1) {
    process::signal(pid_1.pid(), Signal::KILL);
    let deadline = Instant::now() + END;
    while !process::reap_all().contains(&pid_1.pid()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(pid_1);
}

/// The commands that this binary calls itself with; `None`: it is none of them.
pub fn internal(args: &[String]) -> Option<io::Result<()>> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match *words {
        ["hold", rack, until] => Some(hold(&Rack::at(rack.into()), until == "while-read")),
        ["pid-1", rack] => Some(operator::run_pid_1(&Rack::at(rack.into()))),
        ["boot", rack, name] => Some(super::boot::run(&Rack::at(rack.into()), name)),
        _ => None,
    }
}
