//! What a machine says of itself: one fact per line, `KEY VALUE`.

use std::net::{IpAddr, SocketAddr};

/// A machine as the script of `gaiola doctor` found it. What the script did not print is at its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether systemd runs there.
    pub systemd: bool,
    /// Whether packages are installed by `apt-get`.
    pub apt: bool,
    /// `ID` of /etc/os-release.
    pub distribution: String,
    /// `VERSION_ID` of it.
    pub version: String,
    /// As `uname -m` has it.
    pub architecture: String,
    /// The version of glibc; `None`: another C library is there.
    pub glibc: Option<Version>,
    /// KiB free below /var/lib/gaiola.
    pub disk_kib: Option<u64>,
    /// KiB free below /opt/gaiola.
    pub program_kib: Option<u64>,
    /// KiB of memory.
    pub memory_kib: Option<u64>,
    /// /etc/machine-id.
    pub machine_id: String,
    /// Its host name.
    pub host_name: String,
    /// Its addresses, each with its interface.
    pub addresses: Vec<(IpAddr, String)>,
    /// Whether ports in use are known: `ss` is there.
    pub ports_known: bool,
    /// Ports in use.
    pub ports: Vec<UsedPort>,
    /// PostgreSQL, Patroni and etcd, as they run.
    pub services: Vec<Service>,
    /// Sites that the machine is part of.
    pub sites: Vec<String>,
    /// Sites whose authority it holds.
    pub authorities: Vec<String>,
    /// The process that holds the lock of apt.
    pub apt_lock: Option<String>,
    /// Whether cloud-init is still at work.
    pub cloud_init_runs: bool,
    /// Whether `gaiola-machine` runs.
    pub is_running: bool,
    /// The directory that /opt/gaiola/current leads to.
    pub program: Option<String>,
    /// Addresses of other machines, and whether the network leads there.
    pub reaches: Vec<(IpAddr, bool)>,
    /// Its clock less the operator's; `None`: not measured.
    pub clock: Option<ClockOffset>,
}

/// A version of two numbers.
pub type Version = (u32, u32);

/// How far a machine's clock is from the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Positive: the machine's is ahead.
    pub offset_ms: i64,
    /// Half of the round trip: the offset is known no better.
    pub within_ms: i64,
}

impl ClockOffset {
    /// Of a machine that said `there` between `asked` and `answered`, all in milliseconds since 1970.
    ///
    /// ```
    /// use gaiola_core::doctor::ClockOffset;
    ///
    /// let offset = ClockOffset::measured(1_000, 3_050, 1_100);
    /// assert_eq!((offset.offset_ms, offset.within_ms), (2_000, 50));
    /// ```
    pub const fn measured(asked: i64, there: i64, answered: i64) -> Self {
        Self {
            offset_ms: there - (asked + (answered - asked) / 2),
            within_ms: (answered - asked) / 2,
        }
    }
}

/// A port that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedPort {
    /// Where it is bound; unspecified: everywhere.
    pub address: IpAddr,
    /// Its number.
    pub port: u16,
    /// The process that has it; `-`: not known.
    pub process: String,
    /// Its unit of systemd; `-`: none.
    pub unit: String,
}

/// A running process of PostgreSQL, Patroni or etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `postgres`, `patroni` or `etcd`.
    pub process: String,
    /// Its unit of systemd; `-`: none.
    pub unit: String,
}

/// Whether a unit is one of Gaiola's own.
pub(super) fn is_own(unit: &str) -> bool {
    unit.starts_with("gaiola-")
}

impl Facts {
    /// Parses the output of the script; lines that are not understood are left out.
    pub fn parse(text: &str) -> Self {
        let mut facts = Self::default();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            facts.take(key, value.trim());
        }
        facts
    }

    fn take(&mut self, key: &str, value: &str) {
        match key {
            "systemd" => self.systemd = value == "yes",
            "apt" => self.apt = value == "yes",
            "distribution" => {
                let (id, version) = value.split_once(' ').unwrap_or((value, ""));
                (self.distribution, self.version) = (id.into(), version.into());
            }
            "architecture" => self.architecture = value.into(),
            "glibc" => self.glibc = version(value),
            "disk-kib" => self.disk_kib = value.parse().ok(),
            "program-kib" => self.program_kib = value.parse().ok(),
            "memory-kib" => self.memory_kib = value.parse().ok(),
            "machine-id" => self.machine_id = value.into(),
            "host-name" => self.host_name = value.into(),
            "address" => self.addresses.extend(address(value)),
            "ports" => self.ports_known = value == "known",
            "port" => self.ports.extend(used_port(value)),
            "service" => self.services.extend(service(value)),
            "site" => self.sites.push(value.into()),
            "authority" => self.authorities.push(value.into()),
            "apt-lock" => self.apt_lock = Some(value.into()),
            "cloud-init" => self.cloud_init_runs = value == "running",
            "running" => self.is_running = value == "yes",
            "program" => self.program = Some(value.into()),
            "reaches" => self.reaches.extend(reached(value)),
            _ => {}
        }
    }
}

/// `2.36`.
pub(super) fn version(text: &str) -> Option<Version> {
    let mut numbers = text.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next().map_or(Ok(0), str::parse).ok()?;
    Some((major, minor))
}

/// `10.0.0.1/24 eth0`.
fn address(value: &str) -> Option<(IpAddr, String)> {
    let (address, interface) = value.split_once(' ')?;
    let address = address.split('/').next()?.parse().ok()?;
    Some((address, interface.into()))
}

/// `0.0.0.0:80 nginx nginx.service`, as `ss` writes addresses: `*`, `[::]`, `127.0.0.53%lo`.
fn used_port(value: &str) -> Option<UsedPort> {
    let mut words = value.split(' ');
    let (address, port) = words.next()?.rsplit_once(':')?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let address = match address.split('%').next()? {
        "*" => IpAddr::from([0, 0, 0, 0]),
        address => address.parse().ok()?,
    };
    Some(UsedPort {
        address,
        port: port.parse().ok()?,
        process: words.next().unwrap_or("-").into(),
        unit: words.next().unwrap_or("-").into(),
    })
}

/// `postgres postgresql@15-main.service`.
fn service(value: &str) -> Option<Service> {
    let (process, unit) = value.split_once(' ')?;
    let (process, unit) = (process.into(), unit.into());
    Some(Service { process, unit })
}

/// `10.0.0.2:22 yes`.
fn reached(value: &str) -> Option<(IpAddr, bool)> {
    let (at, answer) = value.split_once(' ')?;
    let at: SocketAddr = at.parse().ok()?;
    Some((at.ip(), answer == "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_one_a_line_and_unknown_ones_are_left_out() {
        let facts = Facts::parse(
            "systemd yes\ndistribution debian 12\nglibc 2.36\ndisk-kib 41000000\nfuture thing\n\
             address 10.0.0.1/24 eth0\naddress fe80::1/64 eth0\nsite shop\nreaches 10.0.0.2:22 yes\nreaches [2001:db8::3]:22 no\n",
        );
        assert!(facts.systemd && !facts.apt && !facts.is_running);
        assert_eq!(facts.glibc, Some((2, 36)));
        assert_eq!(facts.version, "12");
        assert_eq!(facts.addresses[0], ([10, 0, 0, 1].into(), "eth0".into()));
        assert_eq!(facts.sites, ["shop"]);
        let reached: Vec<bool> = facts.reaches.iter().map(|(_, yes)| *yes).collect();
        assert_eq!(reached, [true, false]);
    }

    #[test]
    fn ports_are_read_as_ss_writes_them() {
        let port = |value| used_port(value).map(|port| (port.address.to_string(), port.port));
        assert_eq!(
            port("*:80 nginx nginx.service"),
            Some(("0.0.0.0".into(), 80))
        );
        assert_eq!(port("[::]:22 sshd ssh.service"), Some(("::".into(), 22)));
        assert_eq!(
            port("127.0.0.53%lo:53 - -"),
            Some(("127.0.0.53".into(), 53))
        );
        assert_eq!(
            port("[::ffff:10.0.0.1]:80"),
            Some(("::ffff:10.0.0.1".into(), 80))
        );
        assert_eq!(port("nothing"), None);
    }
}
