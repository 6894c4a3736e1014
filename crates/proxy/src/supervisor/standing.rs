//! Logs when a backend has lost its servers, and when it has some again.

use crate::orders::{Health, Orders};
use gaiola_model::proxy::Backend;
use std::collections::HashMap;

/// What serves a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// A server that is no spare.
    Served,
    /// Members that serve although their checks took them out.
    Panics,
    OnSpares,
    Empty,
}

/// Logs the backends whose standing has changed. A new one is logged only if something is wrong.
pub(super) fn log_changes(before: &Orders, after: &Orders) {
    let known: HashMap<_, _> = all(before).collect();
    for (backend, standing) in all(after) {
        let known = known.get(backend).copied().unwrap_or(Standing::Served);
        match standing {
            _ if standing == known => {}
            Standing::Served => tracing::info!(backend, "a server takes traffic again"),
            Standing::Panics => tracing::error!(
                backend,
                "too few healthy servers: members that accept connections stay in use"
            ),
            Standing::OnSpares => tracing::warn!(backend, "only spare servers take traffic"),
            Standing::Empty => tracing::error!(backend, "no server takes traffic"),
        }
    }
}

fn all(orders: &Orders) -> impl Iterator<Item = (&str, Standing)> {
    let configured = orders.config.iter().flat_map(|config| &config.backends);
    let all = configured.zip(&orders.backends);
    all.map(|(backend, orders)| {
        let health = orders.members.iter().map(|(_, health)| health);
        let standing = if orders.panic {
            Standing::Panics
        } else {
            standing(backend, health)
        };
        (&*backend.name, standing)
    })
}

fn standing<'a>(backend: &Backend, health: impl Iterator<Item = &'a Health>) -> Standing {
    let servers = backend.servers.iter().zip(health);
    let takes = servers.filter(|(server, health)| health.takes && server.is_wanted());
    let mut standing = Standing::Empty;
    for (server, _) in takes {
        if !server.spare {
            return Standing::Served;
        }
        standing = Standing::OnSpares;
    }
    standing
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::proxy::{Admin, Server};

    #[test]
    fn spares_differ_from_servers_that_take_nothing() {
        let server = |name: &str| Server::new(name, ([127, 0, 0, 1], 80));
        let spare = Server {
            spare: true,
            ..server("spare")
        };
        let mut backend = Backend::new("app", vec![server("a"), spare]);
        let up = |up| Health {
            takes: up,
            ..Health::default()
        };
        let mut stands = |admin, health: [bool; 2]| {
            backend.servers[0].admin = admin;
            standing(&backend, health.map(up).iter())
        };
        assert_eq!(stands(Admin::Ready, [true, false]), Standing::Served);
        assert_eq!(stands(Admin::Drain, [true, true]), Standing::OnSpares);
        assert_eq!(stands(Admin::Ready, [false, true]), Standing::OnSpares);
        assert_eq!(stands(Admin::Maint, [true, false]), Standing::Empty);
    }
}
