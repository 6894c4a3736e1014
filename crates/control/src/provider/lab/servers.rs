//! Provides servers: switches on those that the placement names, takes away those that it does not name any more.

use super::Lab;
use super::hardware::{self, HardwareError};
use super::network::{self, INTERFACE, PREFIX_LENGTH};
use crate::provider::folder::{self, KeptError, PATH, make_folder, remove};
use gaiola_agent::engine::keep_key;
use gaiola_agent::init::certificate;
use gaiola_agent::limits::groups_of;
use gaiola_agent::state::{Boot, Order, read_document, write_document};
use gaiola_core::topology;
use gaiola_model::placement::DatabaseRole;
use gaiola_model::{ServerName, Tier};
use gaiola_net::pki::Issued;
use gaiola_os::cgroup::Base;
use gaiola_os::process::Exit;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

/// The longest that a server may take to stop before its power is cut.
const STOP_LIMIT: Duration = Duration::from_secs(25);
/// Bytes at the end of a log that contain its last line.
const LAST_WORDS: u64 = 16 << 10;
/// Between two attempts to switch a server on that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Why a server cannot be switched on.
#[derive(Debug, thiserror::Error)]
enum ServerError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    #[error("{0} is not in the placement")]
    NotPlaced(ServerName),
    #[error(transparent)]
    Kept(#[from] KeptError),
}

/// Follows the order until the site is brought down; returns when every server is off.
pub async fn run(lab: Rc<Lab>) {
    let mut orders = lab.order.clone();
    let leaving = Rc::new(RefCell::new(BTreeSet::new()));
    while !lab.ending.get() {
        let order = orders.borrow_and_update().clone();
        let failed = order
            .as_ref()
            .is_some_and(|order| provide(&lab, order, &leaving).is_err());
        tokio::select! {
            _ = orders.changed() => {}
            () = lab.wake.notified() => {}
            () = sleep(RETRY), if failed => {}
        }
    }
    switch_off(&lab).await;
}

fn provide(
    lab: &Rc<Lab>,
    order: &Order,
    leaving: &Rc<RefCell<BTreeSet<ServerName>>>,
) -> Result<(), ServerError> {
    let mut result = Ok(());
    let powered: BTreeSet<ServerName> = lab.hardware.borrow().powered().collect();
    for &server in order.placement.servers.keys() {
        if !powered.contains(&server)
            && !lab.off.borrow().contains(&server)
            && !leaving.borrow().contains(&server)
        {
            let span = tracing::info_span!("server", %server);
            let switched = span.in_scope(|| switch_on(lab, order, server));
            let why = switched.as_ref().err().map(|error| gaiola_os::chain(error));
            record(lab, server, why);
            result = switched.and(result);
        }
    }
    for server in powered
        .into_iter()
        .filter(|server| !order.placement.servers.contains_key(server))
    {
        if leaving.borrow_mut().insert(server) {
            let (lab, leaving) = (Rc::clone(lab), Rc::clone(leaving));
            tokio::task::spawn_local(async move {
                take_away(&lab, server).await;
                leaving.borrow_mut().remove(&server);
                lab.wake.notify_one();
            });
        }
    }
    result
}

/// Records why a server could not be switched on, for the status. The same reason is logged once.
fn record(lab: &Lab, server: ServerName, why: Option<String>) {
    let before = match &why {
        Some(why) => lab.trouble.borrow_mut().insert(server, why.clone()),
        None => lab.trouble.borrow_mut().remove(&server),
    };
    if let Some(why) = why.filter(|why| before.as_ref() != Some(why)) {
        tracing::error!(%server, error = why, "cannot switch a server on");
    }
}

/// What a pid 1 that could not set its server up has logged, behind what was in its log before.
fn last_words(log: &Path, before: u64) -> Option<String> {
    let mut log = fs::File::open(log).ok()?;
    let length = log.metadata().ok()?.len();
    // Where it was cut meanwhile, all of it is new.
    let start = if length < before { 0 } else { before };
    log.seek(SeekFrom::Start(
        start.max(length.saturating_sub(LAST_WORDS)),
    ))
    .ok()?;
    let mut text = Vec::new();
    log.take(LAST_WORDS).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().next_back()?;
    Some(last.strip_prefix("gaiola: ").unwrap_or(last).to_string())
}

/// Prepares a server's directory and switches it on.
fn switch_on(lab: &Rc<Lab>, order: &Order, server: ServerName) -> Result<(), ServerError> {
    let boot = prepare(lab, order, server)?;
    let reported = lab.view.borrow().observed.get(&server).map(|(at, _)| *at);
    let stale = reported.map(|at| (server, at));
    lab.stale.borrow_mut().extend(stale);
    let log = boot.init_log();
    let logged_before = fs::metadata(&log).map_or(0, |log| log.len());
    let (own, theirs) = UnixStream::pair()?;
    lab.hardware.borrow_mut().power_on(&boot, theirs.into())?;
    let Some(process) = lab.hardware.borrow().process(server) else {
        return Ok(());
    };
    let schema = order.placement.schema;
    let certified = certify(Rc::clone(lab), server, boot.location.address, (own, schema));
    tokio::task::spawn_local(certified.in_current_span());
    tracing::info!(pid = process.identity().pid, "a server is on");
    let (lab, number) = (Rc::clone(lab), boot.number);
    let watched = async move {
        let exit = hardware::died(&process).await;
        tracing::info!(%exit, "a server is off");
        if matches!(exit, Exit::Status(status) if status != 0) {
            let why = last_words(&log, logged_before);
            let why = why.unwrap_or_else(|| format!("pid 1 {exit}"));
            record(&lab, server, Some(why));
        }
        remove_groups(&lab, server);
        super::faults::let_go_of_disk(&lab, server);
        lab.hardware.borrow_mut().forget(server, process.identity());
        lab.over.send_modify(|over| _ = over.insert(server, number));
        lab.off.borrow_mut().insert(server);
        lab.wake.notify_one();
    };
    tokio::task::spawn_local(watched.in_current_span());
    Ok(())
}

/// Removes the control groups of a server that is off: those of its processes that were limited.
fn remove_groups(lab: &Lab, server: ServerName) {
    let (name, above) = groups_of(&lab.site, server);
    if let Ok(groups) = Base::find(&name) {
        groups.remove(above);
    }
}

/// Signs the certificate that a server requests at its start. A server that gets none ends, and its last log line has the reason.
async fn certify(lab: Rc<Lab>, server: ServerName, address: IpAddr, socket: (UnixStream, u64)) {
    let name = server.to_string();
    match certificate::provide(socket, &lab.authority, &name, &[address]).await {
        Ok(Issued::New) => tracing::info!("issued a certificate"),
        Ok(Issued::Kept) => {}
        Err(error) => {
            let error = gaiola_os::chain(&error);
            tracing::error!(error, "cannot issue a certificate");
        }
    }
}

fn prepare(lab: &Lab, order: &Order, server: ServerName) -> Result<Boot, ServerError> {
    let folder = lab.state.server(server);
    let database_user = lab.users.database;
    make_folder(&folder, 0o711, None)?;
    make_folder(&folder.join("log"), 0o755, None)?;
    make_folder(&folder.join("etcd"), 0o700, database_user)?;
    let location = topology::location(&order.placement, server)
        .ok_or(ServerError::NotPlaced(server))?
        .clone();
    if matches!(server.tier, Tier::App | Tier::Database)
        && order.placement.config.database.is_some()
    {
        let schema = order.placement.schema;
        let secrets = folder::secrets(&lab.state, schema)?;
        write_document(&folder.join("secrets.json"), &secrets, schema)?;
    }
    if server.tier == Tier::App {
        let key = folder::secrets(&lab.state, order.placement.schema)?.sealing_key();
        keep_key(&folder, &key)?;
    }
    let boot = Boot {
        site: lab.site.clone(),
        server,
        number: lab.next_boot(),
        location,
        interface: INTERFACE.into(),
        prefix_length: PREFIX_LENGTH,
        further: vec![network::wide_address(server)],
        directories: lab.state.directories(server),
        store_token: order.placement.incarnation.clone(),
        database_user,
        site_user: lab.users.site,
        keeper_key: (server.tier == Tier::Balancer)
            .then(|| folder::keeper_key(&lab.state))
            .transpose()?,
        program: Some(lab.state.program(server)),
        path: PATH.into(),
        disk: disk(lab, order, server),
    };
    boot.save(order.placement.schema)?;
    // A server that has a newer order keeps it.
    let held = read_document::<Order>(&boot.order_file());
    if held.map_or(true, |held| held.is_replaced_by(order)) {
        let text = lab.view.borrow().placement_text(order.revision);
        order.save(&boot.order_file(), text.as_deref())?;
    }
    Ok(boot)
}

/// The size of the disk that a server is to have for itself. Only root can mount one.
fn disk(lab: &Lab, order: &Order, server: ServerName) -> Option<u64> {
    let can_have = !lab.rootless && server.tier == Tier::Database;
    order
        .placement
        .config
        .drill
        .as_ref()
        .filter(|_| can_have)?
        .disk
}

/// Stops a server for good. Its directory goes with it: what was on it has been moved or copied before it was taken out.
async fn take_away(lab: &Lab, server: ServerName) {
    stop(lab, server).await;
    lab.off.borrow_mut().remove(&server);
    lab.trouble.borrow_mut().remove(&server);
    let folder = lab.state.server(server);
    if let Err(error) = remove(folder.clone()).await {
        let folder = folder.display();
        tracing::error!(%server, %folder, %error, "cannot remove the directory of a server");
    }
}

/// Stops a server gracefully; cuts its power where that takes too long.
pub async fn stop(lab: &Lab, server: ServerName) {
    let Some(process) = lab.hardware.borrow().process(server) else {
        return;
    };
    lab.hardware.borrow().shut_down(server);
    if timeout(STOP_LIMIT, hardware::died(&process)).await.is_err() {
        tracing::warn!(%server, limit = ?STOP_LIMIT, "a server did not stop in time: cutting its power");
        lab.hardware.borrow_mut().cut_power(server);
        hardware::died(&process).await;
    }
}

/// Brings everything down: the standbys, then the primary, while the store still answers; then the rest at once.
async fn switch_off(lab: &Rc<Lab>) {
    let started = Instant::now();
    super::faults::end_all(lab).await;
    let databases: Vec<ServerName> = lab
        .hardware
        .borrow()
        .powered()
        .filter(|server| server.tier == Tier::Database)
        .collect();
    let is_primary = |server: &ServerName| {
        let view = lab.view.borrow();
        view.observed
            .get(server)
            .and_then(|(_, observed)| observed.database.as_ref())
            .is_some_and(|database| database.role == DatabaseRole::Primary)
    };
    let (primary, standbys): (Vec<ServerName>, Vec<ServerName>) =
        databases.into_iter().partition(is_primary);
    stop_all(lab, standbys).await;
    stop_all(lab, primary).await;
    let rest = lab.hardware.borrow().powered().collect();
    stop_all(lab, rest).await;
    tracing::info!(took = ?started.elapsed(), "everything is off");
}

async fn stop_all(lab: &Rc<Lab>, servers: Vec<ServerName>) {
    let mut stops = tokio::task::JoinSet::new();
    for server in servers {
        let lab = Rc::clone(lab);
        stops.spawn_local(async move { stop(&lab, server).await });
    }
    while stops.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_1_that_says_nothing_is_not_explained_by_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("init.log");
        assert_eq!(last_words(&log, 0), None);
        let before = "gaiola: cannot mount the disk\n";
        fs::write(&log, before).unwrap();
        let length = before.len() as u64;
        assert_eq!(last_words(&log, length), None);
        assert_eq!(last_words(&log, 0).unwrap(), "cannot mount the disk");
        fs::write(&log, format!("{before}one\ngaiola: two\n")).unwrap();
        assert_eq!(last_words(&log, length).unwrap(), "two");
        fs::write(&log, "short\n").unwrap();
        assert_eq!(last_words(&log, length).unwrap(), "short");
    }
}
