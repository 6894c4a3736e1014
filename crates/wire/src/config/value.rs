//! String values that only a `gaiola.toml` has: ports, VIPs, directories and commands. Each error is `(what, hint)`.

use super::VipRange;
use crate::file::value::{Wrong, duration_up_to, size};
use gaiola_model::inventory::Ports;
use gaiola_model::secret;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::{Component, Path};
use std::time::Duration;

/// A port reserved on the servers.
const SPARE_PORT: u16 = 7071;
/// How many ports are reserved for metrics and health, from the proxy's.
const HEALTH_PORTS: u16 = 20;
/// Ranges of ports used by Gaiola and its store on the servers, both ends included.
const RESERVED_PORTS: [(u16, u16); 3] = [
    (Ports::DEFAULT.store_client, Ports::DEFAULT.store_peer),
    (SPARE_PORT, SPARE_PORT),
    (
        Ports::DEFAULT.proxy,
        Ports::DEFAULT.proxy + HEALTH_PORTS - 1,
    ),
];

/// `:80`, a port on every VIP.
pub(super) fn listen_port(text: &str) -> Result<u16, Wrong> {
    let wrong = |what: &str| {
        (
            what.to_owned(),
            "write a port as \":80\"; it is served on every VIP".to_owned(),
        )
    };
    let digits = text
        .strip_prefix(':')
        .ok_or_else(|| wrong("does not begin with `:`"))?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = digits
        .parse()
        .ok()
        .filter(|&port| plain && port > 0)
        .ok_or_else(|| wrong("is not a port from 1 to 65535"))?;
    let [(client, peer), (spare, _), (first, last)] = RESERVED_PORTS;
    let is_reserved = |(first, last): &(u16, u16)| (*first..=*last).contains(&port);
    if RESERVED_PORTS.iter().any(is_reserved) {
        return Err((
            "is a port that Gaiola itself listens on".into(),
            format!("use one other than {client}, {peer}, {spare} and {first} to {last}"),
        ));
    }
    Ok(port)
}

/// A virtual address that the provider can give, and the length of its prefix if it has one: `203.0.113.100/24`.
pub(super) fn vip(text: &str, range: Option<&VipRange>) -> Result<(IpAddr, Option<u8>), Wrong> {
    let hint = || match range {
        Some(range) => format!("take addresses from {} up", range.example),
        None => "take an address of the balancers' network that no host has".into(),
    };
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| ("is not an IP address".to_owned(), hint()))?;
    if is_no_target(address) {
        return Err(("is no address that clients could connect to".into(), hint()));
    }
    if let Some(what) = range.and_then(|range| outside(address, range)) {
        return Err((what, hint()));
    }
    let prefix = prefix
        .map(|prefix| prefix_of(address, prefix))
        .transpose()?;
    Ok((address, prefix))
}

/// The length of the prefix of a VIP's network.
fn prefix_of(address: IpAddr, text: &str) -> Result<u8, Wrong> {
    let (longest, example) = match address {
        IpAddr::V4(_) => (32, "203.0.113.100/24"),
        IpAddr::V6(_) => (128, "2001:db8::100/64"),
    };
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let length: Option<u8> = text.parse().ok();
    let length = length.filter(|length| plain && (1..=longest).contains(length));
    let network = length.and_then(|length| IpNet::new(address, length).ok());
    let network = network.ok_or_else(|| {
        let hint = format!("write the prefix of the interface's network: {example:?}");
        (format!("has no prefix from 1 to {longest}"), hint)
    })?;
    if network.prefix_len() < longest - 1 && is_networks_own(network) {
        let hint = "take an address inside of the network".to_owned();
        return Err(("is the network's own address".into(), hint));
    }
    Ok(network.prefix_len())
}

/// Whether an address is that of its network (of IPv6: of its routers), or the one of its broadcasts.
fn is_networks_own(network: IpNet) -> bool {
    let address = network.addr();
    address == network.network() || address.is_ipv4() && address == network.broadcast()
}

fn is_no_target(address: IpAddr) -> bool {
    let is_of_a_link = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address.to_ipv4_mapped().is_some()
        }
    };
    address.is_loopback() || address.is_multicast() || address.is_unspecified() || is_of_a_link
}

/// The address of a machine.
pub(super) fn address(text: &str) -> Result<IpAddr, Wrong> {
    let hint = "write the address that the other machines reach it at: \"10.0.0.22\"";
    let address: IpAddr = text
        .parse()
        .map_err(|_| ("is not an IP address".to_owned(), hint.to_owned()))?;
    if is_no_target(address) {
        let what = "is no address that other machines could connect to";
        return Err((what.into(), hint.into()));
    }
    Ok(address)
}

/// The name of a network interface.
pub(super) fn interface(text: &str) -> Result<String, Wrong> {
    const LONGEST: usize = 15;
    let is_plain = |c: char| c.is_ascii_graphic() && c != '/';
    let is_name = (1..=LONGEST).contains(&text.len()) && text.chars().all(is_plain);
    if is_name && ![".", ".."].contains(&text) {
        return Ok(text.to_owned());
    }
    let hint = "write it as `ip address` shows it on the machine: \"ens4\"";
    Err(("is not the name of an interface".into(), hint.into()))
}

/// Why the provider cannot give this address.
fn outside(address: IpAddr, range: &VipRange) -> Option<String> {
    let mut networks = range.networks.iter();
    let Some(network) = networks.find(|network| network.contains(&address)) else {
        let all: Vec<String> = range.networks.iter().map(ToString::to_string).collect();
        return Some(format!(
            "is outside of the servers' network, {}",
            all.join(" and ")
        ));
    };
    let own = IpNet::new(address, network.prefix_len()).ok()?;
    if is_networks_own(own) {
        return Some("is the network's own address".into());
    }
    let mut taken = range.taken.iter();
    let (_, why) = taken.find(|(part, _)| part.contains(&address))?;
    Some(why.clone())
}

/// A directory below the site's own, without `.` in it.
pub(super) fn inner_directory(text: &str) -> Result<String, Wrong> {
    let hint = || "name a directory below this file's own, such as \"public\"".to_owned();
    if text.contains('\0') {
        return Err(("contains a zero byte".into(), hint()));
    }
    let mut names = Vec::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => names.extend(name.to_str()),
            Component::CurDir => {}
            Component::ParentDir => return Err(("leads outside by `..`".into(), hint())),
            Component::RootDir | Component::Prefix(_) => {
                return Err(("is an absolute path".into(), hint()));
            }
        }
    }
    if names.is_empty() {
        return Err((
            "would publish the whole site, its programs and this file included".into(),
            hint(),
        ));
    }
    Ok(names.join("/"))
}

/// A path that goes to the app tier with all below it, compared decoded.
pub(super) fn app_path(text: &str) -> Result<String, Wrong> {
    let hint = |plain: &str| {
        let plain = plain.trim_end_matches('/');
        let plain = if plain.is_empty() { "/api" } else { plain };
        format!("write it as \"{plain}\": all below it is meant too")
    };
    let Some(inner) = text.strip_prefix('/') else {
        return Err(("does not begin with `/`".into(), hint(&format!("/{text}"))));
    };
    if let Some(at) = text.find(['*', '?', '%', ';', '#', '$', '^', '(']) {
        let what = format!(
            "contains {:?}, which no path has as it is compared",
            &text[at..=at]
        );
        return Err((what, hint(&text[..at])));
    }
    let odd = |segment: &str| matches!(segment, "" | "." | "..");
    let bare = inner.strip_suffix('/').unwrap_or(inner);
    if bare.split('/').any(odd) || text.contains(char::is_control) {
        return Err(("matches no path, or all".into(), hint("/api")));
    }
    Ok(format!("/{bare}"))
}

/// The path of a file or folder.
pub(super) fn path(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.contains('\0') {
        let hint = "write a path, such as \"certificates/example.org.pem\"";
        Err(("is not a path".into(), hint.into()))
    } else {
        Ok(text.to_owned())
    }
}

/// A number of days: `365d`.
pub(super) fn days(text: &str) -> Result<u16, Wrong> {
    const MOST: u16 = 3650;
    let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
    days.filter(|days| *days <= MOST).ok_or_else(|| {
        let hint = format!("write a number of days, at most {MOST}: \"365d\"");
        ("is not a number of days".into(), hint)
    })
}

/// The size of a disk for PostgreSQL: with less than half a GiB it would be full from the start.
pub(super) fn disk(text: &str) -> Result<u64, Wrong> {
    const SIZES: std::ops::RangeInclusive<u64> = 512 << 20..=1 << 40;
    let size = size(text)?;
    SIZES.contains(&size).then_some(size).ok_or_else(|| {
        let hint = "write a size from 512MiB to 1024GiB: \"4GiB\"";
        ("is not a disk size".into(), hint.into())
    })
}

/// No limit of an instance's requests.
pub(super) fn no_maxconn(text: &str) -> Result<(), Wrong> {
    match text {
        "none" => Ok(()),
        _ => Err((
            "is not a limit".into(),
            "write a number without quotes, or \"none\"".into(),
        )),
    }
}

/// A command for `sh -c`.
pub(super) fn command(text: &str) -> Result<String, Wrong> {
    if text.trim().is_empty() {
        return Err((
            "is empty".into(),
            "write a command, such as \"bin/guestbook\"".into(),
        ));
    }
    if text.contains('\0') {
        return Err(("contains a zero byte".into(), "take it out".into()));
    }
    if !secret::referred([&text.to_owned()]).is_empty() {
        return Err((
            "has a secret in it, which everyone who can list processes could read".into(),
            "set a variable in [env] to it, and write `$NAME` here".into(),
        ));
    }
    Ok(text.to_owned())
}

/// Whether a spare machine takes the place of one that is gone without an operator.
pub(super) fn replace(text: &str) -> Result<bool, Wrong> {
    match text {
        "auto" => Ok(true),
        "manual" => Ok(false),
        _ => Err((
            "is neither \"auto\" nor \"manual\"".into(),
            "with \"auto\" a spare machine takes the place of one that is gone for ten minutes, or for `replace_after`"
                .into(),
        )),
    }
}

/// Below this a machine that only restarts is replaced.
const SHORTEST_GONE: Duration = Duration::from_secs(30);
const LONGEST_GONE: Duration = Duration::from_secs(24 * 3600);

/// How long a machine is gone until another one takes its place.
pub(super) fn replace_after(text: &str) -> Result<Duration, Wrong> {
    match duration_up_to(LONGEST_GONE, text)? {
        after if after < SHORTEST_GONE => Err((
            "is shorter than 30 s".into(),
            "write more than a machine takes to restart: \"10m\"".into(),
        )),
        after => Ok(after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_written_with_a_colon_and_is_not_one_of_ours() {
        assert_eq!(listen_port(":80"), Ok(80));
        assert_eq!(listen_port(":9179"), Ok(9179));
        for text in [
            ":9180",
            ":9199",
            ":7071",
            ":2379",
            ":2380",
            "80",
            ":",
            ":0",
            ":65536",
            ":+80",
            "0.0.0.0:80",
            ":80 ",
        ] {
            assert!(listen_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_vip_is_an_address_that_the_provider_can_give() {
        let range = VipRange {
            networks: vec![
                "10.77.0.0/16".parse().unwrap(),
                "fd00:77::/64".parse().unwrap(),
            ],
            taken: vec![
                ("10.77.1.0/24".parse().unwrap(), "is a server's".into()),
                ("fd00:77::1:0/112".parse().unwrap(), "is a server's".into()),
            ],
            example: [10, 77, 0, 100].into(),
        };
        let vip = |text| vip(text, Some(&range));
        for text in [
            "10.77.0.100",
            "10.77.0.1",
            "10.77.5.1",
            "10.77.255.254",
            "fd00:77::100",
        ] {
            assert_eq!(vip(text), Ok((text.parse().unwrap(), None)));
        }
        let refused = [
            ("10.77.1.1", "is a server's"),
            ("10.77.0.0", "is the network's own address"),
            ("10.77.255.255", "is the network's own address"),
            (
                "10.78.0.1",
                "is outside of the servers' network, 10.77.0.0/16 and fd00:77::/64",
            ),
            ("fd00:77::1:1", "is a server's"),
            ("fd00:77::", "is the network's own address"),
            (
                "2001:db8::1",
                "is outside of the servers' network, 10.77.0.0/16 and fd00:77::/64",
            ),
            ("fe80::1", "is no address that clients could connect to"),
            (
                "::ffff:10.77.0.100",
                "is no address that clients could connect to",
            ),
            ("127.0.0.1", "is no address that clients could connect to"),
            ("::1", "is no address that clients could connect to"),
            ("10.77.0", "is not an IP address"),
            ("", "is not an IP address"),
        ];
        for (text, why) in refused {
            let hint = "take addresses from 10.77.0.100 up";
            assert_eq!(vip(text), Err((why.into(), hint.into())), "{text}");
        }
    }

    #[test]
    fn a_vip_may_have_the_prefix_of_its_network() {
        let vip = |text| vip(text, None);
        for (text, length) in [
            ("203.0.113.100/24", 24),
            ("10.0.0.0/31", 31),
            ("10.0.0.5/32", 32),
            ("2001:db8::100/64", 64),
            ("2001:db8::100/128", 128),
        ] {
            let address = text.split_once('/').unwrap().0.parse().unwrap();
            assert_eq!(vip(text), Ok((address, Some(length))));
        }
        for (text, why) in [
            ("203.0.113.100/", "has no prefix from 1 to 32"),
            ("203.0.113.100/0", "has no prefix from 1 to 32"),
            ("203.0.113.100/33", "has no prefix from 1 to 32"),
            ("203.0.113.100/+8", "has no prefix from 1 to 32"),
            ("203.0.113.100/24/24", "has no prefix from 1 to 32"),
            ("203.0.113.0/24", "is the network's own address"),
            ("203.0.113.255/24", "is the network's own address"),
            ("2001:db8::/64", "is the network's own address"),
            ("2001:db8::1/129", "has no prefix from 1 to 128"),
        ] {
            assert_eq!(vip(text).unwrap_err().0, why, "{text}");
        }
    }

    #[test]
    fn an_address_is_one_that_others_reach() {
        for text in ["10.0.0.22", "2001:db8::7"] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
        for text in [
            "web-a",
            "",
            "10.0.0",
            "10.0.0.1/24",
            "127.0.0.1",
            "::",
            "224.0.0.1",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_interface_has_a_name_of_the_kernels() {
        assert_eq!(interface("ens4"), Ok("ens4".into()));
        assert_eq!(interface("bond0.100"), Ok("bond0.100".into()));
        for text in ["", ".", "..", "a b", "a/b", "sixteen-letters-", "é0"] {
            assert!(interface(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_disk_has_room_for_a_database() {
        assert_eq!(disk("4GiB"), Ok(4 << 30));
        assert_eq!(disk("512MiB"), Ok(512 << 20));
        for text in ["511MiB", "0B", "1025GiB", "4", "4G", "-4GiB", ""] {
            assert!(disk(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_root_stays_below_the_site() {
        assert_eq!(inner_directory("./public/"), Ok("public".into()));
        assert_eq!(inner_directory("a//b/./c"), Ok("a/b/c".into()));
        for text in ["..", "public/../..", "/srv", "", ".", "./", "a\0b", "a/.."] {
            assert!(inner_directory(text).is_err(), "{text}");
        }
    }
}
