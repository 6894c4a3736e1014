//! A client that opens a new connection to the VIP every 10 ms and writes down which server answered.

use crate::site::{VIP, WIDE_VIP, wait};
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_millis(100);

type Answers = Arc<Mutex<Vec<(Instant, String)>>>;

/// A probe that runs until it is dropped.
pub(crate) struct Probe {
    answers: Answers,
    failed: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Probe {
    pub(crate) fn start() -> Self {
        Self::to(VIP, TIMEOUT)
    }

    /// The same, of the IPv6 VIP.
    pub(crate) fn wide() -> Self {
        Self::to(WIDE_VIP, TIMEOUT)
    }

    /// A client that waits for each answer for as long as people do.
    pub(crate) fn patient() -> Self {
        Self::to(VIP, Duration::from_secs(10))
    }

    /// As [`Self::patient`], of the IPv6 VIP.
    pub(crate) fn patient_wide() -> Self {
        Self::to(WIDE_VIP, Duration::from_secs(10))
    }

    fn to(vip: IpAddr, timeout: Duration) -> Self {
        let failed = Arc::new(AtomicUsize::new(0));
        let failures = failed.clone();
        let answers = Answers::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (written, stopped) = (answers.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let begin = Instant::now();
                match ask(vip, timeout) {
                    Some(name) => written.lock().unwrap().push((Instant::now(), name)),
                    None => {
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(INTERVAL.saturating_sub(begin.elapsed()));
            }
        });
        Self {
            answers,
            failed,
            stop,
        }
    }

    /// Waits until `server` has answered ten times in a row.
    pub(crate) fn wait_for(&self, server: &str) {
        let known = self.answers.lock().unwrap().len();
        wait(&format!("answers of {server}"), || {
            let answers = self.answers.lock().unwrap();
            let tail = &answers[known..];
            tail.len() >= 10 && tail[tail.len() - 10..].iter().all(|(_, it)| it == server)
        });
    }

    /// Waits for this many more answers, and returns all that came meanwhile.
    pub(crate) fn next(&self, count: usize) -> Vec<String> {
        let known = self.answers.lock().unwrap().len();
        let length = || self.answers.lock().unwrap().len();
        wait("more answers", || length() >= known + count);
        let answers = self.answers.lock().unwrap();
        answers[known..].iter().map(|(_, it)| it.clone()).collect()
    }

    /// How many connections got no answer so far.
    pub(crate) fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// The longest time without an answer since `begin`.
    pub(crate) fn outage(&self, begin: Instant) -> Duration {
        let answers = self.answers.lock().unwrap();
        let first = answers
            .iter()
            .position(|(at, _)| *at >= begin)
            .unwrap_or(answers.len())
            .saturating_sub(1);
        answers[first..]
            .windows(2)
            .map(|pair| pair[1].0 - pair[0].0)
            .max()
            .unwrap_or_default()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask(vip: IpAddr, timeout: Duration) -> Option<String> {
    let vip = SocketAddr::from((vip, 80));
    let mut stream = TcpStream::connect_timeout(&vip, timeout).ok()?;
    stream.set_read_timeout(Some(timeout)).ok()?;
    let mut name = String::new();
    stream.read_to_string(&mut name).ok()?;
    Some(name)
}
