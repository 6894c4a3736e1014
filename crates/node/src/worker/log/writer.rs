//! The thread that writes the access log.

use super::Batch;
use super::clock::Clock;
use gaiola_model::proxy_file::{Facility, LogFormat, LogTarget};
use jiff::tz::TimeZone;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Batches that wait to be written; the next one is dropped.
const QUEUE_LEN: usize = 64;

/// The file is moved to `FILE.1` when it has grown to this.
const FILE_LIMIT: u64 = 64 * 1024 * 1024;

/// A message to syslog is cut to this, which its servers take.
const MESSAGE_LIMIT: usize = 8 * 1024;

/// A syslog server that takes nothing for this long loses the rest of the batch.
const SEND_LIMIT: Duration = Duration::from_millis(100);

/// Informational (RFC 3164, section 4.1.1).
const SEVERITY: u8 = 6;

/// What the writer's thread is told.
pub(in crate::worker) enum Signal {
    /// Lines to be written.
    Lines(Batch),
    /// The file was moved. Whoever says so has noted it elsewhere: this may find no room.
    Moved,
}

/// The writer, seen from outside its thread.
pub(in crate::worker) struct LogWriter {
    queue: SyncSender<Signal>,
    format: LogFormat,
    lost: Arc<AtomicU64>,
    moved: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl LogWriter {
    /// Opens what lines of this format are written to.
    ///
    /// # Errors
    /// What the system said.
    pub(in crate::worker) fn start(to: &LogTarget, format: LogFormat) -> io::Result<Self> {
        let (queue, batches) = sync_channel(QUEUE_LEN);
        let lost: Arc<AtomicU64> = Arc::default();
        let moved: Arc<AtomicBool> = Arc::default();
        let writer = Writer {
            sink: Sink::open(to)?,
            failing: false,
            lost: Arc::clone(&lost),
            moved: Arc::clone(&moved),
        };
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .stack_size(128 * 1024)
            .spawn(move || writer.run(&batches))?;
        Ok(Self {
            queue,
            format,
            lost,
            moved,
            thread,
        })
    }

    /// Where workers hand their batches to.
    pub(in crate::worker) fn queue(&self) -> SyncSender<Signal> {
        self.queue.clone()
    }

    /// The file was moved: what is written from now on goes to a new one.
    pub(in crate::worker) fn reopen(&self) {
        self.moved.store(true, Ordering::SeqCst);
        // A full queue has a batch that comes next.
        let _ = self.queue.try_send(Signal::Moved);
    }

    /// What stands in the lines.
    pub(in crate::worker) const fn format(&self) -> LogFormat {
        self.format
    }

    /// Lines that could not be written: the disk is full, or nobody listens.
    pub(in crate::worker) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// The thread, which ends once it has written what was handed over. Nothing more is.
    pub(in crate::worker) fn end(self) -> JoinHandle<()> {
        self.thread
    }
}

struct Writer {
    sink: Sink,
    /// Whether the last batch could not be written.
    failing: bool,
    lost: Arc<AtomicU64>,
    /// Whether the file was moved since it was opened.
    moved: Arc<AtomicBool>,
}

impl Writer {
    /// Until nobody is left who may hand lines over.
    fn run(mut self, batches: &Receiver<Signal>) {
        while let Ok(signal) = batches.recv() {
            if self.moved.swap(false, Ordering::SeqCst) {
                self.sink.reopen();
            }
            if let Signal::Lines(batch) = signal {
                self.write(&batch);
            }
        }
    }

    fn write(&mut self, batch: &Batch) {
        let (lost, error) = match self.sink.write(batch) {
            Ok(()) => (0, None),
            Err((lost, error)) => (lost, Some(error)),
        };
        self.lost.fetch_add(lost, Ordering::Relaxed);
        match &error {
            Some(error) if !self.failing => tracing::warn!(%error, "the access log loses lines"),
            Some(_) | None => {}
        }
        self.failing = error.is_some();
    }
}

/// What takes the lines.
enum Sink {
    File(LogFile),
    Stdout,
    Syslog(Syslog),
}

impl Sink {
    fn open(to: &LogTarget) -> io::Result<Self> {
        Ok(match to {
            LogTarget::File(path) => Self::File(LogFile::open(path, FILE_LIMIT)?),
            LogTarget::Stdout => Self::Stdout,
            LogTarget::Udp(address, facility) => {
                let local: SocketAddr = match address {
                    SocketAddr::V4(_) => ([0; 4], 0).into(),
                    SocketAddr::V6(_) => ([0u16; 8], 0).into(),
                };
                let socket = UdpSocket::bind(local)?;
                socket.set_write_timeout(Some(SEND_LIMIT))?;
                Self::Syslog(Syslog::new(Line::Udp(socket, *address), *facility))
            }
            LogTarget::Socket(path, facility) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(SEND_LIMIT))?;
                Self::Syslog(Syslog::new(Line::Unix(socket, path.clone()), *facility))
            }
        })
    }

    /// # Errors
    /// How many lines were not written, and why.
    fn write(&mut self, batch: &Batch) -> Result<(), (u64, io::Error)> {
        let written = match self {
            Self::File(file) => file.write(&batch.bytes),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&batch.bytes).and_then(|()| stdout.flush())
            }
            Self::Syslog(syslog) => return syslog.write(batch),
        };
        written.map_err(|error| (batch.lines, error))
    }

    fn reopen(&mut self) {
        // Each message names its server anew.
        if let Self::File(file) = self {
            file.reopen();
        }
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
    limit: u64,
}

impl LogFile {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let (file, len) = open(path)?;
        let path = path.into();
        Ok(Self {
            path,
            file,
            len,
            limit,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.len >= self.limit {
            self.rotate();
        }
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Keeps one old file.
    fn rotate(&mut self) {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        if let Err(error) = std::fs::rename(&self.path, old) {
            tracing::warn!(%error, "the access log cannot be moved");
        }
        self.reopen();
    }

    fn reopen(&mut self) {
        match open(&self.path) {
            Ok((file, len)) => (self.file, self.len) = (file, len),
            Err(error) => tracing::warn!(%error, "the access log cannot be opened"),
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

/// A syslog server, to which each line is a message as HAProxy sends it: RFC 3164 without a host's name.
struct Syslog {
    line: Line,
    priority: u8,
    clock: Clock,
    /// The message that is being made.
    message: Vec<u8>,
}

/// How messages reach it. It may be started again: none is bound to one that was there.
enum Line {
    Udp(UdpSocket, SocketAddr),
    Unix(UnixDatagram, PathBuf),
}

impl Syslog {
    fn new(line: Line, facility: Facility) -> Self {
        Self {
            line,
            priority: facility.number() * 8 + SEVERITY,
            clock: Clock::new("%b %e %H:%M:%S", TimeZone::system()),
            message: Vec::new(),
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), (u64, io::Error)> {
        let lines = batch.bytes.split(|&byte| byte == b'\n');
        for (sent, line) in (0..batch.lines).zip(lines) {
            self.frame(line, SystemTime::now());
            let told = match &self.line {
                Line::Udp(socket, address) => socket.send_to(&self.message, address),
                Line::Unix(socket, path) => socket.send_to(&self.message, path),
            };
            told.map_err(|error| (batch.lines - sent, error))?;
        }
        Ok(())
    }

    /// Makes the message of a line.
    fn frame(&mut self, line: &[u8], now: SystemTime) {
        let Self {
            priority, message, ..
        } = self;
        message.clear();
        write!(message, "<{priority}>").expect("writing to memory");
        self.clock.write(now, message);
        write!(message, " gaiola[{}]: ", std::process::id()).expect("writing to memory");
        message.extend_from_slice(line);
        message.truncate(MESSAGE_LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(text: &str) -> Batch {
        Batch {
            bytes: text.into(),
            lines: text.lines().count() as u64,
        }
    }

    fn syslog(path: &Path) -> Sink {
        let facility = Facility::of("local7").unwrap();
        Sink::open(&LogTarget::Socket(path.into(), facility)).unwrap()
    }

    #[test]
    fn a_full_file_is_moved_and_one_old_one_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut file = LogFile::open(&path, 4).unwrap();
        for text in ["one\n", "two\n", "three\n"] {
            file.write(text.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        let old = directory.path().join("access.log.1");
        assert_eq!(std::fs::read_to_string(old).unwrap(), "two\n");
    }

    #[test]
    fn a_moved_file_is_opened_anew_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let to = LogTarget::File(path.clone());
        let writer = LogWriter::start(&to, LogFormat::Json).unwrap();
        writer.queue().send(Signal::Lines(batch("one\n"))).unwrap();
        std::fs::rename(&path, directory.path().join("moved")).unwrap();
        writer.reopen();
        writer.queue().send(Signal::Lines(batch("two\n"))).unwrap();
        writer.end().join().unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("two\n"));
    }

    #[test]
    fn each_line_is_a_message_as_haproxy_sends_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let mut sink = syslog(&path);
        sink.write(&batch("one\ntwo\n")).unwrap();
        let message = || {
            let mut bytes = [0; 256];
            let len = server.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..len].to_vec()).unwrap()
        };
        // <190>Nov 26 01:58:24 gaiola[7188]: one
        let first = message();
        let (header, text) = first.split_at(21);
        assert!(
            header.starts_with("<190>") && header.ends_with(' '),
            "{header:?}"
        );
        let pid = std::process::id();
        assert_eq!(text, format!("gaiola[{pid}]: one"));
        assert!(message().ends_with(": two"));
    }

    #[test]
    fn what_no_server_takes_is_counted_and_the_next_one_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut sink = syslog(&path);
        assert_eq!(sink.write(&batch("one\ntwo\n")).unwrap_err().0, 2);
        let server = UnixDatagram::bind(&path).unwrap();
        sink.write(&batch("three\n")).unwrap();
        assert!(server.recv(&mut [0; 256]).unwrap() > 0);
    }

    #[test]
    fn a_long_line_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let long = "a".repeat(2 * MESSAGE_LIMIT);
        syslog(&path).write(&batch(&format!("{long}\n"))).unwrap();
        let mut bytes = vec![0; 3 * MESSAGE_LIMIT];
        assert_eq!(server.recv(&mut bytes).unwrap(), MESSAGE_LIMIT);
    }
}
