//! This very program on every machine: below its version and digest, with a link that names the one in use.

use anyhow::Context as _;
use gaiola_control::ssh::{Contents, Script, Ssh, SshError, Upload, quote};

const FOLDER: &str = "/opt/gaiola";
/// Digits of the digest in the directory's name.
const DIGITS: usize = 12;

/// The program that runs here.
#[derive(Clone)]
pub(super) struct Program {
    /// `0.2.0-1a2b3c4d5e6f`.
    version: String,
    upload: Upload,
}

impl Program {
    pub(super) fn own() -> anyhow::Result<Self> {
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

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Sends the program and switches the link to it, once it has run there; `false`: it is the one in use.
    pub(super) async fn send(&self, ssh: &Ssh) -> Result<bool, SshError> {
        let sent = ssh.upload(&self.upload).await?;
        let switch = Script::new("switch to this gaiola", self.switch());
        let switched = ssh.run(&switch).await?;
        Ok(sent || switched.trim() == "switched")
    }

    fn switch(&self) -> String {
        format!(
            "set -eu; cd {FOLDER}; version={version}; \"./$version/gaiola\" --version >/dev/null; \
             if [ \"$(readlink current || true)\" != \"$version\" ]; then \
             ln -sfn \"$version\" .current.new; mv -fT .current.new current; echo switched; fi",
            version = quote(&self.version),
        )
    }
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
