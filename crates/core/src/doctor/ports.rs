//! Which ports a machine's servers will bind, and who has them.

use super::facts::is_own;
use super::{Expected, ExpectedMachine, Facts, UsedPort};
use gaiola_model::inventory::Ports;
use gaiola_model::{ServerName, Tier};
use std::net::{IpAddr, Ipv4Addr};

/// The port on which the machines of a site talk to each other.
const MACHINE_PORT: u16 = 7071;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Ports of the machine that something other than Gaiola has.
pub(super) fn taken<'a>(
    expected: &Expected,
    machine: &ExpectedMachine,
    facts: &'a Facts,
) -> Vec<&'a UsedPort> {
    let wanted = wanted(expected, machine);
    let is_wanted = |used: &UsedPort| {
        let meets = |(address, port): &(IpAddr, u16)| {
            let is_any =
                used.address.is_unspecified() && (used.address.is_ipv6() || address.is_ipv4());
            let overlaps = is_any || used.address.to_canonical() == *address;
            used.port == *port && overlaps
        };
        wanted.iter().any(meets)
    };
    let foreign = facts.ports.iter().filter(|used| !is_own(&used.unit));
    foreign.filter(|used| is_wanted(used)).collect()
}

/// Addresses and ports that the machine's processes will bind.
fn wanted(expected: &Expected, machine: &ExpectedMachine) -> Vec<(IpAddr, u16)> {
    let own = |port| (machine.address, port);
    let mut all = vec![own(MACHINE_PORT)];
    for (server, ports) in &machine.servers {
        all.extend(at_address(server, ports).into_iter().map(own));
        if server.tier == Tier::App && expected.database {
            all.extend([(LOOPBACK, ports.primary), (LOOPBACK, ports.standbys)]);
        }
        if server.tier == Tier::App && expected.encrypted {
            all.push((LOOPBACK, ports.instances));
        }
    }
    if machine.has(Tier::Balancer) {
        all.extend(&expected.entries);
    }
    all
}

fn at_address(server: &ServerName, ports: &Ports) -> Vec<u16> {
    let mut all = vec![
        ports.proxy,
        ports.agent,
        ports.store_client,
        ports.store_peer,
    ];
    match server.tier {
        Tier::Balancer => {}
        Tier::Web => all.push(ports.web),
        Tier::App => all.push(ports.instances),
        Tier::Database => all.extend([ports.postgres, ports.patroni]),
    }
    all
}
