//! What is wrong with this server, in words for people.

use super::Agent;
use super::balancer::Balancer;
use super::database::Database;
use super::secrets::Hidden;
use super::supervisor::Condition;
use gaiola_core::members::Fate;

/// So many restarts of etcd are no trouble yet.
const USUAL_RESTARTS: u32 = 2;

impl Agent {
    /// Everything that is wrong here; `rejected`: why the proxy rejected its configuration.
    pub(super) fn troubles(&self, rejected: Option<&str>) -> Vec<String> {
        let (balancer, database) = (self.balancer.as_ref(), self.database.as_ref());
        let all = [
            self.unsaved_order(),
            self.missing_files(&self.order),
            self.closed_environments(&self.order),
            self.missing_etcd(),
            self.lost_store_member(),
            rejected.map(|why| format!("the proxy refused its configuration: {why}")),
            self.failing_etcd(),
            balancer.and_then(|balancer| balancer.state().config_problem.clone()),
            balancer.and_then(Balancer::command_trouble),
            database.and_then(Database::trouble),
            self.logs.trouble(),
        ];
        let view = self.view.borrow();
        let unreadable = view.unreadable.values().cloned();
        all.into_iter().flatten().chain(unreadable).collect()
    }

    fn unsaved_order(&self) -> Option<String> {
        let error = self.unsaved.as_ref()?;
        let revision = self.order.revision;
        Some(format!(
            "cannot save the order of revision {revision}, which is therefore not acknowledged: {error}"
        ))
    }

    fn missing_etcd(&self) -> Option<String> {
        let error = self.etcd.as_ref().err()?;
        let is_wanted = self.store_member(&self.order) == Fate::Run;
        is_wanted.then(|| gaiola_os::chain(error))
    }

    fn lost_store_member(&self) -> Option<String> {
        let is_named = self.order.placement.store.contains(&self.boot.server);
        let is_lost = is_named && self.store_member(&self.order) == Fate::Forget;
        is_lost.then(|| {
            "the data of its member of the store is lost: it is to be let in anew".to_string()
        })
    }

    fn failing_etcd(&self) -> Option<String> {
        match self.supervisor.condition("etcd")? {
            Condition::Down(why) if self.supervisor.restarts("etcd") > USUAL_RESTARTS => Some(
                format!("etcd {why}{}", self.logs.cause("etcd", Hidden::default())),
            ),
            Condition::Down(_) | Condition::Starting | Condition::Running | Condition::Stopping => {
                None
            }
        }
    }
}
