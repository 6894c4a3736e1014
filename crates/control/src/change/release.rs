//! Releases and certificates that a change makes, and those that nothing uses any more.

use super::step;
use crate::api::steps::Steps;
use crate::api::{Outcome, refused};
use crate::certificates::{self, Certificates};
use crate::release;
use crate::site::Site;
use gaiola_model::placement::{Release, ReleaseNumber};
use gaiola_model::{Config, Exit};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The configuration with the digest of its certificates, of which there is a copy then.
pub(super) async fn with_certificates(
    site: &Site,
    config: Config,
    folder: &Path,
) -> Result<Config, Outcome> {
    let (folder, copies) = (folder.to_path_buf(), site.state.certificates());
    let _removed = site.pruning.lock().await;
    let copying = tokio::task::spawn_blocking(move || {
        let (config, read) = known_certificates(config, &folder)?;
        if let Some(read) = read {
            read.keep(&copies).map_err(|error| {
                format!(
                    "cannot keep the certificates in {}: {error}",
                    copies.display()
                )
            })?;
        }
        Ok(config)
    });
    let copied = copying.await.unwrap_or_else(|error| Err(error.to_string()));
    copied.map_err(|why: String| refused(Exit::Failed, why))
}

/// The configuration with the digest of its certificates, and what was read of them.
pub(super) fn known_certificates(
    mut config: Config,
    folder: &Path,
) -> Result<(Config, Option<Certificates>), String> {
    let balancer = config.balancer.as_mut();
    let Some(tls) = balancer.and_then(|balancer| balancer.tls.as_mut()) else {
        return Ok((config, None));
    };
    let read = certificates::read(folder, tls)
        .map_err(|why| format!("the balancers' certificates cannot be served: {why}"))?;
    tls.contents.clone_from(&read.contents);
    Ok((config, Some(read)))
}

pub(super) async fn make_release(
    site: &Site,
    config: &Config,
    folder: &Path,
    file: &Path,
    last: Option<Release>,
    steps: &mut Steps,
) -> Result<Release, Outcome> {
    let app = &config.app;
    let tls = config.tls();
    let apart = tls.map_or_else(Vec::new, |tls| certificates::apart(folder, tls));
    let commands: Vec<&str> = [Some(app.run.as_str()), app.release.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    let (folder, file, releases): (PathBuf, PathBuf, PathBuf) =
        (folder.into(), file.into(), site.state.releases());
    let _removed = site.pruning.lock().await;
    let copying = tokio::task::spawn_blocking(move || {
        let source = release::Source {
            directory: &folder,
            file: &file,
            apart: &apart,
        };
        release::make(source, &releases, last.as_ref(), &mut |_| {})
    });
    let made = copying
        .await
        .map_err(|error| refused(Exit::Failed, format!("copying the release ended: {error}")))?;
    let made = made.map_err(|error| refused(Exit::Failed, gaiola_os::chain(&error)))?;
    let directory = site.state.release(made.release.number);
    let left_out = |command| release::private_program(&made.private, command);
    if let Some(why) = commands.iter().find_map(|command| {
        left_out(command).or_else(|| release::missing_program(&directory, command))
    }) {
        return Err(refused(
            Exit::Failed,
            format!("a command of the file cannot be run: {why}"),
        ));
    }
    if made.new {
        step(steps, format!("release {} is made", made.release.number)).await;
    }
    if let Some(words) = release::left_out_in_words(&made.private) {
        step(steps, words).await;
    }
    Ok(made.release)
}

/// Removes what is not used any more.
pub(super) fn prune_releases(site: &Rc<Site>) {
    let Some((_, placement)) = site.view.borrow().placement.clone() else {
        return;
    };
    let instances = placement
        .instances
        .values()
        .map(|instance| instance.release);
    let good = placement.good.iter().map(|good| good.release);
    let keep = instances
        .chain(placement.web_releases.iter().copied())
        .chain(good)
        .collect();
    let tls = placement.config.tls();
    let kept = tls.map(|tls| tls.contents.clone()).into_iter().collect();
    let (releases, copies) = (site.state.releases(), site.state.certificates());
    let site = Rc::clone(site);
    tokio::task::spawn_local(async move {
        let _held = site.pruning.lock().await;
        prune((releases, keep), (copies, kept)).await;
    });
}

/// Removes all releases and copies of certificates but these, on a thread of its own: many files take long, and this one
/// serves the front door, the page and the control socket.
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
        let pruned = prune((releases, Vec::new()), (copies, vec!["new".into()]));
        gaiola_os::slow_disk::carry_out(pruned, || assert!(old.iter().all(|path| path.exists())));
        assert!(!old.iter().any(|path| path.exists()));
        assert!(kept.iter().all(|path| path.exists()));
    }
}
