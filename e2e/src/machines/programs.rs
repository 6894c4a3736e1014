//! Programs that are run to their end, and errors that say what was tried.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// Adds to an error what was tried.
pub(crate) trait Tried<T> {
    /// The same result; an error begins with `cannot WHAT`.
    fn tried(self, what: impl Display) -> io::Result<T>;
}

impl<T, E: Error> Tried<T> for Result<T, E> {
    fn tried(self, what: impl Display) -> io::Result<T> {
        self.map_err(|error| {
            io::Error::other(format!("cannot {what}: {}", gaiola_os::chain(&error)))
        })
    }
}

/// Runs a program to its end, and returns what it printed.
///
/// # Errors
/// Where it cannot be started, or fails: with what it wrote to standard error.
pub(crate) fn run(command: &mut Command) -> io::Result<String> {
    feed(command, "")
}

/// As [`run`], with `input` on its standard input.
pub(crate) fn feed(command: &mut Command, input: &str) -> io::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().tried(format!("start {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing may have ended already.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .tried(format!("wait for {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let (status, said) = (output.status, said.trim());
        return Err(io::Error::other(format!(
            "{program} failed ({status}): {said}"
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether PATH has a program.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
