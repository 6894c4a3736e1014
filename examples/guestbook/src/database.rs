//! Connections to PostgreSQL that survive a failover: few, checked before use, and closed after any error.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::{DbError, ErrorPosition, Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

/// Most connections to one address.
const SIZE: usize = 8;
/// Timeout of a TCP connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Timeout of the login. A proxy may hold the connection for 5 s while there is no primary.
const LOG_IN: Duration = Duration::from_secs(6);
/// PostgreSQL cancels a statement that takes longer, before its request times out.
const STATEMENT: Duration = Duration::from_secs(9);
/// After this time of unacknowledged bytes, or of silence, the kernel closes a connection.
const SILENCE: Duration = Duration::from_secs(3);
/// A connection that was idle for this long is checked before use.
const FRESH: Duration = Duration::from_millis(500);
/// Timeout of that check.
const CHECK: Duration = Duration::from_secs(1);
/// A connection is replaced at this age, so that new servers get their share.
const OLD: Duration = Duration::from_secs(60);

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No statement was sent, so a retry is safe.
    #[error("the database cannot be reached: {0}")]
    NotHad(String),
    /// A statement was sent, but its outcome is unknown.
    #[error("the database did not answer: {0}")]
    Broken(String),
    /// It was committed on the primary only: the wait for a standby was cancelled.
    #[error("the entry may be lost if the primary fails: {0}")]
    NotReplicated(String),
    /// The site runs without a database.
    #[error("this site has no database")]
    Absent,
}

impl Failure {
    /// The outcome of a failed statement. A server that takes no writes has changed nothing, and neither has one that ends the
    /// session with 57P01, as it does when the primary moves: once a statement is committed, PostgreSQL sends its response or
    /// nothing.
    pub(crate) fn of(error: &tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION | &SqlState::ADMIN_SHUTDOWN) => {
                Self::NotHad(describe(error))
            }
            _ => Self::Broken(describe(error)),
        }
    }
}

/// The connections to one address.
pub(crate) struct Pool {
    config: Config,
    idle: Mutex<Vec<Link>>,
    room: Semaphore,
}

impl Pool {
    /// Connects on first use.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            config: hardened(config),
            idle: Mutex::new(Vec::with_capacity(SIZE)),
            room: Semaphore::new(SIZE),
        }
    }

    /// A connection that was just checked. Return it with [`Lent::keep`] after a success; otherwise it is closed.
    pub(crate) async fn get(&self) -> Result<Lent<'_>, Failure> {
        let permit = self
            .room
            .acquire()
            .await
            .expect("the semaphore is never closed");
        while let Some(link) = self.take_idle() {
            if link.stands().await {
                return Ok(Lent {
                    link,
                    pool: self,
                    _permit: permit,
                });
            }
        }
        let link = Link::open(&self.config).await?;
        Ok(Lent {
            link,
            pool: self,
            _permit: permit,
        })
    }

    fn take_idle(&self) -> Option<Link> {
        self.idle
            .lock()
            .expect("nothing panics while it is held")
            .pop()
    }
}

/// A connection out of the pool.
pub(crate) struct Lent<'a> {
    link: Link,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Lent<'_> {
    /// The client for statements.
    pub(crate) fn client(&self) -> &Client {
        &self.link.client
    }

    /// The database server's name.
    pub(crate) fn server(&self) -> Option<String> {
        self.link.server.clone()
    }

    /// The number of PostgreSQL's warnings on this connection, updated before a statement's end is reported.
    pub(crate) fn warnings(&self) -> u32 {
        self.link.warnings.load(Ordering::Acquire)
    }

    /// Returns it to the pool.
    pub(crate) fn keep(mut self) {
        if self.link.opened.elapsed() < OLD {
            self.link.used = Instant::now();
            let mut idle = self
                .pool
                .idle
                .lock()
                .expect("nothing panics while it is held");
            idle.push(self.link);
        }
    }
}

/// One connection and the task that moves its bytes.
struct Link {
    client: Client,
    server: Option<String>,
    warnings: Arc<AtomicU32>,
    opened: Instant,
    used: Instant,
    driver: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        // Otherwise a connection to a hung server would stay open until the kernel's timeout.
        self.driver.abort();
    }
}

impl Link {
    async fn open(config: &Config) -> Result<Self, Failure> {
        match timeout(LOG_IN, Self::log_in(config)).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(Failure::NotHad(describe(&error))),
            Err(_) => Err(Failure::NotHad(format!(
                "no answer within {} s",
                LOG_IN.as_secs()
            ))),
        }
    }

    async fn log_in(config: &Config) -> Result<Self, tokio_postgres::Error> {
        let (client, mut connection) = config.connect(NoTls).await?;
        let warnings = Arc::new(AtomicU32::new(0));
        let counted = warnings.clone();
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|cx| connection.poll_message(cx)).await
            {
                if let AsyncMessage::Notice(notice) = message {
                    count_warning(&notice, &counted);
                }
            }
        });
        let now = Instant::now();
        let mut link = Self {
            client,
            server: None,
            warnings,
            opened: now,
            used: now,
            driver,
        };
        link.server = link.ask_name().await?;
        Ok(link)
    }

    /// By its address: all members of a replicated cluster have the same `cluster_name`.
    async fn ask_name(&self) -> Result<Option<String>, tokio_postgres::Error> {
        let asked =
            "SELECT coalesce(host(inet_server_addr()), ''), current_setting('cluster_name')";
        let row = self.client.query_typed_one(asked, &[]).await?;
        Ok(server_name(row.get(0), row.get(1)))
    }

    /// A connection is lent only if its server answers, so that a write is not sent over a dead one.
    async fn stands(&self) -> bool {
        !self.client.is_closed()
            && (self.used.elapsed() < FRESH
                || matches!(
                    timeout(CHECK, self.client.check_connection()).await,
                    Ok(Ok(()))
                ))
    }
}

/// Notices are read before the statement's last message, so its warnings are counted by then.
fn count_warning(notice: &DbError, warnings: &AtomicU32) {
    if notice.parsed_severity() == Some(Severity::Warning) {
        eprintln!("guestbook: PostgreSQL warns: {}", notice.message());
        warnings.fetch_add(1, Ordering::Release);
    }
}

fn hardened(config: &Config) -> Config {
    let mut config = config.clone();
    let given = config.get_options().unwrap_or_default().to_string();
    config
        .options(format!("{given} -c statement_timeout={}", STATEMENT.as_millis()).trim_start())
        .connect_timeout(CONNECT)
        .tcp_user_timeout(SILENCE)
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(1))
        .keepalives_interval(Duration::from_secs(1))
        .keepalives_retries(3);
    if config.get_application_name().is_none() {
        config.application_name("guestbook");
    }
    config
}

/// `db2` for 10.77.4.2; elsewhere the cluster's name, or else the address.
fn server_name(address: &str, cluster: &str) -> Option<String> {
    let number = address
        .strip_prefix("10.77.4.")
        .map(|number| format!("db{number}"));
    number.or_else(|| {
        [cluster, address]
            .into_iter()
            .find(|name| !name.is_empty())
            .map(String::from)
    })
}

/// PostgreSQL's own words; tokio-postgres alone says only "db error".
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => {
            let at = match said.position() {
                Some(ErrorPosition::Original(at)) => format!(" at {at}"),
                _ => String::new(),
            };
            format!("{} ({}){at}", said.message(), said.code().code())
        }
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_server_is_named_by_its_address() {
        assert_eq!(
            server_name("10.77.4.2", "guestbook").as_deref(),
            Some("db2")
        );
        assert_eq!(server_name("127.0.0.1", "main").as_deref(), Some("main"));
        assert_eq!(server_name("127.0.0.1", "").as_deref(), Some("127.0.0.1"));
        assert_eq!(server_name("", ""), None);
    }

    #[test]
    fn options_that_were_given_are_kept() {
        let config = "host=h options='-c work_mem=1MB'".parse().unwrap();
        assert_eq!(
            hardened(&config).get_options(),
            Some("-c work_mem=1MB -c statement_timeout=9000")
        );
    }
}
