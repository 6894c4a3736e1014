//! The lab's network, 10.77.0.0/16: the lab alone chooses addresses in it, and writes them into the site's inventory.

use gaiola_model::Config;
use gaiola_model::inventory::{Inventory, Network};
use gaiola_wire::config::VipRange;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

const OCTETS: [u8; 2] = [10, 77];
/// Length of the network's prefix.
pub const PREFIX_LENGTH: u8 = 16;
/// The bridge's address, from which the front door connects.
pub const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The address of a client that connects straight to a door, not through the front door.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// A server's name for its end of the cable.
pub const INTERFACE: &str = "eth0";

/// Where the servers of a configuration stand: all on this host, each at an address of its own.
pub fn inventory(config: &Config) -> Inventory {
    let numbered = Inventory::numbered(config, OCTETS);
    Inventory {
        network: Network {
            trusted: vec![Ipv4Net::from(BRIDGE).into()],
            ..numbered.network
        },
        ..numbered
    }
}

/// The VIPs that a file may name.
pub fn vips() -> VipRange {
    let [a, b] = OCTETS;
    let part = |octet| Ipv4Net::new_assert([a, b, octet, 0].into(), 24);
    let is_servers = |octet| {
        (
            part(octet),
            "is in a range of the servers' own addresses".into(),
        )
    };
    let taken = [(Ipv4Net::from(BRIDGE), "is the lab's own address".into())];
    VipRange {
        network: Ipv4Net::new_assert([a, b, 0, 0].into(), PREFIX_LENGTH),
        taken: taken.into_iter().chain((1..=4).map(is_servers)).collect(),
        example: [a, b, 0, 100].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::Tier;
    use gaiola_model::config::{App, Balancer, MAX_SERVERS};
    use std::net::IpAddr;

    #[test]
    fn what_the_lab_chooses_is_what_a_file_may_name_and_no_servers() {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.balancer = Some(Balancer::default());
        config.set_servers(Tier::Balancer, MAX_SERVERS);
        let chosen = inventory(&config);
        let range = vips();
        for vip in &chosen.vips {
            let IpAddr::V4(vip) = vip else {
                panic!("{vip}")
            };
            assert!(range.network.contains(vip));
            assert!(range.taken.iter().all(|(part, _)| !part.contains(vip)));
            assert!(![BRIDGE, CLIENT].contains(vip));
        }
        for location in chosen.servers.values() {
            let IpAddr::V4(address) = location.address else {
                panic!("{}", location.address)
            };
            assert!(range.taken.iter().any(|(part, _)| part.contains(&address)));
        }
    }
}
