//! Secrets that were set before the site was up: they wait in a file that only the operator can read, for the next `up`.

use crate::connect::SiteClient;
use crate::operator;
use anyhow::Context as _;
use gaiola_agent::engine::Secret;
use gaiola_agent::state::{State, read_json, write_json};
use gaiola_control::api::{NewSecrets, SecretInfo};
use gaiola_model::SiteName;
use gaiola_model::secret::SecretName;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;

/// Secrets that wait for the next `up`.
pub(crate) struct Pending {
    site: SiteName,
    pub(crate) values: BTreeMap<SecretName, Secret>,
}

impl Pending {
    /// Those of a site.
    pub(crate) fn of(site: &SiteName) -> anyhow::Result<Self> {
        let path = State::pending_secrets(site);
        let values = match read_json(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        Ok(Self {
            site: site.clone(),
            values,
        })
    }

    /// As `up` sends them.
    pub(crate) fn to_send(&self) -> NewSecrets {
        NewSecrets {
            values: self.values.clone(),
            by: operator::name(),
        }
    }

    /// Forgets some; returns whether there were any.
    pub(crate) fn forget(&mut self, which: impl Fn(&SecretName) -> bool) -> anyhow::Result<bool> {
        let before = self.values.len();
        self.values.retain(|name, _| !which(name));
        let were = self.values.len() < before;
        if were {
            self.write()?;
        }
        Ok(were)
    }

    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let path = State::pending_secrets(&self.site);
        let write = || match (&self.values, path.parent()) {
            (values, _) if values.is_empty() => fs::remove_file(&path),
            (values, folder) => {
                let mut builder = fs::DirBuilder::new();
                builder.recursive(true).mode(0o700);
                folder.map_or(Ok(()), |folder| builder.create(folder))?;
                write_json(&path, values)
            }
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// After an `up`: what the site has now waits no more.
pub(crate) fn settle(client: &SiteClient) -> anyhow::Result<()> {
    let mut pending = Pending::of(&client.site)?;
    if pending.values.is_empty() {
        return Ok(());
    }
    let held: BTreeSet<SecretName> = known(client)?.into_iter().map(|info| info.name).collect();
    pending.forget(|name| held.contains(name)).map(drop)
}

/// The secrets of a site that is up.
pub(crate) fn known(client: &SiteClient) -> anyhow::Result<Vec<SecretInfo>> {
    let known: Option<Vec<SecretInfo>> = client.get("/secrets")?;
    known.context("the site's store has not answered yet; try again")
}
