//! The agent's figures, for Prometheus.

use crate::serve;
use gaiola_model::Observed;
use gaiola_model::keeper::KeeperState;
use gaiola_model::placement::{DatabaseRole, InstanceState};
use hyper::{Method, StatusCode};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The port of the agent's metrics and health.
pub(super) const PORT: u16 = 9181;

/// What the figures are made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// What the agent sees.
    pub(super) observed: Option<Observed>,
    /// What the VIP keeper tells; `None` on servers without one.
    pub(super) keeper: Option<KeeperState>,
    /// How often processes ended by themselves.
    pub(super) restarts: Vec<(String, u32)>,
    /// Bytes that PostgreSQL here is behind.
    pub(super) lag_bytes: Option<u64>,
}

/// Answers for ever; where the port cannot be had, says so and gives up.
pub(super) async fn serve(address: Ipv4Addr, figures: watch::Receiver<Figures>) {
    let listener = match TcpListener::bind(SocketAddr::new(address.into(), PORT)).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("no metrics: cannot listen on {address}:{PORT}: {error}");
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
        [(String::new(), crate::stderr::lost())],
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
    fn every_sample_stands_under_its_family() {
        let text = render(&Figures {
            restarts: vec![("proxy".into(), 2)],
            ..Figures::default()
        });
        assert!(text.contains("# TYPE gaiola_process_restarts_total counter\ngaiola_process_restarts_total{process=\"proxy\"} 2\n"));
    }
}
