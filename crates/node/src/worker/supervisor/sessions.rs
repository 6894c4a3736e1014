//! What is done on clients' connections, for an operator.

use super::{Look, Supervisor, WORKER_PATIENCE};
use gaiola_model::proxy::SessionsStat;
use tokio::sync::oneshot;

/// Most connections that are shown at a time.
const MOST: usize = 1000;

impl Supervisor {
    /// The connections of all workers; of many, those where something is under way for longest.
    pub(super) async fn sessions(&self) -> Result<SessionsStat, String> {
        let mut stat = SessionsStat::default();
        for (index, seat) in self.seats.iter().enumerate() {
            let (shown, answer) = oneshot::channel();
            let look = async {
                seat.looks.send(Look { most: MOST, shown }).await.ok()?;
                answer.await.ok()
            };
            let (total, sessions) = tokio::time::timeout(WORKER_PATIENCE, look)
                .await
                .map_err(|_| format!("worker {index} does not answer"))?
                .ok_or_else(|| format!("worker {index} has ended"))?;
            stat.total += total;
            stat.sessions.extend(sessions);
        }
        stat.sessions.sort_by_key(|session| {
            let since = session.busy_ms.unwrap_or(session.age_ms);
            (session.busy_ms.is_none(), std::cmp::Reverse(since))
        });
        stat.sessions.truncate(MOST);
        Ok(stat)
    }
}
