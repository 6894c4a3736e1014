//! Bad luck: what goes wrong on machines that nobody planned for. Each case ends with a message that names the machine, what was tried
//! and what to do; nothing that was acknowledged is lost, and the next `up` goes on.

mod living;
mod unfit;

use crate::said;
use gaiola_e2e::Ran;
use gaiola_e2e::machines::MachineSite;
use std::time::{Duration, Instant};

const ALL: &[&str] = &["m1", "m2", "m3"];
const LIMIT: Duration = Duration::from_secs(300);

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// `up`, after which the site is healthy. On a host that is busy the store may answer too late, or a VIP move once more: the next one
/// goes on.
#[track_caller]
fn up(site: &MachineSite) {
    let mut ran = site.gaiola(&["up", "-d"]);
    for _ in 0..2 {
        if ran.code != 0 {
            println!("up once more, after: {}", ran.stderr);
            ran = site.gaiola(&["up", "-d"]);
        }
    }
    ran.expect(0, &[]);
    until("the site is healthy", || site.is_healthy());
}

/// The line that a command printed of a machine, which has all of these words.
#[track_caller]
fn line(ran: &Ran, machine: &str, words: &[&str]) -> String {
    let mut lines = ran.stdout.lines().chain(ran.stderr.lines());
    let names = |line: &&str| {
        let line = line.trim_start_matches("gaiola: ");
        line.split([' ', ':']).next() == Some(machine) && words.iter().all(|it| line.contains(it))
    };
    let found = lines.find(names);
    let found = found.unwrap_or_else(|| panic!("no line of {machine} with {words:?}: {ran:#?}"));
    println!("  {found}");
    found.into()
}

/// What is run and waited for beside something else that happens meanwhile, which is told whether it has ended already.
fn while_it_runs(
    site: &MachineSite,
    args: &[&str],
    meanwhile: impl FnOnce(&dyn Fn() -> bool),
) -> Ran {
    std::thread::scope(|scope| {
        let runs = scope.spawn(|| site.gaiola(args));
        meanwhile(&|| runs.is_finished());
        runs.join().expect("the command ends")
    })
}

/// A machine that was cut off holds the lock of its operator's command for half a minute.
#[track_caller]
fn until_let_go(site: &MachineSite, machine: &str) {
    let is_free = "flock -n /run/gaiola/lock true";
    until("its lock is free", || {
        site.machines().ssh(machine, is_free).code == 0
    });
}

/// Ends the connections to the machines that commands keep open, so that the next one opens others.
fn forget_connections(site: &MachineSite) {
    let end = "for at in /run/gaiola/*-*; do ssh -q -O exit -o ControlPath=$at m1; done 2>/dev/null; true";
    said(site.machines().run(&["sh", "-c", end]));
}

/// Runs a shell command on a machine, without ssh.
#[track_caller]
fn on(site: &MachineSite, machine: &str, script: &str) -> String {
    said(site.machines().shell(machine, script))
}
