//! The files between the agent and the VIP keeper.

use crate::state::{RUN, read_document, write_document};
use gaiola_model::keeper::{KeeperConfig, KeeperState, KeeperVip, VipState};
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// `keeper.json` as last written.
#[derive(Clone)]
pub(super) struct KeeperFile(Rc<RefCell<Option<KeeperConfig>>>);

impl KeeperFile {
    /// Reads the configuration that an earlier agent wrote.
    pub(super) fn read() -> Self {
        Self(Rc::new(RefCell::new(read_document(&path()).ok())))
    }

    /// The keeper's configuration of one VIP.
    pub(super) fn told(&self, vip: Ipv4Addr) -> Option<KeeperVip> {
        let config = self.0.borrow();
        let mut vips = config.iter().flat_map(|config| &config.vips);
        vips.find(|told| told.vip == vip).cloned()
    }

    /// Writes the configuration if it differs from the last one.
    pub(super) fn write(&self, config: KeeperConfig) {
        if self.0.borrow().as_ref() == Some(&config) {
            return;
        }
        match write_document(&path(), &config) {
            Ok(()) => *self.0.borrow_mut() = Some(config),
            Err(error) => tracing::error!("cannot write the keeper's configuration: {error}"),
        }
    }

    /// Changes the configuration of one VIP, if there is one.
    pub(super) fn change(&self, vip: Ipv4Addr, change: impl FnOnce(&mut KeeperVip)) {
        let Some(mut config) = self.0.borrow().clone() else {
            return;
        };
        if let Some(told) = config.vips.iter_mut().find(|told| told.vip == vip) {
            change(told);
            self.write(config);
        }
    }
}

/// The state that the keeper reports; `None` before its first report.
pub(super) fn state() -> Option<KeeperState> {
    read_document(&Path::new(RUN).join("keeper-state.json")).ok()
}

/// The keeper's state of one VIP.
pub(super) fn state_of(vip: Ipv4Addr) -> Option<VipState> {
    state().and_then(|mut state| state.vips.remove(&vip))
}

fn path() -> PathBuf {
    Path::new(RUN).join("keeper.json")
}
