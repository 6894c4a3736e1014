//! The probe: next to nothing over a new connection, every 10 ms where Gaiola's own proxies answer, with a limit of 100 ms.

use super::client::{Ask, Connection};
use super::error::RequestError;
use super::{Course, Record};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Default interval of new connections.
pub(super) const EVERY: Duration = Duration::from_millis(10);
/// From the first packet to the end of the answer.
const LIMIT: Duration = Duration::from_millis(100);

/// A running probe. Dropping it ends it at once.
#[derive(Debug)]
pub struct Probe {
    stop: Option<oneshot::Sender<()>>,
    driver: JoinHandle<()>,
}

impl Probe {
    /// Begins; every probe goes into the record. Needs a tokio runtime.
    pub fn start(course: &Course, record: &Record) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop: Some(stop),
            driver: tokio::spawn(drive(Arc::new(course.clone()), record.clone(), stopped)),
        }
    }

    /// Begins no more, and waits for those under way.
    pub async fn stop(mut self) {
        self.stop.take();
        drop((&mut self.driver).await);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Probes are not made up for: a held-up prober shows as a pause in the record.
async fn drive(course: Arc<Course>, record: Record, mut stopped: oneshot::Receiver<()>) {
    let mut ticks = interval(course.probed.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {
                under_way.spawn(one(course.clone(), record.clone()));
            }
            Some(_) = under_way.join_next() => {}
        }
    }
    while under_way.join_next().await.is_some() {}
}

async fn one(course: Arc<Course>, record: Record) {
    let sent = record.now();
    let outcome = timeout(LIMIT, ask(&course))
        .await
        .unwrap_or(Err(RequestError::TimedOut(LIMIT)));
    record.take(course.probed.kind, sent, false, &outcome);
}

async fn ask(course: &Course) -> Result<(), RequestError> {
    let mut connection = Connection::open(course).await?;
    let page = Ask {
        last: true,
        ..Ask::get(&course.probed.path)
    };
    connection.ask(&page).await?.success()
}
