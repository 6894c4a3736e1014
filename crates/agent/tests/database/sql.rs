//! psql as the site's own role. Its password is in a file.

use gaiola_agent::engine::Settings;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone)]
pub(crate) struct Psql {
    program: PathBuf,
    role: String,
    passwords: PathBuf,
}

impl Psql {
    pub(crate) fn new(settings: &Settings, dir: &Path) -> Self {
        let role = settings.site.sql();
        let passwords = dir.join("pgpass");
        let line = format!("*:*:*:{role}:{}\n", settings.secrets.site.reveal());
        fs::write(&passwords, line).unwrap();
        fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).unwrap();
        let program = settings.tools.postgres_bin.join("psql");
        Self {
            program,
            role,
            passwords,
        }
    }

    pub(crate) fn command(&self, hosts: &str, session: &str, sql: &str) -> Command {
        let role = &self.role;
        let mut psql = Command::new(&self.program);
        psql.args(["-X", "-A", "-t", "-q", "-w", "-c", sql])
            .arg(format!(
                "host={hosts} user={role} dbname={role} connect_timeout=2 target_session_attrs={session}"
            ))
            .env_clear()
            .env("PGPASSFILE", &self.passwords);
        psql
    }
}
