//! Real Debian machines: systemd as pid 1, sshd, apt, and a disk, a cable and power each, on a network of their own.
//!
//! A [`Rack`] is such a network with its machines m1, m2 and so on. [`Machines`] is a rack for one test, by-hand use has the
//! binary `machines`. A machine is systemd-nspawn over a layer of its own on an [`Image`]. A rack's processes share one PID
//! namespace: when its pid 1 ends, nothing of it runs, is mounted or linked any more.

mod apt_cache;
mod boot;
mod cgroup;
mod client;
pub mod cloud;
mod disk;
mod holder;
mod image;
mod network;
mod operator;
mod power;
mod programs;
mod rack;
mod site;
mod sockets;

pub use client::{Client, Seen, load};
pub use holder::internal;
pub use image::Image;
pub use network::{MOST, OPERATOR, address};
pub use rack::{BY_HAND, Rack};
pub use site::{CloudApi, MachineSite};
pub use sockets::Sockets;

use crate::Ran;
use crate::site::run;
use holder::Holder;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// The longest that a command on a machine or on the operator's host may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);
/// What is shown of each log where a test fails.
const LAST_LINES: usize = 15;

impl Rack {
    /// Brings the rack up, without machines, and lets it run when this process ends.
    ///
    /// # Errors
    /// Where it is up already, or cannot be brought up.
    pub fn detach(&self) -> io::Result<()> {
        holder::detach(self)
    }

    /// Takes a rack down that was brought up with [`detach`](Self::detach): the power of every machine is cut.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn down(&self) -> io::Result<()> {
        holder::end(self)
    }

    /// Takes the rack down, and removes its disks.
    ///
    /// # Errors
    /// Where it does not end, or they cannot be removed.
    pub fn wipe(&self) -> io::Result<()> {
        self.down()?;
        match fs::remove_dir_all(self.folder()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Why there can be no machines here; `None`: there can.
pub fn impossible(image: Image) -> Option<&'static str> {
    let builds = || programs::is_installed("mmdebstrap");
    if !rustix::process::geteuid().is_root() {
        Some("not root: machines need control groups, mounts and disks")
    } else if !programs::is_installed("systemd-nspawn") || !(image.is_built() || builds()) {
        Some("no systemd-nspawn or mmdebstrap; scripts/setup machines installs them")
    } else {
        None
    }
}

/// A rack of one test. Dropping it, or the end of the test in whatever way, leaves nothing of it.
#[derive(Debug)]
pub struct Machines {
    rack: Rack,
    image: Image,
    _holder: Holder,
}

impl Machines {
    /// Machines m1 to m`count`, all of which answer on port 22. `None`, and it is reported, where there can be none.
    ///
    /// # Panics
    /// Where they cannot be brought up.
    pub fn start(name: &str, count: u8, image: Image) -> Option<Self> {
        if let Some(why) = impossible(image) {
            gaiola_os::skip::skipped(name, why);
            return None;
        }
        done(image.build());
        let rack = Rack::named(&format!("{name}-{}", std::process::id()));
        let holder = done(Holder::start(&rack));
        let machines = Self {
            rack,
            image,
            _holder: holder,
        };
        done(machines.rack.up(count, image));
        Some(machines)
    }

    /// The rack.
    pub fn rack(&self) -> &Rack {
        &self.rack
    }

    /// The names of the machines, in order.
    pub fn names(&self) -> Vec<String> {
        self.rack.machines()
    }

    /// Switches a machine on, a new one with a new disk, and waits until it answers.
    #[track_caller]
    pub fn on(&self, name: &str) {
        done(self.rack.on(name, self.image));
    }

    /// Stops a machine in order.
    #[track_caller]
    pub fn off(&self, name: &str) {
        done(self.rack.off(name));
    }

    /// Restarts a machine in order, and waits until it answers.
    #[track_caller]
    pub fn reboot(&self, name: &str) {
        done(self.rack.reboot(name));
    }

    /// Cuts a machine's power.
    #[track_caller]
    pub fn crash(&self, name: &str) {
        done(self.rack.crash(name));
    }

    /// Plugs a machine's cable in, or pulls it.
    #[track_caller]
    pub fn cable(&self, name: &str, plugged: bool) {
        done(self.rack.cable(name, plugged));
    }

    /// Makes the network one of a cloud, or an ordinary one again.
    #[track_caller]
    pub fn cloud(&self, on: bool) {
        done(self.rack.cloud(on));
    }

    /// A program on the operator's host, to be started.
    #[track_caller]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        done(self.rack.command(program))
    }

    /// `gaiola ARGS` on the operator's host, to be started. Its `ssh` leads to the machines by their names.
    #[track_caller]
    pub fn gaiola(&self, args: &[&str]) -> Command {
        let mut command = self.command(crate::binaries::gaiola_for_machines());
        command.args(args);
        command
    }

    /// A client of a site, from the operator's host: requests per second, and WebSockets that stay open. It returns once it sends.
    #[track_caller]
    pub fn client(&self, door: SocketAddr, rate: u32, sockets: u32) -> Client {
        done(Client::start(&self.rack, door, rate, sockets))
    }

    /// Runs a command on the operator's host.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Ran {
        let mut command = self.command(words[0]);
        command.args(&words[1..]);
        run(command, COMMAND_LIMIT)
    }

    /// Runs a shell command on a machine (`m1`, or `ops@m1`), over ssh.
    #[track_caller]
    pub fn ssh(&self, destination: &str, script: &str) -> Ran {
        self.run(&["ssh", destination, script])
    }

    /// Runs a shell command on a machine without ssh: also where its cable is pulled.
    #[track_caller]
    pub fn shell(&self, name: &str, script: &str) -> Ran {
        let mut command = done(self.rack.shell(name, "sh"));
        command.args(["-c", script]);
        run(command, COMMAND_LIMIT)
    }

    /// The last lines of every log, for a test that failed.
    fn show_logs(&self) {
        for name in self.names() {
            let text = fs::read_to_string(self.rack.log(&name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {name}");
            let last = lines.iter().skip(lines.len().saturating_sub(LAST_LINES));
            last.for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

#[track_caller]
fn done<T>(result: io::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
