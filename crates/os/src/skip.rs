//! For tests: one that cannot run here says so where the whole run counts it.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Reports that a test is skipped, and why: on standard error, and in the file that `GAIOLA_SKIPPED` names, where `scripts/test` counts
/// it.
///
/// # Panics
/// If that file cannot be written: nobody would notice the test.
pub fn skipped(test: &str, why: &str) {
    #[expect(clippy::print_stderr, reason = "it speaks to whoever runs the tests")]
    {
        eprintln!("SKIPPED {test}: {why}");
    }
    if let Some(path) = std::env::var_os("GAIOLA_SKIPPED") {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
        written.expect("the file of skipped tests can be written");
    }
}
