//! Polls for failures of Patroni and PostgreSQL that Patroni does not notice; `core::database::watchdog` decides.

use super::psql;
use super::query::Query;
use crate::engine::{Api, KeeperDatabase, Leadership};
use gaiola_core::database::watchdog::{ConnectResult, PollResult, Reason, Watchdog};
use gaiola_model::Time;
use gaiola_net::client::Target;
use gaiola_net::pki;
use gaiola_store::{self as store, Store};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Poll interval.
const INTERVAL: Duration = Duration::from_secs(1);
/// Timeout for the first byte of PostgreSQL's answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Timeout of a member of the store, and of the store.
const STORE_MEMBER_LIMIT: Duration = Duration::from_millis(700);
const STORE_LIMIT: Duration = Duration::from_secs(2);
/// Patroni's loop reaches the store every 3 s.
const PATRONI_SEES: Duration = Duration::from_secs(20);
/// The first message of a PostgreSQL client: SSLRequest of PostgreSQL's protocol, whether the server speaks TLS. The answer is
/// one byte, and the session ends there.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

pub(super) struct Watch {
    watchdog: Watchdog,
    started: Instant,
    next: Instant,
    polled: Poll,
    query: Query<PollResult>,
    /// Whether the last poll, which began after the last order, found PostgreSQL answering.
    answers: bool,
}

impl Watch {
    /// Watches the namespace of this pid 1.
    pub(super) fn new(
        now: Instant,
        pid_1: Option<u32>,
        order: &KeeperDatabase,
        api: Option<Api>,
    ) -> Self {
        Self {
            watchdog: Watchdog::default(),
            started: now,
            next: now + INTERVAL,
            polled: Poll::new(pid_1, order, api),
            query: Query::Idle,
            answers: false,
        }
    }

    /// Applies a changed order, the store may have other members, and polls at once.
    pub(super) fn reload(&mut self, now: Instant, order: &KeeperDatabase) {
        self.polled = Poll::new(self.polled.pid_1, order, self.polled.api.take());
        self.query = Query::Idle;
        self.next = now;
        self.answers = false;
    }

    /// Whether PostgreSQL answers, as of a poll since the last order.
    pub(super) const fn answers(&self) -> bool {
        self.answers
    }

    /// Call it often; it never waits. Returns the reason to end everything, if there is one.
    pub(super) fn step(&mut self, now: Instant) -> Option<Reason> {
        let seen = self.query.take();
        if now >= self.next && self.query.is_idle() {
            self.next = now + INTERVAL;
            let poll = self.polled.clone();
            self.query.start(async move { poll.run().await });
        }
        let seen = seen?;
        self.answers = seen.answer == ConnectResult::Answered;
        let now = Time::from_start(now - self.started);
        self.watchdog.step(now, &seen)
    }
}

/// One poll of the processes, PostgreSQL's socket and the store.
#[derive(Clone)]
struct Poll {
    pid_1: Option<u32>,
    socket: PathBuf,
    /// This file exists while PostgreSQL is a standby.
    standby_signal: PathBuf,
    psql: PathBuf,
    directory: PathBuf,
    leadership: Option<(Store, Leadership)>,
    api: Option<Api>,
    at: SocketAddr,
}

impl Poll {
    fn new(pid_1: Option<u32>, order: &KeeperDatabase, api: Option<Api>) -> Self {
        Self {
            pid_1,
            api,
            at: order.api,
            socket: order.socket(),
            standby_signal: order.data.join("standby.signal"),
            psql: order.psql.clone(),
            directory: order.directory().into(),
            leadership: order.leadership.clone().and_then(|leadership| {
                let store = open_store(order, &leadership)?;
                Some((store, leadership))
            }),
        }
    }

    async fn run(self) -> PollResult {
        let (answer, deposed_by, patroni_lost_store) =
            tokio::join!(self.answer(), self.deposed_by(), self.patroni_lost_store());
        let postmaster = self.state_of("postgres");
        PollResult {
            patroni_stopped: self.state_of("patroni") == Some('T'),
            postmaster_stopped: postmaster == Some('T'),
            // A debugger holds it, on purpose; it answers nothing.
            answer: match postmaster {
                Some('t') => ConnectResult::NotAsked,
                Some(_) => answer,
                // Patroni starts it.
                None => match answer {
                    ConnectResult::Refused => ConnectResult::NotAsked,
                    answer => answer,
                },
            },
            deposed_by,
            patroni_lost_store,
        }
    }

    /// State of Patroni or of the postmaster: `T` where a signal has stopped it. Both are children of pid 1, the postmaster
    /// as an orphan of Patroni.
    fn state_of(&self, command: &str) -> Option<char> {
        let pid_1 = self.pid_1?;
        let path = format!("/proc/{pid_1}/task/{pid_1}/children");
        let children = fs::read_to_string(path).ok()?;
        let mut stats = children
            .split_whitespace()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        stats.find_map(|stat| {
            let (name, state) = command_and_state(&stat)?;
            (name == command).then_some(state)
        })
    }

    /// Whether a new connection is answered with a byte.
    async fn answer(&self) -> ConnectResult {
        let asked = async {
            let mut stream = match UnixStream::connect(&self.socket).await {
                Ok(stream) => stream,
                Err(error) if is_absent(&error) => return ConnectResult::Refused,
                // Such as a full queue, which says nothing of who listens.
                Err(_) => return ConnectResult::NotAsked,
            };
            let mut answer = [0];
            let sent = stream.write_all(&SSL_REQUEST).await;
            match (sent, stream.read(&mut answer).await) {
                (Ok(()), Ok(1)) => ConnectResult::Answered,
                _ => ConnectResult::NotAsked,
            }
        };
        timeout(ANSWER_LIMIT, asked)
            .await
            .unwrap_or(ConnectResult::Silence)
    }

    /// Whether the store answers here, and Patroni, which has reached it before, does not reach it any more.
    async fn patroni_lost_store(&self) -> bool {
        let (Some(api), Some((store, leadership))) = (&self.api, &self.leadership) else {
            return false;
        };
        let Ok(report) = api.report(self.at).await else {
            return false;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        let age = now.saturating_sub(report.dcs_last_seen);
        report.dcs_last_seen > 0
            && age > PATRONI_SEES.as_secs()
            && store::leader(store, &leadership.key).await.is_ok()
    }

    /// The server that held the leader key while this PostgreSQL took writes. The key is read before and after, to rule out a
    /// change of roles in between.
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

/// Whether nothing listens on the socket.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(error.kind(), ConnectionRefused | NotFound)
}

fn open_store(order: &KeeperDatabase, leadership: &Leadership) -> Option<Store> {
    if leadership.store.is_empty() {
        return None;
    }
    let members = leadership.store.iter();
    let members = members.map(|at| Target::tls(*at)).collect();
    match pki::client_config(&order.pki) {
        Ok(tls) => Some(Store::new(store::Settings {
            request_timeout: STORE_MEMBER_LIMIT,
            deadline: STORE_LIMIT,
            ..store::Settings::new(members, Some(tls))
        })),
        Err(error) => {
            tracing::warn!(%error, "not reading the leader key: no certificate");
            None
        }
    }
}

/// The command and the state of a process, from its `/proc/PID/stat`: `7 (postgres) T 1 ...`.
fn command_and_state(stat: &str) -> Option<(&str, char)> {
    let (before, after) = stat.rsplit_once(") ")?;
    let (_, command) = before.split_once(" (")?;
    Some((command, after.chars().next()?))
}

/// Whether this server is a standby and the store names another one as the leader.
pub(super) async fn follows_another(order: &KeeperDatabase) -> bool {
    let poll = Poll::new(None, order, None);
    let Some((store, leadership)) = &poll.leadership else {
        return false;
    };
    let leader = store::leader(store, &leadership.key).await;
    let another =
        leader.is_ok_and(|leader| leader.is_some_and(|leader| leader.who != leadership.me));
    another && poll.standby_signal.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_stat() {
        let found = command_and_state("7 (postgres) T 1 7 7");
        assert_eq!(found, Some(("postgres", 'T')));
        assert_eq!(
            command_and_state("7 (a) T (b) S 1 7"),
            Some(("a) T (b", 'S'))
        );
        assert_eq!(command_and_state("7 (postgres"), None);
    }
}
