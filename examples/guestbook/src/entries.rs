//! The entries, and the statements that list, find and add them.

use crate::database::{Failure, Lent, Pool, describe};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Row};

/// Maximum length of a list.
const LISTED: i64 = 50;
/// Timeout of one attempt of a read, before the next connection is tried.
const READ: Duration = Duration::from_secs(3);
/// How long connecting is retried.
const PATIENCE: Duration = Duration::from_secs(3);
/// Interval of these attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a migration waits for a database that takes writes.
const MIGRATE: Duration = Duration::from_secs(30);
/// An arbitrary key of an advisory lock, by which migrations of several releases wait for each other.
const MIGRATION_LOCK: i64 = 0x6775_6573_7462_6f6f;

/// One entry of the guest book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// Its number; later entries have higher ones.
    pub(crate) id: i64,
    /// Who wrote it.
    pub(crate) author: String,
    /// What was written.
    pub(crate) text: String,
    /// When, in UTC (RFC 3339).
    pub(crate) written_at: String,
}

/// An entry as a visitor sends it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEntry {
    author: String,
    text: String,
}

impl NewEntry {
    /// Trims both fields and rejects invalid ones, with a reason for people.
    pub(crate) fn checked(self) -> Result<Self, String> {
        let entry = Self {
            author: self.author.trim().into(),
            text: self.text.trim().into(),
        };
        check("author", &entry.author, 40)?;
        check("text", &entry.text, 500)?;
        Ok(entry)
    }
}

fn check(field: &str, value: &str, most: usize) -> Result<(), String> {
    let length = value.chars().count();
    if length == 0 {
        Err(format!("{field} is empty"))
    } else if length > most {
        Err(format!(
            "{field} has {length} characters; {most} are the most"
        ))
    } else if value.chars().any(|c| c.is_control() && c != '\n') {
        Err(format!("{field} has a control character in it"))
    } else {
        Ok(())
    }
}

/// A value, and the database server that returned it.
pub(crate) type Served<T> = (T, Option<String>);

/// The newest entries, newest first.
pub(crate) async fn list(pool: &Pool) -> Result<Served<Vec<Entry>>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM entries ORDER BY id DESC LIMIT $1");
    let (rows, server) = read(pool, &sql, &[(&LISTED, Type::INT8)]).await?;
    Ok((rows.iter().map(entry).collect(), server))
}

/// The entry with this number.
pub(crate) async fn find(pool: &Pool, id: i64) -> Result<Served<Option<Entry>>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM entries WHERE id = $1");
    let (rows, server) = read(pool, &sql, &[(&id, Type::INT8)]).await?;
    Ok((rows.first().map(entry), server))
}

/// Adds an entry. `Ok` only once it is committed, and on the standbys that PostgreSQL waits for.
///
/// It is retried only if it was certainly not carried out before.
pub(crate) async fn add(pool: &Pool, new: &NewEntry) -> Result<Served<Entry>, Failure> {
    patiently(|| try_add(pool, new)).await
}

/// Retries for a while as long as there is no connection: no statement was sent then, and a proxy or a new
/// primary may soon be ready.
async fn patiently<T, Tried>(mut attempt: impl FnMut() -> Tried) -> Result<T, Failure>
where
    Tried: Future<Output = Result<T, Failure>>,
{
    let began = Instant::now();
    loop {
        match attempt().await {
            Err(Failure::NotHad(_)) if began.elapsed() < PATIENCE => sleep(PAUSE).await,
            answered => return answered,
        }
    }
}

async fn try_add(pool: &Pool, new: &NewEntry) -> Result<Served<Entry>, Failure> {
    let sql = format!("INSERT INTO entries (author, text) VALUES ($1, $2) RETURNING {COLUMNS}");
    let lent = pool.get().await?;
    let warned_before = lent.warnings();
    let row = lent
        .client()
        .query_typed_one(&sql, &[(&new.author, Type::TEXT), (&new.text, Type::TEXT)])
        .await
        .map_err(|error| Failure::of(&error))?;
    if lent.warnings() != warned_before {
        return Err(Failure::NotReplicated(
            "PostgreSQL committed with a warning".into(),
        ));
    }
    let added = (entry(&row), lent.server());
    lent.keep();
    Ok(added)
}

/// Reads are safe to repeat: one that broke off is retried.
async fn read(
    pool: &Pool,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Served<Vec<Row>>, Failure> {
    match patiently(|| try_read(pool, sql, parameters)).await {
        Err(Failure::Broken(_)) => patiently(|| try_read(pool, sql, parameters)).await,
        answered => answered,
    }
}

async fn try_read(
    pool: &Pool,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Served<Vec<Row>>, Failure> {
    let lent = pool.get().await?;
    let rows = timeout(READ, lent.client().query_typed(sql, parameters))
        .await
        .map_err(|_| Failure::Broken(format!("nothing within {} s", READ.as_secs())))?
        .map_err(|error| Failure::of(&error))?;
    let server = lent.server();
    lent.keep();
    Ok((rows, server))
}

const COLUMNS: &str =
    r#"id, author, text, to_char(written_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#;

fn entry(row: &Row) -> Entry {
    Entry {
        id: row.get(0),
        author: row.get(1),
        text: row.get(2),
        written_at: row.get(3),
    }
}

/// Creates the tables. It may run repeatedly and concurrently: one run waits for the other.
pub(crate) async fn migrate(config: &Config) -> Result<(), String> {
    let sql = format!(
        "BEGIN;
         SELECT pg_advisory_xact_lock({MIGRATION_LOCK});
         CREATE TABLE IF NOT EXISTS entries (
             id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             author text NOT NULL,
             text text NOT NULL,
             written_at timestamptz NOT NULL DEFAULT now()
         );
         COMMIT;"
    );
    let pool = Pool::new(config);
    let lent = timeout(MIGRATE, connected(&pool)).await.map_err(|_| {
        format!(
            "the database cannot be reached within {} s",
            MIGRATE.as_secs()
        )
    })?;
    lent.client()
        .batch_execute(&sql)
        .await
        .map_err(|error| format!("cannot migrate the database: {}", describe(&error)))
}

async fn connected(pool: &Pool) -> Lent<'_> {
    loop {
        match pool.get().await {
            Ok(lent) => return lent,
            Err(failure) => eprintln!("guestbook: {failure}; trying again"),
        }
        sleep(Duration::from_millis(500)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(author: &str, text: &str) -> Result<NewEntry, String> {
        NewEntry {
            author: author.into(),
            text: text.into(),
        }
        .checked()
    }

    #[test]
    fn an_entry_is_trimmed() {
        let entry = checked(" Ana ", "\n Olá \n").unwrap();
        assert_eq!((entry.author.as_str(), entry.text.as_str()), ("Ana", "Olá"));
    }

    #[test]
    fn what_cannot_stand_in_the_book_is_refused_with_a_reason() {
        assert_eq!(checked("  ", "x").unwrap_err(), "author is empty");
        assert_eq!(
            checked("Ana", &"é".repeat(501)).unwrap_err(),
            "text has 501 characters; 500 are the most"
        );
        assert_eq!(
            checked("Ana", "a\0b").unwrap_err(),
            "text has a control character in it"
        );
        assert!(checked("Ana", "two\nlines").is_ok());
    }
}
