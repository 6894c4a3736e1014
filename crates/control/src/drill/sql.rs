//! Writes directly to the database, and reads the contents of each member.

use super::load::{Acknowledged, LIMIT, run_id};
use super::{NoPath, Record, SqlError};
use gaiola_core::drill::{Holding, Kind, Rows, Writes};
use gaiola_model::ServerName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Timeout of a query to one member.
const ASK_LIMIT: Duration = Duration::from_secs(15);

/// The table of a client that writes without an instance. It is created before and removed after the drill.
const MAKE: &str = "set client_min_messages = error; create schema if not exists gaiola_drill; \
     create table if not exists gaiola_drill.ledger (id text primary key)";
const REMOVE: &str = "set client_min_messages = error; drop schema if exists gaiola_drill cascade";
const LOOK_UP: &str = "select id from gaiola_drill.ledger";

/// Every table of the database with its number of rows and the sum of their digests, which is independent of their order.
const HOLDING: &str = "select format('%I.%I', schemaname, tablename), \
    (xpath('/row/count/text()', rows))[1]::text, coalesce((xpath('/row/sum/text()', rows))[1]::text, '') \
    from (select schemaname, tablename, query_to_xml(format( \
        'select count(*) as count, sum(hashtextextended(t::text, 0)::numeric) as sum from %I.%I t', \
        schemaname, tablename), false, true, '') as rows \
    from pg_tables where schemaname not in ('pg_catalog', 'information_schema')) as tables order by 1";

/// Access to one database member, as the site's own role.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Database {
    /// The program.
    pub psql: PathBuf,
    /// The member's address and port.
    pub address: SocketAddr,
    /// The name of role and database.
    pub name: String,
    /// The role's password.
    pub password: String,
}

/// One query of a client elsewhere, which `gaiola machine query` reads on a machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Query {
    database: Database,
    sql: String,
}

impl Query {
    /// Asks the member, and returns what psql printed.
    ///
    /// # Errors
    /// If the member does not answer, or rejects it.
    pub async fn ask(&self) -> Result<String, SqlError> {
        let mut psql = Command::new(&self.database.psql);
        self.database.one_query(&mut psql, &self.sql);
        psql.stdin(Stdio::null());
        self.database.output(psql, None).await
    }
}

/// How a member is reached.
#[derive(Debug)]
pub enum Route {
    /// This command runs its arguments in a network that reaches it.
    Command(Command),
    /// This command reads a [`Query`] on its standard input, on a machine that reaches it.
    Elsewhere(Command),
}

impl Database {
    fn options(&self, command: &mut Command) {
        command
            .args(["-X", "-A", "-t", "-q", "-w", "-F", "|"])
            .env("PGHOST", self.address.ip().to_string())
            .env("PGPORT", self.address.port().to_string())
            .env("PGUSER", &self.name)
            .env("PGDATABASE", &self.name)
            .env("PGPASSWORD", &self.password)
            .env("PGCONNECT_TIMEOUT", "3")
            .kill_on_drop(true);
    }

    fn one_query(&self, command: &mut Command, sql: &str) {
        self.options(command);
        command.args(["-v", "ON_ERROR_STOP=1", "-c", sql]);
    }

    /// Runs one command.
    async fn run(&self, route: Route, sql: &str) -> Result<String, SqlError> {
        match route {
            Route::Command(mut enter) => {
                enter.arg(&self.psql);
                self.one_query(&mut enter, sql);
                enter.stdin(Stdio::null());
                self.output(enter, None).await
            }
            Route::Elsewhere(mut command) => {
                let query = Query {
                    database: self.clone(),
                    sql: sql.into(),
                };
                let query = serde_json::to_vec(&query).map_err(io::Error::from)?;
                command.stdin(Stdio::piped()).kill_on_drop(true);
                self.output(command, Some(&query)).await
            }
        }
    }

    async fn output(&self, command: Command, input: Option<&[u8]>) -> Result<String, SqlError> {
        let output = timeout(ASK_LIMIT, output(command, input))
            .await
            .map_err(|_| SqlError::TimedOut(ASK_LIMIT))?
            .map_err(|why| SqlError::Run {
                program: self.psql.clone(),
                why,
            })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().last().unwrap_or("psql failed");
        Err(SqlError::Psql(last.into()))
    }

    /// Creates the table that `insert` writes to.
    ///
    /// # Errors
    /// If the member does not answer, or rejects it.
    pub async fn prepare(&self, route: Route) -> Result<(), SqlError> {
        self.run(route, MAKE).await.map(drop)
    }

    /// Removes it again.
    ///
    /// # Errors
    /// If the member does not answer, or rejects it.
    pub async fn clean_up(&self, route: Route) -> Result<(), SqlError> {
        self.run(route, REMOVE).await.map(drop)
    }

    /// Looks up the acknowledged writes.
    pub async fn look_up(&self, route: Route, writes: &[Acknowledged]) -> Writes {
        let mut found = Writes {
            acknowledged: writes.len() as u64,
            ..Writes::default()
        };
        match self.run(route, LOOK_UP).await {
            Err(why) => {
                found.unknown = writes
                    .iter()
                    .map(|it| format!("{}: {why}", it.id))
                    .collect()
            }
            Ok(text) => {
                let there: BTreeSet<&str> = text.lines().collect();
                let lost = writes.iter().filter(|it| !there.contains(it.id.as_str()));
                found.lost = lost
                    .map(|it| format!("{}: not in the database", it.id))
                    .collect();
            }
        }
        found
    }

    /// This member's contents.
    ///
    /// # Errors
    /// If the member does not answer, or rejects it.
    pub async fn holding(&self, route: Route, server: ServerName) -> Result<Holding, SqlError> {
        let text = self.run(route, HOLDING).await?;
        let tables = text.lines().filter_map(|line| {
            let mut parts = line.split('|');
            let (table, count) = (parts.next()?, parts.next()?);
            let rows = Rows {
                count: count.parse().ok()?,
                checksum: parts.next().unwrap_or_default().into(),
            };
            Some((table.to_string(), rows))
        });
        Ok(Holding {
            server,
            tables: tables.collect(),
        })
    }
}

/// What a command printed, which reads this.
async fn output(mut command: Command, input: Option<&[u8]>) -> io::Result<std::process::Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // One that ends before it has read everything says why.
        let _ = stdin.write_all(input).await;
    }
    child.wait_with_output().await
}

/// A session of psql, which gets one line after another.
struct Session {
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(database: &Database) -> Result<Self, SqlError> {
        let mut shell = Command::new("/bin/sh");
        // A warning must be read before the response that it belongs to, so both use one pipe.
        shell
            .args(["-c", "exec \"$0\" \"$@\" 2>&1"])
            .arg(&database.psql);
        database.options(&mut shell);
        let mut psql = shell;
        psql.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = psql.spawn().map_err(|why| SqlError::Run {
            program: "psql".into(),
            why,
        })?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = pipes else {
            return Err(SqlError::NoPipes);
        };
        Ok(Self {
            _child: child,
            input,
            output: BufReader::new(output),
        })
    }

    /// A write is acknowledged if the response has the id and no warning. A cancelled wait for the standby ends
    /// with a warning and the id.
    async fn insert(&mut self, id: &str) -> Result<(), SqlError> {
        let sql = format!("insert into gaiola_drill.ledger values ('{id}') returning id;\n");
        self.input.write_all(sql.as_bytes()).await?;
        let (mut line, mut warning) = (String::new(), None);
        loop {
            line.clear();
            if self.output.read_line(&mut line).await? == 0 {
                return Err(warning.unwrap_or(SqlError::Closed));
            }
            match line.trim() {
                answer if answer == id => return warning.map_or(Ok(()), Err),
                error if error.starts_with("ERROR:") => return Err(SqlError::Psql(error.into())),
                "" => {}
                other => warning = Some(SqlError::Psql(other.into())),
            }
        }
    }
}

/// Inserts one row after another until it is stopped, and returns the acknowledged ones.
pub(super) async fn insert(
    database: &Database,
    kind: Kind,
    record: &Record,
    rate: u32,
    mut stopped: oneshot::Receiver<()>,
) -> Vec<Acknowledged> {
    let (run, mut acknowledged, mut session) = (run_id(), Vec::new(), None);
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {}
        }
        let (id, sent) = (format!("{run}-{number}"), record.now());
        let outcome = insert_one(database, &mut session, &id).await;
        record.take(kind, sent, false, &outcome);
        if outcome.is_ok() {
            let path = Err(NoPath::Database);
            acknowledged.push(Acknowledged { id, path });
        }
    }
    acknowledged
}

/// A session that failed is not used again.
async fn insert_one(
    database: &Database,
    session: &mut Option<Session>,
    id: &str,
) -> Result<(), SqlError> {
    let mut open = match session.take() {
        Some(open) => open,
        None => Session::open(database)?,
    };
    let outcome = timeout(LIMIT, open.insert(id))
        .await
        .unwrap_or(Err(SqlError::TimedOut(LIMIT)));
    if outcome.is_ok() {
        *session = Some(open);
    }
    outcome
}
