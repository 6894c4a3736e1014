//! Polls what Patroni does not notice of itself and of PostgreSQL; `core::database::watchdog` decides.

use super::look::Look;
use super::psql;
use crate::client::Target;
use crate::database::{KeeperDatabase, Leadership, POSTGRES_PORT};
use crate::pki;
use crate::store::{self, Store};
use gaiola_core::database::watchdog::{Reason, Seen, Watchdog};
use gaiola_model::Time;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Poll interval.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for the first byte of PostgreSQL's answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Longest wait for a member of the store, and for the store.
const STORE_MEMBER_LIMIT: Duration = Duration::from_millis(700);
const STORE_LIMIT: Duration = Duration::from_secs(2);
/// What a client asks a PostgreSQL server for before anything else: whether it speaks TLS. One byte is the answer, and the
/// session goes no further (PostgreSQL's protocol, SSLRequest).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

pub(super) struct Watch {
    watchdog: Watchdog,
    started: Instant,
    next: Instant,
    polled: Poll,
    look: Look<Seen>,
}

impl Watch {
    /// Of the namespace whose pid 1 this is.
    pub(super) fn new(now: Instant, pid_1: Option<u32>, order: &KeeperDatabase) -> Self {
        Self {
            watchdog: Watchdog::default(),
            started: now,
            next: now + INTERVAL,
            polled: Poll::new(pid_1, order),
            look: Look::Idle,
        }
    }

    /// Takes up a changed order: the store may have other members.
    pub(super) fn reload(&mut self, order: &KeeperDatabase) {
        self.polled = Poll::new(self.polled.pid_1, order);
    }

    /// To be called often; never waits. Why everything is to be ended, if it is.
    pub(super) fn step(&mut self, now: Instant) -> Option<Reason> {
        let seen = self.look.take();
        if now >= self.next && self.look.is_idle() {
            self.next = now + INTERVAL;
            let poll = self.polled.clone();
            self.look.ask(async move { poll.run().await });
        }
        let now = Time::from_start(now - self.started);
        seen.and_then(|seen| self.watchdog.step(now, &seen))
    }
}

/// What is polled.
#[derive(Clone)]
struct Poll {
    pid_1: Option<u32>,
    socket: PathBuf,
    /// Is there while PostgreSQL is a standby.
    standby_signal: PathBuf,
    psql: PathBuf,
    directory: PathBuf,
    leadership: Option<(Store, Leadership)>,
}

impl Poll {
    fn new(pid_1: Option<u32>, order: &KeeperDatabase) -> Self {
        Self {
            pid_1,
            socket: order.directory().join(format!(".s.PGSQL.{POSTGRES_PORT}")),
            standby_signal: order.data.join("standby.signal"),
            psql: order.psql.clone(),
            directory: order.directory().into(),
            leadership: order.leadership.clone().and_then(|leadership| {
                let store = open_store(order, &leadership)?;
                Some((store, leadership))
            }),
        }
    }

    async fn run(self) -> Seen {
        let (unanswered, deposed_by) = tokio::join!(self.unanswered(), self.deposed_by());
        let (patroni_stopped, postmaster_stopped) = self.stopped();
        Seen {
            patroni_stopped,
            postmaster_stopped,
            unanswered,
            deposed_by,
        }
    }

    /// Whether Patroni and the postmaster are stopped. Both are children of pid 1: Patroni leaves the postmaster to it.
    fn stopped(&self) -> (bool, bool) {
        let Some(pid_1) = self.pid_1 else {
            return (false, false);
        };
        let path = format!("/proc/{pid_1}/task/{pid_1}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        let stats = children
            .split_whitespace()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        stats.fold(
            (false, false),
            |(patroni, postmaster), stat| match stopped_command(&stat) {
                Some("postgres") => (patroni, true),
                Some("patroni") => (true, postmaster),
                _ => (patroni, postmaster),
            },
        )
    }

    /// Whether the postmaster takes connections and leaves them without a byte. Where nobody listens it is not running,
    /// which Patroni sees to.
    async fn unanswered(&self) -> bool {
        let asked = async {
            let mut stream = UnixStream::connect(&self.socket).await.ok()?;
            stream.write_all(&SSL_REQUEST).await.ok()?;
            let mut answer = [0];
            stream.read(&mut answer).await.ok()
        };
        timeout(ANSWER_LIMIT, asked).await.is_err()
    }

    /// The server that held the leader key while this PostgreSQL took writes. The key is read before and after, so that a
    /// change of roles in between proves nothing.
    async fn deposed_by(&self) -> Option<String> {
        let (store, leadership) = self.leadership.as_ref()?;
        if self.standby_signal.exists() {
            return None;
        }
        let before = store::leader(store, &leadership.key).await.ok()??;
        if before.who == leadership.me {
            return None;
        }
        let writes = "SELECT NOT pg_is_in_recovery()";
        if psql::ask(&self.psql, &self.directory, writes)
            .await
            .as_deref()
            != Some("t")
        {
            return None;
        }
        let after = store::leader(store, &leadership.key).await.ok()??;
        (after.term == before.term && after.who == before.who).then_some(after.who)
    }
}

fn open_store(order: &KeeperDatabase, leadership: &Leadership) -> Option<Store> {
    if leadership.store.is_empty() {
        return None;
    }
    let members = leadership.store.iter();
    let members = members.map(|at| Target::tls(SocketAddr::V4(*at))).collect();
    match pki::client_config(&order.pki) {
        Ok(tls) => Some(Store::new(store::Settings {
            request_timeout: STORE_MEMBER_LIMIT,
            deadline: STORE_LIMIT,
            ..store::Settings::new(members, Some(tls))
        })),
        Err(error) => {
            tracing::warn!(%error, "the leader key is not read: that needs a certificate");
            None
        }
    }
}

/// The command of a process that a signal has stopped, from its `/proc/PID/stat`: `7 (postgres) T 1 ...`.
fn stopped_command(stat: &str) -> Option<&str> {
    let (before, after) = stat.rsplit_once(") ")?;
    let (_, command) = before.split_once(" (")?;
    after.starts_with('T').then_some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_process_is_told_from_its_stat() {
        assert_eq!(stopped_command("7 (postgres) T 1 7 7"), Some("postgres"));
        assert_eq!(stopped_command("7 (postgres) S 1 7 7"), None);
        assert_eq!(stopped_command("7 (a) T (b) T 1 7"), Some("a) T (b"));
        assert_eq!(stopped_command("7 (postgres"), None);
        // Held by a debugger, which somebody does on purpose.
        assert_eq!(stopped_command("7 (postgres) t 1 7 7"), None);
    }
}
