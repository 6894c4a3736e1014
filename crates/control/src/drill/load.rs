//! The steady load: pages, reads and writes in turn over keep-alive connections, at a rate that does not wait for
//! responses.

use super::client::{Ask, Broken, Connection, Reply};
use super::error::{NoPath, RequestError};
use super::{Course, Record};
use gaiola_core::drill::{Kind, fill_body, fill_path};
use gaiola_model::config::DrillWrite;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// A request without a complete response after this long has failed. Longer than a site's own timeout of the
/// database.
pub(super) const LIMIT: Duration = Duration::from_secs(15);
/// Number of connections, which are used in turn, so that all paths through the site are used.
const CONNECTIONS: usize = 16;
/// Maximum requests in flight; a further one counts as failed.
const UNDER_WAY: usize = 2048;

/// A write that the site has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Its id.
    pub id: String,
    /// The path to look it up.
    pub path: Result<String, NoPath>,
}

/// A running load. Dropping it ends it at once.
#[derive(Debug)]
pub struct Load {
    stop: Option<oneshot::Sender<()>>,
    driver: JoinHandle<()>,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
}

impl Load {
    /// Starts; every request is recorded. Needs a tokio runtime.
    pub fn start(course: &Course, record: &Record) -> Self {
        let (stop, stopped) = oneshot::channel();
        let acknowledged = Arc::default();
        let site = Arc::new(Site {
            course: course.clone(),
            record: record.clone(),
            connections: Mutex::default(),
            acknowledged: Arc::clone(&acknowledged),
            run: run_id(),
        });
        Self {
            stop: Some(stop),
            driver: tokio::spawn(drive(site, stopped)),
            acknowledged,
        }
    }

    /// Starts no more requests, waits for those in flight, and returns the acknowledged writes.
    pub async fn stop(mut self) -> Vec<Acknowledged> {
        self.stop.take();
        drop((&mut self.driver).await);
        std::mem::take(&mut hold(&self.acknowledged))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Shared state of the load's requests.
struct Site {
    course: Course,
    record: Record,
    connections: Mutex<Connections>,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    run: String,
}

#[derive(Default)]
struct Connections {
    idle: VecDeque<Connection>,
    open: usize,
}

fn hold<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nothing panics while it is held")
}

/// Distinguishes the writes of this load from those of all others.
pub(super) fn run_id() -> String {
    let number = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
    format!("drill-{number:016x}")
}

async fn drive(site: Arc<Site>, mut stopped: oneshot::Receiver<()>) {
    let kinds = site.course.kinds();
    let mut turns = (0_u64..).zip(kinds.iter().copied().cycle());
    let mut ticks = interval(Duration::from_secs(1) / site.course.rate());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst); // the rate is kept after a pause
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {
                let Some((number, kind)) = turns.next() else { break };
                if under_way.len() < UNDER_WAY {
                    under_way.spawn(one(site.clone(), kind, number));
                } else {
                    let why = Err(RequestError::NotSent(UNDER_WAY));
                    site.record.take(kind, site.record.now(), false, &why);
                }
            }
            Some(_) = under_way.join_next() => {}
        }
    }
    while under_way.join_next().await.is_some() {}
}

async fn one(site: Arc<Site>, kind: Kind, number: u64) {
    let id = format!("{}-{number}", site.run);
    let sent = site.record.now();
    let mut resent = false;
    let outcome = timeout(LIMIT, site.ask(kind, &id, &mut resent))
        .await
        .unwrap_or(Err(RequestError::TimedOut(LIMIT)));
    site.record.take(kind, sent, resent, &outcome);
}

impl Site {
    async fn ask(&self, kind: Kind, id: &str, resent: &mut bool) -> Result<(), RequestError> {
        let drill = &self.course.drill;
        match (kind, &drill.read, &drill.write) {
            (Kind::Read, Some(path), _) => self.send(&Ask::get(path), resent).await?.success(),
            (Kind::Write | Kind::Inside(_), _, Some(write)) => self.write(write, id, resent).await,
            _ => self.send(&Ask::get(&drill.page), resent).await?.success(),
        }
    }

    async fn write(
        &self,
        write: &DrillWrite,
        id: &str,
        resent: &mut bool,
    ) -> Result<(), RequestError> {
        let ask = Ask {
            path: write.path.clone(),
            body: Some(fill_body(&write.body, id)),
            last: false,
        };
        let reply = self.send(&ask, resent).await?;
        let answer = acknowledgement(&reply)?;
        let path = fill_path(&write.look_up, |field| text_of(answer.get(field)?))
            .map_err(|error| NoPath::Answer(error.to_string()));
        let id = id.into();
        hold(&self.acknowledged).push(Acknowledged { id, path });
        Ok(())
    }

    /// Sends over the next connection in turn, and again over a new one if that is safe: a site may close an idle
    /// connection at any time, even while a request is being written to it.
    async fn send(&self, ask: &Ask, resent: &mut bool) -> Result<Reply, RequestError> {
        if let Some(mut slot) = self.idle() {
            match slot.ask(ask).await {
                Ok(reply) => return Ok(reply),
                Err(Broken::Unsent) => self.record.ledger().reopened(),
                Err(Broken::Silent(_)) if ask.body.is_none() => *resent = true,
                Err(broken) => return Err(broken.into()),
            }
        }
        let mut slot = Slot::new(self);
        slot.connection = Some(Connection::open(&self.course).await?);
        Ok(slot.ask(ask).await?)
    }

    /// `None`: open a connection, since there are too few, or none is idle.
    fn idle(&self) -> Option<Slot<'_>> {
        let mut connections = hold(&self.connections);
        if connections.open < CONNECTIONS {
            return None;
        }
        while let Some(connection) = connections.idle.pop_front() {
            if !connection.is_closed() {
                return Some(Slot {
                    site: self,
                    connection: Some(connection),
                });
            }
            connections.open -= 1;
            self.record.ledger().reopened();
        }
        None
    }
}

/// A connection in use: returned after a complete response, else closed.
struct Slot<'a> {
    site: &'a Site,
    connection: Option<Connection>,
}

impl<'a> Slot<'a> {
    fn new(site: &'a Site) -> Self {
        hold(&site.connections).open += 1;
        Self {
            site,
            connection: None,
        }
    }

    async fn ask(&mut self, ask: &Ask) -> Result<Reply, Broken> {
        let Some(mut connection) = self.connection.take() else {
            return Err(Broken::Unsent);
        };
        let reply = connection.ask(ask).await?;
        self.connection = Some(connection);
        Ok(reply)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut connections = hold(&self.site.connections);
        match self.connection.take() {
            Some(connection) if connections.open <= CONNECTIONS && !connection.is_closed() => {
                connections.idle.push_back(connection);
            }
            _ => connections.open -= 1,
        }
    }
}

/// A 2xx without `"acknowledged":false`. The response need not be JSON.
fn acknowledgement(reply: &Reply) -> Result<Value, RequestError> {
    reply.success()?;
    let answer: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
    match answer.get("acknowledged") {
        Some(Value::Bool(false)) => Err(RequestError::Denied),
        _ => Ok(answer),
    }
}

fn text_of(field: &Value) -> Option<String> {
    match field {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(status: u16, body: &str) -> Result<Value, RequestError> {
        acknowledgement(&Reply {
            status,
            body: body.into(),
        })
    }

    #[test]
    fn only_a_2xx_that_does_not_deny_it_acknowledges_a_write() {
        assert_eq!(acknowledged(201, r#"{"id":7}"#).unwrap()["id"], 7);
        assert!(acknowledged(200, "thank you").is_ok());
        assert_eq!(
            acknowledged(503, r#"{"id":7}"#).unwrap_err().to_string(),
            "HTTP 503"
        );
        assert!(acknowledged(200, r#"{"acknowledged":false}"#).is_err());
    }

    #[test]
    fn a_path_is_made_of_text_and_numbers_only() {
        let answer: Value = serde_json::from_str(r#"{"a":"x","b":7,"c":null,"d":{}}"#).unwrap();
        let text = |field: &str| text_of(answer.get(field)?);
        assert_eq!(
            ["a", "b", "c", "d", "e"].map(text),
            [Some("x".into()), Some("7".into()), None, None, None]
        );
    }
}
