//! The probe: a minimal request over a new connection, every 10 ms if Gaiola's own proxies answer, with a timeout of 100 ms.

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
/// Timeout from the first packet to the end of the response.
const LIMIT: Duration = Duration::from_millis(100);

/// A running probe. Dropping it ends it at once.
#[derive(Debug)]
pub struct Probe {
    stop: Option<oneshot::Sender<()>>,
    driver: JoinHandle<()>,
}

impl Probe {
    /// Starts; every probe is recorded. Needs a tokio runtime.
    pub fn start(course: &Course, record: &Record) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop: Some(stop),
            driver: tokio::spawn(drive(Arc::new(course.clone()), record.clone(), stopped)),
        }
    }

    /// Starts no more probes, and waits for those in flight.
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

/// Missed probes are not repeated: a delayed prober shows as a pause in the record.
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
