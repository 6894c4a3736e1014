//! The operator's command that switches a machine off and on: `[machines] power`.

use anyhow::{Context as _, bail};
use gaiola_model::inventory::Host;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The longest that it may take.
const LIMIT: Duration = Duration::from_secs(55);

/// A command for `sh -c`, and the directory of the site's file.
#[derive(Clone, Debug)]
pub(super) struct Power {
    command: String,
    folder: PathBuf,
}

impl Power {
    /// The command that a file names.
    pub(super) fn of(command: &str, file: &Path) -> Self {
        let folder = file.parent().filter(|it| !it.as_os_str().is_empty());
        Self {
            command: command.into(),
            folder: folder.unwrap_or(Path::new(".")).into(),
        }
    }

    /// Runs it with two more arguments: the machine, and `on` or `off`.
    pub(super) async fn switch(&self, machine: &Host, on: bool) -> anyhow::Result<()> {
        let to = if on { "on" } else { "off" };
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{} \"$@\"", self.command), "sh"])
            .args([&machine.0, to])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let asked = format!("{} {machine} {to}", self.command);
        let ended = timeout(LIMIT, command.output()).await;
        let ended = ended
            .with_context(|| format!("`{asked}` has not ended within {} s", LIMIT.as_secs()))?;
        let ended = ended.with_context(|| format!("cannot run `{asked}`"))?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        bail!("`{asked}`: {}: {}", ended.status, said.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_command_gets_the_machine_and_what_to_do_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let script =
            "#!/bin/sh\necho \"$@\" >> asked\n[ \"$3\" = off ] || { echo broken >&2; exit 3; }\n";
        std::fs::write(folder.path().join("power"), script).unwrap();
        let power = Power::of("sh ./power -v", &folder.path().join("gaiola.toml"));
        let machine = Host("ops@m1".into());
        power.switch(&machine, false).await.unwrap();
        let why = power.switch(&machine, true).await.unwrap_err().to_string();
        assert!(
            why.contains("power -v ops@m1 on") && why.ends_with("3: broken"),
            "{why}"
        );
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        assert_eq!(asked, "-v ops@m1 off\n-v ops@m1 on\n");
    }
}
