//! The state of the proxy.

use super::{Supervisor, WatchedBackend};
use gaiola_model::proxy::{ProxyReport, ServerReport};

impl Supervisor {
    /// The state of the proxy.
    pub(crate) fn report(&self) -> ProxyReport {
        let mut leaving = self.leaving.borrow_mut();
        leaving.retain(|member| member.in_flight() > 0);
        let gone = leaving.iter().map(|member| ServerReport {
            backend: member.backend.clone(),
            server: member.name.clone(),
            up: false,
            busy: false,
            reason: "no longer configured".into(),
            in_flight: member.in_flight(),
            results: member.results(),
        });
        let backends = self.backends.borrow();
        let members = backends.iter().flat_map(WatchedBackend::member_states);
        let configured = members.map(|(watched, state)| ServerReport {
            backend: watched.member.backend.clone(),
            server: watched.member.name.clone(),
            up: state.up,
            busy: state.busy,
            reason: state.reason,
            in_flight: watched.member.in_flight(),
            results: watched.member.results(),
        });
        let mut report = ProxyReport {
            revision: self.revision.get(),
            connections: self.connections(None),
            servers: configured.chain(gone).collect(),
            old_processes: 0,
        };
        self.add_old(&mut report);
        report
    }
}
