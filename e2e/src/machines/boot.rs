//! The process that a machine's power hangs on: it starts the machine, again after each reboot, and ends with it.

use super::cgroup;
use super::network::{BRIDGE, wait_until_unplugged};
use super::programs::Tried as _;
use super::rack::Rack;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// What systemd-nspawn ends with when the machine asks to be started again.
const REBOOT: i32 = 133;

/// Runs a machine until its power is off. To be called in the rack's namespaces, and in a mount namespace of the machine's own.
pub(crate) fn run(rack: &Rack, name: &str) -> io::Result<()> {
    cgroup::enter(&rack.folder().join("groups"), name)?;
    let root = rack.mount_disk(name)?;
    loop {
        wait_until_unplugged(name)?;
        let ended = machine(&root, name)
            .status()
            .tried("start systemd-nspawn")?;
        if ended.code() != Some(REBOOT) {
            return Ok(());
        }
    }
}

fn machine(root: &Path, name: &str) -> Command {
    let mut command = Command::new("systemd-nspawn");
    command
        .args([
            "--quiet",
            "--keep-unit",
            "--register=no",
            "--console=read-only",
        ])
        .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"])
        .arg(format!("--network-bridge={BRIDGE}"))
        .arg(format!("--directory={}", root.display()))
        .arg(format!("--machine={name}"))
        .arg(format!("--hostname={name}"))
        // The log is for people and for a failed test, not for a terminal.
        .args(["--setenv=TERM=dumb", "--setenv=SYSTEMD_COLORS=0"])
        .arg("/usr/local/sbin/power-on");
    command.stdin(Stdio::null());
    command
}
