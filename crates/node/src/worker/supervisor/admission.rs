//! Letting connections go: of one address that is handed over, or of all when the process ends.

use super::Supervisor;
use crate::worker::listen::Listener;
use gaiola_model::proxy::{Admission, ControlReply};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After new connections are refused, handshakes on their way still end: a refusal is not answered before.
const HANDSHAKES: Duration = Duration::from_millis(100);

/// Between two looks at how many connections are left.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Supervisor {
    /// Changes what happens to connections to one local address.
    pub(super) async fn admit(
        &self,
        local: IpAddr,
        admission: Admission,
        wait: Duration,
    ) -> ControlReply {
        let asked = Instant::now();
        let seq = {
            let _changing = self.changing.lock().await;
            let mut admissions = (*self.orders().admissions).clone();
            match admission {
                Admission::Accept => admissions.remove(&local),
                Admission::Close | Admission::Refuse => admissions.insert(local, admission),
            };
            let refused = admissions
                .iter()
                .filter(|(_, admission)| **admission == Admission::Refuse)
                .map(|(&address, _)| address)
                .collect();
            if let Err(reason) = refuse(&self.orders().listeners, &refused) {
                return ControlReply::Refused(reason);
            }
            self.publish(|orders| orders.admissions = Arc::new(admissions))
        };
        if let Err(reason) = self.applied(seq).await {
            return ControlReply::Refused(reason);
        }
        if admission == Admission::Refuse {
            self.until_none_is_left(Some(local), asked, wait).await;
        }
        ControlReply::Admitted {
            connections: self.connections(Some(local)),
        }
    }

    /// Waits until no connection is left: neither open nor waiting to be accepted, nor about to be.
    async fn until_none_is_left(&self, local: Option<IpAddr>, since: Instant, limit: Duration) {
        let mut quiet = 0;
        while since.elapsed() < limit {
            let orders = self.orders();
            let mut listeners = orders.listeners.iter();
            let waiting = listeners.any(|listener| {
                local.is_none_or(|local| listener.serves(local)) && listener.has_waiting()
            });
            let open = self.connections(local) > 0 || local.is_none() && self.is_late();
            let busy = waiting || open || since.elapsed() < HANDSHAKES;
            // Twice, for one that is being accepted is for a moment in neither place.
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet == 2 {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends in good order: with `filter` new connections are left unanswered, so that clients try elsewhere, else they
    /// are refused; what is open is served. Takes `limit` at most.
    pub(in crate::worker) async fn end(&self, filter: bool, limit: Duration) {
        let asked = Instant::now();
        self.publish(|orders| {
            orders.ending = true;
            if !filter {
                orders.listeners.clear();
            }
        });
        if filter {
            for listener in &self.orders().listeners {
                if let Err(error) = listener.refuse_all() {
                    tracing::warn!(%error, "new connections cannot be left unanswered");
                }
            }
        }
        self.until_none_is_left(None, asked, limit).await;
    }
}

/// Leaves new connections to these local addresses unanswered, on each listener that they come in by.
///
/// # Errors
/// The listener, and what the system said.
pub(super) fn refuse(
    listeners: &[Arc<Listener>],
    refused: &BTreeSet<IpAddr>,
) -> Result<(), String> {
    for listener in listeners {
        listener.refuse(refused).map_err(|error| {
            format!(
                "the filter on {} cannot be changed: {error}",
                listener.address
            )
        })?;
    }
    Ok(())
}
