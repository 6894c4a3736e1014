//! Files for machines: written beside their place, checked by their digest, and renamed.

use super::{Script, Ssh, SshError, quote};
use bytes::Bytes;
use gaiola_wire::hex;
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// The longest that a file may be on its way.
const LIMIT: Duration = Duration::from_secs(600);

/// Bytes for a machine. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents(Bytes);

impl Contents {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Their SHA-256 in hexadecimal.
    pub fn digest(&self) -> String {
        hex::encode(&Sha256::digest(&self.0))
    }
}

impl From<Vec<u8>> for Contents {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<String> for Contents {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// A file for machines.
#[derive(Clone, Debug)]
pub struct Upload {
    contents: Contents,
    /// SHA-256 in hexadecimal.
    digest: String,
    path: String,
    mode: u32,
}

impl Upload {
    /// A file at an absolute path, whose directory is made where there is none.
    pub fn new(contents: impl Into<Contents>, path: impl Into<String>, mode: u32) -> Self {
        let contents = contents.into();
        Self {
            digest: contents.digest(),
            contents,
            path: path.into(),
            mode,
        }
    }

    /// Prints whether the file is there.
    fn look(&self) -> String {
        format!(
            "p={path}; if [ -f \"$p\" ] && printf '%s  %s\\n' {digest} \"$p\" | sha256sum -c --status 2>/dev/null; \
             then chmod {mode:o} \"$p\"; echo held; fi",
            path = quote(&self.path),
            digest = self.digest,
            mode = self.mode,
        )
    }

    fn put(&self) -> String {
        format!(
            "set -eu; p={path}; umask 022; mkdir -p \"${{p%/*}}\"; new=\"${{p%/*}}/.${{p##*/}}.new\"; umask 077; \
             trap 'rm -f \"$new\"' EXIT; cat >\"$new\"; \
             printf '%s  %s\\n' {digest} \"$new\" | sha256sum -c --status || {{ echo 'it did not arrive as it was sent' >&2; exit 1; }}; \
             chmod {mode:o} \"$new\"; sync \"$new\"; mv -f \"$new\" \"$p\"",
            path = quote(&self.path),
            digest = self.digest,
            mode = self.mode,
        )
    }
}

impl Ssh {
    /// Sends a file, as root's; `false`: it was there.
    ///
    /// # Errors
    /// Where it did not arrive whole; what was in its place is untouched then.
    pub async fn upload(&self, file: &Upload) -> Result<bool, SshError> {
        let step = format!("write {}", file.path);
        let found = self.run(&Script::new(&step, file.look())).await?;
        if found.trim() == "held" {
            return Ok(false);
        }
        let put = Script::new(step, file.put());
        let put = put.input(file.contents.clone()).within(LIMIT);
        self.run(&put).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Output, Stdio};

    fn shell(script: &str, input: &[u8]) -> Output {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    #[test]
    fn a_file_takes_its_place_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new folder/pro'gram");
        let text = path.to_str().unwrap();
        let file = Upload::new(b"the program".to_vec(), text, 0o755);
        let held = || String::from_utf8(shell(&file.look(), b"").stdout).unwrap();
        assert_eq!(held(), "");
        assert!(shell(&file.put(), b"the program").status.success());
        assert_eq!(held(), "held\n");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o755
        );
        let cut_off = shell(&file.put(), b"the pro");
        assert_eq!(cut_off.stderr, b"it did not arrive as it was sent\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"the program");
        let names = std::fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(names.count(), 1, "nothing is left beside it");
    }
}
