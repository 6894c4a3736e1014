//! Power over a site's servers, whatever they are.

pub mod folder;
mod freeze;
pub mod lab;
pub mod machine;
pub mod processes;
pub mod seal;

use crate::api::{Access, Harm};
use gaiola_agent::engine::Secret;
use gaiola_agent::state::Order;
use gaiola_core::drill::Target;
use gaiola_model::inventory::{Host, InventoryError};
use gaiola_model::placement::{Placement, Release, Revision};
use gaiola_model::secret::{Sealed, SecretName};
use gaiola_model::{Config, Inventory, ServerName};
use gaiola_wire::config::VipRange;
use lab::{Lab, faults};
use machine::Machine;
use seal::SealRequest;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::task::JoinSet;

/// The VIPs that a file without machines may name.
pub fn vips() -> VipRange {
    lab::network::vips()
}

/// Who provides servers.
pub enum Provider {
    /// Namespaces of one machine.
    Lab(Rc<Lab>),
    /// Machines of their own; this process has power over those on its own machine.
    Machine(Rc<Machine>),
}

/// A new release on its way to where it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// The configuration that is to be desired with it.
    pub config: &'a Config,
    /// Where its servers stand.
    pub inventory: &'a Inventory,
    /// The release.
    pub release: &'a Release,
}

/// A release was delivered to a machine, or why not.
#[derive(Debug)]
pub struct Delivery {
    /// The machine.
    pub to: Host,
    /// In words.
    pub failed: Option<String>,
}

/// Why a harm was not done.
#[derive(Debug, thiserror::Error)]
pub enum HarmError {
    /// In the lab.
    #[error(transparent)]
    Lab(#[from] lab::HarmError),
    /// On machines.
    #[error(transparent)]
    Machine(#[from] machine::HarmError),
}

/// What the other processes of a site answered.
#[derive(Debug, Default)]
pub struct Elsewhere {
    /// The orders that they know, the newest first.
    pub orders: Vec<Order>,
    /// Those that did not answer: they may know an order.
    pub silent: Vec<Host>,
}

impl Provider {
    /// What other processes of the site know: a site of which this one knows nothing may be there.
    pub async fn orders_elsewhere(&self) -> Elsewhere {
        match self {
            Self::Lab(_) => Elsewhere::default(),
            Self::Machine(machine) => machine.orders_elsewhere().await,
        }
    }

    /// Whether the process of a machine answers; in the lab there are none.
    pub async fn answers(&self, host: &Host) -> bool {
        match self {
            Self::Lab(_) => false,
            Self::Machine(machine) => machine.answers(host).await,
        }
    }

    /// Where the servers of this configuration stand or would stand. `held` is where they stand so far, those that are
    /// leaving included: one that stays keeps its place.
    ///
    /// # Errors
    /// This provider has no such servers, or does not know where they are.
    pub fn inventory(
        &self,
        config: &Config,
        held: Option<&Inventory>,
    ) -> Result<Inventory, InventoryError> {
        match (self, &config.machines) {
            (Self::Machine(_), _) => Inventory::on_machines(config, held),
            (Self::Lab(_), None) => Ok(lab::network::inventory(config)),
            (Self::Lab(_), Some(_)) => Err(InventoryError::NoMachines),
        }
    }

    /// Whether a server has power.
    pub fn is_on(&self, server: ServerName) -> bool {
        match self {
            Self::Lab(lab) => lab.is_on(server),
            Self::Machine(machine) => machine.is_on(server),
        }
    }

    /// Servers that died or were switched off, and stay off.
    pub fn off(&self) -> BTreeSet<ServerName> {
        match self {
            Self::Lab(lab) => lab.off(),
            Self::Machine(machine) => machine.off(),
        }
    }

    /// Encrypts a secret's value. `held`: what it was before, which stays if the value is the same.
    ///
    /// # Errors
    /// Where nobody with the key did, in words.
    pub async fn seal(
        &self,
        name: &SecretName,
        value: &Secret,
        held: Option<&Sealed>,
    ) -> Result<Sealed, String> {
        let asked = SealRequest {
            name: name.clone(),
            value: value.clone(),
            held: held.cloned(),
        };
        match self {
            Self::Lab(lab) => lab.seal(&asked),
            Self::Machine(machine) => machine.seal(&asked).await,
        }
    }

    /// Lets servers that are off be switched on again.
    pub fn retry(&self) {
        match self {
            Self::Lab(lab) => lab.retry(),
            Self::Machine(machine) => machine.retry(),
        }
    }

    /// Servers that could not be switched on, and why.
    pub fn trouble(&self) -> BTreeMap<ServerName, String> {
        match self {
            Self::Lab(lab) => lab.trouble(),
            Self::Machine(machine) => machine.trouble(),
        }
    }

    /// Up to which revision the reports of a server are of an earlier boot: its agent is dead, but its lease may still stand.
    pub fn outdated(&self, server: ServerName) -> Option<Revision> {
        match self {
            Self::Lab(lab) => lab.outdated(server),
            Self::Machine(machine) => machine.outdated(server),
        }
    }

    /// Why the store does not come, as far as its servers show it.
    pub fn store_trouble(&self, placement: &Placement) -> Option<String> {
        match self {
            Self::Lab(lab) => lab.store_trouble(placement),
            Self::Machine(machine) => machine.store_trouble(placement),
        }
    }

    /// How a server's processes are reached.
    pub fn server(&self, server: ServerName) -> Access {
        match self {
            Self::Lab(lab) => lab.server(server),
            Self::Machine(machine) => machine.server(server),
        }
    }

    /// How commands are run beside the servers, in their network.
    pub fn network(&self) -> Access {
        match self {
            Self::Lab(lab) => lab.network(),
            Self::Machine(machine) => machine.network(),
        }
    }

    /// Does a harm, or takes it back.
    ///
    /// # Errors
    /// If it could not be done.
    pub async fn harm(&self, harm: Harm) -> Result<(), HarmError> {
        match self {
            Self::Lab(lab) => Ok(lab.harm(harm).await?),
            Self::Machine(machine) => Ok(machine.harm(harm).await?),
        }
    }

    /// The faults in force.
    pub fn faults(&self) -> Vec<Target> {
        match self {
            Self::Lab(lab) => faults::in_force(lab),
            Self::Machine(_) => Vec::new(),
        }
    }

    /// Whether figures are polled only while somebody asks: every machine has a process that could.
    pub fn polls_on_request(&self) -> bool {
        matches!(self, Self::Machine(_))
    }

    /// Whether everything has ended, and this process alone is left to bring it up again.
    pub fn is_down(&self) -> bool {
        match self {
            Self::Lab(_) => false,
            Self::Machine(machine) => machine.is_down(),
        }
    }

    /// Where clients enter the site; `None`: where the process that provides its servers was told.
    pub fn entry(&self) -> Option<SocketAddr> {
        match self {
            Self::Lab(_) => None,
            Self::Machine(machine) => Some(machine.entry()),
        }
    }

    /// Sends a new release and its certificates to where they are needed, before it is desired; what is returned ends once for each
    /// place.
    pub fn spread(&self, parcel: &Parcel<'_>) -> JoinSet<Delivery> {
        match self {
            Self::Lab(_) => JoinSet::new(),
            Self::Machine(machine) => machine.spread(parcel),
        }
    }

    /// Whether another machine took the place of the one that this runs on: it does not speak for the site any more.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Lab(_) => false,
            Self::Machine(machine) => machine.is_lost(),
        }
    }

    /// Whether everything is to end.
    pub fn is_ending(&self) -> bool {
        match self {
            Self::Lab(lab) => lab.is_ending(),
            Self::Machine(machine) => machine.is_ending(),
        }
    }

    /// What the last `down` could not stop, in words.
    pub fn not_stopped(&self) -> Vec<String> {
        match self {
            Self::Lab(_) => Vec::new(),
            Self::Machine(machine) => machine.not_stopped(),
        }
    }

    /// Brings everything down.
    pub fn end(&self) {
        match self {
            Self::Lab(lab) => lab.end(),
            Self::Machine(machine) => machine.end(),
        }
    }
}
