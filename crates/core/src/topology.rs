//! What a placement means for one server: its address, what its proxy serves, and which VIPs its keeper may hold.
//!
//! All of it is derived: two agents with the same placement reach the same result without communicating.

mod database;
mod encrypted;
mod files;
mod front;
mod proxy;
mod vips;

pub use encrypted::may_start;
pub use files::{FilesHere, files_lacking, files_to_serve, files_wanted};
pub use proxy::{Paths, proxy_config};
pub use vips::{
    KeeperWays, VipRouter, homes, keeper_ways, leaving_vips, relayed_keepers, vip_priorities,
};

use gaiola_model::config::BalancerTls;
use gaiola_model::inventory::Location;
use gaiola_model::placement::{DoorState, Phase};
use gaiola_model::{InstanceName, Placement, ServerName, Tier};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Proxies of balancers and web servers answer this path themselves, whatever is behind them: it costs the site
/// nothing.
pub const PROBE_PATH: &str = "/.gaiola/probe";
/// Balancers answer this path themselves: 200 while they should get clients, otherwise 503. It is for whoever sends clients to their
/// own addresses, such as another balancer.
pub const HEALTH_PATH: &str = "/.gaiola/health";
/// The backend of an application server's proxy that leads to the database's primary.
pub const PRIMARY: &str = "primary";
/// A server's location; `None`: the placement does not have it.
pub fn location(placement: &Placement, server: ServerName) -> Option<&Location> {
    let placed = placement.servers.get(&server)?;
    Some(&placed.location)
}

/// Where a web server listens.
pub fn address_of_web(placement: &Placement, server: ServerName) -> Option<SocketAddr> {
    let location = location(placement, server)?;
    Some(location.socket(location.ports.web))
}

/// The balancer whose own address this is: such a door is not a VIP's.
pub fn balancer_at(placement: &Placement, address: IpAddr) -> Option<ServerName> {
    let is_at = |server: &ServerName| {
        let location = location(placement, *server);
        location.is_some_and(|location| location.address == address)
    };
    servers_of(placement, Tier::Balancer).find(is_at)
}

/// Where others reach an instance: it listens there itself, or its server's proxy does.
pub fn address_of_instance(placement: &Placement, instance: InstanceName) -> Option<SocketAddr> {
    let location = location(placement, instance.server)?;
    Some(location.socket(location.ports.instance(instance.number)))
}

/// Where an instance itself listens: on the loopback, if its server's proxy is in front of it.
pub fn instance_listens(placement: &Placement, instance: InstanceName) -> Option<SocketAddr> {
    let mut address = address_of_instance(placement, instance)?;
    let placed = placement.instances.get(&instance);
    if placed.is_some_and(|placed| placed.encrypted) {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Some(address)
}

/// Whether a proxy runs on this server: on an application server for the database's local ports, and for instances that speak TLS
/// through it.
pub fn has_proxy(placement: &Placement, server: ServerName) -> bool {
    let here = |name: &InstanceName| name.server == server;
    let mut instances = placement.instances.iter();
    match server.tier {
        Tier::Balancer | Tier::Web => true,
        Tier::App => {
            has_database(placement)
                || !placement.encryption.is_off()
                || instances.any(|(name, placed)| here(name) && placed.encrypted)
        }
        Tier::Database => false,
    }
}

fn has_database(placement: &Placement) -> bool {
    placement.config.database.is_some() || servers_of(placement, Tier::Database).next().is_some()
}

/// Where the front door sends new clients: the open doors, or only the HTTPS ones if there are any.
///
/// Empty until the tier behind one is ready.
pub fn front_door(placement: &Placement) -> Vec<SocketAddr> {
    let open = placement.doors.iter();
    let open = open.filter(|(_, door)| door.state == DoorState::Open);
    let all: Vec<_> = open.map(|(address, _)| *address).collect();
    let https: Vec<_> = all
        .iter()
        .copied()
        .filter(|door| is_https(placement, *door))
        .collect();
    if https.is_empty() { all } else { https }
}

/// Whether a door uses TLS.
fn is_https(placement: &Placement, door: SocketAddr) -> bool {
    door.port() == BalancerTls::PORT && placement.config.speaks_tls()
}

/// Whether the front door sends `door` a PROXY protocol header: our own proxies require one, the site's own process
/// would not understand it.
pub fn speaks_proxy_protocol(placement: &Placement, door: SocketAddr) -> bool {
    placement
        .doors
        .get(&door)
        .is_some_and(|door| door.tier != Tier::App)
}

/// A target that proxies send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficTarget {
    /// A web or database server, or a balancer (to which no proxy sends).
    Server(ServerName),
    /// An instance of the site's process.
    Instance(InstanceName),
}

impl TrafficTarget {
    /// The server itself, or the one it runs on.
    pub fn server(self) -> ServerName {
        match self {
            Self::Server(server) => server,
            Self::Instance(instance) => instance.server,
        }
    }
}

impl std::fmt::Display for TrafficTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server(server) => server.fmt(f),
            Self::Instance(instance) => instance.fmt(f),
        }
    }
}

/// The servers whose proxies have `target` in their configuration and so could send to it.
pub fn senders(placement: &Placement, target: TrafficTarget) -> Vec<ServerName> {
    let sends = |sender: &ServerName| match (target, sender.tier) {
        (TrafficTarget::Server(server), Tier::Balancer) => server.tier == Tier::Web,
        (TrafficTarget::Server(server), Tier::App) => server.tier == Tier::Database,
        (TrafficTarget::Instance(_), Tier::Balancer) => placement.past_web,
        (TrafficTarget::Instance(_), Tier::Web) => true,
        _ => false,
    };
    placement.servers.keys().copied().filter(sends).collect()
}

/// The servers of a tier, in order.
pub fn servers_of(placement: &Placement, tier: Tier) -> impl Iterator<Item = ServerName> {
    placement
        .servers
        .keys()
        .copied()
        .filter(move |server| server.tier == tier)
}

/// Whether the server exists and should take traffic.
pub fn serves(placement: &Placement, server: ServerName) -> bool {
    placement
        .servers
        .get(&server)
        .is_some_and(|placed| placed.phase == Phase::Serve)
}

#[cfg(test)]
mod tests;
