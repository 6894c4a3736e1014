//! Whether the site is up: what the last `up` or `down` said, on this machine and on the others.
//!
//! Each says so with a number above all that its machine can learn of, and every machine keeps the newest. One that was away asks the
//! others once it reaches them, and follows.

use super::units::UnitError;
use super::{Machine, PowerRequest, servers};
use gaiola_agent::state::{read_json, write_json};
use gaiola_core::machines::{self, Power};
use gaiola_model::inventory::Host;
use gaiola_model::placement::{DatabaseRole, Placement};
use gaiola_model::{ServerName, Tier};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, sleep};

/// How long other machines are told that the site comes up, where they do not answer. Later they ask.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(2);

/// What this machine knew last; a site that was never brought down is up.
pub(super) fn known(path: &Path) -> io::Result<Power> {
    match read_json(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Power::default()),
        read => read,
    }
}

impl Machine {
    /// What the last `up` or `down` said that this machine knows of.
    pub fn power(&self) -> Power {
        self.power.get()
    }

    /// Whether the site is down here, or being brought down.
    pub fn is_ending(&self) -> bool {
        self.ending.get() || self.held.borrow().is_down
    }

    /// Whether the site is down here, and is not being brought up or down.
    pub fn is_down(&self) -> bool {
        self.held.borrow().is_down && !self.ending.get()
    }

    /// Machines that the last `down` from here did not stop, each with the reason.
    pub fn not_stopped(&self) -> Vec<String> {
        self.not_stopped.borrow().clone()
    }

    /// Lets the site come up again, here and on the other machines. A `down` that is under way is given up.
    pub fn retry(self: &Rc<Self>) {
        self.start_all(self.power().next(true));
        let machine = Rc::clone(self);
        spawn_local(async move {
            let newest = machine.newest_elsewhere().await;
            // A `down` that came meanwhile wins.
            if !machine.power().is_up {
                return;
            }
            if newest >= machine.power() {
                machine.start_all(newest.next(true));
            }
            for (host, address) in machine.others() {
                spawn_local(Rc::clone(&machine).tell_up(host, address));
            }
        });
    }

    async fn tell_up(self: Rc<Self>, host: Host, address: IpAddr) {
        let deadline = Instant::now() + START_LIMIT;
        let all = PowerRequest::All(self.power());
        while self.power().is_up
            && let Err(error) = self.peers.start(address, &all).await
        {
            if Instant::now() >= deadline {
                let error = gaiola_os::chain(&error);
                tracing::warn!(%host, error, "cannot tell a machine that the site is up; it asks once it reaches another one");
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// Lets one server of this machine be switched on again.
    pub fn start(&self, server: ServerName) {
        servers::let_on(self, [server]);
        self.wake.notify_one();
    }

    /// Lets every server of this machine be switched on again.
    fn start_all(&self, power: Power) {
        self.keep(power);
        servers::let_on(self, servers::directories(self));
        self.held.borrow_mut().off.clear();
        self.wake.notify_one();
    }

    fn keep(&self, power: Power) {
        self.power.set(power);
        self.held.borrow_mut().is_down = !power.is_up;
        if let Err(error) = write_json(&self.state.power(), &power) {
            let error = gaiola_os::chain(&error);
            tracing::error!(
                error,
                "cannot record whether the site is up; a restart of this process asks the other machines"
            );
        }
    }

    /// Follows what another machine says, unless something newer is known here.
    ///
    /// # Errors
    /// Where the units of a server refuse to stop; the others are stopped.
    pub async fn take_power(self: &Rc<Self>, power: Power) -> Result<(), UnitError> {
        if power < self.power() {
            tracing::info!(?power, "something newer is known here");
            return Ok(());
        }
        if power.is_up {
            self.start_all(power);
            return Ok(());
        }
        self.stop_all(power).await
    }

    /// Asks the other machines, and follows what is newer than what this one knows: it may have been away.
    pub async fn follow_power(self: &Rc<Self>) {
        let newest = self.newest_elsewhere().await;
        if self.ending.get() || newest <= self.power() {
            return;
        }
        let words = if newest.is_up { "up" } else { "down" };
        tracing::info!("the site was brought {words} while this machine was away");
        if let Err(error) = self.take_power(newest).await {
            let error = gaiola_os::chain(&error);
            tracing::error!(error, "cannot stop every server here");
        }
    }

    async fn newest_elsewhere(self: &Rc<Self>) -> Power {
        let mut questions = JoinSet::new();
        for address in self.others().into_values() {
            let machine = Rc::clone(self);
            questions.spawn_local(async move { machine.peers.power(address).await });
        }
        let mut newest = Power::default();
        while let Some(answer) = questions.join_next().await {
            // One that does not answer asks later itself.
            if let Ok(Ok(power)) = answer {
                newest = newest.max(power);
            }
        }
        newest
    }

    /// Brings the whole site down, and keeps it down until it is asked to come up again.
    pub fn end(self: &Rc<Self>) {
        if !self.ending.replace(true) {
            self.not_stopped.borrow_mut().clear();
            spawn_local(Rc::clone(self).bring_down());
        }
    }

    /// Stops the standbys, then the primary, while the store still answers; then the rest at once, on every machine.
    async fn bring_down(self: Rc<Self>) {
        let (began, before) = (Instant::now(), self.power());
        let order = self.order.borrow().clone();
        let order = order.map(|order| {
            let primary = self.primary(&order.placement);
            machines::stop_order(&order.placement, primary)
        });
        for servers in order.into_iter().flatten().take(2) {
            self.stop_everywhere(servers).await;
            if self.came_up_since(before) {
                return;
            }
        }
        let newest = self.newest_elsewhere().await.max(self.power());
        if newest > before && newest.is_up {
            let _ = self.take_power(newest).await;
        }
        if self.came_up_since(before) {
            return;
        }
        let down = newest.next(false);
        let mut stops = JoinSet::new();
        for (host, address) in self.others() {
            let machine = Rc::clone(&self);
            stops.spawn_local(async move {
                let stopped = machine.peers.stop(address, &PowerRequest::All(down)).await;
                stopped.map_err(|error| (host, gaiola_os::chain(&error)))
            });
        }
        if let Err(error) = self.stop_all(down).await {
            self.did_not_stop(&self.host(), &gaiola_os::chain(&error));
        }
        while let Some(stopped) = stops.join_next().await {
            if let Ok(Err((host, why))) = stopped {
                self.did_not_stop(&host, &why);
            }
        }
        self.ending.set(false);
        tracing::info!(took = ?began.elapsed(), "the site is down");
    }

    /// Whether an `up` has come since: this `down` is given up, and what it has stopped comes up again.
    fn came_up_since(&self, before: Power) -> bool {
        let is_up = self.power() > before && self.power().is_up;
        if is_up {
            self.ending.set(false);
            self.start_all(self.power());
            tracing::warn!("the site was told to come up while it was brought down");
        }
        is_up
    }

    fn did_not_stop(&self, host: &Host, why: &str) {
        tracing::error!(%host, error = why, "cannot stop every server of a machine");
        self.not_stopped.borrow_mut().push(format!("{host}: {why}"));
    }

    fn primary(&self, placement: &Placement) -> Option<ServerName> {
        let view = self.view.borrow();
        let is_primary = |server: &&ServerName| {
            let observed = view.observed.get(server);
            let database = observed.and_then(|(_, observed)| observed.database.as_ref());
            database.is_some_and(|database| database.role == DatabaseRole::Primary)
        };
        let servers = placement.servers.keys();
        let mut databases = servers.filter(|server| server.tier == Tier::Database);
        databases.find(is_primary).copied()
    }

    async fn stop_everywhere(self: &Rc<Self>, servers: Vec<ServerName>) {
        let mut stops = JoinSet::new();
        for server in servers {
            let machine = Rc::clone(self);
            stops.spawn_local(async move {
                if let Err(error) = machine.switch(server, false).await {
                    let error = gaiola_os::chain(&error);
                    tracing::error!(%server, error, "cannot stop a server");
                }
            });
        }
        while stops.join_next().await.is_some() {}
    }

    /// Stops every server of this machine, and keeps them so over a reboot.
    async fn stop_all(self: &Rc<Self>, power: Power) -> Result<(), UnitError> {
        self.keep(power);
        let on: BTreeSet<ServerName> = {
            let held = self.held.borrow();
            let on = held.on.union(&held.busy).copied();
            on.chain(servers::directories(self)).collect()
        };
        let mut stops = JoinSet::new();
        for server in on {
            let machine = Rc::clone(self);
            stops.spawn_local(async move { servers::switch_off(&machine, server).await });
        }
        let mut result = Ok(());
        while let Some(stopped) = stops.join_next().await {
            result = stopped.unwrap_or(Ok(())).and(result);
        }
        result
    }

    /// Stops servers of this machine, in answer to another one.
    ///
    /// # Errors
    /// Where their units refuse.
    pub async fn stop(self: &Rc<Self>, servers: &[ServerName]) -> Result<(), UnitError> {
        for server in servers {
            servers::switch_off(self, *server).await?;
        }
        Ok(())
    }
}
