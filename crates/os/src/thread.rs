//! Threads of other processes, as `/proc/PID/task` shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A thread of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread(PathBuf);

/// The thread of a process that has this name, of at most 15 bytes. `None`: there is none, or it cannot be read.
pub fn named(pid: i32, name: &str) -> Option<Thread> {
    let tasks = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).ok()?;
    let mut tasks = tasks.flatten().map(|task| task.path());
    let is_named = |task: &PathBuf| {
        let comm = fs::read(task.join("comm"));
        comm.is_ok_and(|comm| comm.trim_ascii_end() == name.as_bytes())
    };
    tasks.find(is_named).map(Thread)
}

impl Thread {
    /// Its state (`proc(5)`): R where it runs or waits for a processor. `None`: it has ended.
    pub fn state(&self) -> Option<char> {
        let stat = fs::read(self.0.join("stat")).ok()?;
        super::process::state(&String::from_utf8_lossy(&stat))?
            .chars()
            .next()
    }

    /// For how long it has run. `None`: it has ended, or the kernel does not say (it is built without
    /// CONFIG_SCHED_INFO).
    pub fn ran(&self) -> Option<Duration> {
        let schedstat = fs::read_to_string(self.0.join("schedstat")).ok()?;
        let ran = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Duration::from_nanos(ran))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Instant;

    #[test]
    fn a_thread_that_computes_is_told_from_one_that_sleeps() {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (end, ended) = mpsc::channel::<()>();
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let computes = thread("os-computes").spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let waits = thread("os-waits").spawn(move || ended.recv());
        let pid = i32::try_from(std::process::id()).unwrap();
        let found = |name: &str| {
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                // It names itself once it runs.
                if let Some(thread) = named(pid, name) {
                    return thread;
                }
                assert!(Instant::now() < deadline, "{name} is not found");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let (busy, idle) = (found("os-computes"), found("os-waits"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while busy.ran().unwrap() < Duration::from_millis(20) || idle.state() != Some('S') {
            assert!(Instant::now() < deadline, "{:?}", busy.ran());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(busy.state(), Some('R'));
        stop.store(true, Ordering::Relaxed);
        drop(end);
        computes.unwrap().join().unwrap();
        assert!(waits.unwrap().join().unwrap().is_err());
        assert_eq!(named(pid, "os-nobody"), None);
    }
}
