//! A machine gives its place to a spare one.

use super::release::spread;
use super::{Work, inventory, step, store_desired};
use crate::api::{Outcome, refused};
use crate::monitor::status::see;
use crate::provider::Parcel;
use gaiola_core::merge::{self, ReplaceError, Replacement};
use gaiola_core::rollout::{self, Leaving};
use gaiola_model::placement::{Desired, Revision};
use gaiola_model::{Exit, Inventory, ServerName};

/// Decides whether it may, and writes what is desired then: the servers of the one on the other, under the same names.
pub(super) async fn replace(
    work: &mut Work<'_>,
    what: &str,
    onto: Option<&str>,
    yes: bool,
) -> Result<Revision, Outcome> {
    let (store, at, held) = work.desired().await?;
    let replacement = merge::replace(&held.config, what, onto).map_err(|error| {
        let exit = match error {
            ReplaceError::NoneSpare(_) => Exit::Failed,
            _ => Exit::Usage,
        };
        refused(exit, error.to_string())
    })?;
    may_replace(work, &replacement, yes).await?;
    let servers: Vec<String> = replacement
        .servers
        .iter()
        .map(ToString::to_string)
        .collect();
    let (lost, new) = (&replacement.lost.ssh, &replacement.onto.ssh);
    let text = format!("{new} takes the place of {lost}: {}", servers.join(", "));
    step(work.steps, text).await;
    let inventory = inventory(work.site, &replacement.config, &held)?;
    send_release(work, &replacement, &held, &inventory).await;
    let new = Desired {
        config: replacement.config,
        inventory,
        ..held
    };
    store_desired(work.site, &store, at, new).await
}

/// Refuses at once what would cost data or never end.
async fn may_replace(work: &Work<'_>, replacement: &Replacement, yes: bool) -> Result<(), Outcome> {
    let host = replacement.lost.host();
    let answers = work.site.provider.answers(&host).await;
    let view = work.site.view.borrow().clone();
    let mut facts = work.site.facts.borrow_mut();
    let Some((desired, at, placement)) = see(work.site, &view, &mut facts) else {
        let why = "nothing has been read from the store yet; try again";
        return Err(refused(Exit::Failed, why));
    };
    let leaving = Leaving {
        host: &host,
        servers: &replacement.servers,
        answers,
        confirmed: yes,
    };
    let may = rollout::may_replace(&leaving, &desired, &placement, at, &facts);
    may.map_err(|why| refused(Exit::Failed, format!("{host} is not replaced: {why}")))
}

/// The new machine has the release before its servers are started.
async fn send_release(
    work: &mut Work<'_>,
    replacement: &Replacement,
    held: &Desired,
    inventory: &Inventory,
) {
    let is_new = |server: &ServerName| replacement.servers.contains(server);
    let servers = inventory.servers.iter().filter(|(name, _)| is_new(name));
    let there = Inventory {
        servers: servers.map(|(name, at)| (*name, at.clone())).collect(),
        ..inventory.clone()
    };
    let parcel = Parcel {
        config: &replacement.config,
        inventory: &there,
        release: &held.release,
    };
    spread(work.site, parcel, work.steps).await;
}
