//! The workers' counters as Prometheus text (exposition format 0.0.4).

use super::check::HealthCounts;
use super::counters::{BOUNDS, SeriesKey, SeriesSum, Unasked};
use super::orders::Orders;
use super::supervisor::Supervisor;
use gaiola_model::proxy::{Admin, Server};
use std::collections::BTreeMap;
use std::fmt::Write;

/// All metrics of the process.
pub(super) fn render(supervisor: &Supervisor) -> String {
    let mut out = Text(String::with_capacity(16 * 1024));
    out.about("gaiola_build_info", "gauge", "The version that runs.");
    out.sample(
        "gaiola_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    series(supervisor, &mut out);
    servers(supervisor, &mut out);
    frontends(supervisor, &mut out);
    process(supervisor, &mut out);
    out.0
}

fn series(supervisor: &Supervisor, out: &mut Text) {
    let mut sums = BTreeMap::new();
    for counters in supervisor.counters() {
        counters.forget_series();
        counters.add_series(&mut sums);
    }
    out.about(
        "gaiola_http_requests_total",
        "counter",
        "Requests that have ended.",
    );
    for (key, sum) in &sums {
        for (code, count) in &sum.codes {
            let code = match code {
                0 => "other",
                code => &code.to_string(),
            };
            let [frontend, backend, server] = labels(key);
            let labels = [frontend, backend, server, ("code", code)];
            out.sample("gaiola_http_requests_total", &labels, *count);
        }
    }
    out.about(
        "gaiola_retries_total",
        "counter",
        "Requests that were sent once more.",
    );
    for (key, sum) in &sums {
        out.sample("gaiola_retries_total", &labels(key), sum.retries);
    }
    let name = "gaiola_redispatches_total";
    let help = "Requests and sessions that went on to another server after this one had failed.";
    out.about(name, "counter", help);
    for (key, sum) in &sums {
        out.sample(name, &labels(key), sum.redispatches);
    }
    out.about(
        "gaiola_tcp_sessions_total",
        "counter",
        "TCP sessions that have ended.",
    );
    for (key, sum) in sums.iter().filter(|(_, sum)| sum.sessions > 0) {
        out.sample("gaiola_tcp_sessions_total", &labels(key), sum.sessions);
    }
    let name = "gaiola_bytes_in_total";
    out.about(
        name,
        "counter",
        "Bytes of requests and sessions from clients.",
    );
    for (key, sum) in &sums {
        out.sample(name, &labels(key), sum.received);
    }
    let name = "gaiola_bytes_out_total";
    out.about(name, "counter", "Bytes that were sent to clients.");
    for (key, sum) in &sums {
        out.sample(name, &labels(key), sum.sent);
    }
    let name = "gaiola_http_request_duration_seconds";
    out.about(
        name,
        "histogram",
        "From a request's first byte to its response's last.",
    );
    for (key, sum) in sums.iter().filter(|(_, sum)| !sum.codes.is_empty()) {
        histogram(key, sum, out);
    }
}

fn labels(key: &SeriesKey) -> [(&'static str, &str); 3] {
    let [frontend, backend, server] = key;
    [
        ("frontend", frontend),
        ("backend", backend),
        ("server", server),
    ]
}

fn histogram(key: &SeriesKey, sum: &SeriesSum, out: &mut Text) {
    let [frontend, backend, server] = labels(key);
    let mut so_far = 0;
    for (index, count) in sum.buckets.iter().enumerate() {
        so_far += count;
        let bound = BOUNDS.get(index).map_or("+Inf".into(), f64::to_string);
        let labels = [frontend, backend, server, ("le", &bound)];
        out.sample(
            "gaiola_http_request_duration_seconds_bucket",
            &labels,
            so_far,
        );
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds for people's eyes")]
    let seconds = sum.nanos as f64 / 1e9;
    let labels = labels(key);
    out.sample("gaiola_http_request_duration_seconds_sum", &labels, seconds);
    out.sample(
        "gaiola_http_request_duration_seconds_count",
        &labels,
        so_far,
    );
}

fn servers(supervisor: &Supervisor, out: &mut Text) {
    let report = supervisor.report();
    out.about(
        "gaiola_server_up",
        "gauge",
        "Whether a server takes new traffic.",
    );
    let orders = supervisor.orders();
    let members = members(&orders);
    for server in &report.servers {
        let labels = [("backend", &*server.backend), ("server", &*server.server)];
        let configured = members.get(&labels.map(|(_, name)| name));
        let takes = server.up && configured.is_some_and(|server| server.is_wanted());
        out.sample("gaiola_server_up", &labels, u8::from(takes));
    }
    let name = "gaiola_server_state";
    out.about(name, "gauge", "What an operator wants of a server.");
    for ([backend, server], configured) in &members {
        let state = match configured.admin {
            Admin::Ready => "ready",
            Admin::Drain => "drain",
            Admin::Maint => "maint",
        };
        let labels = [("backend", *backend), ("server", *server), ("state", state)];
        out.sample(name, &labels, 1);
    }
    let downs = "How often a server went down or was ejected.";
    health(
        supervisor,
        "gaiola_server_downs_total",
        downs,
        out,
        |counts| counts.downs,
    );
    let ejections = "How often traffic that failed, or answers that came late, put a server out.";
    let name = "gaiola_server_ejections_total";
    health(supervisor, name, ejections, out, |counts| counts.ejections);
    let failed = "Checks of a server that failed.";
    let name = "gaiola_server_checks_failed_total";
    health(supervisor, name, failed, out, |counts| counts.checks_failed);
    out.about(
        "gaiola_server_in_flight",
        "gauge",
        "Requests and sessions that have not ended.",
    );
    for server in &report.servers {
        let labels = [("backend", &*server.backend), ("server", &*server.server)];
        out.sample("gaiola_server_in_flight", &labels, server.in_flight);
    }
}

/// One metric of each server's health.
fn health(
    supervisor: &Supervisor,
    name: &str,
    help: &str,
    out: &mut Text,
    number: impl Fn(&HealthCounts) -> u64,
) {
    out.about(name, "counter", help);
    supervisor.each_health(|backend, server, counts| {
        let labels = [("backend", backend), ("server", server)];
        out.sample(name, &labels, number(&counts));
    });
}

/// The configuration of each server, keyed by backend and server name.
fn members(orders: &Orders) -> BTreeMap<[&str; 2], &Server> {
    let configured = orders.config.iter().flat_map(|config| &config.backends);
    let members = configured.flat_map(|backend| {
        let servers = backend.servers.iter();
        servers.map(|server| ([&*backend.name, &*server.name], server))
    });
    members.collect()
}

fn frontends(supervisor: &Supervisor, out: &mut Text) {
    let orders = supervisor.orders();
    let name = "gaiola_connections_total";
    out.about(name, "counter", "Client connections that were accepted.");
    for frontend in &orders.frontends {
        let labels = [("frontend", &*frontend.name)];
        out.sample(name, &labels, frontend.accepted());
    }
    out.about(
        "gaiola_connections",
        "gauge",
        "Client connections that are open.",
    );
    for frontend in &orders.frontends {
        out.sample(
            "gaiola_connections",
            &[("frontend", &*frontend.name)],
            frontend.open(),
        );
    }
    let name = "gaiola_connections_refused_total";
    out.about(
        name,
        "counter",
        "Client connections that a limit has refused.",
    );
    for frontend in &orders.frontends {
        let labels = [("frontend", &*frontend.name)];
        out.sample(name, &labels, frontend.refused());
    }
    out.about(
        "gaiola_tls_handshakes_total",
        "counter",
        "TLS handshakes with clients.",
    );
    let mut handshakes = BTreeMap::<_, u64>::new();
    for (result, count) in supervisor
        .counters()
        .flat_map(|counters| counters.handshakes.get())
    {
        *handshakes.entry(result).or_default() += count;
    }
    for (result, count) in handshakes {
        out.sample("gaiola_tls_handshakes_total", &[("result", result)], count);
    }
    out.about(
        "gaiola_queue_depth",
        "gauge",
        "Requests that wait for a server.",
    );
    let names = orders.config.iter().flat_map(|config| &config.backends);
    let backends = names.zip(&orders.backends);
    for (backend, orders) in backends.clone() {
        let waiting = orders.queue.waiting();
        out.sample(
            "gaiola_queue_depth",
            &[("backend", &*backend.name)],
            waiting,
        );
    }
    let name = "gaiola_backend_panic";
    let about = "Whether servers serve although their checks took them out, for lack of others.";
    out.about(name, "gauge", about);
    for (backend, orders) in backends {
        let labels = [("backend", &*backend.name)];
        out.sample(name, &labels, u8::from(orders.panic));
    }
}

fn process(supervisor: &Supervisor, out: &mut Text) {
    out.about(
        "gaiola_log_dropped_total",
        "counter",
        "Lines that are missing in the access log.",
    );
    out.sample("gaiola_log_dropped_total", &[], supervisor.lines_lost());
    let name = "gaiola_messages_dropped_total";
    out.about(
        name,
        "counter",
        "Lines of the process's own log that could not be written.",
    );
    out.sample(name, &[], gaiola_os::stderr::lost());
    let name = "gaiola_connections_unasked_total";
    out.about(
        name,
        "counter",
        "Client connections that were closed before anything was asked on them.",
    );
    for (why, reason) in Unasked::ALL {
        let counts = supervisor.counters().map(|all| all.unasked(why).get());
        out.sample(name, &[("reason", reason)], counts.sum::<u64>());
    }
    out.about(
        "gaiola_config_revision",
        "gauge",
        "The configuration that every worker has.",
    );
    out.sample(
        "gaiola_config_revision",
        &[],
        supervisor.report().revision.0,
    );
    reloads(supervisor, out);
    let since = supervisor.started().elapsed().as_secs();
    out.about(
        "gaiola_uptime_seconds",
        "gauge",
        "How long the process has run.",
    );
    out.sample("gaiola_uptime_seconds", &[], since);
}

fn reloads(supervisor: &Supervisor, out: &mut Text) {
    let reloads = supervisor.reloads();
    let name = "gaiola_config_reloads_total";
    let help = "Configurations that were to be put in force, by file or by an agent.";
    out.about(name, "counter", help);
    for (result, count) in [("taken", reloads.taken), ("failed", reloads.failed)] {
        out.sample(name, &[("result", result)], count);
    }
    let name = "gaiola_config_last_reload_successful";
    out.about(name, "gauge", "Whether the last of them is in force.");
    out.sample(name, &[], u8::from(reloads.last_taken));
    let name = "gaiola_config_last_reload_success_timestamp_seconds";
    out.about(name, "gauge", "When the last one was put in force.");
    out.sample(name, &[], reloads.taken_at);
}

/// Text in the Prometheus format.
struct Text(String);

impl Text {
    fn about(&mut self, name: &str, kind: &str, help: &str) {
        write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect("writing to memory");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            self.0.extend(text.chars().flat_map(escape));
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        writeln!(self.0, " {value}").expect("writing to memory");
    }
}

/// Escapes backslash, quote and line feed with a backslash.
fn escape(letter: char) -> impl Iterator<Item = char> {
    let (first, second) = match letter {
        '\n' => ('\\', Some('n')),
        '\\' | '"' => ('\\', Some(letter)),
        other => (other, None),
    };
    std::iter::once(first).chain(second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn labels_are_escaped() {
        let mut out = Text(String::new());
        out.sample("up", &[("server", "a\"b\\c\nd")], 1);
        assert_eq!(out.0, "up{server=\"a\\\"b\\\\c\\nd\"} 1\n");
    }

    #[test]
    fn buckets_are_cumulated() {
        let series = super::super::counters::Series::default();
        series.record(200, Duration::from_micros(100));
        series.record(200, Duration::from_secs(100));
        let mut sum = SeriesSum::default();
        sum.add(&series);
        let mut out = Text(String::new());
        histogram(&["f", "b", "s"].map(String::from), &sum, &mut out);
        let labels = "frontend=\"f\",backend=\"b\",server=\"s\"";
        assert!(
            out.0
                .contains(&format!("_bucket{{{labels},le=\"0.0005\"}} 1\n"))
        );
        assert!(
            out.0
                .contains(&format!("_bucket{{{labels},le=\"+Inf\"}} 2\n"))
        );
        assert!(out.0.contains(&format!("_count{{{labels}}} 2\n")));
    }
}
