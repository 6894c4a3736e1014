//! `keeper-state.json`: the keeper's report to the agent and to operators.

use gaiola_model::Time;
use gaiola_model::keeper::KeeperState;
use gaiola_wire::document;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shortest interval between two writes for counters alone.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);

/// The file, and its current content.
pub(super) struct StateFile {
    path: PathBuf,
    temporary: PathBuf,
    written: Option<KeeperState>,
    /// When to write counters that changed.
    counters_at: Option<Time>,
}

impl StateFile {
    /// The file in this directory; nothing is written yet.
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join("keeper-state.json"),
            temporary: directory.join(".keeper-state.json"),
            written: None,
            counters_at: None,
        }
    }

    /// Replaces the file as a whole if its content would change.
    pub(super) fn write(&mut self, now: Time, state: KeeperState) {
        if self.written.as_ref() == Some(&state) {
            return;
        }
        let counters_alone = self
            .written
            .as_ref()
            .is_some_and(|written| differ_in_counters_alone(written, &state));
        let due = *self.counters_at.get_or_insert(now + COUNTERS_INTERVAL);
        if counters_alone && now < due {
            return;
        }
        self.counters_at = None;
        match self.replace(&state) {
            Ok(()) => self.written = Some(state),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "cannot write the keeper's state")
            }
        }
    }

    /// When to call `write` if nothing else happens first.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.counters_at
    }

    fn replace(&self, state: &KeeperState) -> std::io::Result<()> {
        let text = document::encode(state, state.schema)?;
        std::fs::write(&self.temporary, text)?;
        std::fs::rename(&self.temporary, &self.path)
    }
}

fn differ_in_counters_alone(written: &KeeperState, state: &KeeperState) -> bool {
    let otherwise = KeeperState {
        rejected: written.rejected.clone(),
        ..state.clone()
    };
    otherwise == *written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_rejected_packets_writes_once_a_second() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = StateFile::new(directory.path());
        let at = |ms| Time::from_start(Duration::from_millis(ms));
        let state = |n| KeeperState {
            rejected: [("wrong seal".to_string(), n)].into(),
            ..KeeperState::default()
        };
        let read = || -> KeeperState {
            let text = std::fs::read(directory.path().join("keeper-state.json")).unwrap();
            document::decode(&text).unwrap()
        };
        file.write(at(0), state(0));
        file.write(at(10), state(1));
        assert_eq!(read(), state(0));
        assert_eq!(file.next_deadline(), Some(at(1010)));
        file.write(at(1010), state(2));
        assert_eq!(read(), state(2));
        assert_eq!(file.next_deadline(), None);
    }
}
