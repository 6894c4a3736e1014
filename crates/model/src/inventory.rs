//! The inventory: the host of each server, its address and ports.
//!
//! The provider of servers writes it into [`Desired`](crate::Desired) with every change, and the conductor copies what it
//! needs into the [`Placement`](crate::Placement). Nobody else chooses an address or a port.

use crate::config::Config;
use crate::id::{ServerName, Tier};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What the provider has for a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The location of each server of the configuration.
    pub servers: BTreeMap<ServerName, Location>,
    /// The VIPs, in the order in which balancers are home to them: those of the file, or the provider's own choice.
    pub vips: Vec<IpAddr>,
    /// The network of the servers.
    pub network: Network,
}

impl Inventory {
    /// Addresses by number, for a provider that may choose them freely: in the network `A.B.0.0/16`, server `N` of a tier
    /// is at `A.B.T.N`, where T is 1 for balancers, 2 for web, 3 for application and 4 for database servers; there is
    /// one VIP for each balancer, from `A.B.0.100` up.
    ///
    /// # Panics
    /// If a tier has more than 155 servers: no valid file has that many.
    pub fn numbered(config: &Config, [a, b]: [u8; 2]) -> Self {
        let octet = |number| u8::try_from(number).expect("a tier has few servers");
        let address = |name: ServerName| {
            let tier = 1 + name.tier as u8;
            (name, [a, b, tier, octet(name.number)].into())
        };
        let vips = 0..config.servers(Tier::Balancer);
        let network = Ipv4Net::new_assert([a, b, 0, 0].into(), 16);
        Self {
            servers: Self::at_addresses(config.server_names().map(address)),
            vips: vips.map(|n| [a, b, 0, octet(100 + n)].into()).collect(),
            network: Network {
                servers: vec![network.into()],
                trusted: Vec::new(),
            },
        }
    }

    /// Servers of one host at these addresses. Those that share one have different ports.
    pub fn at_addresses(
        servers: impl IntoIterator<Item = (ServerName, IpAddr)>,
    ) -> BTreeMap<ServerName, Location> {
        let mut located: BTreeMap<ServerName, Location> = BTreeMap::new();
        for (name, address) in servers {
            let others = located.iter().filter(|(_, other)| other.address == address);
            let others = others.map(|(other, location)| (other.tier, &location.ports));
            let ports = Ports::beside(name.tier, others);
            let at = Location::at(address);
            located.insert(name, Location { ports, ..at });
        }
        located
    }

    /// The configuration with the VIPs filled in that the file leaves to the provider.
    pub fn resolve(&self, config: &Config) -> Config {
        let mut resolved = config.clone();
        if let Some(balancer) = &mut resolved.balancer {
            balancer.vips.get_or_insert_with(|| self.vips.clone());
        }
        resolved
    }
}

/// Which addresses the site's servers and their trusted senders have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Prefixes that all servers' addresses are in: PostgreSQL accepts sessions from these alone.
    pub servers: Vec<IpNet>,
    /// Senders outside the site that may name a client's address by a PROXY protocol header or by X-Forwarded-For.
    pub trusted: Vec<IpNet>,
}

/// A machine, by the name under which the provider knows it. Servers on one host fail together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Host(pub String);

impl Default for Host {
    /// This machine: a site on one machine names no other.
    fn default() -> Self {
        Self("localhost".into())
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The location of a server, and the ports of its processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The machine. Default: `localhost`.
    #[serde(default)]
    pub host: Host,
    /// The address that the other servers use.
    pub address: IpAddr,
    /// The ports at this address. Default: the usual ones.
    #[serde(default)]
    pub ports: Ports,
}

impl Location {
    /// A server alone at its address, with the usual ports.
    pub fn at(address: IpAddr) -> Self {
        Self {
            host: Host::default(),
            address,
            ports: Ports::default(),
        }
    }

    /// The server's address with one of its ports.
    pub const fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }
}

/// The ports of one server's processes. Servers at one address have different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ports {
    /// Web servers. Default 8000.
    pub web: u16,
    /// The first instance of an application server; the second has the next one, and so on. Default 3001.
    pub instances: u16,
    /// Metrics and health of the proxy. Default 9180.
    pub proxy: u16,
    /// Metrics and health of the agent. Default 9181.
    pub agent: u16,
    /// PostgreSQL. Default 5432.
    pub postgres: u16,
    /// Patroni's REST API. Default 8008.
    pub patroni: u16,
    /// On an application server's 127.0.0.1: leads to the primary. Default 5432.
    pub primary: u16,
    /// On an application server's 127.0.0.1: leads to the standbys. Default 5433.
    pub standbys: u16,
    /// The store's member, for clients. Default 2379.
    pub store_client: u16,
    /// The store's member, for the other members. Default 2380.
    pub store_peer: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Ports {
    /// The ports of a server that is alone at its address.
    pub const DEFAULT: Self = Self {
        web: 8000,
        instances: 3001,
        proxy: 9180,
        agent: 9181,
        postgres: 5432,
        patroni: 8008,
        primary: 5432,
        standbys: 5433,
        store_client: 2379,
        store_peer: 2380,
    };

    /// The port of the instance with this number, from 1.
    pub const fn instance(self, number: u16) -> u16 {
        self.instances.saturating_add(number.saturating_sub(1))
    }

    /// Ports of a server of `tier` that no server in `others`, at the same address, uses: the usual ones where they are
    /// free, otherwise the next free ones.
    ///
    /// Servers at one address may share a loopback interface, so ports on 127.0.0.1 differ among them too. PostgreSQL is not
    /// there: a database server may stand beside an application server, whose local port has the same number.
    ///
    /// # Panics
    /// If no port is free from the usual one on: no valid file has that many servers.
    pub fn beside<'a>(tier: Tier, others: impl IntoIterator<Item = (Tier, &'a Self)>) -> Self {
        let mut taken: Vec<(Space, u16)> = Vec::new();
        for (other, ports) in others {
            taken.extend(ports.used(other));
        }
        let usual = Self::default();
        let mut chosen = usual;
        for (field, (space, first, width)) in fields(tier) {
            let is_free = |start: &u16| {
                let all = *start..start.saturating_add(width);
                all.into_iter().all(|port| !taken.contains(&(space, port)))
            };
            let nth = |n: u16| first(&usual).checked_add(n.checked_mul(width)?);
            let port = (0..).map_while(nth).find(is_free);
            let port = port.expect("a site has few servers");
            *field(&mut chosen) = port;
            taken.extend((port..port.saturating_add(width)).map(|port| (space, port)));
        }
        chosen
    }

    /// The ports that a server of this tier uses.
    fn used(&self, tier: Tier) -> impl Iterator<Item = (Space, u16)> {
        let ports = *self;
        fields(tier).flat_map(move |(_, (space, of, width))| {
            let first = of(&ports);
            (first..first.saturating_add(width)).map(move |port| (space, port))
        })
    }
}

/// Where a port is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    /// At the server's address.
    Address,
    /// On 127.0.0.1.
    Loopback,
}

type Field = fn(&mut Ports) -> &mut u16;
type Extent = (Space, fn(&Ports) -> u16, u16);

/// The fields that a server of a tier uses: where they are bound, and how many ports from there on.
fn fields(tier: Tier) -> impl Iterator<Item = (Field, Extent)> {
    use Space::{Address, Loopback};
    let all: [(Field, Extent, &[Tier]); 10] = [
        (|p| &mut p.web, (Address, |p| p.web, 1), &[Tier::Web]),
        (
            |p| &mut p.instances,
            (Address, |p| p.instances, crate::config::MAX_INSTANCES),
            &[Tier::App],
        ),
        (|p| &mut p.proxy, (Address, |p| p.proxy, 1), &Tier::ALL),
        (|p| &mut p.agent, (Address, |p| p.agent, 1), &Tier::ALL),
        (
            |p| &mut p.postgres,
            (Address, |p| p.postgres, 1),
            &[Tier::Database],
        ),
        (
            |p| &mut p.patroni,
            (Address, |p| p.patroni, 1),
            &[Tier::Database],
        ),
        (
            |p| &mut p.primary,
            (Loopback, |p| p.primary, 1),
            &[Tier::App],
        ),
        (
            |p| &mut p.standbys,
            (Loopback, |p| p.standbys, 1),
            &[Tier::App],
        ),
        (
            |p| &mut p.store_client,
            (Address, |p| p.store_client, 1),
            &Tier::ALL,
        ),
        (
            |p| &mut p.store_peer,
            (Address, |p| p.store_peer, 1),
            &Tier::ALL,
        ),
    ];
    all.into_iter()
        .filter(move |(_, _, tiers)| tiers.contains(&tier))
        .map(|(field, extent, _)| (field, extent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{App, Balancer};

    #[test]
    fn a_server_alone_at_its_address_has_the_usual_ports() {
        for tier in Tier::ALL {
            assert_eq!(Ports::beside(tier, []), Ports::default());
        }
    }

    #[test]
    fn ports_at_one_address_do_not_meet() {
        let mut placed: Vec<(Tier, Ports)> = Vec::new();
        for tier in [Tier::ALL, Tier::ALL, Tier::ALL].concat() {
            let others = placed.iter().map(|(tier, ports)| (*tier, ports));
            let ports = Ports::beside(tier, others);
            placed.push((tier, ports));
        }
        let mut all: Vec<_> = placed
            .iter()
            .flat_map(|(tier, ports)| ports.used(*tier))
            .map(|(space, port)| (space == Space::Loopback, port))
            .collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_database_server_beside_an_application_server_keeps_its_port() {
        let app = Ports::beside(Tier::App, []);
        let database = Ports::beside(Tier::Database, [(Tier::App, &app)]);
        assert_eq!((database.postgres, app.primary), (5432, 5432));
        assert_eq!((app.proxy, database.proxy), (9180, 9182));
    }

    #[test]
    fn servers_of_one_address_get_ports_that_differ() {
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let names = ["lb1", "web1", "app1", "db1"].map(|name| name.parse::<ServerName>().unwrap());
        let all = Inventory::at_addresses(names.map(|name| (name, one)));
        let proxies: Vec<u16> = all.values().map(|at| at.ports.proxy).collect();
        assert_eq!(proxies, [9180, 9182, 9184, 9186]);
    }

    #[test]
    fn a_location_of_an_address_alone_can_be_read() {
        let location: Location = serde_json::from_str(r#"{"address":"2001:db8::7"}"#).unwrap();
        assert_eq!(location, Location::at("2001:db8::7".parse().unwrap()));
        assert_eq!(
            location.socket(location.ports.instance(2)).to_string(),
            "[2001:db8::7]:3002"
        );
    }

    #[test]
    fn vips_that_the_file_names_are_kept() {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        let [own, given]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        let inventory = Inventory {
            vips: vec![given],
            ..Inventory::default()
        };
        config.balancer = Some(Balancer::default());
        let vips = |config: &Config| inventory.resolve(config).balancer.unwrap().vips.unwrap();
        assert_eq!(vips(&config), [given]);
        config.balancer.as_mut().unwrap().vips = Some(vec![own]);
        assert_eq!(vips(&config), [own]);
    }
}
