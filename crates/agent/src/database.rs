//! The agent's side of a database server: writes the files its keeper runs from, polls Patroni, and requests a switchover when
//! this server is to leave or its disk is full. A standby that cannot follow is cloned again. Patroni decides which server is
//! the primary; nothing here promotes.

mod aside;
mod history;
mod reserve;

use super::plan::DatabaseUrls;
use crate::engine::{
    Api, EngineState, InstallError, KeeperDatabase, KeeperReport, Owner, Secrets, Settings,
    TargetState, Tools, ToolsError, find_tools, install,
};
use crate::state::{Boot, Order, read_document};
use gaiola_core::database::clone::{Action, Clones, Why};
use gaiola_core::database::give_way;
use gaiola_core::{resources, topology};
use gaiola_model::Placement;
use gaiola_model::placement::{DatabaseRole, Encryption, ObservedDatabase, Phase};
use gaiola_model::{Observed, ServerName, Tier, Time};
use gaiola_net::client::Client;
use gaiola_net::pki::PkiError;
use ipnet::IpNet;
use reserve::Reserve;
use rustix::fs::statvfs;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Poll interval for all members.
const POLL: Duration = Duration::from_millis(1000);
/// Interval between two attempts to switch over.
const SWITCHOVER_AGAIN: Duration = Duration::from_secs(5);
/// How long a primary whose disk was full tries to switch over, in the room that the released reserve has given it.
const GIVE_WAY: Duration = Duration::from_secs(60);
/// Timeout for the disk.
const DISK_LIMIT: Duration = Duration::from_secs(2);
/// Interval between two checks of the reserve.
const RESERVE_AGAIN: Duration = Duration::from_secs(30);
/// Wait before a failed installation is retried.
const INSTALL_AGAIN: Duration = Duration::from_secs(5);

/// The database URLs that instances on this server get; `None` where the site has no database.
pub(super) fn urls(boot: &Boot) -> Option<DatabaseUrls> {
    let secrets: Secrets = read_document(&boot.folder().join("secrets.json")).ok()?;
    let name = boot.site.sql();
    let url = |port| {
        format!(
            "postgres://{name}:{}@127.0.0.1:{port}/{name}",
            secrets.site.reveal()
        )
    };
    Some(DatabaseUrls {
        primary: url(boot.location.ports.primary),
        standbys: url(boot.location.ports.standbys),
    })
}

/// PostgreSQL on this server.
pub(super) struct Database {
    boot: Boot,
    /// What the files were last written for.
    installed: Option<LaidOut>,
    install_at: Instant,
    /// Why the last installation failed.
    failed: Option<InstallFailed>,
    wanted: watch::Sender<Members>,
    seen: watch::Receiver<Option<ObservedDatabase>>,
    /// How often its data was ordered to be set aside.
    clones: watch::Receiver<Ordered>,
}

/// Why the files that the database's keeper runs from were not written.
#[derive(Debug, thiserror::Error)]
enum InstallFailed {
    #[error(transparent)]
    Tools(#[from] ToolsError),
    #[error("cannot read {}", path.display())]
    Secrets { path: PathBuf, source: io::Error },
    #[error("cannot determine the size of the database's disk")]
    Disk(#[source] io::Error),
    #[error(transparent)]
    Install(#[from] InstallError),
}

/// How often the data was ordered to be set aside, and whether the last time because it had forked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ordered {
    clones: u64,
    forked: bool,
}

/// What a server's files depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LaidOut {
    schema: u64,
    strict: bool,
    store: Vec<SocketAddr>,
    networks: Vec<IpNet>,
    encrypted: bool,
    ordered: Ordered,
}

/// The part of the order that the task polling Patroni needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Members {
    all: BTreeMap<ServerName, SocketAddr>,
    /// Members that may become the primary.
    staying: Vec<ServerName>,
    /// This server should leave: it must not be the primary.
    leaving: bool,
    strict: bool,
    /// Each member's timeline, and where it left the one before, as its agent reports.
    histories: BTreeMap<ServerName, (u64, String)>,
    /// Members whose disk is full.
    full: Vec<ServerName>,
    /// Whether the store answers, so that the agents' reports are current.
    current: bool,
}

impl Database {
    pub(super) fn new(boot: &Boot) -> Result<Self, PkiError> {
        let tls = gaiola_net::pki::client_config(&boot.pki())?;
        let (wanted, seen) = (
            watch::Sender::new(Members::default()),
            watch::Sender::new(None),
        );
        // The order in force was written by an earlier agent.
        let order = KeeperDatabase::read(boot.run()).ok().flatten();
        let ordered = order.map(|order| Ordered {
            clones: order.clones,
            forked: order.forked,
        });
        let clones = watch::Sender::new(ordered.unwrap_or_default());
        let (seen_reader, clones_reader) = (seen.subscribe(), clones.subscribe());
        let follower = Follower {
            server: boot.server,
            data: boot.postgres_data(),
            api: Api::new(Client::new(Some(tls))),
            started: Instant::now(),
            switch_at: Instant::now(),
            reserve_at: Instant::now(),
            give_way_until: None,
            strict_sent: None,
            decided: Clones::default(),
            clones,
            removing: None,
        };
        tokio::task::spawn_local(follower.follow(wanted.subscribe(), seen));
        Ok(Self {
            boot: boot.clone(),
            installed: None,
            install_at: Instant::now(),
            failed: None,
            wanted,
            seen: seen_reader,
            clones: clones_reader,
        })
    }

    /// Moves the server towards the order. `observed`: the reports of all servers' agents; `current`: the store answers.
    pub(super) fn tick<'a>(
        &mut self,
        order: &Order,
        observed: impl Iterator<Item = &'a Observed> + Clone,
        current: bool,
    ) {
        let Some(database) = &order.placement.config.database else {
            return;
        };
        let histories = observed.clone().filter_map(|seen| {
            let database = seen.database.as_ref()?;
            Some((seen.server, (database.timeline, database.history.clone()?)))
        });
        let full = observed.filter(|seen| resources::disk_is_full(seen));
        let members = Members {
            histories: histories.collect(),
            full: full.map(|seen| seen.server).collect(),
            current,
            ..self.members(order, database.strict)
        };
        super::send_if_new(&self.wanted, members);
        let wanted = LaidOut {
            schema: order.placement.schema,
            strict: database.strict,
            store: store_sockets(&order.placement),
            networks: order.placement.network.servers.clone(),
            encrypted: order.placement.encryption == Encryption::Required,
            ordered: *self.clones.borrow(),
        };
        if self.installed.as_ref() != Some(&wanted) && Instant::now() >= self.install_at {
            self.install_at = Instant::now() + INSTALL_AGAIN;
            match self.install(&wanted) {
                Ok(()) => (self.installed, self.failed) = (Some(wanted), None),
                Err(failed) => self.failed = Some(failed),
            }
        }
    }

    fn members(&self, order: &Order, strict: bool) -> Members {
        let placed = order
            .placement
            .servers
            .iter()
            .filter(|(server, _)| server.tier == Tier::Database);
        let phase = |server: &ServerName| {
            order
                .placement
                .servers
                .get(server)
                .map(|placed| placed.phase)
        };
        let all: BTreeMap<ServerName, SocketAddr> = placed
            .map(|(server, placed)| {
                (
                    *server,
                    placed.location.socket(placed.location.ports.patroni),
                )
            })
            .collect();
        let staying = all
            .keys()
            .copied()
            .filter(|server| phase(server) == Some(Phase::Serve))
            .collect();
        Members {
            staying,
            all,
            leaving: phase(&self.boot.server) == Some(Phase::Drain),
            strict,
            ..Members::default()
        }
    }

    fn install(&self, wanted: &LaidOut) -> Result<(), InstallFailed> {
        let tools = find_tools()?;
        let path = self.boot.folder().join("secrets.json");
        let secrets =
            read_document(&path).map_err(|source| InstallFailed::Secrets { path, source })?;
        let disk = disk(&self.boot.postgres()).map_err(InstallFailed::Disk)?;
        install(
            &self.settings(wanted, disk, tools, secrets),
            TargetState::Run,
        )?;
        Ok(())
    }

    fn settings(&self, wanted: &LaidOut, disk: u64, tools: Tools, secrets: Secrets) -> Settings {
        Settings {
            schema: wanted.schema,
            site: self.boot.site.clone(),
            server: self.boot.server,
            location: self.boot.location.clone(),
            networks: wanted.networks.clone(),
            encrypted: wanted.encrypted,
            etcd: wanted.store.clone(),
            pki: self.boot.pki(),
            state: self.boot.folder().into(),
            run: self.boot.run().into(),
            strict: wanted.strict,
            disk,
            clones: wanted.ordered.clones,
            forked: wanted.ordered.forked,
            owner: self.boot.database_user.map(|user| Owner {
                uid: user.uid,
                gid: user.gid,
            }),
            tools,
            secrets,
        }
    }

    /// State of PostgreSQL on this server; `None` before the first poll.
    pub(super) fn observed(&self) -> Option<ObservedDatabase> {
        let seen = self.seen.borrow().clone().map(without_small_lag);
        seen.map(|seen| ObservedDatabase {
            requires_tls: self.installed.as_ref().map(|files| files.encrypted),
            ..seen
        })
    }

    /// Bytes behind the primary; `None` where that is not known.
    pub(super) fn lag_bytes(&self) -> Option<u64> {
        self.seen.borrow().as_ref().and_then(|seen| seen.lag_bytes)
    }

    /// The newest schema that the keeper reads; `None` before its first report.
    pub(super) fn keeper_reads(&self) -> Option<u64> {
        let report = KeeperReport::read(self.boot.run()).ok().flatten()?;
        Some(report.reads.max(report.schema))
    }

    /// What keeps PostgreSQL from running, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        if let Some(failed) = &self.failed {
            return Some(gaiola_os::chain(failed));
        }
        let report = KeeperReport::read(self.boot.run()).ok().flatten();
        match report?.state {
            EngineState::Failed(why) => Some(why),
            EngineState::Running | EngineState::Stopping | EngineState::Stopped => None,
        }
    }
}

/// The task that polls every member, and acts for this one.
struct Follower {
    server: ServerName,
    data: PathBuf,
    api: Api,
    started: Instant,
    switch_at: Instant,
    reserve_at: Instant,
    /// Deadline for handing the role over after the disk was full.
    give_way_until: Option<Instant>,
    strict_sent: Option<bool>,
    decided: Clones,
    clones: watch::Sender<Ordered>,
    removing: Option<tokio::task::JoinHandle<()>>,
}

impl Follower {
    async fn follow(
        mut self,
        wanted: watch::Receiver<Members>,
        seen: watch::Sender<Option<ObservedDatabase>>,
    ) {
        loop {
            let members = wanted.borrow().clone();
            if !members.all.is_empty() {
                let all = self.observe(&members).await;
                super::send_if_new(&seen, all.get(&self.server).cloned());
                let role = all.get(&self.server).map(|seen| seen.role);
                let is_primary = role == Some(DatabaseRole::Primary);
                if members.current {
                    self.keep_data(&members, &all).await;
                }
                self.keep_reserve(&members, is_primary).await;
                if is_primary {
                    self.lead(&members, &all).await;
                }
            }
            sleep(POLL).await;
        }
    }

    /// State of all members, with the history of each: this one's from its disk, the others' from their reports, where these
    /// are of the timeline they are on.
    async fn observe(&self, members: &Members) -> BTreeMap<ServerName, ObservedDatabase> {
        let mut all = self.api.observe(&members.all).await;
        for (name, seen) in &mut all {
            let reported = members.histories.get(name);
            let (data, timeline) = (self.data.clone(), seen.timeline);
            seen.history = if *name == self.server {
                on_disk(move || history::read(&data, timeline))
                    .await
                    .flatten()
            } else {
                reported
                    .filter(|(of, _)| *of == timeline)
                    .map(|(_, history)| history.clone())
            };
        }
        all
    }

    /// Has this server's data set aside and cloned again where it cannot follow, and finally removes what was set aside.
    async fn keep_data(&mut self, members: &Members, all: &BTreeMap<ServerName, ObservedDatabase>) {
        let now = Time::from_start(self.started.elapsed());
        match self.decided.step(now, self.server, all) {
            None => {}
            Some(Action::Clone(why)) => {
                let data = self.data.clone();
                let has_room = on_disk(move || aside::has_room(&data)).await;
                if members.full.contains(&self.server) || has_room != Some(true) {
                    tracing::error!(
                        ?why,
                        "this standby cannot follow the primary, and there is no room for a clone beside its data"
                    );
                    return;
                }
                tracing::warn!(
                    ?why,
                    "this standby cannot follow the primary: setting its data aside and cloning the primary"
                );
                self.clones.send_modify(|ordered| {
                    ordered.clones += 1;
                    ordered.forked = why == Why::Forked;
                });
            }
            Some(Action::Forget) => {
                let is_removing = self
                    .removing
                    .as_ref()
                    .is_some_and(|task| !task.is_finished());
                if !is_removing {
                    let data = self.data.clone();
                    self.removing = Some(tokio::task::spawn_blocking(move || aside::forget(&data)));
                }
            }
        }
    }

    /// Keeps the reserve while there is room, and releases it when the disk of a primary is full.
    async fn keep_reserve(&mut self, members: &Members, is_primary: bool) {
        let now = Instant::now();
        let reserve = Reserve::beside(&self.data);
        if is_primary && members.full.contains(&self.server) {
            self.give_way_until.get_or_insert(now + GIVE_WAY);
            self.reserve_at = now + RESERVE_AGAIN;
            if on_disk(move || reserve.release()).await == Some(true) {
                tracing::warn!("the disk is full: released the reserve");
            }
        } else if now >= self.reserve_at {
            self.reserve_at = now + RESERVE_AGAIN;
            if let Some(Err(error)) = on_disk(move || reserve.keep()).await {
                tracing::warn!(%error, "cannot reserve room on the disk");
            }
        }
        self.give_way_until = self
            .give_way_until
            .filter(|until| is_primary && now < *until);
    }

    /// The primary's duties: switches over where it should leave, and keeps the shared configuration as decided.
    async fn lead(&mut self, members: &Members, all: &BTreeMap<ServerName, ObservedDatabase>) {
        let gives_way = members.leaving || self.give_way_until.is_some();
        if gives_way && Instant::now() >= self.switch_at {
            self.switch_at = Instant::now() + SWITCHOVER_AGAIN;
            let next = give_way::successor(self.server, all, &members.staying, &members.full);
            switch_over(&self.api, members, self.server, next).await;
        }
        if self.strict_sent != Some(members.strict) {
            let shared = serde_json::json!({ "synchronous_mode_strict": members.strict });
            match self.api.configure(members.all[&self.server], &shared).await {
                Ok(()) => self.strict_sent = Some(members.strict),
                Err(error) => {
                    let error = gaiola_os::chain(&error);
                    tracing::warn!(error, "cannot change Patroni's configuration");
                }
            }
        }
    }
}

/// Where the store's members answer clients.
fn store_sockets(placement: &Placement) -> Vec<SocketAddr> {
    let servers = placement.store.iter();
    let locations = servers.filter_map(|server| topology::location(placement, *server));
    locations
        .map(|location| location.socket(location.ports.store_client))
        .collect()
}

/// Size of the file system that holds the database's directory, or will hold it.
fn disk(folder: &Path) -> io::Result<u64> {
    let is_there = folder.ancestors().find(|folder| folder.exists());
    let disk = statvfs(is_there.unwrap_or(Path::new("/")))?;
    Ok(disk.f_blocks.saturating_mul(disk.f_frsize))
}

/// Runs file work on a thread of its own; `None` where the disk did not answer in time.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = tokio::task::spawn_blocking(work);
    tokio::time::timeout(DISK_LIMIT, done).await.ok()?.ok()
}

async fn switch_over(api: &Api, members: &Members, from: ServerName, to: Option<ServerName>) {
    let Some(to) = to else {
        tracing::warn!(%from, "the role stays: no synchronous standby can take it yet");
        return;
    };
    match api.switchover(members.all[&from], from, to).await {
        Ok(()) => tracing::info!(%from, %to, "switched over"),
        Err(error) => {
            let error = gaiola_os::chain(&error);
            tracing::warn!(%from, %to, error, "cannot switch over");
        }
    }
}

/// A standby always lags a little while writes come in; with small lags hidden, the report does not change all the time.
fn without_small_lag(mut observed: ObservedDatabase) -> ObservedDatabase {
    const WORTH_REPORTING: u64 = 1 << 20;
    observed.replayed = None;
    if observed.lag_bytes.is_some_and(|lag| lag < WORTH_REPORTING) {
        observed.lag_bytes = Some(0);
    }
    observed
}
