//! The database's local ports on an application server.

use super::proxy::{Paths, server_admin};
use super::{PRIMARY, TrafficTarget, encrypted, location, servers_of};
use gaiola_model::config::Database;
use gaiola_model::inventory::Ports;
use gaiola_model::proxy::{
    Admin, Backend, Bind, Check, CheckKind, ClientTimeouts, Frontend, Mode, OnMarkedDown, Refusal,
    Server, ServerTimeouts,
};
use gaiola_model::{Placement, ServerName, Tier};
use std::net::Ipv4Addr;
use std::time::Duration;

const MAX_DATABASE_SESSIONS: u32 = 1_000;

/// 127.0.0.1:5432 leads to the primary, 127.0.0.1:5433 to the standbys in turn, or to the primary while there is none.
pub(super) fn local_ports(
    placement: &Placement,
    ports: Ports,
    paths: &Paths,
) -> (Vec<Frontend>, Vec<Backend>) {
    let mode = |name: &str| Mode::Tcp {
        backend: name.into(),
        refusal: Refusal::Postgres,
        sni: Vec::new(),
    };
    let bind = |port: u16| Bind::new((Ipv4Addr::LOCALHOST, port));
    let frontend = |name: &str, port| Frontend {
        maxconn: MAX_DATABASE_SESSIONS,
        timeouts: ClientTimeouts {
            // A pool may keep an idle session for long; it is closed when its server goes down, not by a timeout.
            tunnel: Duration::from_secs(24 * 3600),
            ..ClientTimeouts::default()
        },
        ..Frontend::new(name, vec![bind(port)], mode(name))
    };
    let database = placement.config.database.clone().unwrap_or_default();
    let limited = primary_backend(PRIMARY, placement, &database, paths);
    // Reads that find no standby do not wait behind the writes in the limit's queue.
    let unlimited = database.maxconn.map(|_| {
        let without = Database {
            maxconn: None,
            ..database.clone()
        };
        primary_backend("reads", placement, &without, paths)
    });
    let stand_in = unlimited.as_ref().unwrap_or(&limited);
    let standbys = Backend {
        servers: database_members(placement, paths, |server| server_admin(placement, server)),
        fallback: Some(stand_in.name.clone()),
        ..database_backend("standbys", "/replica", paths)
    };
    let backends = [limited, standbys].into_iter().chain(unlimited);
    (
        vec![
            frontend(PRIMARY, ports.primary),
            frontend("standbys", ports.standbys),
        ],
        backends.collect(),
    )
}

/// Leads to the primary. Only the check decides which server that is: one that is leaving stays primary until another
/// takes over.
fn primary_backend(
    name: &str,
    placement: &Placement,
    database: &Database,
    paths: &Paths,
) -> Backend {
    let mut backend = Backend {
        servers: database_members(placement, paths, |_| Admin::Ready),
        exclusive: true,
        ..database_backend(name, "/primary", paths)
    };
    backend.timeouts.queue = database.wait;
    for server in &mut backend.servers {
        server.maxconn = database.maxconn;
    }
    backend
}

fn database_members(
    placement: &Placement,
    paths: &Paths,
    admin: impl Fn(ServerName) -> Admin,
) -> Vec<Server> {
    let member = |server| {
        let location = location(placement, server)?;
        let ports = location.ports;
        Some(Server {
            admin: admin(server),
            check_port: Some(ports.patroni),
            tls: encrypted::with_database(placement, paths),
            ..Server::new(
                TrafficTarget::Server(server).to_string(),
                location.socket(ports.postgres),
            )
        })
    };
    let members = servers_of(placement, Tier::Database);
    members.filter_map(member).collect()
}

/// A role is checked once a second and changes with the first answer; a new session waits up to 5 s for a server.
fn database_backend(name: &str, path: &str, paths: &Paths) -> Backend {
    Backend {
        check: Some(Check {
            kind: CheckKind::Https {
                path: path.into(),
                ca: paths.ca.clone(),
                cert: paths.cert.clone(),
                key: paths.key.clone(),
            },
            port: None,
            host: None,
            headers: std::collections::BTreeMap::new(),
            status: Vec::new(),
            interval: Duration::from_secs(1),
            fast_interval: Duration::from_millis(250),
            connect: Duration::from_millis(500),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 1,
        }),
        timeouts: ServerTimeouts {
            connect: Duration::from_secs(1),
            user: Duration::from_secs(2),
            queue_when_down: true,
            ..ServerTimeouts::default()
        },
        on_marked_down: OnMarkedDown::ShutdownSessions,
        ..Backend::new(name, Vec::new())
    }
}
