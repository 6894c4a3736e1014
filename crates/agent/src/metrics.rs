//! The agent's metrics, for Prometheus.

use gaiola_core::resources::Reading;
use gaiola_model::keeper::{KeeperState, VipRole};
use gaiola_model::metric;
use gaiola_model::placement::{DatabaseRole, InstanceState, ObservedDatabase};
use gaiola_model::resources::DiskState;
use gaiola_model::{Observed, Tier};
use gaiola_os::serve;
use gaiola_wire::metrics::Text;
use hyper::{Method, StatusCode};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What the figures are made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// The agent's own report.
    pub(super) observed: Option<Observed>,
    /// The VIP keeper's report; `None` on servers without one.
    pub(super) keeper: Option<KeeperState>,
    /// The server's free resources.
    pub(super) left: Reading,
    /// How often each process ended by itself.
    pub(super) restarts: Vec<(String, u32)>,
    /// Bytes that the local PostgreSQL is behind the primary.
    pub(super) lag_bytes: Option<u64>,
}

/// Serves until the agent ends; logs an error and gives up where the port is not available.
pub(super) async fn serve(address: SocketAddr, figures: watch::Receiver<Figures>) {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%address, %error, "no metrics: cannot listen");
            return;
        }
    };
    serve::tcp(listener, move |request| {
        let answer = match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => serve::metrics(render(&figures.borrow())),
            (&Method::GET, "/livez") => serve::text(StatusCode::OK, "alive"),
            (&Method::GET, "/readyz") if figures.borrow().observed.is_some() => {
                serve::text(StatusCode::OK, "ready")
            }
            (&Method::GET, "/readyz") => {
                serve::text(StatusCode::SERVICE_UNAVAILABLE, "nothing is known yet")
            }
            _ => serve::not_found(),
        };
        async { answer }
    })
    .await;
}

fn render(figures: &Figures) -> String {
    let mut out = Text::default();
    let mut build = out.family(&metric::BUILD_INFO);
    build.sample([env!("CARGO_PKG_VERSION")], true);
    out.value(&metric::MESSAGES_DROPPED, gaiola_os::stderr::lost());
    if let Some(keeper) = &figures.keeper {
        vips(keeper, &mut out);
    }
    let mut restarts = out.family(&metric::PROCESS_RESTARTS);
    for (process, count) in &figures.restarts {
        restarts.sample([process], *count);
    }
    disks(figures, &mut out);
    memory(&figures.left, &mut out);
    descriptors(&figures.left, &mut out);
    if let Some(observed) = &figures.observed {
        instances(observed, &mut out);
        out.value(&metric::PLACEMENT_REVISION, observed.revision.0);
        if let Some(database) = &observed.database {
            postgres(database, figures.lag_bytes, &mut out);
        }
    }
    out.into_string()
}

fn vips(keeper: &KeeperState, out: &mut Text) {
    let mut owner = out.family(&metric::VIP_OWNER);
    for (vip, state) in &keeper.vips {
        owner.sample([&vip.to_string()], state.state == VipRole::Active);
    }
    let mut failovers = out.family(&metric::FAILOVERS);
    for (vip, state) in &keeper.vips {
        let (tier, vip) = (Tier::Balancer.to_string(), vip.to_string());
        for (reason, count) in &state.takeovers {
            failovers.sample([&tier, &vip, reason], *count);
        }
    }
}

fn disks(figures: &Figures, out: &mut Text) {
    let read = &figures.left.disks;
    let mut size = out.family(&metric::SERVER_DISK_SIZE);
    for disk in read {
        size.sample([disk.holds.name()], disk.total_bytes);
    }
    let mut free = out.family(&metric::SERVER_DISK_FREE);
    for disk in read {
        free.sample([disk.holds.name()], disk.free_bytes);
    }
    let observed = figures.observed.iter();
    let reported = observed.flat_map(|observed| &observed.resources.disks);
    let mut full_in = out.family(&metric::SERVER_DISK_FULL_IN);
    for disk in reported.clone() {
        if let Some(seconds) = disk.full_in_s {
            full_in.sample([disk.holds.name()], seconds);
        }
    }
    let mut writable = out.family(&metric::SERVER_DISK_WRITABLE);
    for disk in reported {
        let is_writable = matches!(disk.state, DiskState::Room | DiskState::Low);
        writable.sample([disk.holds.name()], is_writable);
    }
}

fn memory(left: &Reading, out: &mut Text) {
    let total = left.memory.map(|(total, _)| total);
    out.value_if_known(&metric::SERVER_MEMORY, total);
    let available = left.memory.map(|(_, available)| available);
    out.value_if_known(&metric::SERVER_MEMORY_AVAILABLE, available);
    let used = left.memory.map(|_| left.used_bytes);
    out.value_if_known(&metric::SERVER_MEMORY_USED, used);
}

fn descriptors(left: &Reading, out: &mut Text) {
    let mut all = left.descriptors.iter();
    let system = all.find(|descriptors| descriptors.process.is_none());
    out.value_if_known(&metric::SERVER_OPEN_FDS, system.map(|system| system.open));
    out.value_if_known(&metric::SERVER_MAX_FDS, system.map(|system| system.limit));
    let all = left.descriptors.iter();
    let processes =
        all.filter_map(|descriptors| Some((descriptors.process.as_ref()?, descriptors)));
    let mut open = out.family(&metric::PROCESS_OPEN_FDS);
    for (process, descriptors) in processes.clone() {
        open.sample([process], descriptors.open);
    }
    let mut limit = out.family(&metric::PROCESS_MAX_FDS);
    for (process, descriptors) in processes {
        limit.sample([process], descriptors.limit);
    }
}

fn instances(observed: &Observed, out: &mut Text) {
    let mut ready = out.family(&metric::INSTANCE_READY);
    for (name, instance) in &observed.instances {
        let is_ready = instance.state == InstanceState::Ready;
        ready.sample([&name.to_string()], is_ready);
    }
}

fn postgres(database: &ObservedDatabase, lag_bytes: Option<u64>, out: &mut Text) {
    let is_primary = database.role == DatabaseRole::Primary;
    out.value(&metric::POSTGRES_PRIMARY, is_primary);
    out.value(&metric::POSTGRES_TIMELINE, database.timeline);
    out.value_if_known(&metric::POSTGRES_REPLICATION_LAG, lag_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition;
    use gaiola_core::resources::DiskReading;
    use gaiola_model::keeper::VipState;
    use gaiola_model::metric::{AGENT, About, PROCESS};
    use gaiola_model::placement::{ObservedInstance, ReleaseNumber};
    use gaiola_model::resources::{Descriptors, Disk, Holds, Resources};
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::{IpAddr, Ipv4Addr};

    /// Figures with something for every family.
    fn figures() -> Figures {
        let mut observed = Observed::nothing_on("db1".parse().unwrap());
        observed.revision.0 = 9;
        let instance = ObservedInstance {
            release: ReleaseNumber(1),
            run: "node app.js".into(),
            state: InstanceState::Ready,
            restarts: 0,
            reason: String::new(),
        };
        observed
            .instances
            .insert("app1.1".parse().unwrap(), instance);
        observed.database = Some(ObservedDatabase {
            role: DatabaseRole::Primary,
            timeline: 3,
            ..ObservedDatabase::default()
        });
        let disk = Disk {
            holds: Holds::Database,
            total_bytes: 1000,
            free_bytes: 10,
            full_in_s: Some(60),
            state: DiskState::Low,
            refused: String::new(),
        };
        observed.resources = Resources {
            disks: vec![disk],
            ..Resources::default()
        };
        Figures {
            observed: Some(observed),
            keeper: Some(keeper()),
            left: left(),
            restarts: vec![("proxy".into(), 2)],
            lag_bytes: Some(0),
        }
    }

    fn keeper() -> KeeperState {
        let vip = VipState {
            state: VipRole::Active,
            owner: None,
            since_ms: 0,
            reason: String::new(),
            yields: 0,
            is_yielding: false,
            is_holding_back: false,
            standby: None,
            settled: None,
            takeovers: BTreeMap::from([("silence".into(), 4)]),
            claims: 0,
        };
        KeeperState {
            vips: BTreeMap::from([(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100)), vip)]),
            ..KeeperState::default()
        }
    }

    fn left() -> Reading {
        let of = |process: Option<&str>| Descriptors {
            process: process.map(Into::into),
            open: 12,
            limit: 1024,
        };
        Reading {
            disks: vec![DiskReading {
                holds: Holds::Database,
                total_bytes: 1000,
                free_bytes: 10,
                refused: None,
            }],
            memory: Some((900, 300)),
            used_bytes: 70,
            descriptors: vec![of(None), of(Some("a \"b\""))],
        }
    }

    #[test]
    fn the_families_are_those_of_the_table() {
        let text = render(&figures());
        let families =
            exposition::families(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
        for About {
            name,
            kind,
            help,
            labels,
            ..
        } in [AGENT, PROCESS].into_iter().flatten()
        {
            let family = families.get(*name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(
                (&*family.kind, &*family.help),
                (kind.name(), *help),
                "{name}"
            );
            let wanted: BTreeSet<_> = labels.iter().map(|label| label.to_string()).collect();
            let (_, given) = family
                .samples
                .keys()
                .next()
                .unwrap_or_else(|| panic!("no sample of {name}"));
            assert_eq!(
                given.keys().cloned().collect::<BTreeSet<_>>(),
                wanted,
                "{name}"
            );
        }
        assert_eq!(families.len(), AGENT.len() + PROCESS.len());
    }

    #[test]
    fn every_figure_has_its_value() {
        let text = render(&figures());
        for sample in [
            "gaiola_vip_owner{vip=\"10.77.0.100\"} 1",
            "gaiola_failovers_total{tier=\"balancer\",vip=\"10.77.0.100\",reason=\"silence\"} 4",
            "gaiola_process_restarts_total{process=\"proxy\"} 2",
            "gaiola_instance_ready{instance=\"app1.1\"} 1",
            "gaiola_placement_revision 9",
            "gaiola_postgres_primary 1",
            "gaiola_postgres_timeline 3",
            "gaiola_postgres_replication_lag_bytes 0",
            "gaiola_server_disk_size_bytes{disk=\"database\"} 1000",
            "gaiola_server_disk_free_bytes{disk=\"database\"} 10",
            "gaiola_server_disk_full_in_seconds{disk=\"database\"} 60",
            "gaiola_server_disk_writable{disk=\"database\"} 1",
            "gaiola_server_memory_bytes 900",
            "gaiola_server_memory_available_bytes 300",
            "gaiola_server_memory_used_bytes 70",
            "gaiola_server_open_fds 12",
            "gaiola_server_max_fds 1024",
            "gaiola_process_open_fds{process=\"a \\\"b\\\"\"} 12",
            "gaiola_process_max_fds{process=\"a \\\"b\\\"\"} 1024",
        ] {
            assert!(
                text.lines().any(|line| line == sample),
                "{sample} in {text}"
            );
        }
    }

    #[test]
    fn what_is_unknown_has_no_samples() {
        let text = render(&Figures::default());
        let families =
            exposition::families(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
        let of = |family: &About| families.get(family.name).map(|family| family.samples.len());
        assert_eq!(of(metric::VIP_OWNER.about()), None);
        assert_eq!(of(metric::SERVER_MEMORY_USED.about()), Some(0));
        assert_eq!(of(metric::BUILD_INFO.about()), Some(1));
    }
}
