//! Scenarios in text: a file of commands, each followed by what it is expected to print.
//!
//! A line that begins with `> ` is a command, one that begins with `#` a remark, all others are expected output.
//! `UPDATE=1` rewrites the files with what is printed now; a person reads the difference.

use std::path::Path;

/// Plays every `scenarios/PREFIX*.txt`. `begin` makes a new world, whose `command` answers one command.
///
/// # Panics
///
/// When a scenario prints something else than it should.
pub(crate) fn play<W: World>(prefix: &str, begin: impl Fn() -> W) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(&directory).expect("the directory of scenarios is there");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("it can be listed")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name.starts_with(prefix) && name.ends_with(".txt"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no scenario begins with {prefix}");
    for name in names {
        let path = directory.join(&name);
        let expected = std::fs::read_to_string(&path).expect("a scenario can be read");
        let printed = transcript(&expected, begin());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, printed).expect("a scenario can be written");
        } else {
            assert_eq!(
                printed, expected,
                "{name} prints something else; UPDATE=1 accepts it"
            );
        }
    }
}

/// What a scenario speaks to.
pub(crate) trait World {
    /// Carries out one command and returns what it prints: lines, each ended.
    fn command(&mut self, words: &[&str]) -> String;
}

fn transcript(text: &str, mut world: impl World) -> String {
    let mut printed = String::new();
    for line in text.lines() {
        let command = line.strip_prefix("> ");
        if command.is_some() || line.starts_with('#') || line.is_empty() {
            printed += line;
            printed.push('\n');
        }
        if let Some(command) = command {
            let words: Vec<&str> = command.split_whitespace().collect();
            let said = world.command(&words);
            // An empty line belongs to the writer of the scenario.
            for line in said.lines().filter(|line| !line.is_empty()) {
                printed += line;
                printed.push('\n');
            }
        }
    }
    printed
}
