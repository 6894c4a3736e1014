//! The lab's network, 10.77.0.0/16 and fd0a:4d::/64: the lab alone chooses addresses in it, and writes them into the site's inventory.

use gaiola_model::Config;
use gaiola_model::ServerName;
use gaiola_model::inventory::{Inventory, Network};
use gaiola_wire::config::VipRange;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const OCTETS: [u8; 2] = [10, 77];
/// Length of the network's prefix.
pub const PREFIX_LENGTH: u8 = 16;
/// The bridge's address, from which the front door connects.
pub const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The address of a client that connects straight to a door, not through the front door.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Length of the prefix of its IPv6 network.
pub const WIDE_PREFIX_LENGTH: u8 = 64;
/// The bridge's IPv6 address.
pub const WIDE_BRIDGE: Ipv6Addr = Ipv6Addr::new(0xfd0a, 0x4d, 0, 0, 0, 0, 0, 1);
/// The IPv6 address of a client that connects straight to a door.
pub const WIDE_CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd0a, 0x4d, 0, 0, 0, 0, 0, 2);
/// A server's name for its end of the cable.
pub const INTERFACE: &str = "eth0";

/// Where the servers of a configuration stand: all on this host, each at an address of its own.
pub fn inventory(config: &Config) -> Inventory {
    let numbered = Inventory::numbered(config, OCTETS);
    Inventory {
        network: Network {
            trusted: vec![
                Ipv4Net::from(BRIDGE).into(),
                Ipv6Net::from(WIDE_BRIDGE).into(),
            ],
            ..numbered.network
        },
        ..numbered
    }
}

/// The IPv6 address of a server: no other server connects to it, but a balancer needs one beside IPv6 VIPs.
pub fn wide_address(server: ServerName) -> IpNet {
    let mut segments = WIDE_BRIDGE.segments();
    [segments[6], segments[7]] = [1 + server.tier as u16, server.number];
    let address = Ipv6Addr::from(segments);
    Ipv6Net::new_assert(address, WIDE_PREFIX_LENGTH).into()
}

/// The VIPs that a file may name.
pub fn vips() -> VipRange {
    let [a, b] = OCTETS;
    let is_servers = |part: IpNet| (part, "is in a range of the servers' own addresses".into());
    let servers = (1..=4).flat_map(|tier: u8| {
        let part = Ipv4Net::new_assert([a, b, tier, 0].into(), 24);
        let mut segments = WIDE_BRIDGE.segments();
        [segments[6], segments[7]] = [tier.into(), 0];
        let wide = Ipv6Net::new_assert(segments.into(), 112);
        [is_servers(part.into()), is_servers(wide.into())]
    });
    let own: [IpAddr; 3] = [BRIDGE.into(), WIDE_BRIDGE.into(), WIDE_CLIENT.into()];
    let own = own.map(|own| (own.into(), "is the lab's own address".into()));
    let wide = Ipv6Net::new_assert(WIDE_BRIDGE, WIDE_PREFIX_LENGTH);
    VipRange {
        networks: vec![
            Ipv4Net::new_assert([a, b, 0, 0].into(), PREFIX_LENGTH).into(),
            wide.trunc().into(),
        ],
        taken: own.into_iter().chain(servers).collect(),
        example: [a, b, 0, 100].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::Tier;
    use gaiola_model::config::{App, Balancer, MAX_SERVERS};

    #[test]
    fn what_the_lab_chooses_is_what_a_file_may_name_and_no_servers() {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.balancer = Some(Balancer::default());
        config.set_servers(Tier::Balancer, MAX_SERVERS);
        let chosen = inventory(&config);
        let range = vips();
        let is_taken = |ip: &IpAddr| range.taken.iter().any(|(part, _)| part.contains(ip));
        let is_in = |ip: &IpAddr| range.networks.iter().any(|network| network.contains(ip));
        for vip in &chosen.vips {
            assert!(is_in(vip) && !is_taken(vip), "{vip}");
            assert_ne!(*vip, IpAddr::V4(CLIENT));
        }
        for (name, location) in &chosen.servers {
            let wide = wide_address(*name).addr();
            assert!(is_taken(&location.address), "{}", location.address);
            assert!(is_in(&wide) && is_taken(&wide), "{wide}");
        }
    }
}
