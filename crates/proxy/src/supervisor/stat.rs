//! All counters, for an operator.

use super::{MemberState, Supervisor, WatchedBackend};
use crate::check::Watched;
use crate::counters::{SeriesKey, SeriesSum};
use crate::limits::Limiter;
use crate::orders::Orders;
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{
    BackendStat, FrontendStat, LimitStat, ProxyStat, Server, ServerStat, Totals,
};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Finished requests, by frontend, backend and server.
type Ended = BTreeMap<SeriesKey, SeriesSum>;

impl Supervisor {
    /// All counters.
    pub(super) fn stat(&self) -> ProxyStat {
        let orders = self.orders();
        let Some(config) = &orders.config else {
            return ProxyStat::default();
        };
        let mut ended = Ended::new();
        for counters in self.counters() {
            counters.add_series(&mut ended);
        }
        let limit = |limiter: &Arc<Limiter>| LimitStat {
            limit: limiter.limit.clone(),
            known: limiter.known() as u64,
        };
        ProxyStat {
            name: config.server.clone(),
            revision: self.revision(),
            uptime_seconds: self.started().elapsed().as_secs(),
            frontends: frontends(config, &orders, &ended),
            backends: backends(config, &orders, &ended),
            servers: self.servers(config, &ended),
            limits: orders.limits.iter().map(limit).collect(),
        }
    }

    fn servers(&self, config: &ProxyConfig, ended: &Ended) -> Vec<ServerStat> {
        let watched = self.backends.borrow();
        let members = watched.iter().flat_map(WatchedBackend::member_states);
        let servers = config.backends.iter().flat_map(|backend| {
            let pair = move |server| (&*backend.name, server);
            backend.servers.iter().map(pair)
        });
        let mut totals = BTreeMap::<_, Totals>::new();
        for ([_, backend, server], sum) in ended {
            add(totals.entry((&**backend, &**server)).or_default(), sum);
        }
        type Row<'a> = ((&'a str, &'a Server), (&'a Rc<Watched>, MemberState));
        let stat = |((backend, server), (watched, state)): Row<'_>| {
            let totals = totals.get(&(backend, &*server.name));
            ServerStat {
                backend: backend.into(),
                server: server.name.clone(),
                address: server.address.clone(),
                state: server.admin,
                up: state.up,
                busy: state.busy,
                check: state.reason,
                changed_seconds: watched.changed().as_secs(),
                weight: server.weight,
                spare: server.spare,
                in_flight: watched.member.in_flight(),
                maxconn: server.maxconn,
                totals: totals.copied().unwrap_or_default(),
            }
        };
        servers.zip(members).map(stat).collect()
    }
}

fn frontends(config: &ProxyConfig, orders: &Orders, ended: &Ended) -> Vec<FrontendStat> {
    let frontends = config.frontends.iter().zip(&orders.frontends);
    frontends
        .map(|(frontend, share)| FrontendStat {
            name: frontend.name.clone(),
            binds: frontend
                .binds
                .iter()
                .map(|bind| bind.address.clone())
                .collect(),
            connections: share.open(),
            maxconn: frontend.maxconn,
            totals: totals(ended, |[name, ..]| *name == frontend.name),
        })
        .collect()
}

fn backends(config: &ProxyConfig, orders: &Orders, ended: &Ended) -> Vec<BackendStat> {
    let backends = config.backends.iter().zip(&orders.backends);
    backends
        .map(|(backend, orders)| BackendStat {
            name: backend.name.clone(),
            waiting: orders.queue.waiting() as u64,
            in_flight: orders.in_flight.total(),
            panic: orders.panic,
            totals: totals(ended, |[_, name, _]| *name == backend.name),
        })
        .collect()
}

fn totals(ended: &Ended, is_of: impl Fn(&SeriesKey) -> bool) -> Totals {
    let mut totals = Totals::default();
    for (_, sum) in ended.iter().filter(|(key, _)| is_of(key)) {
        add(&mut totals, sum);
    }
    totals
}

fn add(totals: &mut Totals, sum: &SeriesSum) {
    let class = |from, to| {
        sum.codes
            .range(from..to)
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    totals.total += sum.sessions + sum.codes.values().sum::<u64>();
    totals.status_4xx += class(400, 500);
    totals.status_5xx += class(500, 600);
    totals.retries += sum.retries;
}
