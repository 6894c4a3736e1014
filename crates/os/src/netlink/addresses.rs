//! Addresses of links, and the default route.

use super::{Netlink, NetlinkError, Result};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// How long the kernel keeps an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is removed.
    Forever,
    /// Until this span has passed without the address being added again; in whole seconds, rounded up.
    Only(Duration),
}

/// An address of a link, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of its prefix in bits.
    pub prefix: u8,
    /// Whether the kernel removes it after a lifetime.
    pub expires: bool,
}

const FOREVER: u32 = u32::MAX;

impl Netlink {
    /// Adds an address to a link; if it is there already, its lifetime is renewed. IPv6 addresses are used without duplicate
    /// address detection (nodad): the caller that adds a VIP knows that it owns it. One of IPv6 with a lifetime is no source of connections that this
    /// host opens (deprecated), and brings no route: the lifetime would become that of a route to the same network that is there already.
    pub fn add_address(
        &mut self,
        name: &str,
        ip: IpAddr,
        prefix: u8,
        lifetime: Lifetime,
    ) -> Result<()> {
        let index = self.link_index(name)?;
        self.add_address_to(index, ip, prefix, lifetime)
            .map_err(|error| NetlinkError {
                tried: format!("add the address {ip}/{prefix} to {name}"),
                ..error
            })
    }

    /// [`add_address`](Self::add_address) by the link's index.
    pub fn add_address_to(
        &mut self,
        index: u32,
        ip: IpAddr,
        prefix: u8,
        lifetime: Lifetime,
    ) -> Result<()> {
        let mut message = address(index, ip, prefix);
        let mut cache = CacheInfo::default();
        let seconds = match lifetime {
            Lifetime::Forever => FOREVER,
            Lifetime::Only(span) => whole_seconds(span),
        };
        cache.ifa_valid = seconds;
        cache.ifa_preferred = match lifetime {
            Lifetime::Only(_) if ip.is_ipv6() => 0,
            _ => seconds,
        };
        message.attributes.push(AddressAttribute::CacheInfo(cache));
        if ip.is_ipv6() {
            let mut flags = AddressFlags::Nodad;
            if lifetime != Lifetime::Forever {
                flags |= AddressFlags::Noprefixroute;
            }
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        self.change(
            || format!("add the address {ip}/{prefix} to link {index}"),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewAddress(message),
        )
    }

    /// Removes an address from a link. `Ok(false)`: the link did not have it.
    pub fn remove_address(&mut self, name: &str, ip: IpAddr, prefix: u8) -> Result<bool> {
        let index = self.link_index(name)?;
        self.remove_address_from(index, ip, prefix)
            .map_err(|error| NetlinkError {
                tried: format!("remove the address {ip}/{prefix} from {name}"),
                ..error
            })
    }

    /// [`remove_address`](Self::remove_address) by the link's index.
    pub fn remove_address_from(&mut self, index: u32, ip: IpAddr, prefix: u8) -> Result<bool> {
        let removed = self.change(
            || format!("remove the address {ip}/{prefix} from link {index}"),
            0,
            RouteNetlinkMessage::DelAddress(address(index, ip, prefix)),
        );
        match removed {
            Ok(()) => Ok(true),
            Err(error) if error.reason() == io::ErrorKind::AddrNotAvailable => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The addresses of a link.
    pub fn addresses(&mut self, name: &str) -> Result<Vec<Address>> {
        let index = self.link_index(name)?;
        let mut found = Vec::new();
        self.list(
            || format!("list the addresses of {name}"),
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            |answer| {
                if let RouteNetlinkMessage::NewAddress(message) = answer
                    && message.header.index == index
                {
                    found.extend(parse(&message));
                }
            },
        )?;
        Ok(found)
    }

    /// The link that has an address, and the length of its prefix there; `None`: no link has it.
    pub fn link_with(&mut self, ip: IpAddr) -> Result<Option<(String, u8)>> {
        let mut found = None;
        self.list(
            || format!("find the link with the address {ip}"),
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            |answer| {
                if let RouteNetlinkMessage::NewAddress(message) = answer
                    && let Some(address) = parse(&message).filter(|address| address.ip == ip)
                {
                    found = Some((message.header.index, address.prefix));
                }
            },
        )?;
        let Some((index, prefix)) = found else {
            return Ok(None);
        };
        Ok(self.link_name(index)?.map(|name| (name, prefix)))
    }

    /// Whether packets to this address are delivered to this host.
    pub fn delivers(&mut self, ip: IpAddr) -> bool {
        let mut route = RouteMessage::default();
        route.header.address_family = family(ip);
        route.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
        let destination = RouteAttribute::Destination(RouteAddress::from(ip));
        route.attributes.push(destination);
        let mut is_local = false;
        let asked = self.ask(NLM_F_ACK, RouteNetlinkMessage::GetRoute(route), |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                is_local = route.header.kind == RouteType::Local;
            }
        });
        // An error says that there is no route at all.
        asked.is_ok() && is_local
    }

    /// Adds the default route, by the gateway `via`, which must be on a connected network.
    pub fn add_default_route(&mut self, via: IpAddr) -> Result<()> {
        let mut route = RouteMessage::default();
        route.header.address_family = family(via);
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.protocol = RouteProtocol::Static;
        route.header.scope = RouteScope::Universe;
        route.header.kind = RouteType::Unicast;
        route
            .attributes
            .push(RouteAttribute::Gateway(RouteAddress::from(via)));
        self.change(
            || format!("add the default route via {via}"),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewRoute(route),
        )
    }
}

fn address(index: u32, ip: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = prefix;
    message.header.scope = if ip.is_loopback() {
        AddressScope::Host
    } else {
        AddressScope::Universe
    };
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    message
}

fn parse(message: &AddressMessage) -> Option<Address> {
    let mut ip = None;
    let mut expires = false;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => ip = Some(*local),
            AddressAttribute::Address(address) => ip = ip.or(Some(*address)),
            AddressAttribute::CacheInfo(cache) => expires = cache.ifa_valid != FOREVER,
            _ => {}
        }
    }
    Some(Address {
        ip: ip?,
        prefix: message.header.prefix_len,
        expires,
    })
}

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn whole_seconds(span: Duration) -> u32 {
    let seconds = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(FOREVER - 1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_to_an_own_address_is_delivered_here() {
        let mut netlink = Netlink::open().unwrap();
        assert!(netlink.delivers("127.0.0.1".parse().unwrap()));
        assert!(!netlink.delivers("192.0.2.1".parse().unwrap()));
        assert!(!netlink.delivers("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn the_link_of_an_address_is_found() {
        let mut netlink = Netlink::open().unwrap();
        for address in netlink.addresses("lo").unwrap() {
            let found = netlink.link_with(address.ip).unwrap();
            assert_eq!(found, Some(("lo".to_string(), address.prefix)));
        }
        // Kept for documentation (RFC 5737): no machine has it.
        let none = netlink.link_with("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(none, None);
    }
}
