//! The inventory: the host of each server, its address and ports.
//!
//! The provider of servers writes it into [`Desired`](crate::Desired) with every change, and the conductor copies what it
//! needs into the [`Placement`](crate::Placement). Nobody else chooses an address or a port.

use crate::config::{Config, Machine};
pub use crate::id::Host;
use crate::id::{ServerName, Tier};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Why there is no inventory for a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    /// The provider has servers of its own.
    #[error(
        "the servers of this site are the lab's own, but the file names machines; \
         take the site down first (gaiola down), or write `servers` as numbers"
    )]
    NoMachines,
    /// The file has numbers.
    #[error(
        "the servers of this site stand on machines, but the file says how many instead of which; \
         name a machine for each server: servers = [\"web-a\", \"web-b\"]"
    )]
    NotNamed,
    /// The address of a machine is not known.
    #[error(
        "the address of {0} is not known; write it in the file: {{ ssh = {0:?}, address = \"192.0.2.7\" }}"
    )]
    NoAddress(String),
    /// One machine has two names.
    #[error(
        "{one} and {other} are both at {address}: if they are one machine, write it with one name everywhere, \
         otherwise give each its own `address`"
    )]
    SameAddress {
        /// One name,
        one: String,
        /// and the other.
        other: String,
        /// The address of both.
        address: IpAddr,
    },
    /// A VIP that would never move.
    #[error(
        "{vip} is one of `vips`, but also the address of {machine}; take an address that no machine has"
    )]
    VipIsTaken {
        /// The VIP.
        vip: IpAddr,
        /// The machine.
        machine: String,
    },
}

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

    /// The servers of a site on machines, each on the one that the configuration names. `held` is where servers stand so
    /// far, those that are leaving included: one that stays where it is keeps its ports, and new ones get others than
    /// any on the same machine.
    ///
    /// # Errors
    /// The configuration names no machines, or not every machine has an address of its own.
    pub fn on_machines(config: &Config, held: Option<&Self>) -> Result<Self, InventoryError> {
        let machines = config.machines.as_ref().ok_or(InventoryError::NotNamed)?;
        let addresses = addresses(&machines.all())?;
        let at = |machine: &Machine| Location {
            host: machine.host(),
            ..Location::at(addresses[machine.ssh.as_str()])
        };
        let held = held.map(|held| &held.servers);
        let mut located: BTreeMap<ServerName, Location> = held.cloned().unwrap_or_default();
        let is_new = |name: &ServerName, place: &Location| {
            let held = held.and_then(|held| held.get(name));
            held.is_none_or(|held| !held.is_where(place))
        };
        for (name, machine) in &machines.servers {
            let place = at(machine);
            if is_new(name, &place) {
                let others = located.iter().filter(|(_, other)| other.meets(&place));
                let ports = others.map(|(other, location)| (other.tier, &location.ports));
                let ports = Ports::beside(name.tier, ports);
                located.insert(*name, Location { ports, ..place });
            }
        }
        located.retain(|name, _| machines.servers.contains_key(name));
        let balancer = config.balancer.as_ref();
        let vips = balancer.map_or(&[][..], |balancer| balancer.vips());
        if let Some((machine, vip)) = addresses.iter().find(|(_, at)| vips.contains(at)) {
            let (vip, machine) = (*vip, (*machine).into());
            return Err(InventoryError::VipIsTaken { vip, machine });
        }
        let mut servers: Vec<IpNet> = addresses.values().map(|at| IpNet::from(*at)).collect();
        servers.sort_unstable();
        Ok(Self {
            servers: located,
            vips: vips.to_vec(),
            network: Network {
                servers,
                trusted: Vec::new(),
            },
        })
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

/// The address of every machine by its name.
fn addresses<'a>(machines: &[&'a Machine]) -> Result<BTreeMap<&'a str, IpAddr>, InventoryError> {
    let mut names: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for machine in machines.iter().copied() {
        let ssh = machine.ssh.as_str();
        let address = machine.address;
        let address = address.ok_or_else(|| InventoryError::NoAddress(ssh.into()))?;
        if let Some(other) = names.insert(address, ssh) {
            return Err(InventoryError::SameAddress {
                one: other.into(),
                other: ssh.into(),
                address,
            });
        }
    }
    Ok(names
        .into_iter()
        .map(|(address, ssh)| (ssh, address))
        .collect())
}

/// Which addresses the site's servers and their trusted senders have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Prefixes that all servers' addresses are in: PostgreSQL accepts sessions from these alone.
    pub servers: Vec<IpNet>,
    /// Senders outside the site that may name a client's address by a PROXY protocol header or by X-Forwarded-For.
    pub trusted: Vec<IpNet>,
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

    /// Whether both are the same machine at the same address: a server that has moved stands elsewhere.
    pub fn is_where(&self, other: &Self) -> bool {
        (&self.host, self.address) == (&other.host, other.address)
    }

    /// Whether ports of servers at both could meet: on one machine servers share the loopback interface.
    fn meets(&self, other: &Self) -> bool {
        self.host == other.host || self.address == other.address
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
        for (field, (spaces, first, width)) in fields(tier) {
            let bound = |start: u16| {
                let all = start..start.saturating_add(width);
                all.flat_map(move |port| spaces.iter().map(move |space| (*space, port)))
            };
            let is_free = |start: &u16| bound(*start).all(|bound| !taken.contains(&bound));
            let nth = |n: u16| first(&usual).checked_add(n.checked_mul(width)?);
            let port = (0..).map_while(nth).find(is_free);
            let port = port.expect("a site has few servers");
            *field(&mut chosen) = port;
            taken.extend(bound(port));
        }
        chosen
    }

    /// The ports that a server of this tier binds at its address, those of the site's doors aside.
    pub fn at_address(&self, tier: Tier) -> impl Iterator<Item = u16> {
        let used = self.used(tier);
        used.filter_map(|(space, port)| (space == Space::Address).then_some(port))
    }

    /// The ports that a server of this tier uses.
    fn used(&self, tier: Tier) -> impl Iterator<Item = (Space, u16)> {
        let ports = *self;
        fields(tier).flat_map(move |(_, (spaces, of, width))| {
            let first = of(&ports);
            let all = first..first.saturating_add(width);
            all.flat_map(move |port| spaces.iter().map(move |space| (*space, port)))
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
type Extent = (&'static [Space], fn(&Ports) -> u16, u16);

/// The fields that a server of a tier uses: where they are bound, and how many ports from there on.
fn fields(tier: Tier) -> impl Iterator<Item = (Field, Extent)> {
    const ADDRESS: &[Space] = &[Space::Address];
    const LOOPBACK: &[Space] = &[Space::Loopback];
    // Where the tiers speak TLS an instance is on the loopback, and a proxy in front of it at the address.
    const BOTH: &[Space] = &[Space::Address, Space::Loopback];
    let all: [(Field, Extent, &[Tier]); 10] = [
        (|p| &mut p.web, (ADDRESS, |p| p.web, 1), &[Tier::Web]),
        (
            |p| &mut p.instances,
            (BOTH, |p| p.instances, crate::config::MAX_INSTANCES),
            &[Tier::App],
        ),
        (|p| &mut p.proxy, (ADDRESS, |p| p.proxy, 1), &Tier::ALL),
        (|p| &mut p.agent, (ADDRESS, |p| p.agent, 1), &Tier::ALL),
        (
            |p| &mut p.postgres,
            (ADDRESS, |p| p.postgres, 1),
            &[Tier::Database],
        ),
        (
            |p| &mut p.patroni,
            (ADDRESS, |p| p.patroni, 1),
            &[Tier::Database],
        ),
        (
            |p| &mut p.primary,
            (LOOPBACK, |p| p.primary, 1),
            &[Tier::App],
        ),
        (
            |p| &mut p.standbys,
            (LOOPBACK, |p| p.standbys, 1),
            &[Tier::App],
        ),
        (
            |p| &mut p.store_client,
            (ADDRESS, |p| p.store_client, 1),
            &Tier::ALL,
        ),
        (
            |p| &mut p.store_peer,
            (ADDRESS, |p| p.store_peer, 1),
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
    use crate::config::{App, Balancer, Database, Machines, Web};

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

    /// Servers by their machines, each machine with its address.
    fn on(servers: &[(&str, &str)]) -> Config {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        (config.balancer, config.web) = (Some(Balancer::default()), Some(Web::default()));
        config.database = Some(Database::default());
        let vip = "192.0.2.100".parse().unwrap();
        config.balancer.as_mut().unwrap().vips = Some(vec![vip]);
        let machine = |name: &str| Machine {
            address: Some([192, 0, 2, name.as_bytes()[0]].into()),
            ..Machine::new(name)
        };
        let servers = servers.iter();
        let servers = servers.map(|(name, on)| (name.parse().unwrap(), machine(on)));
        config.set_machines(Machines {
            servers: servers.collect(),
            spare: Vec::new(),
            ..Machines::default()
        });
        config
    }

    #[test]
    fn servers_of_one_machine_share_its_address_and_no_port() {
        let config = on(&[
            ("lb1", "a"),
            ("web1", "a"),
            ("app1", "a"),
            ("db1", "a"),
            ("app2", "b"),
        ]);
        let all = Inventory::on_machines(&config, None).unwrap();
        let proxies: Vec<u16> = all.servers.values().map(|at| at.ports.proxy).collect();
        assert_eq!(proxies, [9180, 9182, 9184, 9180, 9186]);
        assert_eq!(all.servers[&"app2".parse().unwrap()].host, Host("b".into()));
        assert_eq!(all.vips, ["192.0.2.100".parse::<IpAddr>().unwrap()]);
        let network: Vec<String> = all
            .network
            .servers
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(network, ["192.0.2.97/32", "192.0.2.98/32"]);
    }

    #[test]
    fn a_server_that_stays_keeps_its_ports_and_one_that_moves_does_not_take_anothers() {
        let four = on(&[("lb1", "a"), ("web1", "a"), ("app1", "a"), ("db1", "a")]);
        let held = Inventory::on_machines(&four, None).unwrap();
        // web1 has left; app1 stands elsewhere; db1 stays; web2 is new, and web1 may still be there.
        let next = on(&[("lb1", "a"), ("app1", "b"), ("db1", "a"), ("web2", "a")]);
        let next = Inventory::on_machines(&next, Some(&held)).unwrap();
        let at = |name: &str| &next.servers[&name.parse().unwrap()];
        assert_eq!(next.servers.len(), 4);
        assert_eq!(
            (at("db1").ports.proxy, at("app1").ports.proxy),
            (9186, 9180)
        );
        assert_eq!((at("web2").ports.proxy, at("web2").ports.web), (9188, 8001));
        assert_eq!(Inventory::on_machines(&four, Some(&held)), Ok(held));
    }

    #[test]
    fn every_machine_has_an_address_of_its_own() {
        let mut config = on(&[("app1", "a"), ("app2", "b")]);
        let mut with = |address| {
            let machines = config.machines.as_mut().unwrap();
            machines.servers.values_mut().last().unwrap().address = address;
            Inventory::on_machines(&config, None)
                .unwrap_err()
                .to_string()
        };
        let unknown = with(None);
        assert!(
            unknown.starts_with("the address of b is not known"),
            "{unknown}"
        );
        let shared = with(Some([192, 0, 2, 97].into()));
        assert!(
            shared.starts_with("a and b are both at 192.0.2.97"),
            "{shared}"
        );
        let own = with(Some([192, 0, 2, 100].into()));
        assert!(own.starts_with("192.0.2.100 is one of `vips`"), "{own}");
        config.machines = None;
        let numbers = Inventory::on_machines(&config, None);
        assert_eq!(numbers, Err(InventoryError::NotNamed));
    }
}
