//! Secrets that were set before the site was up: they wait in a file that only the operator can read, for the next `up`.

use crate::connect::SiteClient;
use crate::operator;
use anyhow::Context as _;
use gaiola_agent::engine::Secret;
use gaiola_agent::state::{State, read_json, write_json};
use gaiola_control::api::{KnownSecrets, NewSecret, NewSecrets};
use gaiola_model::SiteName;
use gaiola_model::secret::SecretName;
use gaiola_store::events;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

/// Secrets that wait for the next `up`, held against other commands of the operator's until they are dropped.
pub(crate) struct Pending {
    site: SiteName,
    values: BTreeMap<SecretName, NewSecret>,
    _held: Option<File>,
}

impl Pending {
    /// Those of a site.
    pub(crate) fn of(site: &SiteName) -> anyhow::Result<Self> {
        let path = State::pending_secrets(site);
        let lock = path.with_extension("lock");
        // Without the directory none waits.
        let held = match File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&lock)
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.with_context(|| format!("cannot open {}", lock.display()))?),
        };
        if let Some(held) = &held {
            held.lock()
                .with_context(|| format!("cannot lock {}", lock.display()))?;
        }
        let values = match read_json(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        Ok(Self {
            site: site.clone(),
            values,
            _held: held,
        })
    }

    /// Has a secret wait.
    pub(crate) fn add(site: &SiteName, name: &SecretName, value: Secret) -> anyhow::Result<()> {
        if let Some(folder) = State::pending_secrets(site).parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut pending = Self::of(site)?;
        let since = Some(events::now());
        let waits = NewSecret { value, since };
        pending.values.insert(name.clone(), waits);
        pending.write()
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &SecretName> {
        self.values.keys()
    }

    /// As `up` sends them.
    pub(crate) fn to_send(&self) -> NewSecrets {
        NewSecrets {
            values: self.values.clone(),
            by: operator::name(),
        }
    }

    /// Forgets some; returns whether there were any.
    pub(crate) fn forget(
        &mut self,
        which: impl Fn(&SecretName, &NewSecret) -> bool,
    ) -> anyhow::Result<bool> {
        let before = self.values.len();
        self.values.retain(|name, waits| !which(name, waits));
        let were = self.values.len() < before;
        if were {
            self.write()?;
        }
        Ok(were)
    }

    fn write(&self) -> anyhow::Result<()> {
        let path = State::pending_secrets(&self.site);
        let written = match self.values.is_empty() {
            true => fs::remove_file(&path),
            false => write_json(&path, &self.values),
        };
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What the site has set since it waited here waits no more.
pub(crate) fn settle(client: &SiteClient) -> anyhow::Result<()> {
    let is_empty = Pending::of(&client.site)?.values.is_empty();
    if is_empty {
        return Ok(());
    }
    let held = known(client)?.secrets.unwrap_or_default();
    let set: BTreeMap<SecretName, String> =
        held.into_iter().map(|info| (info.name, info.set)).collect();
    let mut pending = Pending::of(&client.site)?;
    let is_set = |name: &SecretName, waits: &NewSecret| {
        let both = set.get(name).zip(waits.since.as_ref());
        both.is_some_and(|(set, since)| set > since)
    };
    pending.forget(is_set).map(drop)
}

/// The secrets of a site that answers.
pub(crate) fn known(client: &SiteClient) -> anyhow::Result<KnownSecrets> {
    client.get("/secrets")
}
