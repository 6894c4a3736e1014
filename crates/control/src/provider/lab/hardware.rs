//! The lab's hardware: a bridge, and servers that are namespaces with a cable to it. Power and cables can be cut.

use super::network::{self, CLIENT, INTERFACE, PREFIX_LENGTH};
use gaiola_agent::state::Boot;
use gaiola_model::ServerName;
use gaiola_os::namespace::{Pid1, spawn_pid_1};
use gaiola_os::netlink::{Lifetime, Netlink, NetlinkError};
use gaiola_os::process::{self, Exit, Identity, Process};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::rc::Rc;

const BRIDGE: &str = "gaiola";

/// Everything that is plugged in.
pub struct Hardware {
    netlink: Netlink,
    powered: BTreeMap<ServerName, Powered>,
    islands: u32,
}

/// A bridge of their own for servers that are cut off from all others.
#[derive(Debug)]
pub struct Island {
    bridge: String,
    servers: Vec<ServerName>,
}

/// A server that is on.
struct Powered {
    process: Rc<Process>,
    _first: Pid1,
}

/// Why the hardware did not change.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// The kernel rejected a change of the network.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A process or its log.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server has no power.
    #[error("{0} is off")]
    Off(ServerName),
}

impl Hardware {
    /// Puts up the bridge in the network namespace of this process.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new() -> Result<Self, NetlinkError> {
        let mut netlink = Netlink::open()?;
        netlink.set_up("lo")?;
        netlink.create_bridge(BRIDGE)?;
        netlink.add_address(
            BRIDGE,
            network::BRIDGE.into(),
            PREFIX_LENGTH,
            Lifetime::Forever,
        )?;
        netlink.add_address(BRIDGE, CLIENT.into(), PREFIX_LENGTH, Lifetime::Forever)?;
        // The last one is the source of what the front door opens. Without IPv6 in the kernel the lab has no such VIPs.
        for own in [network::WIDE_CLIENT, network::WIDE_BRIDGE] {
            let length = network::WIDE_PREFIX_LENGTH;
            if let Err(error) = netlink.add_address(BRIDGE, own.into(), length, Lifetime::Forever) {
                let error = gaiola_os::chain(&error);
                tracing::warn!(error, "the lab has no IPv6");
            }
        }
        netlink.set_up(BRIDGE)?;
        Ok(Self {
            netlink,
            powered: BTreeMap::new(),
            islands: 0,
        })
    }

    /// Switches a server on and plugs its cable in; `input` is the standard input of its pid 1. One that is on stays as it is.
    ///
    /// # Errors
    /// If its namespaces or its cable cannot be made.
    pub fn power_on(&mut self, boot: &Boot, input: OwnedFd) -> Result<(), HardwareError> {
        if self.powered.contains_key(&boot.server) {
            return Ok(());
        }
        let log = process::open_log(&boot.init_log(), None)?;
        let mut command = Command::new(boot.program());
        command.arg("pid1").arg(boot.folder());
        command
            .env_clear()
            .env("PATH", &boot.path)
            .stdin(input)
            .stdout(log.try_clone()?)
            .stderr(log);
        let first = spawn_pid_1(command)?;
        let process = Rc::new(Process::open(process::identify(first.pid())?)?);
        if let Err(error) = self.plug_in(boot.server, first.pid()) {
            tokio::task::spawn_local(async move {
                drop(first);
                died(&process).await
            });
            return Err(error.into());
        }
        self.powered.insert(
            boot.server,
            Powered {
                process,
                _first: first,
            },
        );
        Ok(())
    }

    fn plug_in(&mut self, server: ServerName, pid: u32) -> Result<(), NetlinkError> {
        let cable = server.to_string();
        // The cable of a server that has just died may not have been cleared away by the kernel yet.
        if self.netlink.link_exists(&cable)? {
            self.netlink.delete_link(&cable)?;
        }
        self.netlink.create_veth_to_pid(&cable, INTERFACE, pid)?;
        self.netlink.set_master(&cable, BRIDGE)?;
        self.netlink.set_up(&cable)
    }

    /// The servers that are on.
    pub fn powered(&self) -> impl Iterator<Item = ServerName> {
        self.powered.keys().copied()
    }

    /// Pid 1 of a server, as seen from outside.
    pub fn identity(&self, server: ServerName) -> Option<Identity> {
        Some(self.powered.get(&server)?.process.identity())
    }

    /// A handle on which to wait for the server's death.
    pub fn process(&self, server: ServerName) -> Option<Rc<Process>> {
        Some(Rc::clone(&self.powered.get(&server)?.process))
    }

    /// Cuts a server's power: the cable goes dead first, so that no goodbye leaves it, then everything on it dies.
    pub fn cut_power(&mut self, server: ServerName) {
        let _ = self.set_cable(server, false);
        if let Some(Powered { process, .. }) = self.powered.get(&server) {
            process.signal(Signal::KILL);
        }
    }

    /// Asks a server to stop gracefully.
    pub fn shut_down(&self, server: ServerName) {
        if let Some(Powered { process, .. }) = self.powered.get(&server) {
            process.signal(Signal::TERM);
        }
    }

    /// Pulls a server's cable, or plugs it in again.
    ///
    /// # Errors
    /// If it has none.
    pub fn set_cable(&mut self, server: ServerName, plugged: bool) -> Result<(), NetlinkError> {
        let cable = server.to_string();
        if plugged {
            self.netlink.set_up(&cable)
        } else {
            self.netlink.set_down(&cable)
        }
    }

    /// Cuts servers off from all others, but not from each other. Their cables keep their carrier, as behind a switch
    /// that fails.
    ///
    /// # Errors
    /// If one of them is off; nothing is cut then.
    pub fn cut_off(&mut self, servers: &[ServerName]) -> Result<Island, HardwareError> {
        if let Some(off) = servers.iter().find(|s| !self.powered.contains_key(s)) {
            return Err(HardwareError::Off(*off));
        }
        self.islands += 1;
        let island = Island {
            bridge: format!("island{}", self.islands),
            servers: servers.to_vec(),
        };
        let moved = self.move_to(&island);
        match moved {
            Ok(()) => Ok(island),
            Err(error) => {
                let _ = self.rejoin(island);
                Err(error.into())
            }
        }
    }

    fn move_to(&mut self, island: &Island) -> Result<(), NetlinkError> {
        self.netlink.create_bridge(&island.bridge)?;
        self.netlink.set_up(&island.bridge)?;
        for server in &island.servers {
            self.netlink
                .set_master(&server.to_string(), &island.bridge)?;
        }
        Ok(())
    }

    /// Takes servers back that were cut off. One that has died meanwhile is left out.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn rejoin(&mut self, island: Island) -> Result<(), NetlinkError> {
        let powered = island
            .servers
            .iter()
            .filter(|s| self.powered.contains_key(s));
        // One that is dying keeps nobody else cut off.
        let mut result = Ok(());
        for server in powered {
            let moved = self.netlink.set_master(&server.to_string(), BRIDGE);
            result = result.and(moved);
        }
        let removed = self.netlink.delete_link(&island.bridge);
        result.and(removed)
    }

    /// Drops all that a server sends, or lets it pass again. It is done at the server's own end of the cable.
    ///
    /// # Errors
    /// If the kernel refuses, or the server has died.
    pub fn set_mute(&mut self, first: Identity, mute: bool) -> Result<(), NetlinkError> {
        let mut inside = Netlink::open_in(first.pid)?;
        if mute {
            inside.drop_outgoing(INTERFACE)
        } else {
            inside.pass_outgoing(INTERFACE)
        }
    }

    /// Drops all that is sent to a server, or lets it pass again.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_deaf(&mut self, server: ServerName, deaf: bool) -> Result<(), NetlinkError> {
        let cable = server.to_string();
        if deaf {
            self.netlink.drop_outgoing(&cable)
        } else {
            self.netlink.pass_outgoing(&cable)
        }
    }

    /// Forgets a server that has died.
    pub fn forget(&mut self, server: ServerName, identity: Identity) {
        if self.identity(server) == Some(identity) {
            self.powered.remove(&server);
        }
    }
}

/// Waits until a server has died.
pub async fn died(process: &Process) -> Exit {
    process.ended().await.unwrap_or(Exit::Unknown)
}
