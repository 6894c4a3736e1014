//! Standard error, which is the log of a process.
//!
//! A thread of its own writes the lines: a pipe without a reader, a terminal that has hung up or a full disk neither ends nor
//! blocks the thread that logs. Lines that cannot be written, or do not fit the queue, are counted and dropped; their number
//! is logged once writing works again.

use crate::signal::spawn_undisturbed;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Size of the queue, in bytes; a line that does not fit is dropped.
const ROOM: usize = 256 * 1024;

/// Interval between two attempts to log how many lines were lost.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Timeout for a panic's message.
const LAST_WORDS: Duration = Duration::from_millis(200);

static LINES: Lines = Lines::new();

/// Queues a line, without waiting; nothing is written before [`start`] or [`flush`] is called.
pub fn line(text: &str) {
    LINES.push(text.as_bytes());
}

/// Starts the writer thread, unless it runs. A user namespace must be entered before, while the process has one thread.
pub fn start() {
    LINES.start();
}

/// Waits until every queued line is written or dropped, but no longer than `limit`.
pub fn flush(limit: Duration) {
    LINES.start();
    LINES.flush(limit);
}

/// Lines that were dropped since the process began.
pub fn lost() -> u64 {
    LINES.lost.load(Ordering::Relaxed)
}

/// Logs panics through the queue: the standard library's own hook would block on the reader.
pub fn take_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        let trace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{backtrace}\n"),
            _ => String::new(),
        };
        line(&format!("thread {name} panicked: {panic}\n{trace}"));
        flush(LAST_WORDS);
    }));
}

/// Target of a formatter: each write must be a whole line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The queue of lines.
struct Lines {
    pending: Mutex<Pending>,
    /// Signals that the queue is not empty.
    some: Condvar,
    /// Signals that everything is written.
    none: Condvar,
    lost: AtomicU64,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Whether the writer thread runs.
    started: bool,
    /// Whether the writer thread is writing, or about to log what was lost.
    busy: bool,
    /// Dropped lines that were not reported yet.
    unreported: u64,
}

impl Lines {
    const fn new() -> Self {
        Self {
            pending: Mutex::new(Pending {
                bytes: Vec::new(),
                started: false,
                busy: false,
                unreported: 0,
            }),
            some: Condvar::new(),
            none: Condvar::new(),
            lost: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut pending = self.lock();
        if pending.bytes.len() + line.len() > ROOM {
            self.give_up(&mut pending, count(line));
            return;
        }
        pending.bytes.extend_from_slice(line);
        self.some.notify_one();
    }

    fn give_up(&self, pending: &mut Pending, lines: u64) {
        pending.unreported += lines;
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    fn start(&'static self) {
        let mut pending = self.lock();
        if pending.started {
            return;
        }
        let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else {
            return;
        };
        let thread = std::thread::Builder::new()
            .name("log".into())
            .stack_size(128 * 1024);
        let spawned = spawn_undisturbed(thread, move || self.write_for_ever(stderr.into()));
        pending.started = spawned.is_ok();
    }

    fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut pending = self.lock();
        while pending.started && (pending.busy || !pending.bytes.is_empty()) {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return;
            };
            let waited = self.none.wait_timeout(pending, left);
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write_for_ever(&self, out: std::fs::File) {
        let mut sink = Sink::new(out);
        loop {
            let (batch, unreported) = self.next(sink.is_failing());
            let reported = unreported == 0 || sink.write(missing(unreported).as_bytes()).is_ok();
            let lost = sink.write(&batch).map_or_else(|(lost, _)| lost, |()| 0);
            let mut pending = self.lock();
            pending.unreported -= if reported { unreported } else { 0 };
            self.give_up(&mut pending, lost);
        }
    }

    /// Waits for lines, or until the next report of lost lines is due; returns the bytes to write, and the number lost.
    fn next(&self, failing: bool) -> (Vec<u8>, u64) {
        let mut pending = self.lock();
        pending.busy = false;
        self.none.notify_all();
        let nothing = |pending: &mut Pending| pending.bytes.is_empty();
        if pending.unreported == 0 {
            let waited = self.some.wait_while(pending, nothing);
            pending = waited.unwrap_or_else(PoisonError::into_inner);
        } else if failing {
            let waited = self.some.wait_timeout_while(pending, TRY_AGAIN, nothing);
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        pending.busy = true;
        (std::mem::take(&mut pending.bytes), pending.unreported)
    }
}

fn missing(lines: u64) -> String {
    let now = jiff::Timestamp::now();
    format!("{now:.6}  WARN {lines} lines are missing here: they could not be written\n")
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// The destination of the lines.
pub struct Sink<W> {
    out: W,
    /// Whether the last lines could not be written.
    failing: bool,
    /// Whether the last line written is incomplete.
    torn: bool,
}

impl<W: Write> Sink<W> {
    /// Writes to `out`, which may block.
    pub const fn new(out: W) -> Self {
        Self {
            out,
            failing: false,
            torn: false,
        }
    }

    /// Whether the last lines could not be written.
    const fn is_failing(&self) -> bool {
        self.failing
    }

    /// Writes lines. A line left incomplete before is ended first.
    ///
    /// # Errors
    /// The number of lines that were not written whole, and why.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let mut rest = lines;
        let written = self.end_torn().and_then(|()| self.write_some(&mut rest));
        self.failing = written.is_err();
        let last = lines[..lines.len() - rest.len()].last();
        self.torn |= self.failing && last.is_some_and(|&byte| byte != b'\n');
        written.map_err(|error| (count(rest), error))
    }

    fn end_torn(&mut self) -> io::Result<()> {
        if self.torn {
            self.write_some(&mut &b"\n"[..])?;
            self.torn = false;
        }
        Ok(())
    }

    /// Writes until nothing is left, or no more can be written.
    fn write_some(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => *rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another holder of the descriptor made it non-blocking; this thread may wait.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{BufRead as _, BufReader};

    /// A disk with a limited number of free bytes.
    struct Disk {
        room: usize,
        written: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.room - self.written.len());
            self.written.extend_from_slice(&bytes[..fits]);
            match fits {
                0 => Err(io::ErrorKind::StorageFull.into()),
                fits => Ok(fits),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_torn_is_ended_before_the_next() {
        let mut sink = Sink::new(Disk {
            room: 6,
            written: Vec::new(),
        });
        assert_eq!(sink.write(b"one\ntwo\nthree\n").unwrap_err().0, 2);
        assert_eq!(sink.write(b"four\n").unwrap_err().0, 1);
        sink.out.room = 100;
        sink.write(b"five\n").unwrap();
        assert_eq!(sink.out.written, b"one\ntw\nfive\n");
    }

    #[test]
    fn what_finds_no_room_is_counted_and_reported_once_somebody_reads() {
        static LINES: Lines = Lines::new();
        let (read, write) = io::pipe().unwrap();
        let out = File::from(std::os::fd::OwnedFd::from(write));
        std::thread::spawn(move || LINES.write_for_ever(out));
        let line = [&[b'a'; 1023][..], b"\n"].concat();
        // Without a reader, no call may block.
        (0..1000).for_each(|_| LINES.push(&line));
        let lost = LINES.lost.load(Ordering::Relaxed);
        assert!(lost > 0);
        let mut reported = 0;
        for line in BufReader::new(read).lines().map(Result::unwrap) {
            if let Some((before, _)) = line.split_once(" lines are missing here") {
                let (_, count) = before.rsplit_once(' ').unwrap();
                reported += count.parse::<u64>().unwrap();
            }
            if reported == lost {
                return;
            }
        }
        panic!("it ended");
    }
}
