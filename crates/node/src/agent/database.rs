//! The agent's side of a database server: lays out what its keeper runs, asks Patroni how it does, and asks it to switch
//! over when this server is to leave. Patroni decides who is the primary; nothing here promotes.

use super::plan::DatabaseUrls;
use crate::client::Client;
use crate::database::{
    Api, KeeperReport, KeeperState, Owner, PATRONI_PORT, Secrets, Settings, Tools, Wanted,
    find_tools, install,
};
use crate::state::{Boot, Order, RUN, read_json};
use crate::store::etcd::CLIENT_PORT;
use gaiola_core::topology;
use gaiola_model::placement::{DatabaseRole, ObservedDatabase, Phase};
use gaiola_model::{ServerName, Tier};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Between two looks at all members.
const LOOK: Duration = Duration::from_millis(1000);
/// Between two attempts to switch over.
const SWITCHOVER_AGAIN: Duration = Duration::from_secs(5);
/// Between two attempts to lay out a server that could not be.
const INSTALL_AGAIN: Duration = Duration::from_secs(5);

/// The addresses of the database as instances on this server are given them; `None` where the site has no database.
pub(super) fn urls(boot: &Boot) -> Option<DatabaseUrls> {
    let secrets: Secrets = read_json(&boot.folder().join("secrets.json")).ok()?;
    let name = boot.site.sql();
    let url = |port| {
        format!(
            "postgres://{name}:{}@127.0.0.1:{port}/{name}",
            secrets.site.reveal()
        )
    };
    Some(DatabaseUrls {
        primary: url(5432),
        standbys: url(5433),
    })
}

/// PostgreSQL on this server.
pub(super) struct Database {
    boot: Boot,
    /// Whether it is strict, and where the store was, when it was laid out last.
    installed: Option<(bool, Vec<ServerName>)>,
    install_at: Instant,
    trouble: Option<String>,
    wanted: watch::Sender<Members>,
    seen: watch::Receiver<Option<ObservedDatabase>>,
}

/// What the task that asks Patroni needs to know of the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Members {
    all: BTreeMap<ServerName, SocketAddr>,
    /// Those that may become the primary.
    staying: Vec<ServerName>,
    /// This server is to leave: it must not be the primary.
    leaving: bool,
    strict: bool,
}

impl Database {
    pub(super) fn new(boot: &Boot) -> io::Result<Self> {
        let tls = crate::pki::client_config(&boot.pki()).map_err(io::Error::other)?;
        let (wanted, seen) = (
            watch::Sender::new(Members::default()),
            watch::Sender::new(None),
        );
        let reader = seen.subscribe();
        tokio::task::spawn_local(follow(
            boot.server,
            Api::new(Client::new(Some(tls))),
            wanted.subscribe(),
            seen,
        ));
        Ok(Self {
            boot: boot.clone(),
            installed: None,
            install_at: Instant::now(),
            trouble: None,
            wanted,
            seen: reader,
        })
    }

    /// Moves the server towards the order.
    pub(super) fn tick(&mut self, order: &Order) {
        let Some(database) = &order.placement.config.database else {
            return;
        };
        super::send_if_new(&self.wanted, self.members(order, database.strict));
        let wanted = Some((database.strict, order.placement.store.clone()));
        if self.installed != wanted && Instant::now() >= self.install_at {
            self.install_at = Instant::now() + INSTALL_AGAIN;
            match self.install(database.strict, &order.placement.store) {
                Ok(()) => (self.installed, self.trouble) = (wanted, None),
                Err(why) => self.trouble = Some(why),
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
                    SocketAddr::new(placed.address.into(), PATRONI_PORT),
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
        }
    }

    fn install(&self, strict: bool, store: &[ServerName]) -> Result<(), String> {
        let tools = find_tools().map_err(|error| crate::chain(&error))?;
        let path = self.boot.folder().join("secrets.json");
        let secrets =
            read_json(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        install(&self.settings(strict, store, tools, secrets), Wanted::Run)
            .map_err(|error| crate::chain(&error))?;
        Ok(())
    }

    fn settings(
        &self,
        strict: bool,
        store: &[ServerName],
        tools: Tools,
        secrets: Secrets,
    ) -> Settings {
        Settings {
            site: self.boot.site.clone(),
            server: self.boot.server,
            address: self.boot.address,
            network: Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 0, 0), 16),
            etcd: store
                .iter()
                .map(|server| SocketAddrV4::new(topology::address_of(*server), CLIENT_PORT))
                .collect(),
            pki: self.boot.pki(),
            state: self.boot.folder(),
            run: RUN.into(),
            strict,
            owner: self.boot.database_user.map(|user| Owner {
                uid: user.uid,
                gid: user.gid,
            }),
            tools,
            secrets,
        }
    }

    /// What PostgreSQL on this server is now; `None` before it was asked.
    pub(super) fn observed(&self) -> Option<ObservedDatabase> {
        self.seen.borrow().clone().map(without_small_lag)
    }

    /// Bytes that it is behind the primary; `None` where that is not known.
    pub(super) fn lag_bytes(&self) -> Option<u64> {
        self.seen.borrow().as_ref().and_then(|seen| seen.lag_bytes)
    }

    /// What keeps it from running, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        let report = KeeperReport::read(Path::new(RUN)).ok().flatten();
        let failed = report.and_then(|report| match report.state {
            KeeperState::Failed(why) => Some(why),
            KeeperState::Running | KeeperState::Stopping | KeeperState::Stopped => None,
        });
        self.trouble.clone().or(failed)
    }
}

/// Asks every member how it does, and switches over where this one is to leave.
async fn follow(
    server: ServerName,
    api: Api,
    wanted: watch::Receiver<Members>,
    seen: watch::Sender<Option<ObservedDatabase>>,
) {
    let mut switch_at = Instant::now();
    let mut strict_told = None;
    loop {
        let members = wanted.borrow().clone();
        if !members.all.is_empty() {
            let all = api.observe(&members.all).await;
            super::send_if_new(&seen, all.get(&server).cloned());
            let role = |name: &ServerName| all.get(name).map(|observed| observed.role);
            let is_primary = role(&server) == Some(DatabaseRole::Primary);
            if is_primary && members.leaving && Instant::now() >= switch_at {
                switch_at = Instant::now() + SWITCHOVER_AGAIN;
                let candidate = members
                    .staying
                    .iter()
                    .find(|name| role(name) == Some(DatabaseRole::SyncStandby));
                switch_over(&api, &members, server, candidate.copied()).await;
            }
            if is_primary && strict_told != Some(members.strict) {
                let shared = serde_json::json!({ "synchronous_mode_strict": members.strict });
                match api.configure(members.all[&server], &shared).await {
                    Ok(()) => strict_told = Some(members.strict),
                    Err(error) => tracing::warn!("{}", crate::chain(&error)),
                }
            }
        }
        sleep(LOOK).await;
    }
}

async fn switch_over(api: &Api, members: &Members, from: ServerName, to: Option<ServerName>) {
    let Some(to) = to else {
        tracing::warn!("{from} is to leave, but no synchronous standby can take over yet");
        return;
    };
    match api.switchover(members.all[&from], from, to).await {
        Ok(()) => tracing::info!("switched over from {from} to {to}"),
        Err(error) => tracing::warn!(
            "cannot switch over from {from} to {to}: {}",
            crate::chain(&error)
        ),
    }
}

/// A standby is always a little behind while writes come in; told only from here on, it does not change all the time.
fn without_small_lag(mut observed: ObservedDatabase) -> ObservedDatabase {
    const WORTH_TELLING: u64 = 1 << 20;
    if observed.lag_bytes.is_some_and(|lag| lag < WORTH_TELLING) {
        observed.lag_bytes = Some(0);
    }
    observed
}
