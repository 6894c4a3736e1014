//! A client of a site on machines: the load of a drill, from the operator's host.

use super::Rack;
use super::sockets::{Open, Sockets};
use crate::binaries::machines;
use gaiola_control::drill::{Course, Load, Record, check_lost};
use gaiola_core::drill::{Kind, Ledger, Sample};
use gaiola_model::Time;
use gaiola_model::config::{Drill, DrillWrite};
use serde_json::{Value, json};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};
use tokio::task::LocalSet;

/// What a load prints once it sends.
const SENDS: &str = "sends\n";
/// How long acknowledged writes are looked up afterwards.
const LOOK_UP: Duration = Duration::from_secs(60);

/// What a client saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Requests sent.
    pub sent: u64,
    /// Failed requests by reason, each with its number.
    pub failures: Vec<String>,
    /// When each failed request began, how long it took and its kind, in order.
    pub failed_at: Vec<String>,
    /// The longest time between two successful writes, in milliseconds.
    pub longest_pause_ms: u64,
    /// When each of them began that was longer than a second, and how long it was.
    pub pauses: Vec<String>,
    /// Writes that the site acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that it does not hold, or that could not be looked up.
    pub lost: Vec<String>,
    /// Its WebSockets.
    pub sockets: Sockets,
}

impl Seen {
    fn read(said: &Value) -> Option<Self> {
        let number = |key: &str| said[key].as_u64();
        let lines = |key: &str| {
            let lines = said[key].as_array()?.iter();
            let lines = lines.map(|line| Some(line.as_str()?.to_string()));
            lines.collect::<Option<Vec<String>>>()
        };
        Some(Self {
            sent: number("sent")?,
            failures: lines("failures")?,
            failed_at: lines("failed_at")?,
            longest_pause_ms: number("longest_pause_ms")?,
            pauses: lines("pauses")?,
            acknowledged: number("acknowledged")?,
            lost: lines("lost")?,
            sockets: Sockets::read(&said["sockets"])?,
        })
    }

    /// # Panics
    /// If a request failed or a write was lost, or there was none.
    #[track_caller]
    pub fn assert_nothing_failed(&self) {
        assert!(self.sent > 0 && self.acknowledged > 0, "{self:?}");
        self.assert_nothing_lost();
        assert!(self.failures.is_empty(), "{self:#?}");
    }

    /// # Panics
    /// If an acknowledged write was lost.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        assert!(self.lost.is_empty(), "{self:#?}");
    }
}

/// A client that runs until it is asked what it saw.
#[derive(Debug)]
pub struct Client(Helper);

impl Client {
    /// Sends pages, reads and writes of the guest book to this door, in turn, and keeps WebSockets open.
    pub(super) fn start(
        rack: &Rack,
        door: SocketAddr,
        rate: u32,
        sockets: u32,
    ) -> io::Result<Self> {
        Self::start_by(rack.command(machines())?, door, rate, sockets)
    }

    /// The same from this host.
    pub(crate) fn beside(door: SocketAddr, rate: u32) -> io::Result<Self> {
        Self::start_by(Command::new(machines()), door, rate, 0)
    }

    fn start_by(
        mut command: Command,
        door: SocketAddr,
        rate: u32,
        sockets: u32,
    ) -> io::Result<Self> {
        let (door, rate, sockets) = (door.to_string(), rate.to_string(), sockets.to_string());
        command.args(["load", &door, &rate, &sockets]);
        Ok(Self(Helper::start(command, SENDS)?))
    }

    /// Ends it.
    ///
    /// # Panics
    /// If it does not say what it saw.
    #[track_caller]
    pub fn end(mut self) -> Seen {
        drop(self.0.0.stdin.take());
        let mut said = Vec::new();
        let mut output = self.0.0.stdout.take().expect("it is piped");
        output.read_to_end(&mut said).expect("its output is read");
        let said = serde_json::from_slice(&said).unwrap_or_default();
        Seen::read(&said).expect("it says what it saw")
    }
}

/// A process that runs beside a test, and ends with it.
#[derive(Debug)]
pub(super) struct Helper(Child);

impl Helper {
    /// Starts it, and waits for the line that it prints first.
    pub(super) fn start(mut command: Command, says: &str) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut helper = Self(command.spawn()?);
        let mut line = vec![0; says.len()];
        let output = helper.0.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        output.read_exact(&mut line)?;
        if line != says.as_bytes() {
            return Err(io::Error::other("it says something else first"));
        }
        Ok(helper)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The load of the guest book's file.
fn guest_book(rate: u32) -> Drill {
    Drill {
        rate: Some(rate),
        read: Some("/api/entries".into()),
        write: Some(DrillWrite {
            path: "/api/entries".into(),
            body: r#"{"author":"drill","text":"{id}"}"#.into(),
            look_up: "/api/entries/{id}".into(),
        }),
        ..Drill::default()
    }
}

/// Loads a site until standard input ends: says that it sends, and at the end what it saw.
///
/// # Errors
/// If it cannot run, or print.
pub fn load(door: SocketAddr, rate: u32, sockets: u32) -> io::Result<()> {
    let course = Course::new(door, Some(guest_book(rate)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let seen = LocalSet::new().block_on(&runtime, seen(&course, sockets))?;
    writeln!(io::stdout(), "{seen}")
}

/// As [`Seen::read`] reads it.
async fn seen(course: &Course, sockets: u32) -> io::Result<Value> {
    let sockets = Open::start(course.door, sockets).await?;
    let record = Record::default();
    let load = Load::start(course, &record);
    let begun = record.now();
    write!(io::stdout(), "{SENDS}")?;
    let ended = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
    // However standard input ends.
    let _ = ended.await;
    let until = record.now();
    let sockets = sockets.end();
    let writes = load.stop().await;
    let found = check_lost(course, &writes, LOOK_UP).await;
    let ledger = record.ledger();
    let pause = ledger.longest_gap(Kind::Write, begun, until);
    let kinds = [Kind::Page, Kind::Read, Kind::Write].into_iter();
    let failures = ledger.failures();
    let failures = failures.map(|(kind, why, count)| format!("{count} {kind}: {why}"));
    Ok(json!({
        "sent": kinds.map(|kind| ledger.of(kind).count()).sum::<usize>(),
        "failures": failures.collect::<Vec<_>>(),
        "failed_at": failed_at(&ledger, record.now()),
        "longest_pause_ms": u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
        "pauses": pauses(&ledger, record.now()),
        "acknowledged": found.acknowledged,
        "sockets": sockets.write(),
        "lost": found.lost.into_iter().chain(found.unknown).collect::<Vec<_>>(),
    }))
}

/// A line for each failed request, with the time of day (UTC) at which it began.
fn failed_at(ledger: &Ledger, now: Time) -> Vec<String> {
    let kinds = [Kind::Page, Kind::Read, Kind::Write].into_iter();
    let samples = kinds.flat_map(|kind| ledger.of(kind));
    let mut failed: Vec<&Sample> = samples.filter(|sample| !sample.ok).collect();
    failed.sort_by_key(|sample| sample.sent);
    let line = |sample: &Sample| {
        let took = (sample.done - sample.sent).as_millis();
        let (began, kind) = (time_of_day(sample.sent, now), sample.kind);
        format!("{began} {kind}, {took} ms")
    };
    failed.into_iter().map(line).collect()
}

/// A line for each second or more without a successful write.
fn pauses(ledger: &Ledger, now: Time) -> Vec<String> {
    let written = ledger.of(Kind::Write).filter(|sample| sample.ok);
    let mut written: Vec<Time> = written.map(|sample| sample.done).collect();
    written.sort();
    let pairs = written.windows(2).map(|pair| (pair[0], pair[1] - pair[0]));
    let long = pairs.filter(|(_, gap)| *gap >= Duration::from_secs(1));
    let line = |(began, gap): (Time, Duration)| {
        format!("{}, {} ms", time_of_day(began, now), gap.as_millis())
    };
    long.map(line).collect()
}

/// The time of day (UTC) of a moment before now.
fn time_of_day(moment: Time, now: Time) -> String {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let at = since_1970.saturating_sub(now - moment).as_millis();
    let (seconds, ms) = (at / 1000 % 86_400, at % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{ms:03}")
}
