//! The site's own role and database: created with the primary, and ensured afterwards.

use super::Settings;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Timeout of psql: longer than a lost standby blocks a write.
const LIMIT: Duration = Duration::from_secs(20);

/// The site's role and database could not be ensured.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// psql could not be run.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// psql failed.
    #[error("cannot make the role and database {name}: psql said {said:?}")]
    Refused {
        /// The name of role and database.
        name: String,
        /// The last line psql wrote; it never holds a password.
        said: String,
    },
    /// psql took too long.
    #[error("cannot make the role and database {name}: psql gave no answer within {} s", LIMIT.as_secs())]
    Slow {
        /// The name of role and database.
        name: String,
    },
}

impl Settings {
    /// SQL that creates the site's role, which is no superuser, and its database. Idempotent; each run sets the password again.
    pub(super) fn site_sql(&self) -> String {
        let (name, password) = (self.site.sql(), self.secrets.site.reveal());
        // A failing statement would be logged as written, with the password in it.
        format!(
            r#"SET log_min_error_statement = panic;
SET log_statement = none;
SET log_min_duration_statement = -1;
SELECT 'CREATE ROLE "{name}" LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \gexec
ALTER ROLE "{name}" WITH LOGIN NOSUPERUSER NOCREATEROLE NOREPLICATION PASSWORD '{password}';
SELECT 'CREATE DATABASE "{name}" OWNER "{name}"' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') \gexec
REVOKE CONNECT, TEMPORARY ON DATABASE "{name}" FROM PUBLIC;
"#
        )
    }

    /// `pgpass` for our own psql: with a Unix socket it looks up `localhost`.
    pub(super) fn pgpass(&self) -> String {
        format!("*:*:*:postgres:{}\n", self.secrets.superuser.reveal())
    }
}

/// Ensures that the site's role and database exist. Call it on the primary; a standby rejects it.
///
/// The primary has both before it accepts its first connection, so this is for later changes: another password, or a role
/// that an operator removed.
pub async fn ensure_site(settings: &Settings) -> Result<(), SiteError> {
    let name = settings.site.sql();
    let program = settings.tools.postgres_bin.join("psql");
    let failed = |source| SiteError::Run {
        program: program.display().to_string(),
        source,
    };
    let private = settings.private();
    let mut child = Command::new(&program)
        .args(["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"])
        .args(["-U", "postgres", "-d", "postgres", "-h"])
        .arg(&private)
        .env_clear()
        .env("PGPASSFILE", private.join("pgpass"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take().expect("piped");
    let sql = settings.site_sql();
    let whole = async {
        // If psql exited before it read everything, its own message is the better error.
        let _ = stdin.write_all(sql.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let Ok(output) = tokio::time::timeout(LIMIT, whole).await else {
        return Err(SiteError::Slow { name });
    };
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().last().unwrap_or_default().to_string();
    Err(SiteError::Refused { name, said })
}

#[cfg(test)]
mod tests {
    use super::super::patroni::tests::settings;

    #[test]
    fn the_role_is_named_as_sql_names_the_site() {
        let sql = settings().site_sql();
        assert!(
            sql.contains(r#"CREATE DATABASE "guest_book" OWNER "guest_book""#),
            "{sql}"
        );
    }

    #[test]
    fn the_servers_log_is_silenced_before_the_password_is_said() {
        let settings = settings();
        let sql = settings.site_sql();
        let password = sql.find(settings.secrets.site.reveal()).unwrap();
        for setting in ["log_min_error_statement = panic", "log_statement = none"] {
            assert!(sql.find(setting).unwrap() < password);
        }
    }
}
