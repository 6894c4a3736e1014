//! The process's counters as Prometheus text.

use super::check::HealthCounts;
use super::counters::{BOUNDS, SeriesKey, SeriesSum, Unasked};
use super::orders::Orders;
use super::supervisor::Supervisor;
use gaiola_model::metric::{self, Family};
use gaiola_model::proxy::{Admin, Server};
use gaiola_wire::metrics::{Histogram, Text};
use std::collections::BTreeMap;

/// All metrics of the process.
pub(super) fn render(supervisor: &Supervisor) -> String {
    let mut out = Text::default();
    let mut build = out.family(&metric::BUILD_INFO);
    build.sample([env!("CARGO_PKG_VERSION")], true);
    series(&sums(supervisor), &mut out);
    servers(supervisor, &mut out);
    frontends(supervisor, &mut out);
    backends(&supervisor.orders(), &mut out);
    process(supervisor, &mut out);
    reloads(supervisor, &mut out);
    out.into_string()
}

/// What all workers have counted, by series.
type Sums = BTreeMap<SeriesKey, SeriesSum>;

fn sums(supervisor: &Supervisor) -> Sums {
    let mut sums = Sums::new();
    for counters in supervisor.counters() {
        counters.forget_series();
        counters.add_series(&mut sums);
    }
    sums
}

fn series(sums: &Sums, out: &mut Text) {
    requests(sums, out);
    count(sums, &metric::RETRIES, |sum| sum.retries, out);
    count(sums, &metric::REDISPATCHES, |sum| sum.redispatches, out);
    let mut sessions = out.family(&metric::TCP_SESSIONS);
    for (key, sum) in sums.iter().filter(|(_, sum)| sum.sessions > 0) {
        sessions.sample(labels(key), sum.sessions);
    }
    count(sums, &metric::BYTES_IN, |sum| sum.received, out);
    count(sums, &metric::BYTES_OUT, |sum| sum.sent, out);
    durations(sums, out);
}

fn requests(sums: &Sums, out: &mut Text) {
    let mut requests = out.family(&metric::HTTP_REQUESTS);
    for (key, sum) in sums {
        let [frontend, backend, server] = labels(key);
        for (code, count) in &sum.codes {
            let code = match code {
                0 => "other",
                code => &code.to_string(),
            };
            requests.sample([frontend, backend, server, code], *count);
        }
    }
}

/// A family with one number of each series.
fn count(
    sums: &Sums,
    family: &'static Family<3>,
    number: impl Fn(&SeriesSum) -> u64,
    out: &mut Text,
) {
    let mut samples = out.family(family);
    for (key, sum) in sums {
        samples.sample(labels(key), number(sum));
    }
}

fn durations(sums: &Sums, out: &mut Text) {
    let mut durations = out.family(&metric::HTTP_REQUEST_DURATION);
    for (key, sum) in sums.iter().filter(|(_, sum)| !sum.codes.is_empty()) {
        #[expect(clippy::cast_precision_loss, reason = "seconds for people's eyes")]
        let seconds = sum.nanos as f64 / 1e9;
        let observed = Histogram {
            bounds: &BOUNDS,
            counts: &sum.buckets,
            sum: seconds,
        };
        durations.histogram(labels(key), &observed);
    }
}

fn labels(key: &SeriesKey) -> [&str; 3] {
    key.each_ref().map(|label| &**label)
}

fn servers(supervisor: &Supervisor, out: &mut Text) {
    let (report, orders) = (supervisor.report(), supervisor.orders());
    let members = members(&orders);
    let mut up = out.family(&metric::SERVER_UP);
    for server in &report.servers {
        let labels = [&*server.backend, &*server.server];
        let configured = members.get(&labels);
        let takes = server.up && configured.is_some_and(|server| server.is_wanted());
        up.sample(labels, takes);
    }
    let mut states = out.family(&metric::SERVER_STATE);
    for ([backend, server], configured) in &members {
        let state = match configured.admin {
            Admin::Ready => "ready",
            Admin::Drain => "drain",
            Admin::Maint => "maint",
        };
        states.sample([*backend, *server, state], true);
    }
    health(
        supervisor,
        &metric::SERVER_DOWNS,
        |counts| counts.downs,
        out,
    );
    let ejections = &metric::SERVER_EJECTIONS;
    health(supervisor, ejections, |counts| counts.ejections, out);
    let failed = &metric::SERVER_CHECKS_FAILED;
    health(supervisor, failed, |counts| counts.checks_failed, out);
    let mut in_flight = out.family(&metric::SERVER_IN_FLIGHT);
    for server in &report.servers {
        in_flight.sample([&*server.backend, &*server.server], server.in_flight);
    }
}

/// A family with one number of each server's health.
fn health(
    supervisor: &Supervisor,
    family: &'static Family<2>,
    number: impl Fn(&HealthCounts) -> u64,
    out: &mut Text,
) {
    let mut samples = out.family(family);
    supervisor.each_health(|backend, server, counts| {
        samples.sample([backend, server], number(&counts));
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
    let frontends = &orders.frontends;
    let mut accepted = out.family(&metric::CONNECTIONS_ACCEPTED);
    for frontend in frontends {
        accepted.sample([&frontend.name], frontend.accepted());
    }
    let mut open = out.family(&metric::CONNECTIONS);
    for frontend in frontends {
        open.sample([&frontend.name], frontend.open());
    }
    let mut refused = out.family(&metric::CONNECTIONS_REFUSED);
    for frontend in frontends {
        refused.sample([&frontend.name], frontend.refused());
    }
    let mut handshakes = BTreeMap::<_, u64>::new();
    let counters = supervisor.counters();
    for (result, count) in counters.flat_map(|counters| counters.handshakes.get()) {
        *handshakes.entry(result).or_default() += count;
    }
    let mut results = out.family(&metric::TLS_HANDSHAKES);
    for (result, count) in handshakes {
        results.sample([result], count);
    }
}

fn backends(orders: &Orders, out: &mut Text) {
    let names = orders.config.iter().flat_map(|config| &config.backends);
    let backends = names.zip(&orders.backends);
    let mut depths = out.family(&metric::QUEUE_DEPTH);
    for (backend, orders) in backends.clone() {
        depths.sample([&backend.name], orders.queue.waiting());
    }
    let mut panics = out.family(&metric::BACKEND_PANIC);
    for (backend, orders) in backends {
        panics.sample([&backend.name], orders.panic);
    }
}

fn process(supervisor: &Supervisor, out: &mut Text) {
    out.value(&metric::LOG_DROPPED, supervisor.lines_lost());
    out.value(&metric::MESSAGES_DROPPED, gaiola_os::stderr::lost());
    let mut unasked = out.family(&metric::CONNECTIONS_UNASKED);
    for (why, reason) in Unasked::ALL {
        let counts = supervisor.counters().map(|all| all.unasked(why).get());
        unasked.sample([reason], counts.sum::<u64>());
    }
    out.value(&metric::CONFIG_REVISION, supervisor.report().revision.0);
    out.value(&metric::OLD_PROCESSES, supervisor.old_processes());
    out.value(&metric::UPTIME, supervisor.started().elapsed().as_secs());
}

fn reloads(supervisor: &Supervisor, out: &mut Text) {
    let reloads = supervisor.reloads();
    let mut results = out.family(&metric::CONFIG_RELOADS);
    for (result, count) in [("taken", reloads.taken), ("failed", reloads.failed)] {
        results.sample([result], count);
    }
    out.value(&metric::CONFIG_LAST_RELOAD_SUCCESSFUL, reloads.last_taken);
    out.value(&metric::CONFIG_LAST_RELOAD_SUCCESS, reloads.taken_at);
}
