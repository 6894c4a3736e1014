//! Releases that are put out: the way back to an earlier one, and how each ended.

use super::follow::Followed;
use super::release::{has_programs, spread};
use super::{Work, attempt, inventory, placed, refuse, secrets, step, store, store_desired};
use crate::api::{Digest, KnownRelease, Outcome, refused};
use crate::provider::Parcel;
use crate::release::{self, Contents};
use crate::site::Site;
use gaiola_core::deploys;
use gaiola_model::Exit;
use gaiola_model::placement::{Deploy, DeployEnd, Desired, Release, ReleaseNumber, Revision};
use gaiola_store::view::Keys;
use gaiola_store::{Expected, StoreError, events};
use std::time::Duration;

/// Changes of others that may come in between.
const MOST_TRIES: usize = 5;

impl Work<'_> {
    /// Goes back to an earlier release, with what belongs to it. Its `release` command does not run: what it did to the database is done.
    pub(super) async fn roll_back(
        &mut self,
        to: Option<ReleaseNumber>,
        yes: bool,
    ) -> Result<Revision, Outcome> {
        let site = self.site;
        let (store, at, held) = self.desired().await?;
        let back = deploys::back(&held, serving(site), to);
        let back = back.map_err(|why| refused(Exit::Failed, why.to_string()))?;
        is_kept(site, &back.release).await?;
        let config = deploys::restored(&held.config, &back.config);
        refuse(&held.config, &config, yes)?;
        let mut new = Desired {
            // The next `up` compares the file with what is restored here.
            applied: deploys::restored(&held.applied, &back.config),
            inventory: inventory(site, &config, &held)?,
            config,
            release: back.release.clone(),
            attempt: attempt(site, &held),
            ..held.clone()
        };
        let path = release::path_of(&site.state.releases(), new.release.number);
        has_programs(&path, &new.config)?;
        secrets::refuse_missing(&new.config, &new.secrets)?;
        let (from, to) = (held.release.number, new.release.number);
        step(self.steps, format!("back from release {from} to {to}")).await;
        let parcel = Parcel {
            config: &new.config,
            inventory: &new.inventory,
            release: &new.release,
        };
        spread(site, parcel, self.steps).await;
        self.deployed = Some(remember(&mut new, &held, &self.by));
        store_desired(site, &store, at, new).await
    }
}

/// What instances run as far as it has come up.
fn serving(site: &Site) -> Option<ReleaseNumber> {
    let placed = placed(site)?;
    placed.good.as_ref().map(|good| good.release)
}

/// Refuses a release that is not on this machine any more.
async fn is_kept(site: &Site, release: &Release) -> Result<(), Outcome> {
    let (releases, number) = (site.state.releases(), release.number);
    let digest: Result<Digest, _> = release.digest.parse();
    let kept = tokio::task::spawn_blocking(move || {
        let digest = digest.ok()?;
        release::contents(&releases, number, &digest).ok()
    });
    match kept.await {
        Ok(Some(Contents::Expected)) => Ok(()),
        _ => Err(refused(
            Exit::Failed,
            format!(
                "release {number} is not kept here any more: put its contents into the site's directory and run gaiola up"
            ),
        )),
    }
}

/// Notes another release in what will be desired, and returns the generation of that.
pub(super) fn remember(new: &mut Desired, held: &Desired, by: &str) -> u64 {
    deploys::remember(new, Some(held), events::now(), by.into());
    held.generation + 1
}

/// The highest number that a release of the site has had, as far as it is known.
pub(super) fn highest(held: &Desired) -> ReleaseNumber {
    let noted = held.deploys.iter().map(|deploy| deploy.release.number);
    noted.fold(held.release.number, ReleaseNumber::max)
}

/// Takes over the ends that were noted meanwhile.
pub(super) fn keep_ends(deploys: &mut [Deploy], stored: Vec<Deploy>) {
    for Deploy {
        generation, end, ..
    } in stored
    {
        if let Some(end) = end {
            deploys::end(deploys, generation, end);
        }
    }
}

/// Notes how the release ended that came with this generation.
pub(super) async fn ended(site: &Site, generation: u64, took: Duration, followed: &Followed) {
    let Followed {
        outcome,
        requests,
        failed,
    } = followed;
    // The rest of the site may not be whole, and the release serves.
    let now = site
        .view
        .borrow()
        .desired
        .as_ref()
        .map(|(_, desired)| desired.release.number);
    let came_up = outcome.exit == Exit::Ok || (now.is_some() && serving(site) == now);
    let end = DeployEnd {
        failure: (!came_up).then(|| outcome.message.clone()),
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        requests: *requests,
        failed: *failed,
    };
    if let Err(error) = write_end(site, generation, end).await {
        let error = gaiola_os::chain(&error);
        tracing::warn!(error, "cannot note how the release ended");
    }
}

async fn write_end(site: &Site, generation: u64, end: DeployEnd) -> Result<(), StoreError> {
    let Ok(store) = store(site).await else {
        return Ok(());
    };
    let key = Keys::of(&site.name).desired();
    for _ in 0..MOST_TRIES {
        let Some(stored) = store.get_json::<Desired>(&key).await? else {
            return Ok(());
        };
        let mut desired = stored.value;
        if !deploys::end(&mut desired.deploys, generation, end.clone()) {
            return Ok(());
        }
        let expected = Expected::At(stored.modified);
        match store.put_json_if(&key, expected, &desired, None).await {
            Err(StoreError::CompareAndSwap { .. }) => {}
            written => return written.map(drop),
        }
    }
    Ok(())
}

/// The last releases, the newest first; empty: the store has not answered yet.
pub fn known(site: &Site) -> Vec<KnownRelease> {
    let view = site.view.borrow().clone();
    let Some((_, desired)) = view.desired else {
        return Vec::new();
    };
    let placed = placed(site);
    let failed = placed.as_ref().and_then(|placed| placed.failed.as_ref());
    let serving = serving(site);
    let all = desired.deploys.iter().enumerate().rev();
    let last = desired.deploys.len().saturating_sub(1);
    let known = all.map(|(place, deploy)| KnownRelease {
        release: deploy.release.number,
        digest: deploy.release.digest.clone(),
        at: deploy.at.clone(),
        by: deploy.by.clone(),
        back_from: deploy.back_from,
        is_desired: place == last,
        serves: serving == Some(deploy.release.number),
        end: deploy.end.clone(),
        state: deploys::in_words(deploy, place == last, serving, failed),
    });
    known.collect()
}
