//! Which balancer is home to each VIP, and in which order the others take over.

use super::{balancer_at, location, servers_of, serves};
use gaiola_model::placement::DoorState;
use gaiola_model::{Placement, ServerName, Tier};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// One VIP, as configured for one balancer's keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipRouter {
    /// The address.
    pub vip: IpAddr,
    /// Its virtual router, the same on every balancer.
    pub vrid: u8,
    /// 250 on the VIP's home; lower on the others, each different.
    pub priority: u8,
    /// The other balancers' addresses, including those being removed.
    pub peers: Vec<IpAddr>,
}

const HOME_PRIORITY: u8 = 250;
/// Largest priority gap between two successors. The wider it is, the further apart they take over when the owner is
/// lost (RFC 9568: skew), so that the second has heard the first.
const WIDEST_STEP: usize = 10;

/// The VIPs of this balancer's keeper: every VIP while it serves, none while it is drained or no balancer.
///
/// The successors of a VIP are the balancers after its home, in a circle, so that the VIPs of a lost balancer do not
/// all move to the same one.
pub fn vip_priorities(placement: &Placement, server: ServerName) -> Vec<VipRouter> {
    if server.tier != Tier::Balancer || !serves(placement, server) {
        return Vec::new();
    }
    let circle: Vec<ServerName> = serving(placement);
    let own = position(&circle, server);
    let peers: Vec<IpAddr> = servers_of(placement, Tier::Balancer)
        .filter(|peer| *peer != server)
        .filter_map(|peer| Some(location(placement, peer)?.address))
        .collect();
    let vrids = vrids(placement);
    let router = |(vip, home): (&IpAddr, &ServerName)| {
        let turns = (own + circle.len() - position(&circle, *home)) % circle.len();
        VipRouter {
            vip: *vip,
            vrid: vrids[vip],
            priority: priority(turns, circle.len()),
            peers: peers.clone(),
        }
    };
    placement.vips.iter().map(router).collect()
}

/// The server's place in the circle; 0 for one that left it, whose VIPs are about to move anyway.
fn position(circle: &[ServerName], server: ServerName) -> usize {
    circle
        .iter()
        .position(|member| *member == server)
        .unwrap_or(0)
}

/// The priority of the balancer `turns` places after a VIP's home in a circle of `count`.
fn priority(turns: usize, count: usize) -> u8 {
    let step = (usize::from(HOME_PRIORITY) / count).clamp(1, WIDEST_STEP);
    let below = u8::try_from(turns * step).unwrap_or(u8::MAX);
    HOME_PRIORITY.saturating_sub(below).max(1)
}

/// The VRID of every VIP: its last octet; if two share it, or it is 0, the later one takes the next free number.
fn vrids(placement: &Placement) -> BTreeMap<IpAddr, u8> {
    let mut taken = BTreeSet::new();
    let mut vrids = BTreeMap::new();
    for vip in placement.vips.keys() {
        let octet = last_octet(*vip);
        let free = (octet..=u8::MAX)
            .chain(1..octet)
            .find(|vrid| *vrid != 0 && !taken.contains(vrid));
        let vrid = free.expect("a site has at most 255 VIPs");
        taken.insert(vrid);
        vrids.insert(*vip, vrid);
    }
    vrids
}

fn last_octet(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

/// The home of every VIP of the placement's doors: the balancer of the same rank if it serves, otherwise the one that
/// is home to the fewest. While no balancer serves they stay where they were.
pub fn homes(placement: &Placement) -> BTreeMap<IpAddr, ServerName> {
    let serving = serving(placement);
    let vips = ranked(placement);
    if serving.is_empty() {
        let stays = |(vip, _): &(&IpAddr, &ServerName)| vips.contains(vip);
        return placement
            .vips
            .iter()
            .filter(stays)
            .map(|(v, h)| (*v, *h))
            .collect();
    }
    let mut homes = BTreeMap::new();
    let mut orphans = Vec::new();
    for (rank, vip) in (1..).zip(vips) {
        let namesake = ServerName::new(Tier::Balancer, rank);
        if serving.contains(&namesake) {
            homes.insert(vip, namesake);
        } else {
            orphans.push(vip);
        }
    }
    for vip in orphans {
        let burden = |server: &ServerName| homes.values().filter(|home| *home == server).count();
        let idlest = serving.iter().copied().min_by_key(burden);
        homes.extend(idlest.map(|home| (vip, home)));
    }
    homes
}

/// The VIPs of all doors: first those of the file, in its order, then those being removed.
fn ranked(placement: &Placement) -> Vec<IpAddr> {
    let present = vips_of_doors(placement);
    let mut ranked = written(placement);
    ranked.retain(|vip| present.contains(vip));
    let leaving: Vec<IpAddr> = present
        .into_iter()
        .filter(|vip| !ranked.contains(vip))
        .collect();
    ranked.extend(leaving);
    ranked
}

/// VIPs that no longer receive clients: connections to them should be asked to reconnect elsewhere.
pub fn leaving_vips(placement: &Placement) -> BTreeSet<IpAddr> {
    let closing = |vip: &IpAddr| {
        let states = placement.doors.iter().filter(|(door, _)| door.ip() == *vip);
        states
            .into_iter()
            .all(|(_, door)| door.state == DoorState::Closing)
    };
    vips_of_doors(placement)
        .into_iter()
        .filter(closing)
        .collect()
}

fn vips_of_doors(placement: &Placement) -> BTreeSet<IpAddr> {
    placement
        .doors
        .iter()
        .filter(|(_, door)| door.tier == Tier::Balancer)
        .map(|(address, _)| address.ip())
        .filter(|address| balancer_at(placement, *address).is_none())
        .collect()
}

fn written(placement: &Placement) -> Vec<IpAddr> {
    let balancer = placement.config.balancer.as_ref();
    balancer.map_or_else(Vec::new, |balancer| balancer.vips().to_vec())
}

fn serving(placement: &Placement) -> Vec<ServerName> {
    servers_of(placement, Tier::Balancer)
        .filter(|server| serves(placement, *server))
        .collect()
}

/// By which addresses keepers reach each other beside multicast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeeperWays {
    /// Where this balancer's keeper receives.
    pub port: u16,
    /// Where those of the other balancers do, those being removed included.
    pub balancers: Vec<SocketAddr>,
    /// Whether one of them serves, and so would take VIPs.
    pub has_heir: bool,
    /// Servers that forward messages between balancers.
    pub relays: Vec<SocketAddr>,
}

/// How many relays there are. Each is asked every interval by every balancer, so more would cost all of them more than they add. They are
/// the first, the middle and the last server by number, for what has the same number often shares a rack.
const RELAYS: usize = 3;

/// How the keeper of this balancer reaches the others; `None`: it is no balancer of the placement.
///
/// Relays are the other tiers' servers, one at each address. A balancer's own machine is no other way, so servers there relay nothing.
pub fn keeper_ways(placement: &Placement, server: ServerName) -> Option<KeeperWays> {
    let own = location(placement, server).filter(|_| server.tier == Tier::Balancer)?;
    let balancers = keepers(placement);
    let mut others: Vec<ServerName> = placement.servers.keys().copied().collect();
    others.sort_by_key(|server| (server.number, server.tier));
    let mut relays: Vec<SocketAddr> = Vec::new();
    for relay in others.into_iter().filter_map(|it| location(placement, it)) {
        let socket = relay.socket(relay.ports.agent);
        let mut taken = balancers.iter().chain(&relays);
        if !taken.any(|other| other.ip() == socket.ip()) {
            relays.push(socket);
        }
    }
    if relays.len() > RELAYS {
        relays = [0, relays.len() / 2, relays.len() - 1]
            .map(|at| relays[at])
            .into();
    }
    let is_other = |keeper: &SocketAddr| keeper.ip() != own.address;
    let is_heir = |other: ServerName| other != server && serves(placement, other);
    Some(KeeperWays {
        port: own.ports.agent,
        has_heir: servers_of(placement, Tier::Balancer).any(is_heir),
        balancers: balancers.into_iter().filter(is_other).collect(),
        relays,
    })
}

/// The keepers between which this server relays: none if it is a balancer.
pub fn relayed_keepers(placement: &Placement, server: ServerName) -> Vec<SocketAddr> {
    if server.tier == Tier::Balancer {
        return Vec::new();
    }
    keepers(placement)
}

/// Where the keepers receive by UDP: at the number of the agent's port, which is TCP.
fn keepers(placement: &Placement) -> Vec<SocketAddr> {
    let balancers = servers_of(placement, Tier::Balancer);
    let located = balancers.filter_map(|balancer| location(placement, balancer));
    located.map(|it| it.socket(it.ports.agent)).collect()
}
