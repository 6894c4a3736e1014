//! Looks up acknowledged writes.

use super::Course;
use super::client::{Ask, Connection, Reply};
use super::error::RequestError;
use super::load::Acknowledged;
use gaiola_core::drill::Writes;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

/// Concurrent look-ups.
const AT_A_TIME: usize = 8;
/// Timeout of one look-up.
const LIMIT: Duration = Duration::from_secs(5);
/// Interval of rounds over missing writes.
const PAUSE: Duration = Duration::from_millis(500);

/// A write that was not found yet, and why.
struct Missing {
    write: Acknowledged,
    why: Why,
}

enum Why {
    /// The site answered that it does not exist.
    Lost(String),
    /// The site did not answer, or its response does not show whether it exists.
    Unknown(String),
}

/// Looks up every acknowledged write, repeatedly until `deadline`, and returns the missing ones.
///
/// A write is found if the response is a 2xx whose body (the first 64 KiB) contains its id. The status alone does
/// not suffice: the number of a lost entry may belong to another one now.
pub async fn check_lost(course: &Course, writes: &[Acknowledged], deadline: Duration) -> Writes {
    let ends = Instant::now() + deadline;
    let not_yet = |write: &Acknowledged| Missing {
        write: write.clone(),
        why: Why::Unknown("not looked up in time".into()),
    };
    let mut missing: Vec<Missing> = writes.iter().map(not_yet).collect();
    loop {
        missing = look_up_all(course, missing, ends).await;
        if missing.is_empty() || Instant::now() + PAUSE >= ends {
            return count(writes.len(), missing);
        }
        sleep(PAUSE).await;
    }
}

fn count(acknowledged: usize, missing: Vec<Missing>) -> Writes {
    let mut writes = Writes {
        acknowledged: acknowledged as u64,
        ..Writes::default()
    };
    for Missing { write, why } in missing {
        match why {
            Why::Lost(why) => writes.lost.push(format!("{}: {why}", write.id)),
            Why::Unknown(why) => writes.unknown.push(format!("{}: {why}", write.id)),
        }
    }
    writes
}

/// One round; returns the missing writes.
async fn look_up_all(course: &Course, writes: Vec<Missing>, ends: Instant) -> Vec<Missing> {
    let queue = Arc::new(Mutex::new(writes));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_A_TIME {
        tasks.spawn(look_up_some(course.clone(), queue.clone(), ends));
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn look_up_some(
    course: Course,
    queue: Arc<Mutex<Vec<Missing>>>,
    ends: Instant,
) -> Vec<Missing> {
    let mut left = Vec::new();
    let mut kept = None;
    loop {
        let next = queue.lock().expect("nothing panics while it is held").pop();
        let Some(Missing { write, .. }) = next else {
            return left;
        };
        let limit = ends.min(Instant::now() + LIMIT);
        let found = timeout_at(limit, look_up(&course, &write, &mut kept)).await;
        if let Err(why) = found.unwrap_or_else(|_| Err(Why::Unknown("no answer in time".into()))) {
            left.push(Missing { write, why });
        }
    }
}

async fn look_up(
    course: &Course,
    write: &Acknowledged,
    kept: &mut Option<Connection>,
) -> Result<(), Why> {
    let path = write
        .path
        .as_ref()
        .map_err(|why| Why::Unknown(why.to_string()))?;
    let mut connection = match kept.take().filter(|connection| !connection.is_closed()) {
        Some(connection) => connection,
        None => Connection::open(course).await.map_err(unknown)?,
    };
    let asked = connection.ask(&Ask::get(path)).await;
    let reply = asked.map_err(|broken| unknown(broken.into()))?;
    *kept = Some(connection);
    let bears_id = course
        .drill
        .write
        .as_ref()
        .is_some_and(|write| write.body.contains("{id}"));
    judge(&reply, path, bears_id.then_some(&write.id))
}

fn unknown(error: RequestError) -> Why {
    Why::Unknown(error.to_string())
}

fn judge(reply: &Reply, path: &str, id: Option<&String>) -> Result<(), Why> {
    let holds = || {
        id.is_none_or(|id| {
            reply
                .body
                .windows(id.len())
                .any(|window| window == id.as_bytes())
        })
    };
    match reply.status {
        200..=299 if holds() => Ok(()),
        200..=299 => Err(Why::Lost(format!("{path}: another entry is there"))),
        404 | 410 => Err(Why::Lost(format!("{path}: HTTP {}", reply.status))),
        status => Err(Why::Unknown(format!("{path}: HTTP {status}"))),
    }
}
