//! `gaiola init` as an operator runs it.

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The directory of a new site called `shop`.
fn directory(test: &str) -> PathBuf {
    let above = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = fs::remove_dir_all(&above);
    let folder = above.join("shop");
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn gaiola(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gaiola"));
    command.args(arguments).current_dir(folder);
    command.stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    gaiola(folder, arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    let both = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn what_is_written_is_valid_and_is_not_written_again() {
    let folder = directory("init-written");
    fs::write(folder.join("Procfile"), "web: serve --port $PORT\n").unwrap();
    fs::create_dir(folder.join("static")).unwrap();
    let machines = "lb-1,lb-2,web-1,web-2,app-1,app-2,db-1,db-2";
    let init = ["init", "--machines", machines, "--vips", "203.0.113.9/24"];
    let output = run(&folder, &init);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let first = "gaiola.toml: site shop, 8 servers on 8 machines, 0 spare\n";
    assert!(said(&output).starts_with(first), "{}", said(&output));
    let checked = run(&folder, &["check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    let text = fs::read_to_string(folder.join("gaiola.toml")).unwrap();
    assert!(text.contains("\nroot = \"static\"\n"), "{text}");
    let again = run(&folder, &["init", "--run", "other"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        said(&again).contains("gaiola.toml exists already"),
        "{}",
        said(&again)
    );
    assert_eq!(
        fs::read_to_string(folder.join("gaiola.toml")).unwrap(),
        text
    );
}

#[test]
fn a_mistake_leaves_nothing_behind_and_all_are_reported() {
    let folder = directory("init-mistakes");
    let output = run(&folder, &["init", "--machines", "a,b c,a", "--vips", "x"]);
    assert_eq!(output.status.code(), Some(2));
    for words in [
        "there is no command; ",
        "machine \"b c\" is not a name for `ssh`; ",
        "machine \"a\" is named more than once; ",
        "virtual address \"x\" is not an IP address; ",
    ] {
        assert!(
            said(&output).contains(words),
            "{words} in {}",
            said(&output)
        );
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_program_that_is_not_there_yet_is_named() {
    let folder = directory("init-program");
    let output = run(&folder, &["init", "--run", "bin/absent"]);
    assert_eq!(output.status.code(), Some(0));
    let words = "before `gaiola up`: a command in the file cannot be run: ";
    assert!(said(&output).contains(words), "{}", said(&output));
    let written = run(
        &folder,
        &["init", "--run", "x", "-f", "nowhere/gaiola.toml"],
    );
    assert_eq!(written.status.code(), Some(1));
}

/// A terminal, and what shows it.
fn terminal() -> (File, File) {
    let shows = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&shows).unwrap();
    unlockpt(&shows).unwrap();
    let name = ptsname(&shows, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let terminal = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    (shows.into(), terminal.into())
}

#[test]
fn on_a_terminal_it_asks_until_it_has_answers() {
    let folder = directory("init-asks");
    let (mut shows, terminal) = terminal();
    let mut command = gaiola(&folder, &["init"]);
    command
        .stdin(terminal.try_clone().unwrap())
        .stderr(terminal);
    // They wait in the terminal until they are read.
    shows
        .write_all(b"\nserve $PORT\nm 1/2\nm-1, m-2 m-3\n\n")
        .unwrap();
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = fs::read_to_string(folder.join("gaiola.toml")).unwrap();
    assert!(
        text.contains("servers = [\"m-1\", \"m-2\", \"m-3\"]"),
        "{text}"
    );
    assert!(text.contains("run = \"serve $PORT\""), "{text}");
}
