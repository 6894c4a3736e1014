//! A machine that a command rolls: set aside before, taken back afterwards.

use super::{Work, desired, may_drain, refuse_all_drained, refused, step, store_desired};
use crate::api::Outcome;
use crate::site::Site;
use gaiola_model::placement::{Aside, Placement, Revision};
use gaiola_model::{Desired, Exit, ServerName};
use gaiola_net::client::Target;
use gaiola_store::Store;
use gaiola_store::etcd::EtcdMember;
use std::collections::BTreeSet;

impl Work<'_> {
    /// Drains the servers of a machine that were not drained before. Those of the same machine that were set aside already stay so.
    pub(super) async fn set_aside(&mut self, asked: Aside) -> Result<Revision, Outcome> {
        let (store, at, held) = desired(self.site, self.deadline, self.steps).await?;
        let before = match &held.aside {
            Some(other) if other.host != asked.host => {
                let why = format!(
                    "{} is set aside by {}: end that first",
                    other.host, other.by
                );
                return Err(refused(Exit::ChangeUnderWay, why));
            }
            before => before.as_ref().map(|aside| aside.servers.clone()),
        };
        let mut new = held.clone();
        let mut servers = before.unwrap_or_default();
        for server in &asked.servers {
            if !held.drained.contains(server) {
                may_drain(self.site, *server)?;
                servers.insert(*server);
            }
        }
        new.drained.extend(servers.iter().copied());
        refuse_all_drained(&new.config, &new.drained)?;
        new.aside = Some(Aside {
            servers,
            ..asked.clone()
        });
        let at = if new == held {
            at
        } else {
            store_desired(self.site, &store, at, new).await?
        };
        self.move_leader_from(&store, &asked).await;
        Ok(at)
    }

    /// Returns what was drained for the machine that is set aside.
    pub(super) async fn take_back(&mut self) -> Result<Revision, Outcome> {
        let (store, at, mut new) = desired(self.site, self.deadline, self.steps).await?;
        let Some(aside) = new.aside.take() else {
            return Ok(at);
        };
        new.drained.retain(|server| !aside.servers.contains(server));
        store_desired(self.site, &store, at, new).await
    }

    /// The store goes on without its leader too, after an election: a move that fails is no failure.
    async fn move_leader_from(&mut self, store: &Store, aside: &Aside) {
        let Some((leader, to)) = leader_on(self.site, store, aside).await else {
            return;
        };
        match store.move_leader(&leader, to).await {
            Ok(()) => {
                step(
                    self.steps,
                    format!("the store's leader left {}", aside.host),
                )
                .await
            }
            Err(error) => tracing::warn!(
                error = gaiola_os::chain(&error),
                "cannot move the store's leader"
            ),
        }
    }
}

/// The store's leader, if it stands on this machine, and a voter that stands elsewhere.
async fn leader_on(site: &Site, store: &Store, aside: &Aside) -> Option<(Target, u64)> {
    let placement = site.order.borrow().as_ref()?.placement.clone();
    let here = members_on(&placement, aside);
    let statuses = store.statuses().await;
    let voters = || {
        statuses
            .iter()
            .filter_map(|(at, status)| Some((at, status.as_ref().ok()?)))
    };
    let is_here = |at: &Target| here.contains(&at.to_string());
    let (leader, _) =
        voters().find(|(at, status)| status.leader == Some(status.id) && is_here(at))?;
    let (_, to) = voters().find(|(at, status)| !status.learner && !is_here(at))?;
    Some((leader.clone(), to.id))
}

/// Where the members of the store on a machine answer.
fn members_on(placement: &Placement, aside: &Aside) -> BTreeSet<String> {
    let stands = |server: &&ServerName| {
        let placed = placement.servers.get(server);
        aside.servers.contains(server)
            || placed.is_some_and(|placed| placed.location.host == aside.host)
    };
    let members = placement.store.iter().filter(stands);
    let members = members.filter_map(|server| EtcdMember::on(placement, *server));
    members.map(|member| member.target().to_string()).collect()
}

/// A server that is returned to traffic by hand is not waited for any more; the last one ends it all. Returns whether that changed
/// anything.
pub(super) fn forget(aside: &mut Option<Aside>, server: ServerName) -> bool {
    let Some(held) = aside else {
        return false;
    };
    let was_there = held.servers.remove(&server);
    // Of a machine that is alone nothing was drained.
    let is_over = held.servers.is_empty();
    if is_over {
        *aside = None;
    }
    was_there || is_over
}

/// Servers that are removed are not waited for: without any left, nothing is set aside.
pub(super) fn without_removed(desired: &mut Desired) {
    let Some(aside) = &mut desired.aside else {
        return;
    };
    let before = aside.servers.len();
    let exists: BTreeSet<ServerName> = desired.config.server_names().collect();
    aside.servers.retain(|server| exists.contains(server));
    if before > 0 && aside.servers.is_empty() {
        desired.aside = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::inventory::Host;

    #[test]
    fn a_machine_is_set_aside_until_the_last_of_its_servers_is_returned_by_hand() {
        let [web, app, other] = ["web1", "app1", "web2"].map(|name| name.parse().unwrap());
        let mut aside = Some(Aside {
            host: Host("a".into()),
            servers: [web, app].into(),
            by: "gaiola roll of root@laptop".into(),
        });
        assert!(!forget(&mut aside, other));
        assert!(forget(&mut aside, web));
        assert_eq!(aside.as_ref().unwrap().servers, [app].into());
        assert!(forget(&mut aside, app));
        assert_eq!(aside, None);
    }
}
