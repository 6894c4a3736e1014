//! The programs by which a harm is done and undone: systemd's and `nft`.

use super::{DrillError, remove, write};
use crate::provider::machine::program;
use gaiola_model::SiteName;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The timer that undoes it, and its service.
const UNDO: &str = "gaiola-drill-undo";
/// Where units of this boot stand.
const UNITS: &str = "/run/systemd/system";
/// The part of a unit that keeps it from starting again.
const STAY_DOWN: &str = "50-gaiola-drill.conf";
/// The unit of the machine's own process.
pub(super) const MACHINE: &str = "gaiola-machine.service";

/// Sets the timer that undoes the harm.
pub(super) fn arm(site: &SiteName, for_s: u64) -> Result<(), DrillError> {
    disarm();
    let [timer, service] = ["timer", "service"].map(|kind| format!("{UNDO}.{kind}"));
    // Those of an earlier drill, which may have failed.
    let _ = systemctl(&["reset-failed", &timer, &service]);
    let arguments = timer_of(site, for_s);
    run("systemd-run", "systemd", &arguments, "")
}

/// Takes the timer away; it may have elapsed.
pub(super) fn disarm() {
    let _ = systemctl(&["stop", &format!("{UNDO}.timer")]);
}

fn timer_of(site: &SiteName, for_s: u64) -> Vec<String> {
    let options = [
        "--quiet".to_string(),
        "--collect".into(),
        format!("--unit={UNDO}"),
        format!("--on-active={for_s}s"),
        "--timer-property=AccuracySec=200ms".into(),
        "--property=Restart=on-failure".into(),
        "--property=RestartSec=5s".into(),
    ];
    let command = [program(), "machine", "undo", site.as_str()].map(String::from);
    options.into_iter().chain(command).collect()
}

/// Keeps units from starting again once they are killed, until [`start`].
pub(super) fn stay_down(units: &[String]) -> Result<(), DrillError> {
    if units.is_empty() {
        return Ok(());
    }
    for unit in units {
        let folder = Path::new(UNITS).join(format!("{unit}.d"));
        let made = fs::create_dir_all(&folder);
        made.map_err(|source| DrillError::File {
            path: folder.clone(),
            source,
        })?;
        write(&folder.join(STAY_DOWN), b"[Service]\nRestart=no\n")?;
    }
    systemctl(&["daemon-reload"])
}

/// Starts them, and the machine's own process again: it would keep off what it has seen stop.
pub(super) fn start(units: &[String]) -> Result<(), DrillError> {
    if units.is_empty() {
        return Ok(());
    }
    for unit in units {
        let folder = Path::new(UNITS).join(format!("{unit}.d"));
        remove(&folder.join(STAY_DOWN))?;
        // It may hold something of the machine's administrator.
        let _ = fs::remove_dir(&folder);
    }
    systemctl(&["daemon-reload"])?;
    // A `down`, or the end of a server, that came meanwhile has disabled its units.
    let is_wanted = |unit: &&String| systemctl(&["is-enabled", "--quiet", unit]).is_ok();
    let wanted: Vec<&str> = (units.iter().filter(is_wanted))
        .map(String::as_str)
        .collect();
    let with = |word: &'static str| [&[word], &wanted[..]].concat();
    if !wanted.is_empty() {
        // Those that have not failed are refused.
        let _ = systemctl(&with("reset-failed"));
        systemctl(&with("start"))?;
    }
    systemctl(&["restart", MACHINE])
}

fn systemctl(arguments: &[&str]) -> Result<(), DrillError> {
    run("systemctl", "systemd", arguments, "")
}

pub(super) fn nft(rules: &str) -> Result<(), DrillError> {
    run("nft", "nftables", &["-f", "-"], rules)
}

fn run(
    program: &'static str,
    package: &'static str,
    arguments: &[impl AsRef<OsStr>],
    input: &str,
) -> Result<(), DrillError> {
    let failed = |source| DrillError::NoProgram {
        program,
        package,
        source,
    };
    let mut command = Command::new(program);
    command.args(arguments);
    // The user that `sudo` is given may have no directories of administrators.
    command.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(DrillError::Failed { program, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_undoes_it_again_and_again_until_that_succeeds() {
        let words = timer_of(&"shop".parse().unwrap(), 40).join(" ");
        assert!(words.contains("--on-active=40s") && words.contains("Restart=on-failure"));
        assert!(
            words.ends_with("/opt/gaiola/current/gaiola machine undo shop"),
            "{words}"
        );
    }
}
