//! Every family of metrics that Gaiola's processes expose: the one table that writers, readers and `docs/metrics.md` share.
//!
//! ```
//! use gaiola_model::metric::{self, Kind};
//!
//! assert_eq!(metric::SERVER_UP.name(), "gaiola_server_up");
//! assert_eq!(metric::SERVER_UP.labels(), ["backend", "server"]);
//! assert_eq!(metric::SERVER_UP.about().kind, Kind::Gauge);
//! ```

use std::fmt;

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from zero at the start of its process.
    Counter,
    /// The value at the moment.
    Gauge,
    /// Cumulative counts by upper bound, with sum and count.
    Histogram,
}

/// What a family's values count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things: requests, connections, a revision.
    Count,
    /// 1 for yes, 0 for no.
    Truth,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// One family of metrics.
#[derive(Debug, PartialEq, Eq)]
pub struct About {
    /// Name, the same in every process that exposes it.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// What its values count.
    pub unit: Unit,
    /// Meaning, as one line.
    pub help: &'static str,
    /// Names of the labels that every sample has, in the order in which they are written.
    pub labels: &'static [&'static str],
}

/// A family whose samples have `LABELS` labels, so that a sample with fewer or more does not compile.
#[derive(Debug)]
pub struct Family<const LABELS: usize>(About);

impl Kind {
    /// The word for it in Prometheus text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<const LABELS: usize> Family<LABELS> {
    const fn new(about: About) -> Self {
        assert!(
            about.labels.len() == LABELS,
            "as many labels as the type says"
        );
        Self(about)
    }

    /// The family's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0.name
    }

    /// The names of its labels.
    ///
    /// # Panics
    /// Never: a family is made with this many labels.
    #[must_use]
    pub fn labels(&self) -> [&'static str; LABELS] {
        self.0
            .labels
            .try_into()
            .expect("as many labels as the type says")
    }

    /// The family's row in the table.
    #[must_use]
    pub const fn about(&self) -> &About {
        &self.0
    }
}

const fn count(labels: &[&str]) -> usize {
    labels.len()
}

/// A list of families, and a constant for each of them.
macro_rules! families {
    ($(#[$doc:meta])* $list:ident {
        $($family:ident = $kind:ident $unit:ident $name:literal [$($label:ident),*] $help:literal;)*
    }) => {
        $(#[$doc])*
        pub static $list: &[&About] = &[$($family.about()),*];
        $(
            #[doc = $help]
            pub static $family: Family<{ count(&[$(stringify!($label)),*]) }> = Family::new(About {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                help: $help,
                labels: &[$(stringify!($label)),*],
            });
        )*
    };
}

families! {
    /// Of every process that exposes metrics.
    PROCESS {
        BUILD_INFO = Gauge Truth "gaiola_build_info" [version]
            "The version that runs; always 1.";
        MESSAGES_DROPPED = Counter Count "gaiola_messages_dropped_total" []
            "Lines of the process's own log (standard error) that could not be written.";
    }
}

families! {
    /// Of a proxy, besides [`PROCESS`].
    PROXY {
        HTTP_REQUESTS = Counter Count "gaiola_http_requests_total" [frontend, backend, server, code]
            "Completed requests; `-` stands for no backend or no server.";
        HTTP_REQUEST_DURATION = Histogram Seconds "gaiola_http_request_duration_seconds" [frontend, backend, server]
            "From the first byte of the request to the last byte of the response; buckets from 0.5 ms to 10 s.";
        RETRIES = Counter Count "gaiola_retries_total" [frontend, backend, server]
            "Retried requests.";
        REDISPATCHES = Counter Count "gaiola_redispatches_total" [frontend, backend, server]
            "Requests and sessions that moved to another server after this one failed.";
        BYTES_IN = Counter Bytes "gaiola_bytes_in_total" [frontend, backend, server]
            "Bytes received from clients: heads, and bodies as far as they were forwarded.";
        BYTES_OUT = Counter Bytes "gaiola_bytes_out_total" [frontend, backend, server]
            "Bytes sent to clients.";
        TCP_SESSIONS = Counter Count "gaiola_tcp_sessions_total" [frontend, backend, server]
            "Completed TCP sessions.";
        SERVER_UP = Gauge Truth "gaiola_server_up" [backend, server]
            "Whether a member gets new traffic: up, not ejected, with a weight, and neither in `drain` nor `maint`.";
        SERVER_STATE = Gauge Truth "gaiola_server_state" [backend, server, state]
            "1 for the state that the operator set: `ready`, `drain` or `maint`.";
        SERVER_DOWNS = Counter Count "gaiola_server_downs_total" [backend, server]
            "How often a member went down or was ejected.";
        SERVER_EJECTIONS = Counter Count "gaiola_server_ejections_total" [backend, server]
            "How often a member was ejected for failed requests or late responses.";
        SERVER_CHECKS_FAILED = Counter Count "gaiola_server_checks_failed_total" [backend, server]
            "Failed health checks.";
        SERVER_IN_FLIGHT = Gauge Count "gaiola_server_in_flight" [backend, server]
            "Requests and sessions in progress.";
        CONNECTIONS = Gauge Count "gaiola_connections" [frontend]
            "Open client connections.";
        CONNECTIONS_ACCEPTED = Counter Count "gaiola_connections_total" [frontend]
            "Accepted client connections.";
        CONNECTIONS_REFUSED = Counter Count "gaiola_connections_refused_total" [frontend]
            "Client connections refused by a limit.";
        CONNECTIONS_UNASKED = Counter Count "gaiola_connections_unasked_total" [reason]
            "Client connections closed before a request: `silent` (nothing came in time), `header` (no PROXY protocol header), \
             `name` (no ClientHello where routing needs its name); the log says why.";
        TLS_HANDSHAKES = Counter Count "gaiola_tls_handshakes_total" [result]
            "TLS handshakes with clients: `full`, `resumed` or `failed`; the log says why one failed.";
        QUEUE_DEPTH = Gauge Count "gaiola_queue_depth" [backend]
            "Requests waiting for a member.";
        BACKEND_PANIC = Gauge Truth "gaiola_backend_panic" [backend]
            "1 while members that failed their checks serve for lack of others.";
        LOG_DROPPED = Counter Count "gaiola_log_dropped_total" []
            "Lines missing from the access log.";
        CONFIG_REVISION = Gauge Count "gaiola_config_revision" []
            "The configuration that all workers use.";
        CONFIG_RELOADS = Counter Count "gaiola_config_reloads_total" [result]
            "Configurations, from a file or an agent: `taken`, or `failed`, in which case the previous one stays in use.";
        CONFIG_LAST_RELOAD_SUCCESSFUL = Gauge Truth "gaiola_config_last_reload_successful" []
            "1 if the last configuration took effect.";
        CONFIG_LAST_RELOAD_SUCCESS = Gauge Seconds "gaiola_config_last_reload_success_timestamp_seconds" []
            "When a configuration last took effect, in seconds since 1970.";
        OLD_PROCESSES = Gauge Count "gaiola_old_processes" []
            "Earlier processes that still finish requests and sessions after this one took over.";
        UPTIME = Gauge Seconds "gaiola_uptime_seconds" []
            "How long the process has run.";
    }
}

families! {
    /// Of an agent, besides [`PROCESS`].
    AGENT {
        VIP_OWNER = Gauge Truth "gaiola_vip_owner" [vip]
            "Whether this balancer holds the VIP.";
        FAILOVERS = Counter Count "gaiola_failovers_total" [tier, vip, reason]
            "VIPs that this balancer took over.";
        PROCESS_RESTARTS = Counter Count "gaiola_process_restarts_total" [process]
            "Processes that exited unexpectedly and were restarted.";
        INSTANCE_READY = Gauge Truth "gaiola_instance_ready" [instance]
            "Whether an instance answers its health path.";
        PLACEMENT_REVISION = Gauge Count "gaiola_placement_revision" []
            "The placement that the agent has applied.";
        POSTGRES_PRIMARY = Gauge Truth "gaiola_postgres_primary" []
            "Whether PostgreSQL here takes writes.";
        POSTGRES_TIMELINE = Gauge Count "gaiola_postgres_timeline" []
            "PostgreSQL's timeline.";
        POSTGRES_REPLICATION_LAG = Gauge Bytes "gaiola_postgres_replication_lag_bytes" []
            "Bytes behind the primary.";
        SERVER_DISK_SIZE = Gauge Bytes "gaiola_server_disk_size_bytes" [disk]
            "The file system's size; `disk` is `database` for the one with PostgreSQL's data, `state` for another one with the server's state.";
        SERVER_DISK_FREE = Gauge Bytes "gaiola_server_disk_free_bytes" [disk]
            "The free space available to non-root users.";
        SERVER_DISK_FULL_IN = Gauge Seconds "gaiola_server_disk_full_in_seconds" [disk]
            "Time until the file system is full at the present rate; missing if that is more than an hour.";
        SERVER_DISK_WRITABLE = Gauge Truth "gaiola_server_disk_writable" [disk]
            "Whether writes succeed.";
        SERVER_MEMORY = Gauge Bytes "gaiola_server_memory_bytes" []
            "Total memory: the machine's, or the cgroup's limit.";
        SERVER_MEMORY_AVAILABLE = Gauge Bytes "gaiola_server_memory_available_bytes" []
            "Available memory, of the machine or within the cgroup's limit.";
        SERVER_MEMORY_USED = Gauge Bytes "gaiola_server_memory_used_bytes" []
            "Private memory of the server's own processes, without shared memory.";
        SERVER_OPEN_FDS = Gauge Count "gaiola_server_open_fds" []
            "The system's open files.";
        SERVER_MAX_FDS = Gauge Count "gaiola_server_max_fds" []
            "The limit of the system's open files.";
        PROCESS_OPEN_FDS = Gauge Count "gaiola_process_open_fds" [process]
            "Open descriptors: of the processes of this name, the one nearest to its limit.";
        PROCESS_MAX_FDS = Gauge Count "gaiola_process_max_fds" [process]
            "The limit of that process's descriptors.";
    }
}

families! {
    /// Of the status page, which adds it to those of all proxies and agents.
    SITE {
        SCRAPE_UP = Gauge Truth "gaiola_scrape_up" [host, source]
            "Whether a process answered when its metrics were last polled.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn all() -> impl Iterator<Item = &'static About> {
        [PROCESS, PROXY, AGENT, SITE].into_iter().flatten().copied()
    }

    #[test]
    fn names_are_unique_and_those_of_prometheus() {
        let mut names = BTreeSet::new();
        for About { name, labels, .. } in all() {
            assert!(names.insert(name), "{name} is listed twice");
            let letters = |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_'));
            assert!(
                letters(name) && labels.iter().all(|label| letters(label)),
                "{name}"
            );
            let unique: BTreeSet<_> = labels.iter().collect();
            assert_eq!(unique.len(), labels.len(), "{name}");
            assert!(
                !labels.contains(&"le"),
                "{name}: that label is a histogram's own"
            );
        }
    }

    #[test]
    fn a_name_ends_with_its_unit_and_a_counters_with_total() {
        for About {
            name, kind, unit, ..
        } in all()
        {
            let counted = name.strip_suffix("_total");
            assert_eq!(counted.is_some(), *kind == Kind::Counter, "{name}");
            let base = counted.unwrap_or(name);
            let suffix = match unit {
                Unit::Seconds => "_seconds",
                // `gaiola_bytes_in_total` has it in the middle, as HAProxy's names do.
                Unit::Bytes => "bytes",
                Unit::Count | Unit::Truth => "",
            };
            assert!(
                base.ends_with(suffix) || base.starts_with("gaiola_bytes_"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_meaning_is_one_line() {
        for About { name, help, .. } in all() {
            assert!(
                help.ends_with('.') && !help.contains(['\n', '\\', '|']),
                "{name}: {help}"
            );
        }
    }
}
