//! The access log: one line per request. It never blocks traffic: workers send full batches to a writer thread through
//! a bounded queue; what does not fit is counted and dropped.

mod clock;
mod combined;
mod httplog;
mod line;
mod writer;

pub(super) use combined::FIELDS;
pub(super) use line::{ClientAt, Entry, Leg, Load, Subject};
pub(super) use writer::{LogWriter, Signal};

use super::counters::Counters;
use gaiola_model::proxy_file::LogFormat;
use jiff::tz::TimeZone;
use line::Scribe;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime};

/// A batch of this size is sent at once.
const BATCH_LEN: usize = 64 * 1024;

/// Longest time a line waits in its batch.
const PATIENCE: Duration = Duration::from_millis(100);

/// Lines, and their number.
pub(super) struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

#[cfg(test)]
impl Batch {
    /// Its lines.
    pub(super) fn into_text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A worker's access to the log.
pub(super) struct Log {
    writer: Option<SyncSender<Signal>>,
    counters: Arc<Counters>,
    batch: RefCell<Batch>,
    scribe: RefCell<Scribe>,
    /// Whether lines include the concurrent connections and requests.
    pub(super) wants_load: bool,
    /// Whether lines include the reason of a failure.
    pub(super) has_reasons: bool,
}

impl Log {
    /// Sends lines of this format to `writer`; `None`: nowhere.
    pub(super) fn new(
        writer: Option<SyncSender<Signal>>,
        format: LogFormat,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            wants_load: writer.is_some() && format == LogFormat::Httplog,
            has_reasons: writer.is_some() && format == LogFormat::Json,
            writer,
            counters,
            batch: RefCell::new(Batch {
                bytes: Vec::new(),
                lines: 0,
            }),
            scribe: RefCell::new(Scribe::new(format, TimeZone::system())),
        }
    }

    /// Whether lines are written at all.
    pub(super) const fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Adds a line. `true`: it is the first of a batch, so that [`Self::flush`] must be called after [`Self::PATIENCE`].
    pub(super) fn add(&self, entry: &Entry<'_>) -> bool {
        if !self.is_on() {
            return false;
        }
        let mut batch = self.batch.borrow_mut();
        let mut scribe = self.scribe.borrow_mut();
        scribe.write(entry, SystemTime::now(), &mut batch.bytes);
        batch.lines += 1;
        let (first, full) = (batch.lines == 1, batch.bytes.len() >= BATCH_LEN);
        drop(batch);
        if full {
            self.flush();
        }
        first && !full
    }

    /// Longest time between a batch's first line and its flush.
    pub(super) const PATIENCE: Duration = PATIENCE;

    /// Sends the current batch to the writer.
    pub(super) fn flush(&self) {
        let Some(writer) = &self.writer else { return };
        let mut batch = self.batch.borrow_mut();
        if batch.lines == 0 {
            return;
        }
        let lines = std::mem::take(&mut batch.lines);
        let capacity = batch.bytes.len();
        let bytes = std::mem::replace(&mut batch.bytes, Vec::with_capacity(capacity));
        if writer
            .try_send(Signal::Lines(Batch { bytes, lines }))
            .is_err()
        {
            self.counters.lines_dropped.add(lines);
        }
    }
}
