//! The operator's secrets: sealed before they reach the store.

use super::{Work, attempt, step, store_desired};
use crate::api::{NewSecret, NewSecrets, Outcome, SecretInfo, refused};
use crate::site::Site;
use gaiola_agent::engine::Secret;
use gaiola_model::placement::{Desired, Revision};
use gaiola_model::secret::{self, HeldSecret, Piece, Sealed, SecretName};
use gaiola_model::{Config, Exit};
use gaiola_store::events;
use std::collections::BTreeMap;

/// The longest value in bytes.
const LONGEST: usize = 16 << 10;
/// The most bytes of all values: the site's documents hold them sealed, which takes twice as much, and those in use several times.
const MOST: usize = 32 << 10;
/// What a sealed value has more than the value, in bytes: a nonce and a tag.
const SEAL: usize = 28;
/// The longest variable with its secrets in their places: the kernel takes strings of 128 KiB.
const LONGEST_VARIABLE: usize = 64 << 10;
/// The most bytes of all variables of a process, with their secrets.
const MOST_VARIABLES: usize = 256 << 10;

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
        let mut new = Desired {
            secrets,
            ..held.clone()
        };
        if new.environment() == held.environment() {
            step(self.steps, "no variable refers to it yet".into()).await;
            return store_desired(self.site, &store, at, new).await;
        }
        refuse_missing(&new.config, &new.secrets)?;
        // What was given up may have been so for the want of this value.
        new.attempt = attempt(self.site, &held);
        self.deploys = true;
        step(self.steps, "instances are replaced one at a time".into()).await;
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
    for (name, NewSecret { value, since }) in new.values {
        check_secret(&name, &value).map_err(|why| refused(Exit::Failed, why))?;
        let before = held.get(&name);
        let is_newer =
            |before: &HeldSecret| since.as_ref().is_some_and(|since| before.set > *since);
        if before.is_some_and(is_newer) {
            continue;
        }
        let before = before.map(|before| &before.sealed);
        let sealed = site.provider.seal(&name, &value, before).await;
        let sealed =
            sealed.map_err(|why| refused(Exit::Failed, format!("cannot encrypt {name}: {why}")))?;
        // One that waited counts as set now, although it is as it was: it waits no more.
        if Some(&sealed) != before || since.is_some() {
            let by = new.by.chars().take(100).collect();
            let set = events::now();
            all.insert(name, HeldSecret { sealed, set, by });
        }
    }
    let bytes: usize = all.values().map(|held| length(&held.sealed)).sum();
    match bytes <= MOST {
        true => Ok(all),
        false => Err(refused(
            Exit::Failed,
            format!("all secrets together would have {bytes} bytes; they have {MOST} at most"),
        )),
    }
}

/// The bytes of a sealed value.
fn length(sealed: &Sealed) -> usize {
    (sealed.0.len() / 2).saturating_sub(SEAL)
}

/// Whether a site takes this value.
///
/// # Errors
/// Why not, in words.
pub fn check_secret(name: &SecretName, value: &Secret) -> Result<(), String> {
    let value = value.reveal();
    let wrong = match value.len() {
        0 => "is empty".to_string(),
        length if length > LONGEST => format!("has {length} bytes; it has {LONGEST} at most"),
        _ if value.contains('\0') => "has a NUL in it, where the system ends a variable".into(),
        _ => return Ok(()),
    };
    Err(format!("the value of {name} {wrong}"))
}

/// Refuses what refers to a secret that is not there.
pub(super) fn refuse_missing(config: &Config, secrets: &Held) -> Result<(), Outcome> {
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
        true => refuse_long(config, secrets),
        false => Err(refused(Exit::Failed, missing.join("\n"))),
    }
}

/// Refuses variables that would be too long for the kernel with their secrets, or too many to be held.
fn refuse_long(config: &Config, secrets: &Held) -> Result<(), Outcome> {
    let mut all = 0;
    for (variable, value) in config.app_env() {
        let pieces = secret::pieces(&value).unwrap_or_default().into_iter();
        let lengths = pieces.map(|piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Secret(name) => secrets.get(&name).map_or(0, |held| length(&held.sealed)),
        });
        let bytes: usize = lengths.sum();
        all += bytes;
        if bytes > LONGEST_VARIABLE {
            let why = format!(
                "{variable} would have {bytes} bytes with its secrets; it has {LONGEST_VARIABLE} at most"
            );
            return Err(refused(Exit::Failed, why));
        }
    }
    match all <= MOST_VARIABLES {
        true => Ok(()),
        false => Err(refused(
            Exit::Failed,
            format!(
                "the variables of a process would have {all} bytes with their secrets; they have {MOST_VARIABLES} at most"
            ),
        )),
    }
}
