//! The thread that writes the access log.

use super::Batch;
use super::clock::Clock;
use gaiola_model::proxy_file::{Facility, LogFormat, LogTarget};
use gaiola_os::stderr;
use jiff::tz::TimeZone;
use rustix::fs::OFlags;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Batches in the queue; the next one is dropped.
const QUEUE_LEN: usize = 64;

/// Size at which the file is renamed to `FILE.1`.
const FILE_LIMIT: u64 = 64 * 1024 * 1024;

/// Length at which a syslog message is cut; servers accept this much.
const MESSAGE_LIMIT: usize = 8 * 1024;

/// A syslog server that accepts nothing for this long loses the rest of the batch.
const SEND_LIMIT: Duration = Duration::from_millis(100);

/// Informational (RFC 3164, section 4.1.1).
const SEVERITY: u8 = 6;

/// A message to the writer thread.
pub(crate) enum Signal {
    /// Lines to write.
    Lines(Batch),
    /// The file was moved. The sender also records this elsewhere, since the queue may be full.
    Moved,
}

/// Handle of the writer thread.
pub(crate) struct LogWriter {
    queue: SyncSender<Signal>,
    format: LogFormat,
    lost: Arc<AtomicU64>,
    moved: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl LogWriter {
    /// Opens the target for lines of this format.
    ///
    /// # Errors
    /// The system's error.
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

    /// The queue for the workers' batches.
    pub(crate) fn queue(&self) -> SyncSender<Signal> {
        self.queue.clone()
    }

    /// The file was moved: further lines go to a new one.
    pub(crate) fn reopen(&self) {
        self.moved.store(true, Ordering::SeqCst);
        // A full queue means that another batch follows.
        let _ = self.queue.try_send(Signal::Moved);
    }

    /// The format of the lines.
    pub(crate) const fn format(&self) -> LogFormat {
        self.format
    }

    /// Lines that could not be written: the disk is full, or there is no reader.
    pub(crate) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// Returns the thread, which ends once all senders are gone and what they sent is written.
    pub(crate) fn end(self) -> JoinHandle<()> {
        self.thread
    }
}

struct Writer {
    sink: Sink,
    /// Lines that failed since the last one written.
    missing: u64,
    lost: Arc<AtomicU64>,
    /// Whether the file was moved since it was opened.
    moved: Arc<AtomicBool>,
}

impl Writer {
    /// Runs until all senders are gone.
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

/// Where the lines go.
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
        // Each syslog message names its server, so only a file is reopened.
        if let Self::File(file) = self {
            file.again();
        }
    }
}

/// A named file. It may also be a FIFO, a device or a link: these are written to but never renamed.
struct LogFile {
    path: PathBuf,
    /// `None`: a FIFO without a reader, or a file that could not be reopened.
    file: Option<stderr::Sink<File>>,
    /// Device and inode of the open file.
    identity: Option<(u64, u64)>,
    len: u64,
    limit: u64,
}

impl LogFile {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let mut log = Self {
            path: path.into(),
            file: None,
            identity: None,
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

    /// Renames the file, keeping one old one. A link, or anything but a regular file, stays. While a new process takes over,
    /// both write: one that the other has renamed is only opened again.
    fn rotate(&mut self) {
        let found = std::fs::symlink_metadata(&self.path);
        let is_file = found.as_ref().is_ok_and(Metadata::is_file);
        let is_open = found.is_ok_and(|found| Some((found.dev(), found.ino())) == self.identity);
        if is_file && !is_open {
            self.again();
        } else if is_file {
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

    /// Reopens the file by its name; on failure, the open one stays.
    fn again(&mut self) {
        if let Err(error) = self.reopen() {
            tracing::warn!(%error, "cannot open the access log");
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let (file, found) = open(&self.path)?;
        self.identity = Some((found.dev(), found.ino()));
        (self.file, self.len) = (Some(stderr::Sink::new(file)), found.len());
        Ok(())
    }
}

/// Opens a file to append to it. A FIFO without a reader is an error, and not waited for.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    // Blocking writes are fine: the writer has a thread of its own.
    rustix::io::ioctl_fionbio(&file, false)?;
    let found = file.metadata()?;
    Ok((file, found))
}

/// Whether the error means that a FIFO has no reader.
fn is_unread(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error())
}

/// A syslog server. Each line becomes a message as HAProxy sends it: RFC 3164 without a host name.
struct Syslog {
    line: Line,
    priority: u8,
    clock: Clock,
    /// The message being built.
    message: Vec<u8>,
}

/// How messages reach the server, which may restart: the sockets are not connected to it.
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
            let written = match &self.line {
                Line::Udp(socket, address) => socket.send_to(&self.message, address),
                Line::Unix(socket, path) => socket.send_to(&self.message, path),
            };
            written.map_err(|error| (batch.lines - sent, error))?;
        }
        Ok(())
    }

    /// Builds the message of a line.
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
    fn a_moved_file_is_reopened_when_asked() {
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
