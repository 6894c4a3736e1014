//! The agent's metrics, for Prometheus.

use gaiola_core::resources::{DiskReading, Reading};
use gaiola_model::Observed;
use gaiola_model::keeper::KeeperState;
use gaiola_model::placement::{DatabaseRole, InstanceState};
use gaiola_model::resources::{Descriptors, DiskState};
use gaiola_os::serve;
use hyper::{Method, StatusCode};
use std::fmt::Write as _;
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
            tracing::error!("no metrics: cannot listen on {address}: {error}");
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
    let mut out = String::new();
    let version = env!("CARGO_PKG_VERSION");
    family(
        &mut out,
        "gaiola_build_info",
        "gauge",
        "The version that runs.",
        [(format!("version=\"{version}\""), 1)],
    );
    family(
        &mut out,
        "gaiola_messages_dropped_total",
        "counter",
        "Lines of the process's own log that could not be written.",
        [(String::new(), gaiola_os::stderr::lost())],
    );
    if let Some(keeper) = &figures.keeper {
        let owner = keeper.vips.iter().map(|(vip, state)| {
            (
                format!("vip=\"{vip}\""),
                u64::from(state.state == gaiola_model::keeper::VipRole::Active),
            )
        });
        family(
            &mut out,
            "gaiola_vip_owner",
            "gauge",
            "Whether this balancer holds the VIP.",
            owner,
        );
        let takeovers = keeper.vips.iter().flat_map(|(vip, state)| {
            let label =
                move |reason: &str| format!("tier=\"balancer\",vip=\"{vip}\",reason=\"{reason}\"");
            state
                .takeovers
                .iter()
                .map(move |(reason, count)| (label(reason), *count))
        });
        family(
            &mut out,
            "gaiola_failovers_total",
            "counter",
            "VIPs that this balancer took over.",
            takeovers,
        );
    }
    let restarts = figures
        .restarts
        .iter()
        .map(|(process, count)| (format!("process=\"{process}\""), u64::from(*count)));
    family(
        &mut out,
        "gaiola_process_restarts_total",
        "counter",
        "Processes that ended by themselves and were started again.",
        restarts,
    );
    resources(&mut out, figures);
    if let Some(observed) = &figures.observed {
        let ready = observed.instances.iter().map(|(name, instance)| {
            (
                format!("instance=\"{name}\""),
                u64::from(instance.state == InstanceState::Ready),
            )
        });
        family(
            &mut out,
            "gaiola_instance_ready",
            "gauge",
            "Whether an instance answers its health path.",
            ready,
        );
        family(
            &mut out,
            "gaiola_placement_revision",
            "gauge",
            "The placement that was carried out.",
            [(String::new(), observed.revision.0)],
        );
        if let Some(database) = &observed.database {
            let primary = u64::from(database.role == DatabaseRole::Primary);
            family(
                &mut out,
                "gaiola_postgres_primary",
                "gauge",
                "Whether PostgreSQL here takes writes.",
                [(String::new(), primary)],
            );
            family(
                &mut out,
                "gaiola_postgres_timeline",
                "gauge",
                "PostgreSQL's timeline.",
                [(String::new(), database.timeline)],
            );
            let lag = figures.lag_bytes.map(|lag| (String::new(), lag));
            family(
                &mut out,
                "gaiola_postgres_replication_lag_bytes",
                "gauge",
                "Bytes behind the primary.",
                lag,
            );
        }
    }
    out
}

/// The samples of a metric family: their labels and values.
type Samples = Vec<(String, u64)>;

/// Metrics of the server's free resources.
fn resources(out: &mut String, figures: &Figures) {
    disks(out, figures);
    let left = &figures.left;
    let memory = |of: fn((u64, u64)) -> u64| left.memory.map(|memory| (String::new(), of(memory)));
    let used = left.memory.map(|_| (String::new(), left.used_bytes));
    let of_system = |of: fn(&Descriptors) -> u64| {
        let all = left.descriptors.iter();
        let system = all.filter(|descriptors| descriptors.process.is_none());
        system.map(move |descriptors| (String::new(), of(descriptors)))
    };
    let of_processes = |of: fn(&Descriptors) -> u64| {
        let all = left.descriptors.iter();
        all.filter_map(move |descriptors| {
            let process = descriptors.process.as_ref()?;
            Some((format!("process=\"{}\"", escaped(process)), of(descriptors)))
        })
    };
    #[rustfmt::skip]
    let families: [(&str, &str, Samples); 7] = [
        ("gaiola_server_memory_bytes", "Memory that there is.", memory(|(total, _)| total).into_iter().collect()),
        ("gaiola_server_memory_available_bytes", "Memory that can be had.", memory(|(_, available)| available).into_iter().collect()),
        ("gaiola_server_memory_used_bytes", "Memory that the server's processes have for themselves.", used.into_iter().collect()),
        ("gaiola_server_open_fds", "The system's open files.", of_system(|of| of.open).collect()),
        ("gaiola_server_max_fds", "How many files the system may have open.", of_system(|of| of.limit).collect()),
        ("gaiola_process_open_fds", "Open descriptors of the process of this name that is nearest to its limit.", of_processes(|of| of.open).collect()),
        ("gaiola_process_max_fds", "How many descriptors that process may have open.", of_processes(|of| of.limit).collect()),
    ];
    for (name, help, samples) in families {
        family(out, name, "gauge", help, samples);
    }
}

fn disks(out: &mut String, figures: &Figures) {
    let label = |disk: &DiskReading| format!("disk=\"{}\"", disk.holds.name());
    let read = |of: fn(&DiskReading) -> u64| {
        let disks = figures.left.disks.iter();
        disks.map(move |disk| (label(disk), of(disk)))
    };
    let told = figures
        .observed
        .iter()
        .flat_map(|seen| &seen.resources.disks);
    let full_in = told.clone().filter_map(|disk| {
        let label = format!("disk=\"{}\"", disk.holds.name());
        Some((label, disk.full_in_s?))
    });
    let writable = told.map(|disk| {
        let label = format!("disk=\"{}\"", disk.holds.name());
        let takes = matches!(disk.state, DiskState::Room | DiskState::Low);
        (label, u64::from(takes))
    });
    #[rustfmt::skip]
    let families: [(&str, &str, Samples); 4] = [
        ("gaiola_server_disk_size_bytes", "Size of the file system.", read(|disk| disk.total_bytes).collect()),
        ("gaiola_server_disk_free_bytes", "What those who are not root may still write.", read(|disk| disk.free_bytes).collect()),
        ("gaiola_server_disk_full_in_seconds", "When the file system is full at the present rate, where that is soon.", full_in.collect()),
        ("gaiola_server_disk_writable", "Whether the file system takes what is written.", writable.collect()),
    ];
    for (name, help, samples) in families {
        family(out, name, "gauge", help, samples);
    }
}

/// A label's value, escaped: programs may have any name.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn family(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: impl IntoIterator<Item = (String, u64)>,
) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = match labels.is_empty() {
            true => writeln!(out, "{name} {value}"),
            false => writeln!(out, "{name}{{{labels}}} {value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_has_left_is_told_in_base_units() {
        let of = |process: Option<&str>| Descriptors {
            process: process.map(Into::into),
            open: 12,
            limit: 1024,
        };
        let left = Reading {
            disks: vec![DiskReading {
                holds: gaiola_model::resources::Holds::Database,
                total_bytes: 1000,
                free_bytes: 10,
                refused: None,
            }],
            memory: Some((900, 300)),
            used_bytes: 70,
            descriptors: vec![of(None), of(Some("a \"b\""))],
        };
        let text = render(&Figures {
            left,
            ..Figures::default()
        });
        for sample in [
            "gaiola_server_disk_free_bytes{disk=\"database\"} 10",
            "gaiola_server_memory_available_bytes 300",
            "gaiola_server_memory_used_bytes 70",
            "gaiola_server_max_fds 1024",
            "gaiola_process_open_fds{process=\"a \\\"b\\\"\"} 12",
        ] {
            assert!(text.lines().any(|line| line == sample), "{text}");
        }
    }

    #[test]
    fn every_sample_stands_under_its_family() {
        let text = render(&Figures {
            restarts: vec![("proxy".into(), 2)],
            ..Figures::default()
        });
        assert!(text.contains("# TYPE gaiola_process_restarts_total counter\ngaiola_process_restarts_total{process=\"proxy\"} 2\n"));
    }
}
