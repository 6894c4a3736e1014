//! `keeper.json`: read again as soon as it is written.

use gaiola_model::keeper::{KeeperConfig, KeeperConfigError};
use gaiola_wire::document::{self, DocumentError};
use gaiola_wire::vrrp::{Key, KeyError};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The file, and its last content.
pub(super) struct ConfigFile {
    path: PathBuf,
    watch: OwnedFd,
    text: Option<String>,
    unread: bool,
    problem: Option<ConfigFileError>,
}

/// Why `keeper.json` is not followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigFileError {
    #[error("cannot read keeper.json: {0}")]
    Read(io::Error),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Config(#[from] KeeperConfigError),
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl ConfigFile {
    /// Watches the file in this directory, whether it exists yet or not.
    pub(super) fn watch(directory: &Path) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let flags = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&watch, directory, flags)?;
        Ok(Self {
            path: directory.join("keeper.json"),
            watch,
            text: None,
            unread: true,
            problem: None,
        })
    }

    /// The configuration, if it differs from the last one returned. A file that is missing or invalid changes nothing.
    pub(super) fn changed(&mut self) -> Option<KeeperConfig> {
        self.drain();
        if !std::mem::take(&mut self.unread) {
            return None;
        }
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.problem = Some(ConfigFileError::Read(error));
                return None;
            }
        };
        if self.text.as_ref() == Some(&text) {
            return None;
        }
        let config = parse(&text);
        self.text = Some(text);
        self.problem = None;
        config
            .inspect_err(|problem| tracing::warn!(%problem, "ignored keeper.json"))
            .map_err(|problem| self.problem = Some(problem))
            .ok()
    }

    /// Whether it was not read yet.
    pub(super) const fn is_unread(&self) -> bool {
        self.unread
    }

    /// What is wrong with the file.
    pub(super) fn problem(&self) -> Option<&ConfigFileError> {
        self.problem.as_ref()
    }

    fn drain(&mut self) {
        let mut events = [0u8; 4096];
        while matches!(rustix::io::read(&self.watch, &mut events), Ok(1..)) {
            self.unread = true;
        }
    }
}

impl AsFd for ConfigFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

fn parse(text: &str) -> Result<KeeperConfig, ConfigFileError> {
    let config: KeeperConfig = document::decode(text.as_bytes())?;
    config.check()?;
    config.key.as_deref().map(Key::from_hex).transpose()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"interface": "eth0", "address": "10.77.1.1"}"#;

    #[test]
    fn a_file_is_given_once_and_again_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keeper.json");
        let mut file = ConfigFile::watch(directory.path()).unwrap();
        assert_eq!(file.changed(), None);
        std::fs::write(&path, GOOD).unwrap();
        assert!(file.changed().is_some());
        std::fs::write(&path, GOOD).unwrap();
        assert_eq!(file.changed(), None);
        std::fs::write(&path, GOOD.replace("1.1", "1.2")).unwrap();
        assert!(file.changed().is_some());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.changed(), None);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_reported_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keeper.json");
        let mut file = ConfigFile::watch(directory.path()).unwrap();
        for bad in [
            "{",
            r#"{"interface": "eth0", "address": "10.77.1.1", "key": "0102"}"#,
        ] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(file.changed(), None);
            assert!(file.problem().is_some());
        }
        std::fs::write(&path, GOOD).unwrap();
        assert!(file.changed().is_some());
        assert!(file.problem().is_none());
    }
}
