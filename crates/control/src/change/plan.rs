//! What a change would do.

use crate::api::{Change, Digest, Planned};
use crate::release;
use crate::site::Site;
use gaiola_core::merge;
use gaiola_model::Config;
use gaiola_model::placement::{Desired, Placement};

/// What a change would do.
pub async fn plan(site: &Site, change: &Change) -> Planned {
    let view = site.view.borrow().clone();
    let Change::Apply {
        config, release, ..
    } = change
    else {
        return Planned::default();
    };
    let Some((_, held)) = &view.desired else {
        return Planned::default();
    };
    let placement = view.placement.as_ref().map(|(_, placement)| &**placement);
    let wanted = merge::merge(&held.applied, &held.config, config, placement);
    let new = match planned_release(site, release, held).await {
        Ok(new) => new,
        Err(refusal) => {
            return Planned {
                refusals: vec![refusal.to_string()],
                ..Planned::default()
            };
        }
    };
    let standing = super::standing(&held.inventory, placement);
    let to = match site.provider.inventory(&wanted, Some(&standing)) {
        Ok(inventory) => inventory.resolve(&wanted),
        Err(refusal) => {
            return Planned {
                refusals: vec![refusal.to_string()],
                ..Planned::default()
            };
        }
    };
    // An inventory of Gaiola 0.1 is empty.
    let from = site.provider.inventory(&held.config, Some(&standing));
    let from = from.unwrap_or_else(|_| held.inventory.clone());
    let from = from.resolve(&held.config);
    let changes = merge::changes(&from, &to);
    Planned {
        changes: changes
            .iter()
            .chain(&new)
            .map(ToString::to_string)
            .chain(planned_run(&wanted, held, new.is_some(), placement))
            .collect(),
        kept: merge::kept(config, &wanted)
            .iter()
            .map(ToString::to_string)
            .collect(),
        refusals: merge::refusals(&held.config, &wanted)
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

/// Why the release of `up` is unknown.
#[derive(Debug, thiserror::Error)]
enum PlanError {
    #[error("{}", gaiola_os::chain(.0))]
    Release(#[from] release::ReleaseError),
    #[error(transparent)]
    Panicked(#[from] tokio::task::JoinError),
}

/// The release that `up` would make, if the site's directory has other contents than the last one.
async fn planned_release(
    site: &Site,
    contents: &Digest,
    held: &Desired,
) -> Result<Option<merge::Change>, PlanError> {
    if contents.as_str() == held.release.digest {
        return Ok(None);
    }
    let (from, highest) = (held.release.number, super::deploys::highest(held));
    let releases = site.state.releases();
    let numbering = tokio::task::spawn_blocking(move || {
        let to = release::next(&releases, highest)?;
        Ok::<_, release::ReleaseError>(Some(merge::Change::Release { from, to }))
    });
    Ok(numbering.await??)
}

/// Whether the release command would run, and why the last attempt does not count.
fn planned_run(
    wanted: &Config,
    held: &Desired,
    new_release: bool,
    placement: Option<&Placement>,
) -> Vec<String> {
    let failed = placement.and_then(|placement| placement.failed.as_ref());
    let failed = failed.filter(|_| !new_release);
    let released = placement.and_then(|placement| placement.released);
    let is_released = released >= Some(held.release.number);
    let mut lines = Vec::new();
    if let Some(failure) = failed {
        lines.push(format!(
            "app: {}; it will be tried again",
            failure.in_words()
        ));
    }
    let new_database = wanted.database.is_some() && held.config.database.is_none();
    if wanted.app.release.is_some() && (new_release || !is_released || new_database) {
        lines.push("app: the release command runs first, once, on one application server".into());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_core::rollout;
    use gaiola_model::Inventory;
    use gaiola_model::config::{App, Database};
    use gaiola_model::placement::Release;
    use gaiola_model::placement::{Failure, ReleaseNumber};

    const RUNS: &str = "app: the release command runs first, once, on one application server";

    /// A site with release 3, which was prepared last.
    fn site(command: Option<&str>, released: Option<u64>) -> (Desired, Placement) {
        let app = App {
            release: command.map(Into::into),
            ..App::new("run")
        };
        let release = Release {
            number: ReleaseNumber(3),
            digest: String::new(),
        };
        let config = Config::new("site".parse().unwrap(), app);
        let inventory = Inventory::numbered(&config, [10, 77]);
        let desired = Desired::first(config, release, inventory);
        let mut placement = rollout::first(&desired, "a".into());
        placement.released = released.map(ReleaseNumber);
        (desired, placement)
    }

    #[test]
    fn a_plan_tells_that_the_release_command_runs_where_it_does() {
        let (held, placement) = site(Some("migrate"), Some(3));
        let same = &held.config;
        let nothing = Vec::<String>::new();
        assert_eq!(planned_run(same, &held, false, Some(&placement)), nothing);
        assert_eq!(planned_run(same, &held, true, Some(&placement)), [RUNS]);
        let with_database = Config {
            database: Some(Database::default()),
            ..same.clone()
        };
        let to_database = planned_run(&with_database, &held, false, Some(&placement));
        assert_eq!(to_database, [RUNS]);
        for (_, not_yet) in [site(Some("migrate"), Some(2)), site(Some("migrate"), None)] {
            assert_eq!(planned_run(same, &held, false, Some(&not_yet)), [RUNS]);
        }
        assert_eq!(planned_run(same, &held, false, None), [RUNS]);
        let (held, placement) = site(None, Some(2));
        let without = planned_run(&held.config, &held, true, Some(&placement));
        assert_eq!(without, nothing);
    }

    #[test]
    fn a_plan_tells_that_a_release_that_was_given_up_is_tried_again_unless_another_comes() {
        let (held, mut placement) = site(Some("migrate"), Some(2));
        placement.failed = Some(Failure {
            generation: 1,
            release: ReleaseNumber(3),
            attempt: 0,
            instance: None,
            settings: false,
            reason: "exit status 1".into(),
        });
        let again = planned_run(&held.config, &held, false, Some(&placement));
        let given_up = "app: release 3 was given up: exit status 1; it will be tried again";
        assert_eq!(again, [given_up, RUNS]);
        assert_eq!(
            planned_run(&held.config, &held, true, Some(&placement)),
            [RUNS]
        );
    }
}
