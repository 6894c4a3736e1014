//! The rack's network: a bridge, 10.78.0.0/24, a cable to each machine, and the ways in which a cloud's network differs.

use super::programs::{self, Tried as _};
use super::rack::Rack;
use super::{Image, cloud};
use gaiola_os::netlink::{Lifetime, Netlink};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// The operator's own address: everything outside of the machines connects from here.
pub const OPERATOR: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// Where the operator's host serves packages.
pub(crate) const APT_CACHE_PORT: u16 = 3142;
pub(crate) const PREFIX_LENGTH: u8 = 24;
/// The most machines that a rack takes: m1 is 10.78.0.11. Addresses from .100 on are free for VIPs.
pub const MOST: u8 = 80;
pub(crate) const BRIDGE: &str = "br0";
/// How long a machine may take from power-on until sshd answers.
const BOOT: Duration = Duration::from_secs(120);

/// Which machine that name is; `None`: no machine is called so.
pub(crate) fn number(name: &str) -> Option<u8> {
    let number = name.strip_prefix('m')?.parse().ok()?;
    ((1..=MOST).contains(&number) && name == format!("m{number}")).then_some(number)
}

/// A machine's address.
///
/// # Errors
/// Where no machine is called so.
pub fn address(name: &str) -> io::Result<Ipv4Addr> {
    let number = number(name).ok_or_else(|| {
        io::Error::other(format!(
            "no machine is called {name:?}; they are m1 to m{MOST}"
        ))
    })?;
    Ok(Ipv4Addr::new(10, 78, 0, 10 + number))
}

/// What /etc/hosts says on every machine, and for the operator.
pub(crate) fn hosts() -> String {
    let mut hosts = format!("127.0.0.1 localhost\n{OPERATOR} operator\n");
    for number in 1..=MOST {
        let _ = writeln!(hosts, "10.78.0.{} m{number}", 10 + number);
    }
    hosts
}

/// The name of the rack's end of a machine's cable, as systemd-nspawn names it.
pub(crate) fn cable(name: &str) -> String {
    format!("vb-{name}")
}

/// Creates the bridge in the network namespace that we are in.
pub(crate) fn create_bridge() -> io::Result<()> {
    let create = || {
        let mut network = Netlink::open()?;
        network.set_up("lo")?;
        network.create_bridge(BRIDGE)?;
        network.add_address(
            BRIDGE,
            IpAddr::V4(OPERATOR),
            PREFIX_LENGTH,
            Lifetime::Forever,
        )?;
        network.set_up(BRIDGE)
    };
    create().tried("set up the rack's network")
}

/// Waits, in the network namespace that we are in, until the kernel has removed a cable whose machine is gone.
pub(crate) fn wait_until_unplugged(name: &str) -> io::Result<()> {
    let mut network = Netlink::open().tried("look at the rack's network")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while network
        .link_exists(&cable(name))
        .tried("look at the rack's network")?
    {
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("the cable of {name} stays")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

impl Rack {
    /// Plugs a machine's cable in, or pulls it.
    ///
    /// # Errors
    /// Where the machine is off.
    pub fn cable(&self, name: &str, plugged: bool) -> io::Result<()> {
        let mut network = Netlink::open_in(self.pid_1()?).tried("enter the rack's network")?;
        let changed = match plugged {
            true => network.set_up(&cable(name)),
            false => network.set_down(&cable(name)),
        };
        changed.tried(format!("change the cable of {name}"))
    }

    /// Makes the network what clouds have: no multicast, and from each machine only its own address as source, in IP and ARP.
    ///
    /// # Errors
    /// Where the rack is not up.
    pub fn cloud(&self, on: bool) -> io::Result<()> {
        let rules = if on {
            cloud::rules(&BTreeMap::new())
        } else {
            String::new()
        };
        let rules = format!("table bridge cloud\ndelete table bridge cloud\n{rules}");
        // nft is the image's: this host may have none.
        let mut nft = Command::new("nsenter");
        nft.args([
            "--target",
            &self.pid_1()?.to_string(),
            "--net",
            "--",
            "chroot",
        ])
        .args(Image::Bare.layers())
        .args(["nft", "-f", "-"]);
        programs::feed(&mut nft, &rules).map(drop)
    }

    /// Waits until a machine's sshd answers.
    pub(crate) fn wait_for_sshd(&self, name: &str) -> io::Result<()> {
        let (pid_1, address) = (self.pid_1()?, SocketAddr::from((address(name)?, 22)));
        let deadline = Instant::now() + BOOT;
        while !greets(pid_1, address)? {
            let why = match self.supply(name) {
                None => "is off".to_string(),
                Some(_) if Instant::now() > deadline => {
                    format!("does not answer on port 22 after {BOOT:?}")
                }
                Some(_) => {
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            let log = self.log(name);
            let log = log.display();
            return Err(io::Error::other(format!("{name} {why}: see {log}")));
        }
        Ok(())
    }
}

/// Whether sshd answers there, in the network namespace of a process.
fn greets(pid: u32, address: SocketAddr) -> io::Result<bool> {
    // The thread enters the namespace and ends; we stay where we are.
    let greeted = std::thread::spawn(move || {
        gaiola_os::namespace::join_network(pid, false)?;
        Ok::<_, io::Error>(greeting(address).is_ok_and(|it| &it == b"SSH-"))
    });
    let greeted = greeted.join().expect("nothing in it panics");
    greeted.tried("enter the rack's network")
}

/// The first bytes of what a server says.
fn greeting(address: SocketAddr) -> io::Result<[u8; 4]> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting)?;
    Ok(greeting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_one_name_and_one_address() {
        assert_eq!(address("m1").unwrap(), Ipv4Addr::new(10, 78, 0, 11));
        assert_eq!(address("m80").unwrap(), Ipv4Addr::new(10, 78, 0, 90));
        for name in ["m0", "m81", "m01", "1", "web1", ""] {
            assert!(address(name).is_err(), "{name}");
        }
        assert!(hosts().contains("\n10.78.0.18 m8\n"));
    }
}
