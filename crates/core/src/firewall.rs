//! Only the site's machines may connect to its inside: a table of nftables on each of them, for the ports of its own servers.

use crate::machines::{self, servers_on};
use gaiola_model::Placement;
use gaiola_model::inventory::Host;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The table's name, of the family `inet`. No other table is touched.
pub const TABLE: &str = "gaiola";

/// What `nft -f -` reads to remove the table, whether it is there or not.
///
/// ```
/// use gaiola_core::firewall::{TABLE, removal};
///
/// assert_eq!(removal(), format!("table inet {TABLE}\ndelete table inet {TABLE}\n"));
/// ```
pub fn removal() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// What `nft -f -` reads to replace the table as a whole, or to remove it: where the file says `firewall = false`.
///
/// `prepared` are the addresses of all machines of the site, as this one was told last, and `always` the ports that every machine has, in use or not. Ports of
/// doors stay open, and ssh is none of the site's ports. The kernel tracks no connections for it: of TCP only
/// what opens one is dropped.
pub fn rules(
    placement: &Placement,
    host: &Host,
    prepared: &BTreeSet<IpAddr>,
    always: &[u16],
) -> String {
    let on = placement.config.machines.as_ref();
    let mut text = removal();
    if !on.is_some_and(|machines| machines.firewall) {
        return text;
    }
    let ports = inner_ports(placement, host, always);
    // A balancer that holds a VIP may connect from it.
    let vips = placement.vips.keys().copied();
    // Where a machine's address changes, both hold until its servers have moved.
    let placed = placement
        .servers
        .values()
        .map(|placed| placed.location.address);
    let named = placement
        .config
        .machines
        .iter()
        .flat_map(|named| named.all());
    let named = named.filter_map(|machine| machine.address);
    let known = prepared.iter().copied().chain(placed).chain(named);
    // A machine that gave its place to another one may still ask what became of it, at the ports that every machine has.
    let lost = machines::lost_addresses(placement);
    let sources: BTreeSet<IpAddr> = known.chain(vips).filter(|at| !lost.contains(at)).collect();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "table inet {TABLE} {{\n  chain input {{\n    type filter hook input priority filter - 10; policy accept;\n    iif lo accept\n"
    );
    for (family, sources) in by_family(sources) {
        let _ = writeln!(text, "    {family} saddr {{ {} }} accept", list(&sources));
    }
    for (family, lost) in by_family(lost) {
        let (lost, always) = (list(&lost), list(always));
        let _ = writeln!(
            text,
            "    {family} saddr {{ {lost} }} tcp dport {{ {always} }} accept"
        );
    }
    let ports: Vec<u16> = ports.into_iter().collect();
    let _ = write!(
        text,
        "    tcp flags & (syn | ack) == syn tcp dport {{ {0} }} counter drop\n    udp dport {{ {0} }} counter drop\n  }}\n}}\n",
        list(&ports)
    );
    text
}

/// Addresses by what nft calls their family; one without any is left out.
fn by_family(addresses: BTreeSet<IpAddr>) -> impl Iterator<Item = (&'static str, Vec<IpAddr>)> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    let families = [("ip", v4), ("ip6", v6)].into_iter();
    families.filter(|(_, addresses)| !addresses.is_empty())
}

fn inner_ports(placement: &Placement, host: &Host, always: &[u16]) -> BTreeSet<u16> {
    let here = servers_on(placement, host);
    let here = here.iter().filter_map(|server| {
        let placed = placement.servers.get(server)?;
        Some(placed.location.ports.at_address(server.tier))
    });
    let doors: BTreeSet<u16> = placement.doors.keys().map(|door| door.port()).collect();
    let all = here.flatten().chain(always.iter().copied());
    all.filter(|port| !doors.contains(port)).collect()
}

fn list<T: ToString>(elements: &[T]) -> String {
    let elements: Vec<String> = elements.iter().map(ToString::to_string).collect();
    elements.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout;
    use gaiola_model::config::{App, Balancer, Config, Database, Machine, Machines};
    use gaiola_model::placement::{Desired, Release, ReleaseNumber};
    use gaiola_model::{Inventory, ServerName};

    fn site(firewall: bool) -> Placement {
        let mut config = Config::new("shop".parse().unwrap(), App::new("run"));
        config.balancer = Some(Balancer::default());
        config.database = Some(Database::default());
        let on = |name: &str, ssh: &str, last: u8| {
            let name: ServerName = name.parse().unwrap();
            let address = Some([10, 0, 0, last].into());
            (
                name,
                Machine {
                    address,
                    ..Machine::new(ssh)
                },
            )
        };
        let servers = [on("lb1", "a", 1), on("app1", "a", 1), on("db1", "b", 2)];
        config.set_machines(Machines {
            servers: servers.into(),
            firewall,
            ..Machines::default()
        });
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = Inventory::on_machines(&config, None).unwrap();
        rollout::first(&Desired::first(config, release, inventory), "a".into())
    }

    fn machines() -> BTreeSet<IpAddr> {
        let addresses = ["10.0.0.1", "10.0.0.9", "2001:db8::3"];
        addresses.map(|address| address.parse().unwrap()).into()
    }

    #[test]
    fn a_machines_own_ports_are_for_the_sites_machines_alone() {
        let text = rules(&site(true), &Host("b".into()), &machines(), &[7071]);
        let expected = "table inet gaiola\ndelete table inet gaiola\ntable inet gaiola {\n  chain input {\n    \
                        type filter hook input priority filter - 10; policy accept;\n    iif lo accept\n    \
                        ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.9 } accept\n    ip6 saddr { 2001:db8::3 } accept\n    \
                        tcp flags & (syn | ack) == syn tcp dport { 2379, 2380, 5432, 7071, 8008, 9180, 9181 } counter drop\n    \
                        udp dport { 2379, 2380, 5432, 7071, 8008, 9180, 9181 } counter drop\n  }\n}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_machine_that_was_replaced_may_ask_what_became_of_it_and_nothing_else() {
        let mut placement = site(true);
        let lost = Machine {
            address: Some([10, 0, 0, 9].into()),
            ..Machine::new("c")
        };
        placement.config.machines.as_mut().unwrap().lost.push(lost);
        let text = rules(&placement, &Host("b".into()), &machines(), &[7071]);
        let expected = "ip saddr { 10.0.0.1, 10.0.0.2 } accept\n    ip6 saddr { 2001:db8::3 } accept\n    \
                        ip saddr { 10.0.0.9 } tcp dport { 7071 } accept\n    tcp flags";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_spare_machine_has_the_machines_port_and_nothing_else() {
        let text = rules(&site(true), &Host("c".into()), &machines(), &[7071]);
        assert!(text.contains("dport { 7071 } counter drop"), "{text}");
    }

    #[test]
    fn doors_stay_open() {
        let mut placement = site(true);
        let text = rules(&placement, &Host("a".into()), &machines(), &[7071]);
        assert!(
            text.contains(" 3001, ") && text.contains(" 9180, "),
            "{text}"
        );
        // Without a balancer the application servers are the site's doors.
        let door = gaiola_model::placement::Door {
            state: gaiola_model::placement::DoorState::Open,
            tier: gaiola_model::Tier::App,
            since: gaiola_model::Revision(1),
        };
        placement
            .doors
            .insert("10.0.0.1:3001".parse().unwrap(), door);
        let text = rules(&placement, &Host("a".into()), &machines(), &[7071]);
        assert!(!text.contains(" 3001, "), "{text}");
    }

    #[test]
    fn without_a_firewall_the_table_is_removed() {
        let text = rules(&site(false), &Host("a".into()), &machines(), &[7071]);
        assert_eq!(text, removal());
    }
}
