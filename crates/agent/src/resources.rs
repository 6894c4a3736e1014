//! Reads this server's free resources at intervals, on a thread of its own: a disk that hangs blocks nothing else.

use crate::state::Boot;
use gaiola_core::resources::{DiskReading, Reading, Refused, Watch};
use gaiola_model::Time;
use gaiola_model::resources::{Descriptors, Holds, Resources};
use gaiola_os::resources::{self, nearest_to_limit, processes, room, system_files, try_to_write};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Poll interval of the disks.
const POLL: Duration = Duration::from_secs(1);
/// Processes are read in every n-th poll.
const PROCESSES_EACH: u32 = 5;
/// A disk that takes longer to answer counts as hung.
const LIMIT: Duration = Duration::from_secs(3);

/// Processes that the agent has started: their session ids, and their names.
pub(super) type Names = BTreeMap<u32, String>;

/// The state of this server's resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// The last reading.
    pub(super) reading: Reading,
    /// What is reported.
    pub(super) reported: Resources,
}

/// The directories whose file systems are polled.
#[derive(Clone, Debug)]
struct Places {
    state: PathBuf,
    /// PostgreSQL's data; does not exist on other servers.
    data: PathBuf,
}

/// Polls until the agent ends.
pub(super) async fn follow(boot: Boot, names: watch::Receiver<Names>, left: watch::Sender<Left>) {
    let places = Places {
        state: boot.folder().into(),
        data: boot.postgres_data(),
    };
    let (started, mut watch) = (Instant::now(), Watch::default());
    let mut reading = Reading::default();
    for round in 0_u32.. {
        let (asked, names) = (places.clone(), names.borrow().clone());
        let whole = round.is_multiple_of(PROCESSES_EACH);
        let mut read = tokio::task::spawn_blocking(move || {
            let disks = asked.read();
            (disks, whole.then(|| of_processes(&names)))
        });
        let answer = match timeout(LIMIT, &mut read).await {
            Ok(answer) => answer,
            Err(_) => {
                hangs(&mut reading);
                publish(&left, started, &mut watch, &reading);
                read.await
            }
        };
        if let Ok((disks, processes)) = answer {
            reading.disks = disks;
            reading.memory = resources::memory().ok();
            if let Some((used, descriptors)) = processes {
                (reading.used_bytes, reading.descriptors) = (used, descriptors);
            }
            publish(&left, started, &mut watch, &reading);
        }
        sleep(POLL).await;
    }
}

fn publish(left: &watch::Sender<Left>, started: Instant, watch: &mut Watch, reading: &Reading) {
    let reported = watch.step(Time::from_start(started.elapsed()), reading);
    let reading = reading.clone();
    super::send_if_new(left, Left { reading, reported });
}

/// The last reading of the disks is stale: mark all of them as not answering.
fn hangs(reading: &mut Reading) {
    for disk in &mut reading.disks {
        let seconds = LIMIT.as_secs();
        disk.refused = Some(Refused::Other(format!("no answer for {seconds} s")));
    }
}

impl Places {
    fn read(&self) -> Vec<DiskReading> {
        let state = room(&self.state).map(|room| (room, self.state.clone()));
        let data = room(&self.data).map(|room| (room, self.data.clone()));
        let mut found = Vec::new();
        match (state, data) {
            (Ok((state, _)), Ok((data, path))) if state.device == data.device => {
                found.push((Holds::Database, data, path));
            }
            (state, data) => {
                found.extend(state.map(|(room, path)| (Holds::State, room, path)));
                found.extend(data.map(|(room, path)| (Holds::Database, room, path)));
            }
        }
        let disks = found.into_iter().map(|(holds, room, path)| DiskReading {
            holds,
            total_bytes: room.total,
            free_bytes: room.free,
            refused: try_to_write(&path).err().and_then(|error| refused(&error)),
        });
        disks.collect()
    }
}

/// Why a file system rejected a write; `None`: the error says nothing about it, for example while a directory is replaced.
fn refused(error: &io::Error) -> Option<Refused> {
    let errno = Errno::from_io_error(error)?;
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or_default().into();
    match errno {
        Errno::NOSPC | Errno::DQUOT => Some(Refused::NoRoom(words)),
        Errno::ROFS | Errno::IO | Errno::STALE => Some(Refused::Other(words)),
        _ => None,
    }
}

/// The private memory of all processes, and those nearest to their limit of descriptors.
fn of_processes(names: &Names) -> (u64, Vec<Descriptors>) {
    let all = processes().unwrap_or_default();
    let used = all.iter().map(|process| process.private).sum();
    let system = system_files()
        .ok()
        .map(|(open, limit)| (None, (open, limit)));
    let named = nearest_to_limit(&all, names)
        .into_iter()
        .map(|(name, counts)| (Some(name), counts));
    let descriptors = system
        .into_iter()
        .chain(named)
        .map(|(process, (open, limit))| Descriptors {
            process,
            open,
            limit,
        });
    (used, descriptors.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_system_that_holds_both_is_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let places = Places {
            state: folder.path().into(),
            data: data.clone(),
        };
        let holds = |places: &Places| {
            let disks = places.read();
            assert!(disks.iter().all(|disk| disk.refused.is_none()), "{disks:?}");
            disks.iter().map(|disk| disk.holds).collect::<Vec<_>>()
        };
        assert_eq!(holds(&places), [Holds::State]);
        std::fs::create_dir(data).unwrap();
        assert_eq!(holds(&places), [Holds::Database]);
        let elsewhere = Places {
            data: "/dev/shm".into(),
            ..places
        };
        assert_eq!(holds(&elsewhere), [Holds::State, Holds::Database]);
    }

    #[test]
    fn a_full_disk_is_not_one_that_rejects_writes() {
        let of = |errno: Errno| refused(&io::Error::from_raw_os_error(errno.raw_os_error()));
        let no_room = |words: &str| Some(Refused::NoRoom(words.into()));
        assert_eq!(of(Errno::NOSPC), no_room("No space left on device"));
        assert_eq!(of(Errno::DQUOT), no_room("Disk quota exceeded"));
        assert!(matches!(of(Errno::ROFS), Some(Refused::Other(_))));
        assert_eq!(of(Errno::NOENT), None);
    }
}
