//! Ticks of a timer of the kernel's: each wakes an event loop once, where its own timers may wake it several times for one.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A tick at every interval. Those that nobody waited for count as one.
///
/// ```
/// use gaiola_os::ticks::Ticks;
/// use std::time::Duration;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let ticks = Ticks::every(Duration::from_millis(1))?;
/// ticks.next().await?;
/// ticks.next().await?;
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Ticks(AsyncFd<OwnedFd>);

impl Ticks {
    /// The first tick comes after one interval, which is longer than zero. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the kernel has no timer to give.
    pub fn every(interval: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let interval = Timespec::try_from(interval).map_err(io::Error::other)?;
        let every = Itimerspec {
            it_interval: interval,
            it_value: interval,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;
        // SAFETY: an `OwnedFd` is the descriptor that it owns, always the same one.
        Ok(Self(unsafe {
            AsyncFd::register_with_interest(timer, Interest::READABLE)
        }?))
    }

    /// Waits for the next tick.
    ///
    /// # Errors
    /// If the timer cannot be read.
    pub async fn next(&self) -> io::Result<()> {
        let mut count = [0; 8];
        let read = self.0.async_io(Interest::READABLE, |timer| {
            rustix::io::read(timer, &mut count).map_err(io::Error::from)
        });
        read.await.map(drop)
    }
}
