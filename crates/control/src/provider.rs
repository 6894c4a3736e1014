//! Power over a site's servers, whatever they are.

pub mod lab;

use crate::api::{Access, Harm};
use gaiola_core::drill::Target;
use gaiola_model::placement::{Placement, Revision};
use gaiola_model::{Config, Inventory, ServerName};
use gaiola_wire::config::VipRange;
use lab::{HarmError, Lab, faults};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The VIPs that a file may name.
pub fn vips() -> VipRange {
    lab::network::vips()
}

/// Who provides servers.
pub enum Provider {
    /// Namespaces of one machine.
    Lab(Rc<Lab>),
}

impl Provider {
    /// Where the servers of this configuration stand or would stand.
    pub fn inventory(&self, config: &Config) -> Inventory {
        let Self::Lab(_) = self;
        lab::network::inventory(config)
    }

    /// Whether a server has power.
    pub fn is_on(&self, server: ServerName) -> bool {
        let Self::Lab(lab) = self;
        lab.is_on(server)
    }

    /// Servers that died or were switched off, and stay off.
    pub fn off(&self) -> BTreeSet<ServerName> {
        let Self::Lab(lab) = self;
        lab.off()
    }

    /// Lets servers that are off be switched on again.
    pub fn retry(&self) {
        let Self::Lab(lab) = self;
        lab.retry();
    }

    /// Servers that could not be switched on, and why.
    pub fn trouble(&self) -> BTreeMap<ServerName, String> {
        let Self::Lab(lab) = self;
        lab.trouble()
    }

    /// Up to which revision the reports of a server are of an earlier boot: its agent is dead, but its lease may still stand.
    pub fn outdated(&self, server: ServerName) -> Option<Revision> {
        let Self::Lab(lab) = self;
        lab.outdated(server)
    }

    /// Why the store does not come, as far as its servers show it.
    pub fn store_trouble(&self, placement: &Placement) -> Option<String> {
        let Self::Lab(lab) = self;
        lab.store_trouble(placement)
    }

    /// How a server's processes are reached.
    pub fn server(&self, server: ServerName) -> Access {
        let Self::Lab(lab) = self;
        lab.server(server)
    }

    /// How commands are run beside the servers, in their network.
    pub fn network(&self) -> Access {
        let Self::Lab(lab) = self;
        lab.network()
    }

    /// Does a harm, or takes it back.
    ///
    /// # Errors
    /// If it could not be done.
    pub async fn harm(&self, harm: Harm) -> Result<(), HarmError> {
        let Self::Lab(lab) = self;
        lab.harm(harm).await
    }

    /// The faults in force.
    pub fn faults(&self) -> Vec<Target> {
        let Self::Lab(lab) = self;
        faults::in_force(lab)
    }

    /// Whether everything is to end.
    pub fn is_ending(&self) -> bool {
        let Self::Lab(lab) = self;
        lab.is_ending()
    }

    /// Brings everything down.
    pub fn end(&self) {
        let Self::Lab(lab) = self;
        lab.end();
    }
}
