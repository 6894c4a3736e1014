//! Finds the installed PostgreSQL and Patroni.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// The oldest supported PostgreSQL: `wal_keep_size` and pg_rewind's own crash recovery came with it.
const POSTGRES_MIN: u32 = 13;
/// The oldest Patroni that lost no acknowledged write in the fault drills (`docs/database.md`). `scripts/setup` has the same
/// number.
const PATRONI_MIN: Version = (4, 0, 7);
/// Where `scripts/setup` installs Gaiola's own Patroni when the system's is too old.
const OWN_PATRONI: &str = "/opt/gaiola/patroni/bin/patroni";
/// Where distributions put the server's programs, below a directory for each version.
const ROOTS: [&str; 2] = ["/usr/lib/postgresql", "/usr/local/lib/postgresql"];

/// Major, minor and patch.
type Version = (u32, u32, u32);

/// The programs of the database tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// Directory of `postgres`, `initdb`, `psql` and the others.
    pub postgres_bin: PathBuf,
    /// PostgreSQL's major version.
    pub postgres_version: u32,
    /// The program `patroni`.
    pub patroni: PathBuf,
    /// Its major, minor and patch version.
    pub patroni_version: (u32, u32, u32),
}

/// A program is missing or unusable.
#[derive(Debug, thiserror::Error)]
pub enum ToolsError {
    /// No PostgreSQL server of a supported version.
    #[error(
        "no PostgreSQL {POSTGRES_MIN} or newer: {found}; searched {searched}; install the package postgresql"
    )]
    Postgres {
        /// What was found instead.
        found: String,
        /// The directories that were searched.
        searched: String,
    },
    /// No Patroni of a supported version.
    #[error(
        "no Patroni {}.{}.{} or newer: {found}; tried {OWN_PATRONI} and in PATH ({path}); scripts/setup installs one beside \
         that of the system (older ones have lost acknowledged writes)",
        PATRONI_MIN.0, PATRONI_MIN.1, PATRONI_MIN.2
    )]
    Patroni {
        /// What was found instead.
        found: String,
        /// The directories of PATH.
        path: String,
    },
    /// A program could not be run.
    #[error("cannot run {program} --version{detail}; reinstall its package")]
    Broken {
        /// The program.
        program: PathBuf,
        /// Its error output.
        detail: String,
        /// Why.
        source: Option<io::Error>,
    },
}

/// Finds the newest PostgreSQL and a Patroni, and runs both for their versions.
///
/// PostgreSQL is searched for in the distributions' directories, then in PATH; Patroni in Gaiola's own environment, then in
/// PATH, and the first that is new enough wins.
pub fn find_tools() -> Result<Tools, ToolsError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let (postgres_bin, postgres_version) = find_postgres(&ROOTS.map(PathBuf::from), &in_path)?;
    let programs = [PathBuf::from(OWN_PATRONI)]
        .into_iter()
        .chain(in_path.iter().map(|dir| dir.join("patroni")));
    let (patroni, patroni_version) = find_patroni(programs, &path.to_string_lossy())?;
    Ok(Tools {
        postgres_bin,
        postgres_version,
        patroni,
        patroni_version,
    })
}

fn find_postgres(roots: &[PathBuf], in_path: &[PathBuf]) -> Result<(PathBuf, u32), ToolsError> {
    let versioned = roots
        .iter()
        .filter_map(|root| fs::read_dir(root).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.path().join("bin"));
    let mut found: Vec<(u32, PathBuf)> = versioned
        .chain(in_path.iter().cloned())
        .filter(|bin| bin.join("postgres").is_file() && bin.join("pg_basebackup").is_file())
        .filter_map(|bin| Some((postgres_version(&bin.join("postgres")).ok()?, bin)))
        .collect();
    found.sort();
    match found.pop() {
        Some((version, bin)) if version >= POSTGRES_MIN => Ok((bin, version)),
        best => Err(ToolsError::Postgres {
            found: best.map_or("found none".into(), |(version, bin)| {
                format!("the newest is {version} in {}", bin.display())
            }),
            searched: roots
                .iter()
                .map(|root| format!("{}/*/bin, ", root.display()))
                .chain(["PATH".into()])
                .collect(),
        }),
    }
}

/// The major version that `postgres --version` prints.
fn postgres_version(program: &Path) -> Result<u32, ToolsError> {
    let text = version_text(program)?;
    parse_postgres(&text).ok_or_else(|| unreadable(program, &text))
}

/// The first that is new enough; a broken one before it is skipped.
fn find_patroni(
    programs: impl Iterator<Item = PathBuf>,
    path: &str,
) -> Result<(PathBuf, Version), ToolsError> {
    let mut passed_over = Vec::new();
    for program in programs.filter(|program| program.is_file()) {
        match patroni_version(&program) {
            Ok(version) if version >= PATRONI_MIN => return Ok((program, version)),
            Ok((major, minor, patch)) => {
                passed_over.push(format!("{} is {major}.{minor}.{patch}", program.display()));
            }
            Err(error) => passed_over.push(error.to_string()),
        }
    }
    let found = if passed_over.is_empty() {
        "found none".into()
    } else {
        passed_over.join(", ")
    };
    Err(ToolsError::Patroni {
        found,
        path: path.into(),
    })
}

fn patroni_version(program: &Path) -> Result<Version, ToolsError> {
    let text = version_text(program)?;
    parse_patroni(&text).ok_or_else(|| unreadable(program, &text))
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn parse_postgres(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("(PostgreSQL)")?;
    leading_number(version.trim_start())
}

/// The version in `patroni 3.0.2`.
fn parse_patroni(text: &str) -> Option<Version> {
    let version = text.trim().strip_prefix("patroni ")?;
    let mut numbers = version.splitn(3, '.');
    let (major, minor) = (numbers.next()?, numbers.next()?);
    let patch = numbers.next().and_then(leading_number).unwrap_or(0);
    Some((major.parse().ok()?, leading_number(minor)?, patch))
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

fn version_text(program: &Path) -> Result<String, ToolsError> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|source| ToolsError::Broken {
            program: program.into(),
            detail: String::new(),
            source: Some(source),
        })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    // A Python program that lacks a module names it in its last line.
    let said = String::from_utf8_lossy(&output.stderr);
    Err(unreadable(
        program,
        said.trim().lines().last().unwrap_or_default(),
    ))
}

fn unreadable(program: &Path, said: &str) -> ToolsError {
    ToolsError::Broken {
        program: program.into(),
        detail: format!(" (it said {:?})", said.trim()),
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        for (text, version) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                Some(15),
            ),
            ("postgres (PostgreSQL) 17beta1\n", Some(17)),
            ("postgres (PostgreSQL) 9.6.24\n", Some(9)),
            ("postgres\n", None),
            ("", None),
        ] {
            assert_eq!(parse_postgres(text), version, "{text:?}");
        }
        for (text, version) in [
            ("patroni 3.0.2\n", Some((3, 0, 2))),
            ("patroni 4.1.0\n", Some((4, 1, 0))),
            ("patroni 4.1\n", Some((4, 1, 0))),
            ("patroni 3.1rc1\n", Some((3, 1, 0))),
            ("patroni 3\n", None),
            ("", None),
        ] {
            assert_eq!(parse_patroni(text), version, "{text:?}");
        }
    }

    /// A program that prints `text` when run for its version.
    fn program(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_newest_server_wins_and_clients_alone_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("lib");
        for version in ["14.2", "16.1", "17.0"] {
            let major = version.split('.').next().unwrap();
            let bin = root.join(major).join("bin");
            program(&bin.join("pg_basebackup"), "client");
            if major != "17" {
                let text = format!("postgres (PostgreSQL) {version}");
                program(&bin.join("postgres"), &text);
            }
        }
        let found = find_postgres(std::slice::from_ref(&root), &[]).unwrap();
        assert_eq!(found, (root.join("16/bin"), 16));
    }

    #[test]
    fn an_old_server_is_named_with_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("11/bin");
        program(&bin.join("postgres"), "postgres (PostgreSQL) 11.9");
        program(&bin.join("pg_basebackup"), "client");
        let error = find_postgres(&[dir.path().into()], &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("the newest is 11 in"), "{error}");
        assert!(error.contains("install the package postgresql"), "{error}");
    }

    #[test]
    fn an_old_patroni_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let patroni = dir.path().join("patroni");
        program(&patroni, "patroni 4.0.6");
        let error = find_patroni([patroni].into_iter(), "/usr/bin")
            .unwrap_err()
            .to_string();
        assert!(error.contains("patroni is 4.0.6;"), "{error}");
        assert!(error.contains("no Patroni 4.0.7 or newer"), "{error}");
        assert!(error.contains("scripts/setup installs one"), "{error}");
    }

    #[test]
    fn the_first_patroni_that_is_new_enough_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).join("patroni");
        program(&at("old"), "patroni 3.0.2");
        program(&at("broken"), "no version");
        program(&at("new"), "patroni 4.1.5");
        program(&at("newer"), "patroni 4.2.0");
        let programs = ["gone", "old", "broken", "new", "newer"].map(at);
        let found = find_patroni(programs.into_iter(), "").unwrap();
        assert_eq!(found, (at("new"), (4, 1, 5)));
    }
}
