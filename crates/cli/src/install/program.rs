//! This very program on every machine: below its version and digest, with a link that names the one in use.

use anyhow::Context as _;
use gaiola_control::ssh::{Contents, Script, Ssh, SshError, Upload, quote};

const FOLDER: &str = "/opt/gaiola";
/// Digits of the digest in the directory's name.
const DIGITS: usize = 12;

/// The program that runs here.
#[derive(Clone)]
pub(crate) struct Program {
    /// `0.2.0-1a2b3c4d5e6f`.
    version: String,
    upload: Upload,
}

impl Program {
    pub(crate) fn own() -> anyhow::Result<Self> {
        let path = std::env::current_exe().context("cannot find this program")?;
        let contents = std::fs::read(&path);
        let contents = contents.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::of(contents.into()))
    }

    fn of(contents: Contents) -> Self {
        let digest = contents.digest();
        let version = format!("{}-{}", env!("CARGO_PKG_VERSION"), &digest[..DIGITS]);
        let path = format!("{FOLDER}/{version}/gaiola");
        Self {
            version,
            upload: Upload::new(contents, path, 0o755),
        }
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Sends the program and switches the link to it, once it has run there; `false`: it is the one in use.
    pub(crate) async fn send(&self, ssh: &Ssh) -> Result<bool, SshError> {
        let sent = self.upload(ssh).await?;
        Ok(switch(ssh, &self.version).await? || sent)
    }

    /// Sends the program beside the one in use; `false`: it was there.
    pub(crate) async fn upload(&self, ssh: &Ssh) -> Result<bool, SshError> {
        ssh.upload(&self.upload).await
    }
}

/// The program of this version, on a machine.
pub(crate) fn path_of(version: &str) -> String {
    format!("{FOLDER}/{version}/gaiola")
}

/// The version in use on a machine; `None`: there is none.
pub(crate) async fn version_on(ssh: Ssh) -> Result<Option<String>, SshError> {
    let text = format!("readlink {FOLDER}/current || true");
    let found = ssh.run(&Script::new("ask for its gaiola", text)).await?;
    Ok(Some(found.trim().to_string()).filter(|found| !found.is_empty()))
}

/// Switches the link to a version, once it has run there; `false`: it is the one in use.
pub(crate) async fn switch(ssh: &Ssh, version: &str) -> Result<bool, SshError> {
    let switch = Script::new("switch to another gaiola", switching(version));
    Ok(ssh.run(&switch).await?.trim() == "switched")
}

fn switching(version: &str) -> String {
    format!(
        "set -eu; cd {FOLDER}; version={version}; \"./$version/gaiola\" --version >/dev/null; \
         if [ \"$(readlink current || true)\" != \"$version\" ]; then \
         ln -sfn \"$version\" .current.new; mv -fT .current.new current; echo switched; fi",
        version = quote(version),
    )
}

/// Removes all versions from a machine but these.
pub(crate) async fn keep_only(ssh: &Ssh, versions: &[&str]) -> Result<(), SshError> {
    let kept: Vec<String> = versions.iter().map(|version| quote(version)).collect();
    let text = format!(
        "cd {FOLDER} || exit 1; for version in [0-9]*-*; do for kept in {}; do [ \"$version\" != \"$kept\" ] || continue 2; done; \
         rm -rf -- \"$version\"; done",
        kept.join(" ")
    );
    ssh.run(&Script::new("remove older versions", text))
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_its_version_and_its_digest() {
        let [one, two] = ["one", "two"].map(|text| Program::of(text.to_string().into()));
        assert!(one.version().starts_with(env!("CARGO_PKG_VERSION")));
        assert_ne!(one.version(), two.version());
    }
}
