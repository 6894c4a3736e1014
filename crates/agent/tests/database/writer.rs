//! Writes rows with unique ids, one after another, to whichever server takes them, and remembers the acknowledged ones.

use crate::sql::Psql;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// No fault here keeps writes back for longer.
const LIMIT: Duration = Duration::from_secs(90);

pub(crate) struct Writer {
    acknowledged: Arc<Mutex<Vec<(u64, Instant)>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(crate) fn start(psql: Psql) -> Self {
        let acknowledged: Arc<Mutex<Vec<_>>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let thread = thread::spawn({
            let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
            move || {
                for id in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if write(&psql, id) {
                        acknowledged.lock().unwrap().push((id, Instant::now()));
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self {
            acknowledged,
            stop,
            thread,
        }
    }

    /// Waits until that number of further writes is acknowledged.
    pub(crate) fn more(&self, count: usize) {
        let start = Instant::now();
        let wanted = self.acknowledged.lock().unwrap().len() + count;
        while self.acknowledged.lock().unwrap().len() < wanted {
            assert!(start.elapsed() < LIMIT, "no writes");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// All acknowledged ids, and the longest time without one.
    pub(crate) fn finish(self) -> (Vec<u64>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let acknowledged = self.acknowledged.lock().unwrap();
        let gaps = acknowledged.windows(2).map(|pair| pair[1].1 - pair[0].1);
        (
            acknowledged.iter().map(|(id, _)| *id).collect(),
            gaps.max().unwrap_or_default(),
        )
    }
}

/// Whether it was acknowledged. A warning means that the wait for the standby was cut short: then it was not.
fn write(psql: &Psql, id: u64) -> bool {
    let sql = format!("INSERT INTO entries VALUES ({id})");
    let output = psql
        .command("127.0.0.21,127.0.0.22", "read-write", &sql)
        .output()
        .unwrap();
    output.status.success() && output.stderr.is_empty()
}
