//! The namespaces that the test runs in, and what it sees of the processes there.

use crate::INSIDE;
use gaiola_agent::engine::find_tools;
use gaiola_os::skip::skipped;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Runs one test of this binary again in namespaces of its own, and fails with it.
pub(crate) fn enter(test: &str) {
    if let Err(missing) = find_tools() {
        skipped(test, &missing.to_string());
        return;
    }
    if Command::new("etcd").arg("--version").output().is_err() {
        skipped(test, "no etcd in PATH");
        return;
    }
    if !unshare()
        .arg("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        skipped(test, "no right to make namespaces here");
        return;
    }
    let status = unshare()
        .args([
            "sh",
            "-c",
            r#"ip link set lo up && exec "$0" --exact "$1" --nocapture"#,
        ])
        .arg(env::current_exe().unwrap())
        .arg(test)
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

/// An ordinary user stays one inside, with the rights over what is inside.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "--ipc",
        "--pid",
        "--fork",
        "--mount",
        "--mount-proc",
        "--kill-child",
    ]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--map-current-user", "--keep-caps"]);
    }
    command
}

/// Processes whose working directory is this one.
pub(crate) fn inside(directory: &Path) -> Vec<u32> {
    let identity = |path: &Path| {
        fs::metadata(path)
            .map(|found| (found.dev(), found.ino()))
            .ok()
    };
    let wanted = identity(directory);
    processes()
        .filter(|pid| wanted.is_some() && identity(format!("/proc/{pid}/cwd").as_ref()) == wanted)
        .collect()
}

/// The parent's pid.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Every process's command line and environment, as far as they may be read.
pub(crate) fn command_lines() -> Vec<String> {
    processes()
        .flat_map(|pid| ["cmdline", "environ"].map(|file| fs::read(format!("/proc/{pid}/{file}"))))
        .flatten()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

pub(crate) fn kill(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

pub(crate) fn stop(pid: u32) {
    signal(pid, rustix::process::Signal::STOP);
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
