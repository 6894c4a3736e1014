//! Power: machines that are switched on and off, restarted, or lose it.

use super::Image;
use super::network::cable;
use super::programs::{self, Tried as _};
use super::rack::Rack;
use crate::binaries;
use crate::processes::{Process, family, processes};
use gaiola_os::netlink::Netlink;
use rustix::process::Signal;
use std::fs::{self, File};
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take until a machine's power is on.
const SUPPLY: Duration = Duration::from_secs(20);
/// How long a machine may take to stop in order.
const STOP: Duration = Duration::from_secs(120);
/// Raised to this where it is lower: a machine takes about ten of the 128 that root has.
const INOTIFY: (&str, u32) = ("/proc/sys/fs/inotify/max_user_instances", 512);
/// What systemd as pid 1 takes as the power button, and as the order to restart.
const POWER_OFF: &str = "RTMIN+4";
const RESTART: &str = "RTMIN+5";

impl Rack {
    /// Switches on machines m1 to m`count` that are off, with new disks from `image` where they have none, and waits until all
    /// of them answer on port 22.
    ///
    /// # Errors
    /// Where the rack is not up, or a machine does not answer.
    pub fn up(&self, count: u8, image: Image) -> io::Result<()> {
        let names: Vec<String> = (1..=count).map(|number| format!("m{number}")).collect();
        for name in &names {
            self.switch_on(name, image)?;
        }
        names.iter().try_for_each(|name| self.wait_for_sshd(name))
    }

    /// Switches a machine on and waits until it answers on port 22.
    ///
    /// # Errors
    /// Where the rack is not up, or the machine does not answer.
    pub fn on(&self, name: &str, image: Image) -> io::Result<()> {
        self.switch_on(name, image)?;
        self.wait_for_sshd(name)
    }

    /// Stops a machine in order, as its power button does.
    ///
    /// # Errors
    /// Where it is off, or does not stop.
    pub fn off(&self, name: &str) -> io::Result<()> {
        self.press(name, POWER_OFF)?;
        self.wait_until_off(name)
    }

    /// Restarts a machine in order, and waits until it answers on port 22 again.
    ///
    /// # Errors
    /// Where it is off, or does not come back.
    pub fn reboot(&self, name: &str) -> io::Result<()> {
        let before = self.leader(name);
        self.press(name, RESTART)?;
        let deadline = Instant::now() + STOP;
        while self.leader(name).is_none_or(|now| Some(now) == before) {
            if Instant::now() > deadline || self.supply(name).is_none() {
                return Err(io::Error::other(format!("{name} does not restart")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.wait_for_sshd(name)
    }

    /// Cuts a machine's power. The cable goes first, so that no goodbye of its processes leaves it.
    ///
    /// # Errors
    /// Where it is off.
    pub fn crash(&self, name: &str) -> io::Result<()> {
        let leader = self.running(name)?;
        let mut network = Netlink::open_in(self.pid_1()?).tried("enter the rack's network")?;
        network
            .set_down(&cable(name))
            .tried(format!("pull the cable of {name}"))?;
        // The kernel ends everything else in it with its pid 1.
        gaiola_os::process::signal(leader, Signal::KILL);
        self.wait_until_off(name)
    }

    /// Pid 1 of a machine as this host sees it, where it is on.
    pub fn leader(&self, name: &str) -> Option<u32> {
        let supply = self.supply(name)?;
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = namespace(supply.pid)?;
        let all = family(&processes(), supply.pid);
        let inside = |process: &Process| namespace(process.pid).is_some_and(|it| it != ours);
        let first = |process: &&Process| {
            let parent = all.iter().find(|parent| parent.pid == process.parent);
            inside(process) && parent.is_some_and(|parent| !inside(parent))
        };
        all.iter().find(first).map(|process| process.pid)
    }

    /// Pid 1 of a machine.
    ///
    /// # Errors
    /// Where it is off.
    pub(crate) fn running(&self, name: &str) -> io::Result<u32> {
        self.leader(name)
            .ok_or_else(|| io::Error::other(format!("{name} is off")))
    }

    /// The process that its power hangs on.
    pub(crate) fn supply(&self, name: &str) -> Option<Process> {
        self.process("boot", Some(name))
    }

    /// Starts a machine and does not wait for it.
    fn switch_on(&self, name: &str, image: Image) -> io::Result<()> {
        let pid_1 = self.pid_1()?;
        if self.supply(name).is_some() {
            return Ok(());
        }
        self.make_disk(name, image)?;
        self.introduce(name)?;
        allow_inotify()?;
        let log = self.log(name);
        let log = File::options().create(true).append(true).open(&log);
        let log = log.tried(format!("open the log of {name}"))?;
        let errors = log.try_clone().tried(format!("open the log of {name}"))?;
        let mut command = Command::new("setsid");
        command.args(["--fork", "nsenter"]).args(entering(pid_1));
        command.args(["unshare", "--mount", "--propagation", "private", "--"]);
        command
            .arg(binaries::machines())
            .arg("boot")
            .arg(self.folder())
            .arg(name);
        let started = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .status();
        started.tried(format!("switch on {name}"))?;
        self.wait_for_supply(name)
    }

    /// Waits until the process is there that the machine's power hangs on.
    fn wait_for_supply(&self, name: &str) -> io::Result<()> {
        let deadline = Instant::now() + SUPPLY;
        while self.supply(name).is_none() {
            if Instant::now() > deadline {
                let log = self.log(name);
                let log = log.display();
                return Err(io::Error::other(format!(
                    "cannot switch {name} on: see {log}"
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn press(&self, name: &str, signal: &str) -> io::Result<()> {
        let leader = self.running(name)?.to_string();
        programs::run(Command::new("kill").args(["-s", signal, &leader])).map(drop)
    }

    fn wait_until_off(&self, name: &str) -> io::Result<()> {
        let deadline = Instant::now() + STOP;
        while self.supply(name).is_some() {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{name} does not stop")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// What nsenter is told so that a program runs as the operator's, in a rack.
pub(crate) fn entering(pid_1: u32) -> Vec<String> {
    let target = format!("--target={pid_1}");
    let all = [&target, "--mount", "--net", "--pid", "--uts", "--ipc", "--"];
    all.map(String::from).to_vec()
}

fn allow_inotify() -> io::Result<()> {
    let (path, least) = INOTIFY;
    let now = fs::read_to_string(path).tried(format!("read {path}"))?;
    if now.trim().parse().unwrap_or(0) < least {
        fs::write(path, least.to_string()).tried(format!("write {path}"))?;
    }
    Ok(())
}
