//! The operator's secrets: sealed before they reach the store.

use super::{Work, step, store_desired};
use crate::api::{NewSecrets, Outcome, SecretInfo, refused};
use crate::site::Site;
use gaiola_agent::engine::Secret;
use gaiola_model::placement::{Desired, Revision};
use gaiola_model::secret::{self, HeldSecret, SecretName};
use gaiola_model::{Config, Exit};
use gaiola_store::events;
use std::collections::BTreeMap;

/// The longest value in bytes, as of a variable.
const LONGEST: usize = 32 << 10;
/// The most bytes of all values: the site's documents hold them sealed, which takes twice as much, and those in use several times.
const MOST: usize = 64 << 10;

type Held = BTreeMap<SecretName, HeldSecret>;

impl Work<'_> {
    /// Sets secrets. Values that are as they were change nothing.
    pub(super) async fn set_secrets(&mut self, new: NewSecrets) -> Result<Revision, Outcome> {
        let (store, at, held) = self.desired().await?;
        let secrets = with(self.site, &held.secrets, new).await?;
        if secrets == held.secrets {
            step(self.steps, "nothing to change".into()).await;
            return Ok(at);
        }
        let order = self.site.order.borrow().clone();
        let failed = order.is_some_and(|order| order.placement.failed.is_some());
        let new = Desired {
            secrets,
            // What was given up may have been so for the want of this value.
            attempt: held.attempt + u64::from(failed),
            ..held.clone()
        };
        let is_used = new.environment() != held.environment();
        let said = match is_used {
            true => "instances are replaced one at a time",
            false => "no variable refers to it yet",
        };
        step(self.steps, said.into()).await;
        store_desired(self.site, &store, at, new).await
    }

    /// Removes a secret that nothing uses.
    pub(super) async fn unset_secret(&mut self, name: &SecretName) -> Result<Revision, Outcome> {
        let (store, at, held) = self.desired().await?;
        let used_by = used_by(&held.config, name);
        if !used_by.is_empty() {
            let used_by = used_by.join(", ");
            let why = format!(
                "{name} is used by {used_by}: take it out of the file first, and run gaiola up"
            );
            return Err(refused(Exit::Failed, why));
        }
        let mut new = held;
        if new.secrets.remove(name).is_none() {
            let why =
                format!("there is no secret {name}; see which there are with: gaiola secret list");
            return Err(refused(Exit::Usage, why));
        }
        store_desired(self.site, &store, at, new).await
    }
}

/// The secrets of the site.
pub fn list(desired: &Desired) -> Vec<SecretInfo> {
    let all = desired.secrets.iter();
    let infos = all.map(|(name, held)| SecretInfo {
        name: name.clone(),
        set: held.set.clone(),
        by: held.by.clone(),
        used_by: used_by(&desired.config, name),
    });
    infos.collect()
}

/// The variables that refer to a secret.
fn used_by(config: &Config, secret: &SecretName) -> Vec<String> {
    let all = config.app_env().into_iter();
    let users = all.filter(|(_, value)| secret::referred([value]).contains(secret));
    users.map(|(variable, _)| variable).collect()
}

/// The secrets with these values too.
pub(super) async fn with(site: &Site, held: &Held, new: NewSecrets) -> Result<Held, Outcome> {
    let mut all = held.clone();
    for (name, value) in new.values {
        check(&name, &value)?;
        let before = held.get(&name).map(|held| &held.sealed);
        let sealed = site.provider.seal(&name, &value, before).await;
        let sealed =
            sealed.map_err(|why| refused(Exit::Failed, format!("cannot encrypt {name}: {why}")))?;
        if Some(&sealed) != before {
            let by = new.by.chars().take(100).collect();
            let set = events::now();
            all.insert(name, HeldSecret { sealed, set, by });
        }
    }
    let bytes: usize = all.values().map(|held| held.sealed.0.len() / 2).sum();
    match bytes <= MOST {
        true => Ok(all),
        false => Err(refused(
            Exit::Failed,
            format!("all secrets together would have {bytes} bytes; they have {MOST} at most"),
        )),
    }
}

fn check(name: &SecretName, value: &Secret) -> Result<(), Outcome> {
    let value = value.reveal();
    let wrong = match value.len() {
        0 => "is empty".to_string(),
        length if length > LONGEST => format!("has {length} bytes; it has {LONGEST} at most"),
        _ if value.contains('\0') => "has a NUL in it, where the system ends a variable".into(),
        _ => return Ok(()),
    };
    Err(refused(
        Exit::Failed,
        format!("the value of {name} {wrong}"),
    ))
}

/// Refuses what refers to a secret that is not there.
pub(super) fn refuse_missing(desired: &Desired) -> Result<(), Outcome> {
    refuse_missing_of(&desired.config, &desired.secrets)
}

/// As [`refuse_missing`].
pub(super) fn refuse_missing_of(config: &Config, secrets: &Held) -> Result<(), Outcome> {
    let named = secret::referred(config.app_env().values());
    let missing: Vec<String> = named
        .iter()
        .filter(|name| !secrets.contains_key(name))
        .map(|name| {
            let used_by = used_by(config, name).join(", ");
            format!("{used_by} refers to the secret {name}, which is not there; set it with: gaiola secret set {name}")
        })
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(refused(Exit::Failed, missing.join("\n"))),
    }
}
