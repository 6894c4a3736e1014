//! Listing clients' connections, for an operator.

use super::error::WorkerError;
use super::{SessionQuery, Supervisor, WORKER_PATIENCE};
use gaiola_model::proxy::SessionsStat;
use tokio::sync::oneshot;

/// Most connections listed at a time.
const MOST: usize = 1000;

impl Supervisor {
    /// The connections of all workers; if there are many, those busy longest.
    pub(super) async fn sessions(&self) -> Result<SessionsStat, WorkerError> {
        let (mut sum, mut shown) = (0, Vec::new());
        for (index, worker) in self.workers.iter().enumerate() {
            let (to, answer) = oneshot::channel();
            let query = SessionQuery {
                most: MOST,
                shown: to,
            };
            let asked = async {
                worker.queries.send(query).await.ok()?;
                answer.await.ok()
            };
            let (total, sessions) = tokio::time::timeout(WORKER_PATIENCE, asked)
                .await
                .map_err(|_| WorkerError::Silent(index))?
                .ok_or(WorkerError::Ended(index))?;
            sum += total;
            shown.extend(sessions);
        }
        // By start, not by duration: the workers were asked at different times.
        shown.sort_by_key(|shown| shown.rank);
        let sessions = shown.into_iter().map(|shown| shown.stat);
        Ok(SessionsStat {
            total: sum,
            sessions: sessions.take(MOST).collect(),
        })
    }
}
