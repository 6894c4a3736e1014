//! A client that opens a new connection to the VIP every 10 ms and writes down which server answered.

use crate::site::{VIP, wait};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_millis(100);

type Answers = Arc<Mutex<Vec<(Instant, String)>>>;

/// A probe that runs until it is dropped.
pub(crate) struct Probe {
    answers: Answers,
    stop: Arc<AtomicBool>,
}

impl Probe {
    pub(crate) fn start() -> Self {
        let answers = Answers::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (written, stopped) = (answers.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let begin = Instant::now();
                if let Some(name) = ask() {
                    written.lock().unwrap().push((Instant::now(), name));
                }
                std::thread::sleep(INTERVAL.saturating_sub(begin.elapsed()));
            }
        });
        Self { answers, stop }
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

fn ask() -> Option<String> {
    let vip = SocketAddr::from((VIP, 80));
    let mut stream = TcpStream::connect_timeout(&vip, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    let mut name = String::new();
    stream.read_to_string(&mut name).ok()?;
    Some(name)
}
