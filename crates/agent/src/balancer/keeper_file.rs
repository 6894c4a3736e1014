//! The files between the agent and the VIP keeper.

use crate::state::{read_document, write_document_over};
use gaiola_model::keeper::{KeeperConfig, KeeperState, KeeperVip, VipState};
use gaiola_model::schema::SCHEMA;
use std::cell::RefCell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// `keeper.json` as last written.
#[derive(Clone)]
pub(super) struct KeeperFile {
    run: Rc<Path>,
    written: Rc<RefCell<Option<KeeperConfig>>>,
}

impl KeeperFile {
    /// Reads the configuration that an earlier agent wrote.
    /// `run`: the server's run directory.
    pub(super) fn read(run: &Path) -> Self {
        let held = read_document(&path(run)).ok();
        Self {
            run: run.into(),
            written: Rc::new(RefCell::new(held)),
        }
    }

    /// Where the server's proxy is asked, the run directory, and in which schema.
    pub(super) fn proxy(&self) -> (&Path, u64) {
        let written = self.written.borrow();
        let schema = written.as_ref().map_or(SCHEMA, |config| config.schema);
        (&self.run, schema)
    }

    /// The state that the keeper reports; `None` before its first report.
    pub(super) fn state(&self) -> Option<KeeperState> {
        read_document(&self.run.join("keeper-state.json")).ok()
    }

    /// The keeper's state of one VIP.
    pub(super) fn state_of(&self, vip: IpAddr) -> Option<VipState> {
        self.state()?.vips.remove(&vip)
    }

    /// The keeper's configuration of one VIP.
    pub(super) fn configured(&self, vip: IpAddr) -> Option<KeeperVip> {
        let config = self.written.borrow();
        let mut vips = config.iter().flat_map(|config| &config.vips);
        vips.find(|entry| entry.vip == vip).cloned()
    }

    /// Writes the configuration if it differs from the last one. What a newer agent has added to it is kept.
    pub(super) fn write(&self, config: KeeperConfig) {
        if self.written.borrow().as_ref() == Some(&config) {
            return;
        }
        match write_document_over(&path(&self.run), &config, config.schema) {
            Ok(()) => *self.written.borrow_mut() = Some(config),
            Err(error) => tracing::error!(%error, "cannot write the keeper's configuration"),
        }
    }

    /// Changes the configuration of one VIP, if there is one.
    pub(super) fn change(&self, vip: IpAddr, change: impl FnOnce(&mut KeeperVip)) {
        let Some(mut config) = self.written.borrow().clone() else {
            return;
        };
        if let Some(entry) = config.vips.iter_mut().find(|entry| entry.vip == vip) {
            change(entry);
            self.write(config);
        }
    }
}

fn path(run: &Path) -> PathBuf {
    run.join("keeper.json")
}
