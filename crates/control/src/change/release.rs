//! Releases and certificates of a change, and the removal of unused ones.

use super::step;
use crate::api::steps::Steps;
use crate::api::{Digest, Outcome, refused};
use crate::certificates;
use crate::provider::{Delivery, Parcel};
use crate::release;
use crate::site::Site;
use gaiola_model::placement::{Release, ReleaseNumber};
use gaiola_model::{Config, Exit};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Keep-alive interval: a client that hears nothing would give up.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Rejects a configuration with certificates that the site does not have.
pub(super) fn has_certificates(site: &Site, config: &Config) -> Result<(), Outcome> {
    let Some(tls) = config.tls() else {
        return Ok(());
    };
    let contents: Result<Digest, _> = tls.contents.parse();
    if contents.is_ok_and(|contents| certificates::has(&site.state.certificates(), &contents)) {
        Ok(())
    } else {
        Err(refused(
            Exit::Failed,
            "the site does not have the balancers' certificates; try again",
        ))
    }
}

/// Whether the site has these contents, as its last release or as an upload.
pub fn has_release(site: &Site, contents: &Digest) -> bool {
    let desired = site.view.borrow().desired.clone();
    let last = desired.as_ref().map(|(_, desired)| &desired.release);
    release::has(&site.state.releases(), contents, last)
}

/// The release with these contents, which the site has: the last one, or a new one above `highest`.
pub(super) async fn make_release(
    site: &Site,
    config: &Config,
    contents: &Digest,
    (last, highest): (Option<Release>, ReleaseNumber),
    steps: &mut Steps,
) -> Result<Release, Outcome> {
    let (contents, releases) = (contents.clone(), site.state.releases());
    let held = site.pruning.lock().await;
    let numbering = tokio::task::spawn_blocking(move || {
        release::number(&releases, &contents, last.as_ref(), highest)
    });
    let made = numbering.await.map_err(|error| {
        refused(
            Exit::Failed,
            format!("numbering the release ended: {error}"),
        )
    })?;
    drop(held);
    let made = made.map_err(|error| refused(Exit::Failed, gaiola_os::chain(&error)))?;
    has_programs(&made.path, config)?;
    if made.new {
        step(steps, format!("release {} is made", made.release.number)).await;
    }
    Ok(made.release)
}

/// Refuses commands whose programs are not in this release.
pub(super) fn has_programs(release: &Path, config: &Config) -> Result<(), Outcome> {
    let commands = [Some(&config.app.run), config.app.release.as_ref()];
    let mut commands = commands.into_iter().flatten();
    match commands.find_map(|command| release::missing_program(release, command)) {
        None => Ok(()),
        Some(why) => {
            let why = format!("a command in the file cannot be run: {why}");
            Err(refused(Exit::Failed, why))
        }
    }
}

/// Sends a release to where it is needed, before it is desired. Machines that cannot be reached fetch it later.
pub(super) async fn spread(site: &Site, parcel: Parcel<'_>, steps: &mut Steps) {
    let number = parcel.release.number;
    let mut deliveries = site.provider.spread(&parcel);
    while !deliveries.is_empty() {
        let delivered = tokio::time::timeout(KEEP_ALIVE, deliveries.join_next()).await;
        let text = match delivered {
            // Where the client has gone, the change goes on.
            Err(_) => {
                let _ = steps.say_nothing().await;
                continue;
            }
            Ok(Some(Ok(Delivery { to, failed: None }))) => format!("release {number} is on {to}"),
            Ok(Some(Ok(Delivery {
                to,
                failed: Some(why),
            }))) => format!("release {number} is not on {to} yet, which fetches it later: {why}"),
            Ok(Some(Err(error))) => format!("sending release {number} ended: {error}"),
            Ok(None) => return,
        };
        step(steps, text).await;
    }
}

/// Removes what is not used any more.
pub(crate) fn prune_releases(site: &Rc<Site>) {
    let site = Rc::clone(site);
    tokio::task::spawn_local(async move {
        let _held = site.pruning.lock().await;
        if let Some(kept) = in_use(&site) {
            prune(kept.0, kept.1).await;
        }
    });
}

type Kept = ((PathBuf, Vec<ReleaseNumber>), (PathBuf, Vec<String>));

/// The releases and the copies of certificates that the placement uses, each with their directory.
fn in_use(site: &Site) -> Option<Kept> {
    let view = site.view.borrow().clone();
    let (_, placement) = view.placement?;
    let mut keep: Vec<ReleaseNumber> = placement.releases().into_iter().collect();
    // Those that served are what a site goes back to, however many were given up since.
    let deploys = view
        .desired
        .iter()
        .flat_map(|(_, desired)| &desired.deploys);
    let served =
        deploys.filter(|deploy| deploy.end.as_ref().is_none_or(|end| end.failure.is_none()));
    keep.extend(served.map(|deploy| deploy.release.number));
    let tls = placement.config.tls();
    let kept = tls.map(|tls| tls.contents.clone()).into_iter().collect();
    let (releases, copies) = (site.state.releases(), site.state.certificates());
    Some(((releases, keep), (copies, kept)))
}

/// Removes all other releases and copies of certificates, on a separate thread: many files take long, and this thread
/// serves the front door, the status page and the control socket.
pub(super) async fn prune(
    (releases, keep): (PathBuf, Vec<ReleaseNumber>),
    (copies, kept): (PathBuf, Vec<String>),
) {
    let removing = tokio::task::spawn_blocking(move || {
        if let Err(error) = release::prune(&releases, &keep) {
            tracing::warn!("cannot remove old releases: {}", gaiola_os::chain(&error));
        }
        let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
        if let Err(error) = certificates::prune(&copies, &kept) {
            tracing::warn!("cannot remove old certificates: {error}");
        }
    });
    if let Err(error) = removing.await {
        tracing::warn!("removing what is old ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_removed_while_the_lab_serves() {
        let folder = tempfile::tempdir().unwrap();
        let [releases, copies] = ["releases", "certificates"].map(|name| folder.path().join(name));
        let old = [releases.join("1"), copies.join("old")];
        let newest = (2..=release::KEPT + 1).map(|number| releases.join(number.to_string()));
        let kept: Vec<_> = newest.chain([copies.join("new")]).collect();
        for path in old.iter().chain(&kept) {
            std::fs::create_dir_all(path).unwrap();
        }
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        let old_copy = std::fs::File::open(copies.join("old")).unwrap();
        old_copy.set_modified(long_ago).unwrap();
        let pruned = prune((releases, Vec::new()), (copies, vec!["new".into()]));
        gaiola_os::slow_disk::carry_out(pruned, || assert!(old.iter().all(|path| path.exists())));
        assert!(!old.iter().any(|path| path.exists()));
        assert!(kept.iter().all(|path| path.exists()));
    }
}
