//! `gaiola keeper vip`: holds virtual addresses by VRRP, and releases them when the data plane dies.
//!
//! One thread and no runtime, so that nothing else can block it: `ppoll` over a handful of descriptors, real-time
//! scheduling where it is allowed, and the decisions of [`gaiola_core::vrrp`]. All of its files are in one directory
//! (`/run/gaiola`):
//!
//! - `keeper.json`: [`KeeperConfig`](gaiola_model::keeper::KeeperConfig), written by the agent; a new one is applied at
//!   once, and VIPs that it does not change are not touched. Without the file the keeper waits; if it disappears, the
//!   last one stays in force.
//! - `keeper.sock`: every worker of the proxy holds a connection to it and sends heartbeats (`beats::Beats`).
//! - `keeper-state.json`: [`KeeperState`](gaiola_model::keeper::KeeperState), written on every change.
//!
//! On SIGHUP the program that stands now where this one was started from takes this one's place in the same process: the VIPs stay in
//! the kernel meanwhile, and it finds them there.
//!
//! Sealed messages travel a second time, through the site's other servers (`voice::Voice`, `agent::relay`).

mod beats;
mod config_file;
mod holder;
mod network;
mod schedule;
mod state_file;
mod voice;
mod workers;

use config_file::ConfigFile;
use gaiola_model::Time;
use gaiola_model::vrrp::Stamp;
use gaiola_os::realtime;
use gaiola_os::signal::{HangUp, Termination};
use holder::Holder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use state_file::StateFile;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use voice::Voice;
use workers::Workers;

/// How the keeper is started.
#[derive(Clone, Debug)]
pub struct VipArgs {
    /// The server's run directory, where its files and its socket are.
    pub directory: PathBuf,
    /// Whether to request real-time scheduling and memory that is never paged out. Where it is not allowed the keeper runs
    /// without.
    pub realtime: bool,
}

/// The keeper could not start, or could not continue.
#[derive(Debug, thiserror::Error)]
#[error("the VIP keeper cannot {tried}")]
pub struct KeeperError {
    tried: String,
    source: io::Error,
}

/// Longest sleep: bounds how long a change that wakes no descriptor goes unnoticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// Holds VIPs until SIGTERM or SIGINT; then gives them to another balancer, and returns.
pub fn run(args: VipArgs) -> Result<(), KeeperError> {
    let failed = |tried: &str| {
        let tried = tried.to_owned();
        move |source| KeeperError { tried, source }
    };
    let directory = args.directory.as_path();
    std::fs::create_dir_all(directory).map_err(failed(&format!(
        "make the directory {}",
        directory.display()
    )))?;
    let mut keeper = Keeper {
        started: Instant::now(),
        termination: Termination::block().map_err(failed("read signals"))?,
        hang_up: HangUp::block().map_err(failed("read signals"))?,
        config: ConfigFile::watch(directory).map_err(failed("watch keeper.json"))?,
        workers: Workers::listen(directory).map_err(failed("listen on keeper.sock"))?,
        state: StateFile::new(directory),
        holder: Holder::new(Voice::new(Stamp(microseconds_since_1970()), first_ping())),
        stopping: false,
    };
    if args.realtime {
        be_prompt();
    }
    while !keeper.turn().map_err(failed("wait for events"))? {}
    Ok(())
}

/// What woke a keeper.
#[derive(Clone, Copy, Debug)]
struct Woken {
    by_signal: bool,
    by_config: bool,
    by_network: bool,
}

impl Woken {
    /// It did not sleep, or not until something happened: it looks for messages.
    const EARLY: Self = Self {
        by_signal: false,
        by_config: false,
        by_network: true,
    };
}

struct Keeper {
    started: Instant,
    termination: Termination,
    hang_up: HangUp,
    config: ConfigFile,
    workers: Workers,
    state: StateFile,
    holder: Holder,
    stopping: bool,
}

impl Keeper {
    /// Sleeps until something happens and handles it; `true`: every VIP is handed over, the process may exit.
    ///
    /// Input is handled before deadlines, so that a keeper that was frozen first reads what it missed.
    fn turn(&mut self) -> io::Result<bool> {
        let woken = match self.config.is_unread() {
            true => Woken::EARLY,
            false => self.sleep()?,
        };
        let now = self.now();
        self.stopping |= woken.by_signal && self.termination.came();
        if woken.by_signal && self.hang_up.came() && !self.stopping {
            self.holder.be_exchanged(now);
            let error = be_replaced();
            tracing::error!(%error, "the program that is to take this one's place cannot be run");
        }
        if (woken.by_config || self.config.is_unread())
            && let Some(config) = self.config.changed()
        {
            self.holder.configure(now, config);
        }
        self.workers.read(now);
        let alive = self.workers.verdict(now);
        self.holder
            .attend(now, alive, woken.by_network, self.stopping);
        self.state.write(now, self.holder.state(now, &self.config));
        Ok(self.stopping && self.holder.is_released())
    }

    /// Sleeps until something happens, and says what.
    fn sleep(&self) -> io::Result<Woken> {
        let now = self.now();
        let until = [
            self.holder.next_deadline(now),
            self.workers.next_deadline(now),
            self.state.next_deadline(),
        ];
        let until = until.into_iter().flatten().min();
        let span = until.map_or(LONGEST_SLEEP, |until| (until - now).min(LONGEST_SLEEP));
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![
            self.termination.as_fd(),
            self.hang_up.as_fd(),
            self.config.as_fd(),
            self.workers.as_fd(),
        ];
        let ours = descriptors.len();
        self.holder.descriptors(&mut descriptors);
        let mut waits: Vec<PollFd<'_>> = descriptors
            .into_iter()
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        let span = Timespec::try_from(span).expect("half a second fits");
        match poll(&mut waits, Some(&span)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Woken::EARLY),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |at: usize| !waits[at].revents().is_empty();
        Ok(Woken {
            by_signal: is_ready(0) || is_ready(1),
            by_config: is_ready(2),
            by_network: (ours..waits.len()).any(is_ready),
        })
    }

    fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }
}

/// Runs the program of this process's command line in its place, which leads to another one after an upgrade. It returns only if that
/// fails.
fn be_replaced() -> io::Error {
    use std::os::unix::process::CommandExt as _;
    let mut words = std::env::args_os();
    // Signals are not blocked from here until the new program blocks them.
    HangUp::ignore();
    let error = match words.next() {
        Some(program) => std::process::Command::new(program).args(words).exec(),
        None => io::ErrorKind::NotFound.into(),
    };
    drop((Termination::block(), HangUp::block()));
    error
}

/// Asks the kernel for prompt scheduling. Correctness depends on none of it.
fn be_prompt() {
    if let Err(error) = realtime::prefer_realtime() {
        tracing::debug!(%error, "no real-time scheduling here");
    }
    if let Err(error) = realtime::stay_in_memory() {
        tracing::debug!(%error, "memory may be paged out here");
    }
}

/// Answers to an earlier keeper's pings prove nothing.
fn first_ping() -> u64 {
    getrandom::u64().unwrap_or_default()
}

fn microseconds_since_1970() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
