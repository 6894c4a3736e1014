//! The thread that writes the access log.

use super::Batch;
use super::clock::Clock;
use gaiola_model::proxy_file::{Facility, LogFormat, LogTarget};
use gaiola_os::stderr;
use jiff::tz::TimeZone;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
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
pub(crate) enum Signal {
    /// Lines to be written.
    Lines(Batch),
    /// The file was moved. Whoever says so has noted it elsewhere: this may find no room.
    Moved,
}

/// The writer, seen from outside its thread.
pub(crate) struct LogWriter {
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
    pub(crate) fn start(to: &LogTarget, format: LogFormat) -> io::Result<Self> {
        let (queue, batches) = sync_channel(QUEUE_LEN);
        let lost: Arc<AtomicU64> = Arc::default();
        let moved: Arc<AtomicBool> = Arc::default();
        let writer = Writer {
            sink: Sink::open(to)?,
            missing: 0,
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
    pub(crate) fn queue(&self) -> SyncSender<Signal> {
        self.queue.clone()
    }

    /// The file was moved: what is written from now on goes to a new one.
    pub(crate) fn reopen(&self) {
        self.moved.store(true, Ordering::SeqCst);
        // A full queue has a batch that comes next.
        let _ = self.queue.try_send(Signal::Moved);
    }

    /// What stands in the lines.
    pub(crate) const fn format(&self) -> LogFormat {
        self.format
    }

    /// Lines that could not be written: the disk is full, or nobody listens.
    pub(crate) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// The thread, which ends once it has written what was handed over. Nothing more is.
    pub(crate) fn end(self) -> JoinHandle<()> {
        self.thread
    }
}

struct Writer {
    sink: Sink,
    /// Lines that could not be written since the last one that could.
    missing: u64,
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
        match self.sink.write(batch) {
            Ok(()) if self.missing > 0 => {
                let lost = std::mem::take(&mut self.missing);
                tracing::info!(lost, "the access log can be written again");
            }
            Ok(()) => {}
            Err((lost, error)) => {
                if self.missing == 0 {
                    tracing::warn!(%error, "the access log loses lines");
                }
                self.missing += lost;
                self.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
    }
}

/// What takes the lines.
enum Sink {
    File(LogFile),
    Stdout(stderr::Sink<File>),
    Syslog(Syslog),
}

impl Sink {
    fn open(to: &LogTarget) -> io::Result<Self> {
        Ok(match to {
            LogTarget::File(path) => Self::File(LogFile::open(path, FILE_LIMIT)?),
            LogTarget::Stdout => {
                let stdout = io::stdout().as_fd().try_clone_to_owned()?;
                Self::Stdout(stderr::Sink::new(stdout.into()))
            }
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
        match self {
            Self::File(file) => file.write(batch),
            Self::Stdout(stdout) => stdout.write(&batch.bytes),
            Self::Syslog(syslog) => syslog.write(batch),
        }
    }

    fn reopen(&mut self) {
        // Each message names its server anew.
        if let Self::File(file) = self {
            file.again();
        }
    }
}

/// A file that has a name. It may be a FIFO, a device or a link as well: these are written to and never moved.
struct LogFile {
    path: PathBuf,
    /// `None`: a FIFO that nobody reads yet, or what could not be opened again.
    file: Option<stderr::Sink<File>>,
    len: u64,
    limit: u64,
}

impl LogFile {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let mut log = Self {
            path: path.into(),
            file: None,
            len: 0,
            limit,
        };
        match log.reopen() {
            Err(error) if !is_unread(&error) => Err(error),
            Ok(()) | Err(_) => Ok(log),
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), (u64, io::Error)> {
        if self.len >= self.limit {
            self.rotate();
        }
        if self.file.is_none() {
            self.reopen().map_err(|error| (batch.lines, error))?;
        }
        if let Some(file) = &mut self.file {
            file.write(&batch.bytes)?;
        }
        self.len += batch.bytes.len() as u64;
        Ok(())
    }

    /// Keeps one old file. What only has its name here, or is no file at all, stays.
    fn rotate(&mut self) {
        let is_file = std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_file());
        if is_file {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            if let Err(error) = std::fs::rename(&self.path, old) {
                tracing::warn!(%error, "cannot rotate the access log");
            }
            self.again();
        } else {
            self.len = 0;
        }
    }

    /// Opens what has the name now; what was open stays where that fails.
    fn again(&mut self) {
        if let Err(error) = self.reopen() {
            tracing::warn!(%error, "cannot open the access log");
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let (file, len) = open(&self.path)?;
        (self.file, self.len) = (Some(stderr::Sink::new(file)), len);
        Ok(())
    }
}

/// Opens a file to append to it. A FIFO that nobody reads is not waited for: that is an error.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    // What is open may take its time: the writer has a thread of its own.
    rustix::io::ioctl_fionbio(&file, false)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

/// Whether this says that nobody reads a FIFO.
fn is_unread(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error())
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
            file.write(&batch(text)).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        let old = directory.path().join("access.log.1");
        assert_eq!(std::fs::read_to_string(old).unwrap(), "two\n");
    }

    #[test]
    fn what_is_no_file_is_never_moved() {
        let directory = tempfile::tempdir().unwrap();
        let [link, fifo, target] =
            ["link", "fifo", "target"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink("/dev/stdout", &link).unwrap();
        let to_file = directory.path().join("to_file");
        std::os::unix::fs::symlink(&target, &to_file).unwrap();
        make_fifo(&fifo);
        let _reader = OpenOptions::new().read(true).write(true).open(&fifo);
        for path in [Path::new("/dev/null"), &link, &fifo, &to_file] {
            let before = std::fs::symlink_metadata(path).unwrap();
            let mut file = LogFile::open(path, 1).unwrap();
            file.write(&batch("\n")).unwrap();
            file.write(&batch("\n")).unwrap();
            let after = std::fs::symlink_metadata(path).unwrap();
            assert_eq!(before.file_type(), after.file_type(), "{path:?}");
            let old = format!("{}.1", path.display());
            assert!(std::fs::symlink_metadata(&old).is_err(), "{old}");
        }
        assert_eq!(std::fs::read(target).unwrap(), b"\n\n");
    }

    fn make_fifo(path: &Path) {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }

    #[test]
    fn a_fifo_is_not_waited_for_and_written_to_once_somebody_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        make_fifo(&path);
        let mut file = LogFile::open(&path, 100).unwrap();
        assert_eq!(file.write(&batch("one\ntwo\n")).unwrap_err().0, 2);
        let reader = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&path);
        let mut reader = reader.unwrap();
        file.write(&batch("three\n")).unwrap();
        let mut read = [0; 16];
        let len = io::Read::read(&mut reader, &mut read).unwrap();
        assert_eq!(&read[..len], b"three\n");
        drop(reader);
        assert_eq!(file.write(&batch("four\n")).unwrap_err().0, 1);
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
