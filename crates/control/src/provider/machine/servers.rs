//! Follows the placement: starts the servers that stand on this machine, takes away those that do not any more.

use super::prepare::{PrepareError, prepare};
use super::units::UnitError;
use super::{Machine, remove_file};
use super::{boot, harm, keys};
use crate::provider::folder::remove;
use gaiola_agent::state::{Boot, Order};
use gaiola_core::machines::{self, Step};
use gaiola_model::ServerName;
use gaiola_model::placement::BootNumber;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;

/// Between two attempts to switch a server on that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at the units: somebody may have stopped one by hand.
const LOOK: Duration = Duration::from_secs(10);
/// Between two checks whether a server is still being switched on or off.
const BUSY: Duration = Duration::from_millis(50);

/// Why a server cannot be switched on.
#[derive(Debug, thiserror::Error)]
enum ServerError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Unit(#[from] UnitError),
}

/// Follows the order, without end.
pub async fn run(machine: Rc<Machine>) {
    let mut orders = machine.order.clone();
    tokio::task::spawn_local(keys::run(Rc::clone(&machine)));
    adopt(&machine).await;
    loop {
        let order = orders.borrow_and_update().clone();
        if let Some(order) = &order {
            machine.peers.set_schema(order.placement.schema);
            provide(&machine, order);
        }
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            () = machine.wake.notified() => {}
            () = sleep(LOOK) => look(&machine).await,
        }
    }
}

/// Learns which servers an earlier process of this machine has started.
async fn adopt(machine: &Machine) {
    let directories = directories(machine);
    while let Err(error) = adopt_from(machine, &directories).await {
        let error = gaiola_os::chain(&error);
        tracing::error!(error, "cannot learn which servers are on");
        sleep(RETRY).await;
    }
}

async fn adopt_from(
    machine: &Machine,
    directories: &BTreeSet<ServerName>,
) -> Result<(), UnitError> {
    let mut on = machine.units.running(directories).await?;
    // Units that are enabled start with the machine, in vain and again and again where the server has lost its directory: it is to be
    // prepared and switched on like a new one.
    on.retain(|server| boot::is_prepared(&machine.state.server(*server)));
    let is_off = |server: &ServerName| off_mark(machine, *server).exists();
    let (marked, _): (BTreeSet<ServerName>, BTreeSet<_>) =
        directories.iter().copied().partition(is_off);
    // One that was started again by hand, or by the end of a drill, is off no longer.
    let_on(machine, marked.intersection(&on).copied());
    let off = marked.difference(&on).copied().collect();
    let mut held = machine.held.borrow_mut();
    (held.on, held.off) = (on, off);
    drop(held);
    record_boots(machine);
    Ok(())
}

pub(super) fn directories(machine: &Machine) -> BTreeSet<ServerName> {
    let entries = std::fs::read_dir(machine.state.servers());
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn provide(machine: &Rc<Machine>, order: &Rc<Order>) {
    machine.held.borrow_mut().directories = directories(machine);
    let confirmed = is_confirmed(machine, order);
    let steps = machines::steps(
        &order.placement,
        (&machine.host(), machine.address()),
        &machine.held.borrow(),
        confirmed,
    );
    for step in steps {
        let (machine, order) = (Rc::clone(machine), Rc::clone(order));
        let (Step::SwitchOn(server) | Step::TakeAway(server) | Step::SwitchOff(server)) = step;
        machine.held.borrow_mut().busy.insert(server);
        tokio::task::spawn_local(async move {
            let retry = match step {
                Step::SwitchOn(_) => switch_on(&machine, &order, server).await.is_err(),
                Step::TakeAway(_) => take_away(&machine, server).await.is_err(),
                Step::SwitchOff(_) => give_up(&machine, server).await.is_err(),
            };
            if retry {
                sleep(RETRY).await;
            }
            machine.held.borrow_mut().busy.remove(&server);
            machine.wake.notify_one();
        });
    }
}

/// Whether the store holds this placement now. An older one, or another site's, may not remove anything.
fn is_confirmed(machine: &Machine, order: &Order) -> bool {
    let view = machine.view.borrow();
    let stored = view.placement.as_ref();
    view.is_current() && stored.is_some_and(|(revision, _)| *revision == order.revision)
}

async fn switch_on(
    machine: &Machine,
    order: &Order,
    server: ServerName,
) -> Result<(), ServerError> {
    let switched = start(machine, order, server).await;
    let why = switched.as_ref().err().map(|error| gaiola_os::chain(error));
    record(machine, server, why);
    switched
}

async fn start(machine: &Machine, order: &Order, server: ServerName) -> Result<(), ServerError> {
    prepare(machine, order, server).await?;
    let reported = machine
        .view
        .borrow()
        .observed
        .get(&server)
        .map(|(at, _)| *at);
    machine.units.start(server).await?;
    let stale = reported.map(|at| (server, at));
    machine.stale.borrow_mut().extend(stale);
    machine.held.borrow_mut().on.insert(server);
    tracing::info!(%server, "a server is on");
    record_boots(machine);
    Ok(())
}

/// Records why a server could not be switched on, for the status. The same reason is logged once.
fn record(machine: &Machine, server: ServerName, why: Option<String>) {
    let before = match &why {
        Some(why) => machine.trouble.borrow_mut().insert(server, why.clone()),
        None => machine.trouble.borrow_mut().remove(&server),
    };
    if let Some(why) = why.filter(|why| before.as_ref() != Some(why)) {
        tracing::error!(%server, error = why, "cannot switch a server on");
    }
}

/// Every boot before the one that runs is over.
fn record_boots(machine: &Machine) {
    let on: Vec<ServerName> = machine.held.borrow().on.iter().copied().collect();
    for server in on {
        if let Ok(boot) = Boot::load(&machine.state.server(server)) {
            is_over(machine, server, BootNumber(boot.number.0.saturating_sub(1)));
        }
    }
}

/// One that another machine has taken the place of tells nothing of its own: servers of the same names run there.
fn is_over(machine: &Machine, server: ServerName, boot: BootNumber) {
    if machine.is_lost() {
        machine.over.send_replace(BTreeMap::new());
        return;
    }
    machine.over.send_if_modified(|over| {
        let is_new = over.get(&server).is_none_or(|held| *held < boot);
        is_new.then(|| over.insert(server, boot)).is_some()
    });
}

/// Notices servers that somebody has stopped or started by hand, and new boots.
async fn look(machine: &Machine) {
    let known: BTreeSet<ServerName> = {
        let held = machine.held.borrow();
        held.on.union(&held.off).copied().collect()
    };
    // A drill's victims were not stopped by hand. It may end or begin while systemd is asked.
    let mut harmed = harm::stopped();
    let running = match machine.units.running(&known).await {
        Ok(running) => running,
        Err(error) => {
            let error = gaiola_os::chain(&error);
            return tracing::warn!(error, "cannot learn which servers are on");
        }
    };
    harmed.extend(harm::stopped());
    for server in known {
        let (was_on, is_busy) = {
            let held = machine.held.borrow();
            (held.on.contains(&server), held.busy.contains(&server))
        };
        match (was_on, running.contains(&server)) {
            _ if is_busy || harmed.contains(&server) => {}
            (true, false) => was_stopped(machine, server).await,
            (false, true) => was_started(machine, server),
            _ => {}
        }
    }
    record_boots(machine);
}

async fn was_stopped(machine: &Machine, server: ServerName) {
    tracing::warn!(%server, "a server was stopped; it stays off until the next `up`");
    machine.held.borrow_mut().on.remove(&server);
    machine.held.borrow_mut().off.insert(server);
    mark_off(machine, server);
    if let Err(error) = machine.units.disable(server).await {
        let error = gaiola_os::chain(&error);
        tracing::error!(%server, error, "a server that was stopped may start with the machine");
    }
}

fn was_started(machine: &Machine, server: ServerName) {
    tracing::warn!(%server, "a server that was off was started");
    machine.held.borrow_mut().on.insert(server);
    let_on(machine, [server]);
}

/// The file that says that a server stays off, also when this process starts again.
fn off_mark(machine: &Machine, server: ServerName) -> PathBuf {
    machine.state.server(server).join("off")
}

fn mark_off(machine: &Machine, server: ServerName) {
    if let Err(error) = std::fs::write(off_mark(machine, server), "") {
        tracing::error!(%server, %error, "cannot record that a server is off: a restart of this process starts it");
    }
}

/// Lets these servers be switched on again.
pub(super) fn let_on(machine: &Machine, servers: impl IntoIterator<Item = ServerName>) {
    for server in servers {
        machine.held.borrow_mut().off.remove(&server);
        if let Err(error) = remove_file(off_mark(machine, server)) {
            tracing::error!(%server, %error, "cannot record that a server is no longer off");
        }
    }
}

/// Stops a server, which stays off.
pub(super) async fn switch_off(machine: &Machine, server: ServerName) -> Result<(), UnitError> {
    machine.held.borrow_mut().off.insert(server);
    mark_off(machine, server);
    while !machine.held.borrow_mut().busy.insert(server) {
        sleep(BUSY).await;
    }
    let stopped = stop(machine, server).await;
    machine.held.borrow_mut().busy.remove(&server);
    machine.wake.notify_one();
    stopped
}

async fn stop(machine: &Machine, server: ServerName) -> Result<(), UnitError> {
    machine.units.stop(server).await?;
    machine.held.borrow_mut().on.remove(&server);
    let folder = machine.state.server(server);
    if let Ok(boot) = Boot::load(&folder) {
        is_over(machine, server, boot.number);
        if let Err(error) = boot::end(boot.run()) {
            let run = boot.run().display();
            tracing::error!(%server, %run, %error, "cannot remove the run directory of a server");
        }
    }
    tracing::info!(%server, "a server is off");
    Ok(())
}

/// Stops a server of a machine that gave its place to another one.
async fn give_up(machine: &Machine, server: ServerName) -> Result<(), UnitError> {
    tracing::warn!(%server, "another machine took the place of this one: the server stops, and its disk stays");
    machine.held.borrow_mut().off.insert(server);
    mark_off(machine, server);
    let stopped = stop(machine, server).await;
    if let Err(error) = &stopped {
        let error = gaiola_os::chain(error);
        tracing::error!(%server, error, "cannot stop a server whose place another machine took");
    }
    stopped
}

/// Stops a server for good. Its directory goes with it: what was on it has been moved or copied before it was taken out.
async fn take_away(machine: &Machine, server: ServerName) -> Result<(), ()> {
    if let Err(error) = stop(machine, server).await {
        let error = gaiola_os::chain(&error);
        tracing::error!(%server, error, "cannot stop a server that stands here no longer");
        return Err(());
    }
    machine.held.borrow_mut().off.remove(&server);
    machine.trouble.borrow_mut().remove(&server);
    let folder = machine.state.server(server);
    remove(folder.clone()).await.map_err(|error| {
        let folder = folder.display();
        tracing::error!(%server, %folder, %error, "cannot remove the directory of a server");
    })
}
