//! Runs a test in namespaces of its own: nothing it does to the network, and no process it starts, outlives it.

use gaiola_os::skip::skipped;
use std::process::Command;

const INSIDE: &str = "GAIOLA_TEST_INSIDE_NAMESPACE";

/// Runs `body` in a fresh user, network, mount and PID namespace; `test` is the calling test's whole name. Where the
/// right to make namespaces is missing, the test is skipped and says so.
pub(crate) fn isolated(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    if !unshare().arg("true").status().is_ok_and(|it| it.success()) {
        skipped(
            test,
            "no right to make user and network namespaces with unshare(1)",
        );
        return;
    }
    let status = unshare()
        .arg(std::env::current_exe().expect("the test's own program"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare(1) was there a moment ago");
    assert!(status.success(), "{test} failed in its namespaces");
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--net", "--mount", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "--"]);
    command
}
