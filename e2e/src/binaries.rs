//! Finds the binaries under test, and builds those that are missing or older than their sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The `gaiola` under test: `GAIOLA_BIN`, or the one beside this test, built first if it is stale.
pub(crate) fn gaiola() -> PathBuf {
    if let Some(named) = std::env::var_os("GAIOLA_BIN") {
        return named.into();
    }
    let path = folder().join("gaiola");
    if is_stale(&path) {
        build(&["-p", "gaiola"]);
    }
    path
}

/// What machines are given: `GAIOLA_BIN`, or [`gaiola`] without its debugging symbols, which are most of an unoptimised program and
/// would be copied to each of them.
pub(crate) fn gaiola_for_machines() -> PathBuf {
    if std::env::var_os("GAIOLA_BIN").is_some() {
        return gaiola();
    }
    stripped(&gaiola())
}

/// The same of [`next`].
pub(crate) fn next_for_machines() -> PathBuf {
    stripped(&next())
}

fn stripped(whole: &Path) -> PathBuf {
    let name = whole.file_name().expect("it is a file").to_string_lossy();
    let path = whole.with_file_name(format!("{name}-for-machines"));
    if changed(&path) < changed(whole) {
        // Another test may do the same.
        let fresh = path.with_extension(std::process::id().to_string());
        let mut strip = Command::new("strip");
        let status = strip.arg("-o").arg(&fresh).arg(whole).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "strip (binutils) fails"
        );
        std::fs::rename(&fresh, &path).expect("it is in the same folder");
    }
    path
}

/// The same program, built to call itself one schema newer.
pub(crate) fn next() -> PathBuf {
    let path = folder().join("gaiola-next");
    if is_stale(&path) {
        build(&NEXT);
    }
    path
}

/// What `scripts/build debug` builds it with too, so that nothing is compiled twice.
const NEXT: [&str; 6] = [
    "-p",
    "gaiola",
    "--bin",
    "gaiola-next",
    "--features",
    "gaiola/next-schema",
];

/// The site that the tests bring up.
pub(crate) fn site() -> PathBuf {
    let path = folder().join("gaiola-e2e-site");
    if is_stale(&path) {
        build(&["-p", "gaiola-e2e", "--bin", "gaiola-e2e-site"]);
    }
    path
}

/// The guest book.
pub(crate) fn guest_book() -> PathBuf {
    let path = folder().join("guestbook");
    if is_stale(&path) {
        build(&["-p", "guestbook"]);
    }
    path
}

/// The binary that racks of machines hang on: ourselves where we are it.
pub(crate) fn machines() -> PathBuf {
    let this = std::env::current_exe().expect("a program has an executable");
    if this.file_name().is_some_and(|name| name == "machines") {
        return this;
    }
    let path = folder().join("machines");
    if is_stale(&path) {
        build(&["-p", "gaiola-e2e", "--bin", "machines"]);
    }
    path
}

/// `target/PROFILE`: this test's executable is in its `deps`.
fn folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test has an executable");
    let deps = test.parent().expect("it stands in a directory");
    deps.parent().expect("that is in the profile's").into()
}

/// Whether a source that cargo noted beside the binary is newer than it, or gone.
fn is_stale(binary: &Path) -> bool {
    let Some(built) = changed(binary) else {
        return true;
    };
    let Ok(noted) = std::fs::read_to_string(binary.with_extension("d")) else {
        return true;
    };
    let sources = noted.split_once(':').map_or("", |(_, sources)| sources);
    sources
        .split_whitespace()
        .any(|source| changed(Path::new(source)).is_none_or(|changed| changed > built))
}

fn changed(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

fn build(what: &[&str]) {
    let release = folder().ends_with("release");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .arg("build")
        .args(what)
        .args(release.then_some("--release"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "cargo build {} failed", what.join(" "));
}
