//! What a proxy reports, as tables.

use gaiola_model::proxy::{
    Limit, LimitKey, Most, ProxyStat, ServerStat, SessionStat, SessionsStat, Totals,
};

/// Rows of cells under a head, each column as wide as its widest cell.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut all = vec![head.map(str::to_owned)];
    all.extend(rows);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &all {
        let cells = row.iter().zip(&widths);
        let line: Vec<_> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A duration with one unit: `47s`, `12m`, `5h`, `3d`.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A duration that may be short: `7ms`, `1.2s`, `47s`, `12m`.
fn short_span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..10_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        _ => span(ms / 1000),
    }
}

fn of(now: u64, most: Option<u32>) -> String {
    match most {
        Some(most) => format!("{now}/{most}"),
        None => now.to_string(),
    }
}

pub(super) fn servers(stat: &ProxyStat) -> String {
    let row = |server: &ServerStat| {
        let spare = if server.spare { " (spare)" } else { "" };
        [
            server.backend.clone(),
            server.server.clone(),
            server.address.to_string(),
            format!("{}{spare}", server.word()),
            server.weight.to_string(),
            of(server.in_flight, server.maxconn),
            server.totals.total.to_string(),
            span(server.changed_seconds),
            server.check.clone(),
        ]
    };
    let head = [
        "BACKEND", "SERVER", "ADDRESS", "STATE", "WEIGHT", "SESSIONS", "TOTAL", "SINCE", "CHECK",
    ];
    table(head, stat.servers.iter().map(row))
}

/// Frontends, then each backend after its servers, in the order of HAProxy's statistics.
fn everything(stat: &ProxyStat) -> impl Iterator<Item = ([String; 3], u64, Totals)> {
    let frontends = stat.frontends.iter().map(|frontend| {
        let now = u64::from(frontend.connections);
        let names = [&*frontend.name, "FRONTEND", "OPEN"];
        let most = of(now, Some(frontend.maxconn));
        ((names, most), 0, frontend.totals)
    });
    let backends = stat.backends.iter().flat_map(|backend| {
        let of_it = |server: &&ServerStat| server.backend == backend.name;
        let servers = stat.servers.iter().filter(of_it).map(|server| {
            let names = [&*server.backend, &*server.server, server.word()];
            let now = of(server.in_flight, server.maxconn);
            ((names, now), 0, server.totals)
        });
        let state = if backend.panic { "PANIC" } else { "" };
        let names = [&*backend.name, "BACKEND", state];
        let now = backend.in_flight.to_string();
        servers.chain([((names, now), backend.waiting, backend.totals)])
    });
    frontends
        .chain(backends)
        .map(|(([name, part, state], now), waiting, totals)| {
            let name = format!("{name}/{part}");
            ([name, state.to_owned(), now], waiting, totals)
        })
}

pub(super) fn stat(stat: &ProxyStat) -> String {
    let rows = everything(stat).map(|([name, state, now], waiting, totals)| {
        let Totals {
            total,
            status_4xx,
            status_5xx,
            retries,
        } = totals;
        let [total, status_4xx, status_5xx, retries] =
            [total, status_4xx, status_5xx, retries].map(|count| count.to_string());
        let waiting = waiting.to_string();
        [
            name, state, now, waiting, total, status_4xx, status_5xx, retries,
        ]
    });
    let head = [
        "NAME", "STATE", "SESSIONS", "QUEUE", "TOTAL", "4XX", "5XX", "RETRIES",
    ];
    let (uptime, revision) = (span(stat.uptime_seconds), stat.revision);
    let name = &stat.name;
    format!(
        "{name}: up {uptime}, configuration {revision}\n{}",
        table(head, rows)
    )
}

/// Clients' connections, and the number of those not listed.
pub(super) fn sessions(stat: &SessionsStat) -> String {
    let row = |session: &SessionStat| {
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".into());
        let to = match (&session.backend, &session.server) {
            (None, _) => "-".into(),
            (Some(backend), None) => format!("{backend}/-"),
            (Some(backend), Some(server)) => format!("{backend}/{server}"),
        };
        [
            session.client.to_string(),
            name(&session.frontend),
            to,
            session.state.word().to_owned(),
            session.busy_ms.map_or_else(|| "-".into(), short_span),
            short_span(session.age_ms),
            session.requests.to_string(),
        ]
    };
    let head = [
        "CLIENT", "FRONTEND", "SERVER", "STATE", "FOR", "AGE", "REQUESTS",
    ];
    let shown = stat.sessions.len();
    let more = if stat.total > shown as u64 {
        format!("{shown} of {} connections\n", stat.total)
    } else {
        String::new()
    };
    format!("{}{more}", table(head, stat.sessions.iter().map(row)))
}

pub(super) fn limits(stat: &ProxyStat) -> String {
    let rows = stat.limits.iter().map(|limit| {
        let Limit {
            name,
            key,
            most,
            keys,
            ipv6_prefix: _,
            shared: _,
        } = &limit.limit;
        let key = match key {
            LimitKey::Source => "source".into(),
            LimitKey::Network => "network".into(),
            LimitKey::Path => "path".into(),
            LimitKey::Header(name) => format!("header {name}"),
        };
        let most = match most {
            Most::Rate { requests, window } => format!("{requests} in {window:?}"),
            Most::Concurrent(requests) => format!("{requests} at a time"),
        };
        [name.clone(), key, most, of(limit.known, Some(*keys))]
    });
    table(["LIMIT", "BY", "MOST", "KEYS"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::proxy::{Admin, BackendStat, FrontendStat, LimitStat, SessionState};
    use std::time::Duration;

    fn known() -> ProxyStat {
        let server = |name: &str, state, up, check: &str| ServerStat {
            backend: "app".into(),
            server: name.into(),
            address: ([10, 0, 0, 11], 3000).into(),
            state,
            up,
            busy: false,
            check: check.into(),
            changed_seconds: 7300,
            weight: 10,
            spare: name == "b",
            in_flight: 3,
            maxconn: (name == "app1").then_some(100),
            totals: Totals {
                total: 1234,
                ..Totals::default()
            },
        };
        ProxyStat {
            name: "edge1".into(),
            uptime_seconds: 61,
            frontends: vec![FrontendStat {
                name: "www".into(),
                binds: Vec::new(),
                connections: 0,
                maxconn: 20_000,
                totals: Totals {
                    total: 2000,
                    status_4xx: 5,
                    ..Totals::default()
                },
            }],
            backends: vec![BackendStat {
                name: "app".into(),
                waiting: 2,
                in_flight: 6,
                panic: false,
                totals: Totals::default(),
            }],
            servers: vec![
                server("app1", Admin::Ready, true, "HTTP 200 in 2 ms"),
                server("b", Admin::Maint, true, "no check"),
            ],
            limits: vec![LimitStat {
                limit: Limit::new(
                    "login",
                    Most::Rate {
                        requests: 5,
                        window: Duration::from_secs(10),
                    },
                ),
                known: 7,
            }],
            ..ProxyStat::default()
        }
    }

    #[test]
    fn servers_are_a_table() {
        assert_eq!(
            servers(&known()),
            "BACKEND  SERVER  ADDRESS         STATE          WEIGHT  SESSIONS  TOTAL  SINCE  CHECK\n\
             app      app1    10.0.0.11:3000  UP             10      3/100     1234   2h     HTTP 200 in 2 ms\n\
             app      b       10.0.0.11:3000  MAINT (spare)  10      3         1234   2h     no check\n"
        );
    }

    #[test]
    fn sessions_are_a_table_that_says_when_there_are_more() {
        let client = ([192, 0, 2, 1], 41002).into();
        let busy = SessionStat {
            client,
            frontend: Some("www".into()),
            backend: Some("app".into()),
            server: Some("app1".into()),
            state: SessionState::Server,
            busy_ms: Some(1250),
            age_ms: 125_000,
            requests: 7,
        };
        let idle = SessionStat {
            frontend: None,
            backend: None,
            server: None,
            state: SessionState::Idle,
            busy_ms: None,
            ..busy.clone()
        };
        let stat = SessionsStat {
            total: 5000,
            sessions: vec![busy, idle],
        };
        assert_eq!(
            sessions(&stat),
            "CLIENT           FRONTEND  SERVER    STATE   FOR   AGE  REQUESTS\n\
             192.0.2.1:41002  www       app/app1  server  1.2s  2m   7\n\
             192.0.2.1:41002  -         -         idle    -     2m   7\n\
             2 of 5000 connections\n"
        );
    }

    #[test]
    fn the_rest_is_tables_too() {
        assert_eq!(
            stat(&known()),
            "edge1: up 61s, configuration 0\n\
             NAME          STATE  SESSIONS  QUEUE  TOTAL  4XX  5XX  RETRIES\n\
             www/FRONTEND  OPEN   0/20000   0      2000   5    0    0\n\
             app/app1      UP     3/100     0      1234   0    0    0\n\
             app/b         MAINT  3         0      1234   0    0    0\n\
             app/BACKEND          6         2      0      0    0    0\n"
        );
        assert_eq!(
            limits(&known()),
            "LIMIT  BY      MOST      KEYS\nlogin  source  5 in 10s  7/100000\n"
        );
    }
}
