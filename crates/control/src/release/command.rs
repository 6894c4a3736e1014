//! Checks that a command's program exists, so that `up` can reject it before anything is started.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Words with a meaning in the shell: a command that begins with one is not checked.
const SHELL: &[char] = &[
    '$', '`', '\'', '"', '\\', '=', '(', ')', '{', '}', '[', ']', '<', '>', '|', '&', ';', '*',
    '?', '~', '#', '!',
];

/// Why `command`, run by `sh -c` in `directory`, cannot be found: `None` if it can, or if only a shell can tell.
///
/// Only paths are checked (`bin/guestbook`, `/usr/bin/env`); the shell searches for bare names.
pub fn missing_program(directory: &Path, command: &str) -> Option<String> {
    let program = command.split_whitespace().next()?;
    if !program.contains('/') || program.contains(SHELL) {
        return None;
    }
    let path = directory.join(program);
    match fs::metadata(&path) {
        Err(error) => Some(format!("{}: {error}", path.display())),
        Ok(metadata) if metadata.is_dir() => Some(format!("{} is a directory", path.display())),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => Some(format!(
            "{} is not executable; `chmod +x` makes it so",
            path.display()
        )),
        Ok(_) => None,
    }
}

/// As [`missing_program`], for a program that was left out because only its owner may use it.
pub fn private_program(private: &[PathBuf], command: &str) -> Option<String> {
    let program = Path::new(command.split_whitespace().next()?);
    let program = program.strip_prefix("./").unwrap_or(program);
    let path = private.iter().find(|path| program.starts_with(path))?;
    Some(format!(
        "only its owner may use {}, so it is not part of the release; `chmod -R go+rX {}` lets others use it",
        path.display(),
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_is_judged() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("plain"), "").unwrap();
        fs::create_dir(at("bin")).unwrap();
        let missing = |command| missing_program(directory.path(), command);
        assert!(
            missing("bin/absent --port 1")
                .unwrap()
                .contains("bin/absent")
        );
        assert!(missing("./plain").unwrap().contains("not executable"));
        assert!(missing("./bin").unwrap().contains("is a directory"));
        for fine in [
            "/bin/sh -c x",
            "python3 -m http.server",
            "$HOME/x",
            "A=1/2 x",
            "",
            "(cd a/b && x)",
        ] {
            assert_eq!(missing(fine), None, "{fine}");
        }
    }
}
