//! Queries on a stored placement, answered from what is observed.

use super::Facts;
use crate::topology::{self, TrafficTarget};
use gaiola_model::placement::{
    DatabaseRole, Encryption, InstanceState, ObservedDatabase, ObservedInstance, ObservedProxy,
    Phase,
};
use gaiola_model::{InstanceName, Observed, Placement, Revision, ServerName, Tier};

/// A placement as the store holds it, with every `since` known, and the observations.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) placement: &'a Placement,
    pub(crate) at: Revision,
    pub(crate) facts: &'a Facts,
}

/// Why something does not hold, in words that follow the name of its subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unmet(String);

impl<S: Into<String>> From<S> for Unmet {
    fn from(words: S) -> Self {
        Self(words.into())
    }
}

impl<'a> View<'a> {
    pub(crate) fn new(placement: &'a Placement, at: Revision, facts: &'a Facts) -> Self {
        Self {
            placement,
            at,
            facts,
        }
    }

    /// The report of a server that holds a lease.
    pub(crate) fn live(&self, server: ServerName) -> Option<&'a Observed> {
        self.facts.observed.get(&server)
    }

    pub(crate) fn is_dead(&self, server: ServerName) -> bool {
        self.facts.is_dead(server)
    }

    /// The proxy of a live server, if it has this revision or a later one.
    pub(crate) fn proxy_at(
        &self,
        server: ServerName,
        since: Revision,
    ) -> Result<&'a ObservedProxy, Unmet> {
        let Some(observed) = self.live(server) else {
            return Err("is silent".into());
        };
        let Some(proxy) = &observed.proxy else {
            return Err("has a proxy that does not answer".into());
        };
        if proxy.revision < since {
            return Err(format!("has not acknowledged revision {since} yet").into());
        }
        Ok(proxy)
    }

    /// As [`proxy_at`](Self::proxy_at), if it serves the files of all releases that this revision names.
    pub(crate) fn proxy_with_releases_at(
        &self,
        server: ServerName,
        since: Revision,
    ) -> Result<&'a ObservedProxy, Unmet> {
        let proxy = self.proxy_at(server, since)?;
        match proxy.lacks.releases.last() {
            Some(newest) => Err(format!("does not serve the files of release {newest} yet").into()),
            None => Ok(proxy),
        }
    }

    /// As [`proxy_at`](Self::proxy_at), if it serves all of the site's files that this revision names.
    pub(crate) fn complete_proxy_at(
        &self,
        server: ServerName,
        since: Revision,
    ) -> Result<&'a ObservedProxy, Unmet> {
        let proxy = self.proxy_with_releases_at(server, since)?;
        if proxy.lacks.certificates {
            return Err("does not serve the balancers' newest certificates yet".into());
        }
        Ok(proxy)
    }

    /// Senders that may still send to a drained target, each with the reason. Dead ones are left out.
    pub(crate) fn unacknowledged(&self, target: TrafficTarget) -> Vec<(ServerName, Unmet)> {
        let since = self.drained_since(target);
        let late = |sender| Some((sender, self.proxy_at(sender, since).err()?));
        self.waited_for(target).filter_map(late).collect()
    }

    /// The senders of a target except the dead ones.
    fn waited_for(&self, target: TrafficTarget) -> impl Iterator<Item = ServerName> {
        let senders = topology::senders(self.placement, target);
        let facts = self.facts;
        senders
            .into_iter()
            .filter(move |sender| !facts.is_dead(*sender))
    }

    /// The dead senders of a target, which are not waited for.
    pub(crate) fn left_out(&self, target: TrafficTarget) -> Vec<ServerName> {
        let senders = topology::senders(self.placement, target);
        senders
            .into_iter()
            .filter(|sender| self.is_dead(*sender))
            .collect()
    }

    fn drained_since(&self, target: TrafficTarget) -> Revision {
        let server = self.placement.servers.get(&target.server());
        let server = server.filter(|placed| placed.phase == Phase::Drain);
        let instance = match target {
            TrafficTarget::Instance(name) => self.placement.instances.get(&name),
            TrafficTarget::Server(_) => None,
        };
        let instance = instance.filter(|placed| placed.phase == Phase::Drain);
        let since = server.map(|placed| placed.since).into_iter();
        // A target drained twice, with its server and by itself, takes no traffic since the first of the two.
        since
            .chain(instance.map(|placed| placed.since))
            .min()
            .unwrap_or(self.at)
    }

    /// A target's requests in flight at live proxies, by proxy.
    pub(crate) fn in_flight(&self, target: TrafficTarget) -> Vec<(ServerName, u64)> {
        let name = target.to_string();
        let count = |sender| {
            let proxy = self.live(sender)?.proxy.as_ref()?;
            let count = *proxy.in_flight.get(&name)?;
            (count > 0).then_some((sender, count))
        };
        let senders = topology::senders(self.placement, target);
        senders.into_iter().filter_map(count).collect()
    }

    /// Whether an instance that should serve is ready, and every live proxy that sends to it has found it up.
    pub(crate) fn instance_serves(&self, name: InstanceName) -> Result<(), Unmet> {
        let since = self.instance_is_ready(name)?;
        self.is_up(TrafficTarget::Instance(name), since)
    }

    /// Whether an instance that should serve is ready according to its own agent, and since when it should serve.
    pub(crate) fn instance_is_ready(&self, name: InstanceName) -> Result<Revision, Unmet> {
        let Some(placed) = self.placement.instances.get(&name) else {
            return Err("is not placed yet".into());
        };
        let Some(observed) = self.live(name.server) else {
            return Err(format!("is on {}, which is silent", name.server).into());
        };
        let Some(seen) = observed.instances.get(&name) else {
            return Err("has not been started yet".into());
        };
        if (seen.release, &seen.run) != (placed.release, &placed.run) {
            return Err("still runs from another release or command".into());
        }
        match (
            seen.state,
            self.sends_to_busy(TrafficTarget::Instance(name)),
        ) {
            (InstanceState::Ready, _) => Ok(placed.since),
            (InstanceState::Unhealthy, Some(sender)) => Err(format!(
                "{}; {sender} still sends to it for lack of others",
                in_words(seen)
            )
            .into()),
            _ => Err(in_words(seen).into()),
        }
    }

    /// A proxy that answers and sends to a target although its checks took it down.
    fn sends_to_busy(&self, target: TrafficTarget) -> Option<ServerName> {
        let name = target.to_string();
        let mut senders = topology::senders(self.placement, target).into_iter();
        senders.find(|sender| {
            let proxy = self
                .live(*sender)
                .and_then(|observed| observed.proxy.as_ref());
            proxy.is_some_and(|proxy| proxy.busy.contains(&name))
        })
    }

    /// Whether every proxy that sends to a target and is not dead knows it and has found it up.
    fn is_up(&self, target: TrafficTarget, since: Revision) -> Result<(), Unmet> {
        let name = target.to_string();
        for sender in self.waited_for(target) {
            let proxy = self.proxy_at(sender, since);
            let proxy = proxy.map_err(|why| format!("waits for {sender}, which {why}"))?;
            if proxy.busy.contains(&name) {
                return Err(too_busy(sender).into());
            }
            if !proxy.up.contains(&name) {
                return Err(format!("is not up according to {sender}").into());
            }
        }
        Ok(())
    }

    /// Whether a server does its tier's job.
    pub(crate) fn server_serves(&self, server: ServerName) -> Result<(), Unmet> {
        let Some(placed) = self.placement.servers.get(&server) else {
            return Err("is not placed yet".into());
        };
        let Some(observed) = self.live(server) else {
            return Err("is silent".into());
        };
        if placed.phase == Phase::Drain {
            return Err("is drained".into());
        }
        match server.tier {
            Tier::Balancer => self.proxy_at(server, placed.since).map(|_| ()),
            Tier::Web => {
                self.proxy_at(server, placed.since)?;
                self.is_up(TrafficTarget::Server(server), placed.since)
            }
            Tier::App => self.app_server_serves(server),
            Tier::Database => {
                let primary = self.primary().and_then(|primary| self.database(primary));
                database_serves(observed.database.as_ref(), primary)
            }
        }
    }

    fn app_server_serves(&self, server: ServerName) -> Result<(), Unmet> {
        let on_it = self
            .placement
            .instances
            .iter()
            .filter(|(name, _)| name.server == server);
        let mut serving = on_it
            .filter(|(_, placed)| placed.phase == Phase::Serve)
            .peekable();
        if serving.peek().is_none() {
            return Err("has no instance yet".into());
        }
        for (name, _) in serving {
            let served = self.instance_serves(*name);
            served.map_err(|why| format!("has {name}, which {why}"))?;
        }
        Ok(())
    }

    /// The live server whose PostgreSQL takes writes; if a failover shows two, the later.
    pub(crate) fn primary(&self) -> Option<ServerName> {
        let databases = self.facts.observed.iter().filter_map(|(server, observed)| {
            let database = observed.database.as_ref()?;
            let is_primary = database.role == DatabaseRole::Primary && is_healthy(database);
            is_primary.then_some((database.timeline, *server))
        });
        databases.max().map(|(_, server)| server)
    }

    fn database(&self, server: ServerName) -> Option<&ObservedDatabase> {
        self.live(server)
            .and_then(|observed| observed.database.as_ref())
    }

    /// Whether a database server's clients may come in the way that the placement has them come.
    pub(crate) fn database_accepts(&self, server: ServerName) -> Result<(), Unmet> {
        let required = self.placement.encryption == Encryption::Required;
        let database = self.database(server);
        match database.and_then(|database| database.requires_tls) {
            Some(installed) if installed == required => Ok(()),
            Some(true) => Err("does not accept plain text yet".into()),
            Some(false) => Err("accepts plain text still".into()),
            None => Err("does not say yet what it accepts".into()),
        }
    }

    pub(crate) fn role(&self, server: ServerName) -> DatabaseRole {
        self.database(server)
            .map_or(DatabaseRole::Unknown, |database| database.role)
    }
}

/// A standby serves while it follows this primary: one that streams from another history holds other data.
fn database_serves(
    database: Option<&ObservedDatabase>,
    primary: Option<&ObservedDatabase>,
) -> Result<(), Unmet> {
    match (database, primary) {
        (Some(standby), Some(primary))
            if is_healthy(standby)
                && standby.role != DatabaseRole::Primary
                && !standby.follows(primary) =>
        {
            Err(does_not_follow(standby, primary))
        }
        (database, _) => works(database),
    }
}

fn does_not_follow(standby: &ObservedDatabase, primary: &ObservedDatabase) -> Unmet {
    if standby.is_forked_from(primary) {
        "has a standby that holds other data than the primary".into()
    } else if standby.timeline != primary.timeline {
        let (its, own) = (primary.timeline, standby.timeline);
        format!("has a standby on timeline {own}, and the primary is on timeline {its}").into()
    } else {
        "has a standby that does not stream from the primary".into()
    }
}

fn works(database: Option<&ObservedDatabase>) -> Result<(), Unmet> {
    match database {
        Some(database) if is_healthy(database) => Ok(()),
        Some(database) if database.state.is_empty() => {
            Err("has no PostgreSQL that serves, and Patroni gives no reason".into())
        }
        Some(database) => Err(format!("has no PostgreSQL that serves: {}", database.state).into()),
        None => Err("has no PostgreSQL yet".into()),
    }
}

/// Whether PostgreSQL runs as its role asks for: `running` on the primary, `streaming` or `running` on a standby.
pub(crate) fn is_healthy(database: &ObservedDatabase) -> bool {
    let works = matches!(database.state.as_str(), "running" | "streaming");
    works && database.role != DatabaseRole::Unknown
}

/// The text for a target that a proxy sends to although its checks took it down.
pub(crate) fn too_busy(sender: ServerName) -> String {
    format!(
        "is too busy to answer the check of {sender}, which still sends to it for lack of others"
    )
}

fn in_words(seen: &ObservedInstance) -> String {
    let state = match seen.state {
        InstanceState::Starting => "is starting",
        InstanceState::Ready => "is ready",
        InstanceState::Unhealthy => "does not answer its health path",
        InstanceState::Crashed => "exited unexpectedly",
        InstanceState::Stopping => "is stopping",
    };
    if seen.reason.is_empty() {
        state.into()
    } else {
        format!("{state}: {}", seen.reason)
    }
}
