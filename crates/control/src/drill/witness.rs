//! A client in another network: in the servers' network, where it can probe each VIP separately, or in that of one server,
//! which the harm may cut off.
//!
//! It is a process of this program that has entered that network. It reads a [`Task`] from standard input, writes a
//! [`Line`] for each request, and ends when standard input does.

use super::load::{Acknowledged, Load};
use super::probe::Probe;
use super::sql::{self, Database};
use super::{Course, Record, WitnessError, monotonic};
use gaiola_core::drill::{Kind, Sample};
use gaiola_model::config::Drill;
use gaiola_model::{ServerName, Time};
use serde::{Deserialize, Serialize};
use std::io::{self, PipeWriter, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Maximum number of lines that wait to be written.
const WAITING: usize = 16 * 1024;
/// Writes per second of a client inside a cut: few enough not to load the site.
const INSIDE_RATE: u32 = 20;
/// How long a witness may take to report everything after its standard input ended: longer than one request.
const END_LIMIT: Duration = Duration::from_secs(25);

/// A witness's task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The record's start, on the clock that all processes of a machine share. `None`: the witness is on another machine, and counts
    /// from its own start.
    since: Option<Duration>,
    what: What,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum What {
    /// Open a new connection to each of these every 10 ms.
    Probe {
        doors: Vec<SocketAddr>,
        from: Vec<IpAddr>,
        path: String,
        tls: bool,
    },
    /// Write like the site's users, but directly to an instance.
    Write {
        server: ServerName,
        door: SocketAddr,
        drill: Drill,
    },
    /// Write directly to the database.
    Insert {
        server: ServerName,
        database: Database,
    },
}

/// A witness's report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Line {
    /// A request ended.
    Ended {
        /// Its kind.
        kind: Kind,
        /// When it began, on the record's clock.
        sent: Duration,
        /// When it ended.
        done: Duration,
        /// Whether it was sent a second time.
        resent: bool,
        /// Why it failed.
        why: Option<String>,
    },
    /// A write was acknowledged.
    Acknowledged(Acknowledged),
}

impl Line {
    pub(super) fn ended(sample: &Sample, why: Option<String>) -> Self {
        Self::Ended {
            kind: sample.kind,
            sent: sample.sent.since_start(),
            done: sample.done.since_start(),
            resent: sample.resent,
            why,
        }
    }
}

/// Carries out a task, in this process's network.
///
/// # Errors
/// If standard input or output fail.
pub async fn carry_out() -> Result<(), WitnessError> {
    let mut first = String::new();
    io::stdin().read_line(&mut first)?;
    let task: Task = serde_json::from_str(&first)?;
    let (reports, mut lines) = mpsc::channel(WAITING);
    let mut record = Record::since(task.since.unwrap_or_else(monotonic));
    record.reported_to = Some(reports.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        // Standard input ended or failed.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(stop);
    });
    let work = tokio::spawn(work(task.what, record, reports, stopped));
    while let Some(line) = lines.recv().await {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        io::stdout().write_all(&text)?;
    }
    Ok(work.await?)
}

async fn work(
    what: What,
    record: Record,
    reports: mpsc::Sender<Line>,
    stopped: oneshot::Receiver<()>,
) {
    match what {
        What::Probe {
            doors,
            from,
            path,
            tls,
        } => {
            let doors = doors.into_iter();
            let courses = doors.map(|door| straight_to(door, &from, &path, tls));
            let probes: Vec<Probe> = courses.map(|it| Probe::start(&it, &record)).collect();
            let _ = stopped.await;
            for probe in probes {
                probe.stop().await;
            }
        }
        What::Write {
            server,
            door,
            drill,
        } => {
            let mut course = Course::new(door, Some(drill));
            course.drill.rate = Some(INSIDE_RATE);
            course.only = Some(Kind::Inside(server));
            let load = Load::start(&course, &record);
            let _ = stopped.await;
            report(load.stop().await, &reports).await;
        }
        What::Insert { server, database } => {
            let kind = Kind::Inside(server);
            let acknowledged = sql::insert(&database, kind, &record, INSIDE_RATE, stopped).await;
            report(acknowledged, &reports).await;
        }
    }
}

async fn report(acknowledged: Vec<Acknowledged>, reports: &mpsc::Sender<Line>) {
    for write in acknowledged {
        let _ = reports.send(Line::Acknowledged(write)).await;
    }
}

/// A probe of one VIP, by a client with the one of these addresses that is of the VIP's family.
fn straight_to(door: SocketAddr, from: &[IpAddr], path: &str, tls: bool) -> Course {
    let course = Course::new(door, None).probing(path, true);
    let mut course = if tls {
        course.clone().over_tls().unwrap_or(course)
    } else {
        course
    };
    let mut from = from.iter().copied();
    course.from = from.find(|own| own.is_ipv4() == door.is_ipv4());
    course.probed.kind = Kind::Vip(door.ip());
    course
}

/// Where a witness runs.
#[derive(Debug)]
pub struct Seat {
    /// Runs this program there.
    pub command: Command,
    /// Whether that is another machine, with a clock of its own.
    pub is_elsewhere: bool,
}

/// A running witness. Dropping it kills it.
#[derive(Debug)]
pub struct Witness {
    child: Child,
    /// Closing it stops the witness.
    input: PipeWriter,
    reader: JoinHandle<Vec<Acknowledged>>,
    by_sql: bool,
}

impl Witness {
    /// Starts a witness that probes VIPs from the addresses `from`, one of each family, over TLS if the site uses it. Its seat
    /// reaches the VIPs.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn of_vips(
        seat: Seat,
        doors: Vec<SocketAddr>,
        from: Vec<IpAddr>,
        course: &Course,
        record: &Record,
    ) -> Result<Self, WitnessError> {
        let what = What::Probe {
            doors,
            from,
            path: course.probed.path.clone(),
            tls: course.tls.is_some(),
        };
        Self::start(seat, what, record)
    }

    /// Starts a witness that writes to an instance from its server's network.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn at_instance(
        seat: Seat,
        server: ServerName,
        door: SocketAddr,
        course: &Course,
        record: &Record,
    ) -> Result<Self, WitnessError> {
        let what = What::Write {
            server,
            door,
            drill: course.drill.clone(),
        };
        Self::start(seat, what, record)
    }

    /// Starts a witness that writes to the database from its server's network.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn at_database(
        seat: Seat,
        server: ServerName,
        database: Database,
        record: &Record,
    ) -> Result<Self, WitnessError> {
        Self::start(seat, What::Insert { server, database }, record)
    }

    fn start(seat: Seat, what: What, record: &Record) -> Result<Self, WitnessError> {
        let by_sql = matches!(what, What::Insert { .. });
        let Seat {
            mut command,
            is_elsewhere,
        } = seat;
        let task = Task {
            since: (!is_elsewhere).then_some(record.started),
            what,
        };
        let mut line = serde_json::to_vec(&task)?;
        line.push(b'\n');
        // The pipe holds 64 KiB, more than any task: this write does not block.
        let (first, mut input) = io::pipe()?;
        input.write_all(&line)?;
        command.stdin(first).stdout(Stdio::piped());
        // Ctrl-C is for this process only: the witness continues until its standard input ends.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let Some(output) = child.stdout.take() else {
            return Err(WitnessError::NoOutput);
        };
        let record = record.clone();
        // It starts a moment later: its times are early by what its start takes.
        let began = if is_elsewhere {
            record.now().since_start()
        } else {
            Duration::ZERO
        };
        let reader =
            tokio::spawn(async move { read(BufReader::new(output), &record, began).await });
        Ok(Self {
            child,
            input,
            reader,
            by_sql,
        })
    }

    /// Whether it writes directly to the database, so that its writes are looked up there.
    pub fn is_by_sql(&self) -> bool {
        self.by_sql
    }

    /// Starts no more requests, waits for those in flight, and returns the acknowledged writes.
    pub async fn stop(self) -> Vec<Acknowledged> {
        let Self {
            mut child,
            input,
            reader,
            ..
        } = self;
        drop(input);
        let read = timeout(END_LIMIT, reader).await;
        let _ = child.start_kill();
        let _ = child.wait().await;
        read.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// Records every line until the end.
async fn read(
    mut lines: BufReader<tokio::process::ChildStdout>,
    record: &Record,
    began: Duration,
) -> Vec<Acknowledged> {
    let (mut acknowledged, mut text) = (Vec::new(), String::new());
    while lines
        .read_line(&mut text)
        .await
        .is_ok_and(|count| count > 0)
    {
        match serde_json::from_str(&text) {
            Ok(Line::Acknowledged(write)) => acknowledged.push(write),
            Ok(Line::Ended {
                kind,
                sent,
                done,
                resent,
                why,
            }) => {
                let sample = Sample {
                    kind,
                    sent: Time::from_start(began + sent),
                    done: Time::from_start(began + done),
                    ok: why.is_none(),
                    resent,
                };
                record.ledger().took(sample, why.as_deref());
            }
            Err(_) => {}
        }
        text.clear();
    }
    acknowledged
}
