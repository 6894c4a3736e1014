//! Draining connections: of one address being handed over, or of all when the process stops.

use super::Supervisor;
use super::error::{AdmissionError, FilterError};
use crate::listen::Listener;
use gaiola_model::proxy::{Admission, ControlReply};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Handshakes in progress still complete after new connections are refused: they get this long.
const HANDSHAKES: Duration = Duration::from_millis(100);

/// Interval between polls of the remaining connections.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// If a hand-over is not ended within this time, its requester has died: the address is served again.
pub(super) const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);

/// Poll interval for such addresses.
const LAPSE_POLL: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Sets the admission of connections to one local address, at most until [`HAND_OVER_LIMIT`] after `wait`.
    pub(super) async fn admit(
        &self,
        local: IpAddr,
        admission: Admission,
        wait: Duration,
    ) -> ControlReply {
        let asked = Instant::now();
        let set = {
            let _changing = self.changing.lock().await;
            self.set_admission(local, admission, asked + wait + HAND_OVER_LIMIT)
        };
        let applied = match set {
            Ok(seq) => self.applied(seq).await.map_err(AdmissionError::Worker),
            Err(error) => Err(AdmissionError::Filter(error)),
        };
        if let Err(error) = applied {
            return ControlReply::Refused(error.to_string());
        }
        if admission == Admission::Refuse {
            self.until_none_is_left(Some(local), asked, wait).await;
        }
        ControlReply::Admitted {
            connections: self.connections(Some(local)),
        }
    }

    /// Publishes the admission, until `lapse` if the address is being handed over. The caller excludes other changes.
    /// Returns the number of the orders.
    fn set_admission(
        &self,
        local: IpAddr,
        admission: Admission,
        lapse: Instant,
    ) -> Result<u64, FilterError> {
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
        refuse(&self.orders().listeners, &refused)?;
        match admission {
            Admission::Accept => self.lapses.borrow_mut().remove(&local),
            Admission::Close | Admission::Refuse => self.lapses.borrow_mut().insert(local, lapse),
        };
        Ok(self.publish(|orders| orders.admissions = Arc::new(admissions)))
    }

    /// Serves addresses again whose hand-over has lapsed. Never returns.
    pub(crate) async fn end_lapsed_hand_overs(&self) {
        loop {
            tokio::time::sleep(LAPSE_POLL).await;
            let lapses = self.lapses.borrow().clone();
            for (local, lapse) in lapses {
                let _changing = self.changing.lock().await;
                let now = Instant::now();
                // Another hand-over may have begun meanwhile.
                if lapse > now || self.lapses.borrow().get(&local) != Some(&lapse) {
                    continue;
                }
                tracing::warn!(vip = %local, "a hand-over was not finished: serving the VIP again");
                if let Err(reason) = self.set_admission(local, Admission::Accept, now) {
                    tracing::warn!(vip = %local, %reason, "cannot serve the VIP again");
                }
            }
        }
    }

    /// Waits until no connection is left: none open, in a backlog, or in its handshake.
    async fn until_none_is_left(&self, local: Option<IpAddr>, since: Instant, limit: Duration) {
        let mut quiet = 0;
        while since.elapsed() < limit {
            let orders = self.orders();
            let mut listeners = orders.listeners.iter();
            let waiting = listeners.any(|listener| {
                local.is_none_or(|local| listener.serves(local)) && listener.has_waiting()
            });
            let open = self.connections(local) > 0 || local.is_none() && self.is_late();
            let busy =
                waiting || open || since.elapsed() < HANDSHAKES && local.is_none_or(has_handshakes);
            // Twice, since a connection being accepted is briefly counted in neither.
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet == 2 {
                return;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Stops gracefully: with `filter`, new connections are left unanswered, so that clients try elsewhere, otherwise
    /// they are refused; open connections are served. Takes at most `limit`.
    pub(crate) async fn end(&self, filter: bool, limit: Duration) {
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
                    tracing::warn!(%error, "cannot hold back new connections");
                }
            }
        }
        self.until_none_is_left(None, asked, limit).await;
    }
}

/// Whether a connection to this local address is in its handshake.
fn has_handshakes(local: IpAddr) -> bool {
    const TABLE: &str = "/proc/self/net/tcp";
    let IpAddr::V4(local) = local else {
        return true;
    };
    let table = std::fs::read_to_string(TABLE);
    // An unreadable table proves nothing: then assume that there are some.
    table.map_or(true, |table| lists_handshakes(&table, local))
}

/// The same, from the kernel's table of connections: number, local address, remote address, state.
fn lists_handshakes(table: &str, local: Ipv4Addr) -> bool {
    const SYN_RECEIVED: &str = "03";
    let local = format!("{:08X}:", u32::from_ne_bytes(local.octets()));
    table.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_local = words.next().is_some_and(|it| it.starts_with(&local));
        is_local && words.nth(1) == Some(SYN_RECEIVED)
    })
}

/// Leaves new connections to these local addresses unanswered, on each listener that serves them.
///
/// # Errors
/// The listener, and the system's error.
pub(super) fn refuse(
    listeners: &[Arc<Listener>],
    refused: &BTreeSet<IpAddr>,
) -> Result<(), FilterError> {
    for listener in listeners {
        listener.refuse(refused).map_err(|error| FilterError {
            address: listener.address.clone(),
            error,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_found_in_the_kernels_table() {
        let vip = Ipv4Addr::new(10, 77, 0, 100);
        let head = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let line = |state| {
            let local = u32::from_ne_bytes(vip.octets());
            format!("   1: {local:08X}:0050 0102034D:D8D4 {state} 00000000:00000000\n")
        };
        assert!(lists_handshakes(&(head.to_owned() + &line("03")), vip));
        assert!(!lists_handshakes(&(head.to_owned() + &line("01")), vip));
        let other = Ipv4Addr::new(10, 77, 0, 101);
        assert!(!lists_handshakes(&(head.to_owned() + &line("03")), other));
    }
}
