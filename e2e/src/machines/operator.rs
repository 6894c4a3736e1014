//! The operator's host: pid 1 of a rack, and what runs beside it in the machines' network, with a home, names and keys of its own.
//! It sees this host's files.

use super::disk::create_key;
use super::network;
use super::power::entering;
use super::programs::Tried as _;
use super::rack::Rack;
use gaiola_os::{namespace, process};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// ssh as on real machines: every host key is known, and no other is accepted.
const SSH: &str = "Host *\n  User root\n  StrictHostKeyChecking yes\n";

impl Rack {
    /// Writes what the operator's host has of its own: names, a home, a key.
    pub(crate) fn furnish_operator(&self) -> io::Result<()> {
        let tried = "write the operator's files";
        let (home, etc) = (self.operator(), self.folder().join("etc"));
        let passwd = fs::read_to_string("/etc/passwd").tried("read /etc/passwd")?;
        fs::write(
            etc.join("passwd"),
            at_home(&passwd, &home.to_string_lossy()),
        )
        .tried(tried)?;
        fs::write(etc.join("hosts"), network::hosts()).tried(tried)?;
        let ssh = home.join(".ssh");
        for folder in [&home, &ssh] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).tried(tried)?;
        }
        fs::write(ssh.join("config"), SSH).tried(tried)?;
        if ssh.join("id_ed25519").exists() {
            return Ok(());
        }
        create_key(&ssh.join("id_ed25519"), "operator")
    }

    /// Makes a machine's host key known to the operator.
    pub(crate) fn introduce(&self, name: &str) -> io::Result<()> {
        let tried = format!("read the host key of {name}");
        let key = self
            .disk(name)
            .join("upper/etc/ssh/ssh_host_ed25519_key.pub");
        let key = fs::read_to_string(key).tried(tried)?;
        let key: Vec<&str> = key.split(' ').take(2).collect();
        let line = format!("{name},{} {}\n", network::address(name)?, key.join(" "));
        let path = self.operator().join(".ssh/known_hosts");
        let known = fs::read_to_string(&path).unwrap_or_default();
        if known.contains(&line) {
            return Ok(());
        }
        fs::write(&path, known + &line).tried("write the operator's known_hosts")
    }

    /// Where the operator's commands keep what they know of a site.
    pub fn operator_state(&self) -> PathBuf {
        self.operator().join("state")
    }

    /// A program that runs on the operator's host: `ssh m1` leads to a machine there, without further options.
    ///
    /// # Errors
    /// Where the rack is not up.
    pub fn command(&self, program: impl AsRef<OsStr>) -> io::Result<Command> {
        let mut command = Command::new("nsenter");
        // The directory is opened before the namespaces are entered.
        command.arg("--wd=.").args(entering(self.pid_1()?));
        command.arg(program).env("HOME", self.operator());
        // An agent of whoever runs the tests would offer its keys first.
        command.env_remove("SSH_AUTH_SOCK");
        // Its own: connections to machines of the same names in another rack are kept open in /tmp.
        command.env("XDG_RUNTIME_DIR", "/run");
        // What a command keeps of a site, which on this host other racks' sites would share.
        command.env("GAIOLA_STATE", self.operator_state());
        Ok(command)
    }

    /// A program that runs on a machine, without ssh: also where its cable is pulled.
    ///
    /// # Errors
    /// Where it is off.
    pub fn shell(&self, name: &str, program: impl AsRef<OsStr>) -> io::Result<Command> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.running(name)?))
            .args([
                "--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--",
            ])
            .arg(program);
        Ok(command)
    }
}

/// /etc/passwd with another home for root: ssh asks it, not HOME.
fn at_home(passwd: &str, home: &str) -> String {
    let line = |line: &str| {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields.first() == Some(&"root") && fields.len() == 7 {
            fields[5] = home;
        }
        fields.join(":") + "\n"
    };
    passwd.lines().map(line).collect()
}

/// Pid 1 of a rack: sets up its network and the operator's files, prints `ready`, and reaps what its children leave behind.
pub(crate) fn run_pid_1(rack: &Rack) -> io::Result<()> {
    namespace::mount_server_folders().tried("mount /proc and /run")?;
    for file in ["hosts", "passwd"] {
        let (ours, theirs) = (rack.folder().join("etc").join(file), format!("/etc/{file}"));
        rustix::mount::mount_bind(&ours, &theirs).tried(format!("mount {theirs}"))?;
    }
    namespace::set_host_name("operator").tried("set the host name")?;
    network::create_bridge()?;
    let mut stdout = io::stdout();
    writeln!(stdout, "ready")
        .and_then(|()| stdout.flush())
        .tried("report")?;
    loop {
        process::reap_all();
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_roots_home_is_another() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nops:x:1000:1000::/home/ops:/bin/sh\n";
        assert_eq!(
            at_home(passwd, "/rack/operator"),
            "root:x:0:0:root:/rack/operator:/bin/bash\nops:x:1000:1000::/home/ops:/bin/sh\n"
        );
    }
}
