//! Queries this server's PostgreSQL by its Unix socket.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(3);

/// The single value that a query returns; `None` without one in time. `directory` has the socket and the password.
pub(super) async fn ask(psql: &Path, directory: &Path, sql: &str) -> Option<String> {
    let mut command = Command::new(psql);
    command
        .args([
            "-X", "-A", "-t", "-w", "-U", "postgres", "-d", "postgres", "-h",
        ])
        .arg(directory)
        .args(["-c", sql])
        .env_clear()
        .env("PGPASSFILE", directory.join("pgpass"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(LIMIT, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}
