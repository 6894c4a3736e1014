//! Choosing a server for a request, or waiting for one.

use super::{Attempts, Target};
use crate::clock::Instant;
use crate::exchange::Exchange;
use crate::serving::{NoServer, Permit, Want};
use gaiola_core::backoff::Backoff;
use gaiola_core::retry::MOST_ATTEMPTS;
use std::time::Duration;

/// Delay before all servers are tried a second time.
const SECOND_ROUND: Backoff = Backoff {
    first: Duration::from_millis(50),
    longest: Duration::from_millis(500),
};

impl Exchange<'_> {
    /// Chooses a server; when all have failed, starts over after a delay. `queue` is the route's queue timeout, if it
    /// has one instead of the backend's. `None`: the client has left.
    pub(super) async fn choose(
        &mut self,
        target: &Target<'_>,
        attempts: &mut Attempts,
        queue: Option<Duration>,
    ) -> Option<Result<Permit, NoServer>> {
        let Target { backend, want, .. } = *target;
        let last = attempts.count == MOST_ATTEMPTS;
        let want = Want { last, ..want };
        let tried = &mut attempts.tried;
        let why = match backend.permit_now(want, tried, &self.record.tracker) {
            Ok(permit) => {
                self.record.queue.done = true;
                return Some(Ok(permit));
            }
            Err(why) => why,
        };
        let (worker, tracker) = (self.worker, &self.record.tracker);
        let begun = Instant::now();
        let limit = queue.unwrap_or(backend.config.timeouts.queue);
        let limit = limit.saturating_sub(self.record.queue.span);
        let round = attempts.count;
        // Most requests get a server at once, and reserve no memory for this.
        let later = Box::pin(async {
            let later = backend.permit_later(why, want, tried, worker.now(), limit, tracker);
            match later.await {
                Err(NoServer::AllTried) => {
                    let pause = SECOND_ROUND.delay(round, &mut worker.rng.borrow_mut());
                    tokio::time::sleep(pause).await;
                    tried.clear();
                    backend
                        .permit(want, tried, worker.now(), limit, tracker)
                        .await
                }
                permit => permit,
            }
        });
        let buffer = &mut self.request.buffer;
        let permit = self.downstream.while_it_stays(buffer, later).await;
        let queue = &mut self.record.queue;
        queue.span += begun.elapsed();
        queue.done |= match permit {
            Some(Ok(_) | Err(NoServer::QueueTimeout | NoServer::StillDown)) => true,
            Some(Err(_)) | None => false,
        };
        permit
    }
}
