//! The last releases: what is remembered of them, and which one a site goes back to.

use gaiola_model::config::{App, Web};
use gaiola_model::placement::{Deploy, DeployEnd, Failure, ReleaseNumber};
use gaiola_model::{Config, Desired};

/// How many are remembered.
const REMEMBERED: usize = 8;

/// Why there is no way back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWayBack {
    /// It is the one that is desired.
    #[error("release {0} is what the site has already")]
    Same(ReleaseNumber),
    /// It is not known any more.
    #[error("release {asked} is not known; there are {known}")]
    Unknown {
        /// The one that was asked for.
        asked: ReleaseNumber,
        /// Those that there are, in words.
        known: String,
    },
    /// There is no other one.
    #[error("no release before {0} is known to have served; see: gaiola releases")]
    NoEarlier(ReleaseNumber),
}

/// Remembers what `desired` puts out now, with whatever it replaces if nothing is known of that.
pub fn remember(desired: &mut Desired, replaced: Option<&Desired>, at: String, by: String) {
    let of = |desired: &Desired| Deploy {
        release: desired.release.clone(),
        generation: desired.generation,
        at: String::new(),
        by: String::new(),
        back_from: None,
        config: kept(&desired.applied),
        end: None,
    };
    // The file may have changed since, without another release.
    if let (Some(last), Some(replaced)) = (desired.deploys.last_mut(), replaced)
        && last.release == replaced.release
    {
        last.config = kept(&replaced.applied);
    }
    let before = replaced.filter(|replaced| replaced.deploys.is_empty());
    desired.deploys.extend(before.map(of));
    let from = replaced.map(|replaced| replaced.release.number);
    let deploy = Deploy {
        generation: replaced.map_or(desired.generation, |replaced| replaced.generation + 1),
        at,
        by: by.chars().take(100).collect(),
        back_from: from.filter(|from| *from > desired.release.number),
        ..of(desired)
    };
    desired.deploys.push(deploy);
    let surplus = desired.deploys.len().saturating_sub(REMEMBERED);
    desired.deploys.drain(..surplus);
}

/// What a way back needs of a file; the rest may be large.
fn kept(file: &Config) -> Config {
    Config {
        balancer: None,
        database: None,
        drill: None,
        machines: None,
        ..file.clone()
    }
}

/// Writes down how the one that came with this change ended; whether there is such a one that has not ended.
pub fn end(deploys: &mut [Deploy], generation: u64, end: DeployEnd) -> bool {
    let mut newest = deploys.iter_mut().rev();
    let deploy = newest.find(|deploy| deploy.generation == generation && deploy.end.is_none());
    deploy.map(|deploy| deploy.end = Some(end)).is_some()
}

/// The one to go back to: the newest of the release that is asked for, or else of the one before that is known to have served. `serving`:
/// what instances run as far as it has come up.
///
/// # Errors
/// There is none.
pub fn back(
    desired: &Desired,
    serving: Option<ReleaseNumber>,
    asked: Option<ReleaseNumber>,
) -> Result<&Deploy, NoWayBack> {
    let now = desired.release.number;
    let mut newest = desired.deploys.iter().rev();
    match asked {
        Some(asked) if asked == now => Err(NoWayBack::Same(now)),
        Some(asked) => {
            let found = newest.find(|deploy| deploy.release.number == asked);
            found.ok_or_else(|| NoWayBack::Unknown {
                asked,
                known: known(desired),
            })
        }
        None => {
            let has_served = |deploy: &&Deploy| {
                let number = deploy.release.number;
                let ended = deploy.end.as_ref();
                let served = ended.is_some_and(|end| end.failure.is_none());
                number < now && (served || serving == Some(number))
            };
            newest.find(has_served).ok_or(NoWayBack::NoEarlier(now))
        }
    }
}

fn known(desired: &Desired) -> String {
    let mut numbers: Vec<ReleaseNumber> = (desired.deploys.iter())
        .map(|deploy| deploy.release.number)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    crate::words::all_of(numbers)
}

/// The configuration with what belongs to a release as the file had it then: commands, variables, health checks, workers, crons, and what web
/// servers make of the directory. Sizes, limits and all that is not the application tier's or the web tier's stay.
pub fn restored(now: &Config, then: &Config) -> Config {
    let (app, web) = (&then.app, &then.web);
    Config {
        app: App {
            run: app.run.clone(),
            release: app.release.clone(),
            health: app.health.clone(),
            check: app.check.clone(),
            env: app.env.clone(),
            ..now.app.clone()
        },
        web: now.web.as_ref().map(|now| match web {
            Some(then) => Web {
                servers: now.servers,
                ..then.clone()
            },
            None => now.clone(),
        }),
        workers: then.workers.clone(),
        crons: then.crons.clone(),
        env: then.env.clone(),
        env_file: then.env_file.clone(),
        ..now.clone()
    }
}

/// How a deploy stands, in words. `is_last`: it is what the site should have now.
pub fn in_words(
    deploy: &Deploy,
    is_last: bool,
    serving: Option<ReleaseNumber>,
    failed: Option<&Failure>,
) -> String {
    let number = deploy.release.number;
    let failed = failed.filter(|failed| is_last && failed.release == number);
    match (&deploy.end, failed) {
        (
            Some(DeployEnd {
                failure: None,
                took_ms,
                requests,
                failed,
            }),
            _,
        ) => {
            let took = crate::words::Took(std::time::Duration::from_millis(*took_ms));
            format!("came up in {took}, requests {requests}, failed {failed}")
        }
        (_, Some(failed)) => format!("was given up: {}", failed.reason),
        _ if is_last && serving == Some(number) => "came up".into(),
        (
            Some(DeployEnd {
                failure: Some(why), ..
            }),
            _,
        ) => why.clone(),
        _ if is_last => "is on its way".into(),
        _ if deploy.at.is_empty() => "was there before releases were noted".into(),
        _ => "how it ended is not known".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::config::Worker;
    use gaiola_model::placement::Release;
    use gaiola_model::{Inventory, config};

    fn release(number: u64) -> Release {
        Release {
            number: ReleaseNumber(number),
            digest: format!("digest of {number}"),
        }
    }

    fn site() -> Desired {
        let config = Config::new("site".parse().unwrap(), App::new("run 1"));
        let inventory = Inventory::numbered(&config, [10, 77]);
        let mut desired = Desired::first(config, release(1), inventory);
        remember(&mut desired, None, "today".into(), "me".into());
        desired
    }

    fn put_out(held: &Desired, number: u64) -> Desired {
        let mut new = Desired {
            release: release(number),
            ..held.clone()
        };
        new.applied.app.run = format!("run {number}");
        remember(&mut new, Some(held), "today".into(), "me".into());
        new.generation += 1;
        new
    }

    fn served(failure: Option<&str>) -> DeployEnd {
        DeployEnd {
            failure: failure.map(str::to_string),
            took_ms: 12_000,
            requests: 100,
            failed: 0,
        }
    }

    fn numbers(desired: &Desired) -> Vec<u64> {
        let all = desired.deploys.iter();
        all.map(|deploy| deploy.release.number.0).collect()
    }

    #[test]
    fn the_last_releases_are_remembered_each_with_its_end() {
        let mut desired = site();
        for number in 2..=10 {
            desired = put_out(&desired, number);
        }
        assert_eq!(numbers(&desired), [3, 4, 5, 6, 7, 8, 9, 10]);
        assert!(end(&mut desired.deploys, 10, served(None)));
        assert!(!end(&mut desired.deploys, 10, served(None)));
        assert_eq!(desired.deploys[7].end, Some(served(None)));
    }

    #[test]
    fn what_a_site_of_an_earlier_version_has_is_remembered_with_the_next() {
        let old = Desired {
            deploys: Vec::new(),
            ..site()
        };
        let new = put_out(&old, 2);
        assert_eq!(numbers(&new), [1, 2]);
        assert_eq!(new.deploys[0].config.app.run, "run 1");
        let back = back(&new, Some(ReleaseNumber(1)), None);
        assert_eq!(back.unwrap().release, release(1));
    }

    #[test]
    fn what_changed_in_the_file_without_another_release_belongs_to_the_release() {
        let mut held = site();
        held.applied.app.run = "run 1 better".into();
        let new = put_out(&held, 2);
        assert_eq!(new.deploys[0].config.app.run, "run 1 better");
    }

    #[test]
    fn a_site_goes_back_to_what_served_before_and_not_forth() {
        let mut desired = site();
        let to = |desired: &Desired, asked: Option<u64>| {
            let serving = Some(ReleaseNumber(1));
            let back = back(desired, serving, asked.map(ReleaseNumber));
            back.map(|deploy| deploy.release.number.0)
        };
        assert_eq!(
            to(&desired, None),
            Err(NoWayBack::NoEarlier(ReleaseNumber(1)))
        );
        assert_eq!(
            to(&desired, Some(1)),
            Err(NoWayBack::Same(ReleaseNumber(1)))
        );
        for number in 2..=4 {
            desired = put_out(&desired, number);
        }
        assert!(end(&mut desired.deploys, 2, served(None)));
        assert!(end(&mut desired.deploys, 3, served(Some("was given up"))));
        assert_eq!(to(&desired, None), Ok(2)); // 3 never served.
        assert_eq!(to(&desired, Some(3)), Ok(3)); // Who names it wants it.
        let unknown = to(&desired, Some(9)).unwrap_err().to_string();
        assert_eq!(unknown, "release 9 is not known; there are 1, 2, 3 and 4");
        let desired = put_out(&desired, 2);
        let last = desired.deploys.last().unwrap();
        assert_eq!(last.back_from, Some(ReleaseNumber(4)));
        assert_eq!(to(&desired, None), Ok(1));
    }

    #[test]
    fn what_belongs_to_a_release_comes_back_with_it_and_sizes_stay() {
        let mut then = Config::new("site".parse().unwrap(), App::new("old"));
        let mail = Worker::new("mail");
        then.workers.insert("mail".parse().unwrap(), mail);
        then.web = Some(config::Web::default());
        let mut now = Config::new("site".parse().unwrap(), App::new("new"));
        (now.app.servers, now.app.instances) = (7, 4);
        now.web = Some(Web {
            servers: 5,
            ..Web::default()
        });
        let restored = restored(&now, &then);
        assert_eq!((&*restored.app.run, restored.app.servers), ("old", 7));
        assert_eq!((restored.app.instances, restored.workers.len()), (4, 1));
        assert_eq!(restored.web.unwrap().servers, 5);
    }
}
