//! Changes: what is wanted is written to the store, and followed until it is there.

use crate::api::steps::{Gone, Steps};
use crate::api::{Change, ChangeRequest, Outcome, Planned, Progress, refused};
use crate::certificates::{self, Certificates};
use crate::monitor::poll;
use crate::monitor::status::{see, status};
use crate::monitor::traffic::Totals;
use crate::release;
use crate::site::Site;
use gaiola_agent::state::Order;
use gaiola_core::follow::{Follow, Next, Sight};
use gaiola_core::merge::{self, Scale};
use gaiola_core::rollout;
use gaiola_model::placement::{Desired, Placement, Release, ReleaseNumber, Revision};
use gaiola_model::status::{ServerState, ServerStatus, Status};
use gaiola_model::{Config, Exit, Observed, ServerName, Tier};
use gaiola_net::client::Client;
use gaiola_store::view::Keys;
use gaiola_store::{Expected, Store, StoreError, Txn, to_json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// The longest until the store answers, before a change is given up.
const STORE_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks while a change is under way.
const LOOK: Duration = Duration::from_millis(200);
/// While nothing happens, whoever waits is told so this often, and noticed when gone.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Carries a change out and tells its steps. One at a time: a second one is refused.
pub async fn carry_out(site: &Rc<Site>, asked: ChangeRequest, steps: &mut Steps) -> Outcome {
    let Ok(_held) = site.change.try_lock() else {
        return refused(
            Exit::ChangeUnderWay,
            "another change is under way; wait for it, or look with: gaiola status",
        );
    };
    let deadline = Instant::now() + Duration::from_millis(asked.timeout_ms);
    let deploys = matches!(asked.change, Change::Apply { .. });
    match begin(site, asked.change, deadline, steps).await {
        Ok(since) => follow(site, since, deploys, deadline, steps).await,
        Err(outcome) => outcome,
    }
}

/// Writes what is wanted, and tells since which revision that is desired.
async fn begin(
    site: &Rc<Site>,
    change: Change,
    deadline: Instant,
    steps: &mut Steps,
) -> Result<Revision, Outcome> {
    match change {
        Change::Apply {
            config,
            file,
            folder,
            yes,
        } => {
            site.provider.retry();
            let config = Box::new(with_certificates(site, *config, &folder).await?);
            if is_new(site, deadline).await? {
                return found(site, *config, &file, &folder, deadline, steps).await;
            }
            let (store, at, held) = desired(site, deadline, steps).await?;
            let wanted = merge::merge(&held.applied, &held.config, &config);
            refuse(&held.config, &wanted, yes)?;
            let last = Some(held.release.clone());
            let release = make_release(site, &config, &folder, &file, last, steps).await?;
            let failed = site
                .order
                .borrow()
                .as_ref()
                .is_some_and(|order| order.placement.failed.is_some());
            let new = Desired {
                applied: *config,
                config: wanted,
                release,
                attempt: held.attempt + u64::from(failed),
                ..held.clone()
            };
            refuse_all_drained(&new.config, &new.drained)?;
            if new == held {
                return Ok(at);
            }
            store_desired(site, &store, at, new).await
        }
        Change::Scale { to, yes } => {
            let (store, at, held) = desired(site, deadline, steps).await?;
            let mut config = held.config.clone();
            for text in &to {
                let scale: Scale = text
                    .parse()
                    .map_err(|error: merge::ScaleError| refused(Exit::Usage, error.to_string()))?;
                config = merge::scale(&config, &scale)
                    .map_err(|error| refused(Exit::Usage, error.to_string()))?;
            }
            refuse(&held.config, &config, yes)?;
            if config == held.config {
                return Ok(at);
            }
            let kept: BTreeSet<ServerName> = config.server_names().collect();
            let drained = held.drained.intersection(&kept).copied().collect();
            refuse_all_drained(&config, &drained)?;
            store_desired(
                site,
                &store,
                at,
                Desired {
                    config,
                    drained,
                    ..held
                },
            )
            .await
        }
        Change::Drain(server) => set_drained(site, server, true, deadline, steps).await,
        Change::Undrain(server) => set_drained(site, server, false, deadline, steps).await,
        Change::Restart(what) => {
            let (store, at, held) = desired(site, deadline, steps).await?;
            let mut new = held.clone();
            for server in
                to_restart(&what, &held.config).map_err(|why| refused(Exit::Usage, why))?
            {
                *new.restarts.entry(server).or_default() += 1;
            }
            store_desired(site, &store, at, new).await
        }
    }
}

/// The application servers that `restart` names.
fn to_restart(what: &str, config: &Config) -> Result<Vec<ServerName>, String> {
    let apps = config.server_names();
    let mut apps = apps.filter(|server| server.tier == Tier::App);
    if what == Tier::App.section() {
        return Ok(apps.collect());
    }
    let server: ServerName = what.parse().map_err(|_| {
        format!("{what:?} is neither `app` nor a server; see which there are with: gaiola status")
    })?;
    match server.tier {
        Tier::App if apps.any(|app| app == server) => Ok(vec![server]),
        Tier::App => Err(no_server(server)),
        _ => Err(format!(
            "{server} has no instances of the site's: `restart` takes `app`, or an application server such as app1"
        )),
    }
}

fn no_server(server: ServerName) -> String {
    format!("there is no server {server}; see which there are with: gaiola status")
}

/// A tier whose servers are all drained would be waited for in vain.
fn refuse_all_drained(config: &Config, drained: &BTreeSet<ServerName>) -> Result<(), Outcome> {
    match rollout::all_drained(config, drained) {
        None => Ok(()),
        Some(tier) => Err(refused(
            Exit::Failed,
            format!(
                "every {tier} server that would be left is drained; let one take traffic first: gaiola undrain"
            ),
        )),
    }
}

/// What a change would do.
pub async fn plan(site: &Site, change: &Change) -> Planned {
    let view = site.view.borrow().clone();
    let Change::Apply {
        config,
        folder,
        file,
        ..
    } = change
    else {
        return Planned::default();
    };
    let Some((_, held)) = &view.desired else {
        return Planned::default();
    };
    let config = match known_certificates((**config).clone(), folder) {
        Ok((config, _)) => config,
        Err(refusal) => {
            return Planned {
                refusals: vec![refusal],
                ..Planned::default()
            };
        }
    };
    let wanted = merge::merge(&held.applied, &held.config, &config);
    let new = match planned_release(site, &config, folder, file, &held.release).await {
        Ok(new) => new,
        Err(refusal) => {
            return Planned {
                refusals: vec![refusal],
                ..Planned::default()
            };
        }
    };
    let placement = view.placement.as_ref().map(|(_, placement)| placement);
    let changes = merge::changes(&held.config, &wanted);
    Planned {
        changes: changes
            .iter()
            .chain(&new)
            .map(ToString::to_string)
            .chain(planned_run(
                &wanted,
                held,
                new.is_some(),
                placement.map(|held| &**held),
            ))
            .collect(),
        kept: merge::kept(&config, &wanted)
            .iter()
            .map(ToString::to_string)
            .collect(),
        refusals: merge::refusals(&held.config, &wanted)
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

/// The release that `up` would make, if the site's directory has other contents than the last one.
async fn planned_release(
    site: &Site,
    config: &Config,
    folder: &Path,
    file: &Path,
    last: &Release,
) -> Result<Option<merge::Change>, String> {
    let apart = config.tls();
    let apart = apart.map_or_else(Vec::new, |tls| certificates::apart(folder, tls));
    let (folder, file): (PathBuf, PathBuf) = (folder.into(), file.into());
    let (releases, last) = (site.state.releases(), last.clone());
    let looking = tokio::task::spawn_blocking(move || {
        let source = release::Source {
            directory: &folder,
            file: &file,
            apart: &apart,
        };
        let look = release::look(source, &releases)?;
        if look.digest == last.digest {
            return Ok(None);
        }
        let to = release::next(&releases, &last)?;
        let from = last.number;
        Ok(Some(merge::Change::Release { from, to }))
    });
    let looked = looking.await.map_err(|error| error.to_string())?;
    looked.map_err(|error: release::ReleaseError| gaiola_os::chain(&error))
}

/// That the release command would run, and why the last attempt does not count.
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
        lines.push(format!("app: {}: it is tried again", failure.in_words()));
    }
    let new_database = wanted.database.is_some() && held.config.database.is_none();
    if wanted.app.release.is_some() && (new_release || !is_released || new_database) {
        lines.push("app: the release command runs first, once, on one application server".into());
    }
    lines
}

/// Whether no `up` of this site has got as far as the store yet.
async fn is_new(site: &Site, deadline: Instant) -> Result<bool, Outcome> {
    match site.order.borrow().as_ref() {
        None => return Ok(true),
        Some(order) if order.revision > Revision(0) => return Ok(false),
        Some(_) => {}
    }
    found_store(site, deadline).await?;
    let stored = store(site)
        .await?
        .get_json::<Desired>(&Keys::of(&site.name).desired())
        .await;
    stored.map(|stored| stored.is_none()).map_err(|error| {
        refused(
            Exit::Failed,
            format!("cannot read what is desired: {}", gaiola_os::chain(&error)),
        )
    })
}

/// The first `up`: the servers are switched on by a placement of our own, which founds the store. Where an earlier one
/// did not get as far as the store, the servers it switched on are taken up.
async fn found(
    site: &Rc<Site>,
    config: Config,
    file: &Path,
    folder: &Path,
    deadline: Instant,
    steps: &mut Steps,
) -> Result<Revision, Outcome> {
    let earlier = site
        .order
        .borrow()
        .as_ref()
        .map(|order| order.placement.clone());
    if earlier
        .as_ref()
        .is_some_and(|earlier| earlier.store != rollout::store_members(&config))
    {
        let state = site.state.folder().display();
        return Err(refused(
            Exit::Failed,
            format!(
                "the store was begun on other servers, and holds nothing yet: end it with `gaiola down`, remove {state}, and try again"
            ),
        ));
    }
    let release = make_release(site, &config, folder, file, None, steps).await?;
    let desired = Desired::first(config, release);
    let incarnation = match earlier {
        Some(earlier) => earlier.incarnation,
        None => random_token().map_err(|error| refused(Exit::Failed, error.to_string()))?,
    };
    let placement = rollout::first(&desired, incarnation);
    let names: Vec<String> = placement.servers.keys().map(ToString::to_string).collect();
    step(steps, format!("switching on {}", names.join(" "))).await;
    site.put_order(Order {
        revision: Revision(0),
        placement,
    });
    found_store(site, deadline).await?;
    let store = store(site).await?;
    put_first(site, &store, Expected::Absent, &desired).await
}

async fn put_first(
    site: &Site,
    store: &Store,
    at: Expected,
    desired: &Desired,
) -> Result<Revision, Outcome> {
    let keys = Keys::of(&site.name);
    let Some(order) = site.order.borrow().clone() else {
        return Err(refused(Exit::Failed, "the site has no placement"));
    };
    let (desired_key, placement_key) = (keys.desired(), keys.placement());
    let failed = |error: StoreError| {
        refused(
            Exit::Failed,
            format!("cannot write to the store: {}", gaiola_os::chain(&error)),
        )
    };
    let txn = Txn::new()
        .expect(&desired_key, at)
        .put(
            &desired_key,
            to_json(&desired_key, desired).map_err(failed)?,
            None,
        )
        .put(
            &placement_key,
            to_json(&placement_key, &order.placement).map_err(failed)?,
            None,
        );
    store.commit(&txn).await.map_err(failed)
}

/// Waits until the store that our servers found answers.
async fn found_store(site: &Site, deadline: Instant) -> Result<(), Outcome> {
    let limit = deadline.min(Instant::now() + STORE_LIMIT);
    loop {
        let known = site.store.borrow().clone();
        let answer = match known {
            Some(store) => store
                .revision()
                .await
                .map_err(|error| gaiola_os::chain(&error)),
            None => Err("its servers are not on".into()),
        };
        match answer {
            Ok(_) => return Ok(()),
            Err(why) if Instant::now() >= limit => {
                let (exit, why) = (
                    if limit == deadline {
                        Exit::Timeout
                    } else {
                        Exit::Failed
                    },
                    power_trouble(site)
                        .or_else(|| store_trouble(site))
                        .unwrap_or(why),
                );
                return Err(refused(
                    exit,
                    format!(
                        "the store does not answer: {why}; see what etcd wrote with: gaiola logs --all"
                    ),
                ));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn store(site: &Site) -> Result<Store, Outcome> {
    site.store
        .borrow()
        .clone()
        .ok_or_else(|| refused(Exit::Failed, "the store is not known yet"))
}

/// What is desired now, as soon as the store tells.
async fn desired(
    site: &Rc<Site>,
    deadline: Instant,
    steps: &mut Steps,
) -> Result<(Store, Revision, Desired), Outcome> {
    let mut views = site.view.subscribe();
    if !views.borrow().is_current() {
        step(steps, "waiting for the store".into()).await;
    }
    found_store(site, deadline).await?;
    let current = timeout(
        STORE_LIMIT,
        views.wait_for(|view| view.is_current() && view.desired.is_some()),
    )
    .await;
    let store = store(site).await?;
    match current.map(|view| view.map(|view| view.desired.clone())) {
        Ok(Ok(Some((at, desired)))) => Ok((store, at, (*desired).clone())),
        _ => match store
            .get_json::<Desired>(&Keys::of(&site.name).desired())
            .await
        {
            Ok(Some(stored)) => Ok((store, stored.modified, stored.value)),
            Ok(None) => Err(refused(
                Exit::Failed,
                "the site's first `up` did not get as far as the store; end it with `gaiola down` and try again",
            )),
            Err(error) => Err(refused(
                Exit::Failed,
                format!("cannot read what is desired: {}", gaiola_os::chain(&error)),
            )),
        },
    }
}

async fn store_desired(
    site: &Site,
    store: &Store,
    at: Revision,
    new: Desired,
) -> Result<Revision, Outcome> {
    let new = Desired {
        generation: new.generation + 1,
        ..new
    };
    match store
        .put_json_if(
            &Keys::of(&site.name).desired(),
            Expected::At(at),
            &new,
            None,
        )
        .await
    {
        Ok(revision) => Ok(revision),
        Err(StoreError::CompareAndSwap { .. }) => Err(refused(
            Exit::ChangeUnderWay,
            "another change came first; look with `gaiola status` and try again",
        )),
        Err(error) => Err(refused(
            Exit::Failed,
            format!("cannot write what is desired: {}", gaiola_os::chain(&error)),
        )),
    }
}

async fn set_drained(
    site: &Rc<Site>,
    server: ServerName,
    drained: bool,
    deadline: Instant,
    steps: &mut Steps,
) -> Result<Revision, Outcome> {
    let (store, at, held) = desired(site, deadline, steps).await?;
    if !held.config.server_names().any(|name| name == server) {
        return Err(refused(Exit::Usage, no_server(server)));
    }
    if drained && !held.drained.contains(&server) {
        may_drain(site, server)?;
    }
    let mut new = held.clone();
    let changed = if drained {
        new.drained.insert(server)
    } else {
        new.drained.remove(&server)
    };
    if changed {
        store_desired(site, &store, at, new).await
    } else {
        Ok(at)
    }
}

/// What the conductor would never do is refused at once instead of being waited for.
fn may_drain(site: &Site, server: ServerName) -> Result<(), Outcome> {
    let view = site.view.borrow().clone();
    let mut facts = site.facts.borrow_mut();
    let Some((desired, at, placement)) = see(site, &view, &mut facts) else {
        return Ok(());
    };
    let may = rollout::may_drain(server, &desired, &placement, at, &facts);
    may.map_err(|why| refused(Exit::Failed, format!("{server} is not drained: {why}")))
}

fn refuse(old: &Config, new: &Config, yes: bool) -> Result<(), Outcome> {
    let refusals: Vec<String> = merge::refusals(old, new)
        .iter()
        .map(ToString::to_string)
        .collect();
    if yes || refusals.is_empty() {
        Ok(())
    } else {
        Err(refused(Exit::Failed, refusals.join("\n")))
    }
}

/// The configuration with the digest of its certificates, of which there is a copy then.
async fn with_certificates(site: &Site, config: Config, folder: &Path) -> Result<Config, Outcome> {
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
fn known_certificates(
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

async fn make_release(
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

async fn step(steps: &mut Steps, text: String) {
    // Where nobody listens, the change goes on.
    let _ = steps.say(Progress::Step(text)).await;
}

/// Follows a change to its end; `deploys` as [`Follow::new`] has it.
async fn follow(
    site: &Rc<Site>,
    since: Revision,
    deploys: bool,
    deadline: Instant,
    steps: &mut Steps,
) -> Outcome {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut following = Follow::new(deploys, site.now() + left);
    let mut told: BTreeMap<ServerName, String> = BTreeMap::new();
    let mut next_sign = Instant::now() + SIGN_OF_LIFE;
    let mut views = site.view.subscribe();
    // What is known may be seconds old: earlier requests are not counted as this change's.
    poll::ask_all(site, &Client::new(None)).await;
    let before = site.traffic.totals();
    loop {
        let view = views.borrow_and_update().clone();
        let is_seen = view.desired.as_ref().is_some_and(|(at, _)| *at >= since);
        let status = status(site);
        let mut listens = true;
        if is_seen {
            listens = tell_servers(&status, &mut told, steps).await.is_ok();
        }
        if Instant::now() >= next_sign {
            next_sign = Instant::now() + SIGN_OF_LIFE;
            listens &= steps.say_nothing().await.is_ok();
        }
        if !listens {
            return refused(Exit::Failed, "nobody waits for this change any more");
        }
        let observed: Vec<&Observed> = view.observed.values().map(|(_, seen)| &**seen).collect();
        let sight = is_seen.then_some(Sight {
            status: &status,
            placement: view.placement.as_ref().map(|(_, placement)| &**placement),
            observed: &observed,
        });
        match following.step(site.now(), sight) {
            Next::Wait => {}
            Next::Failed(why) => return outcome(site, Exit::Failed, why),
            Next::Done => {
                prune_releases(site);
                let message = requests_since(site, before).await;
                return outcome(site, Exit::Ok, message);
            }
            Next::Late(mut missing) => {
                missing.extend(power_trouble(site));
                let message = format!("not there yet: {}", missing.join("; "));
                return outcome(site, waiting_exit(site), message);
            }
        }
        let look_again = (Instant::now() + LOOK).min(deadline);
        let _ = timeout_at(look_again, views.changed()).await;
    }
}

/// What clients asked for while the change was made, and how much of it failed; empty where nobody asked.
async fn requests_since(site: &Site, before: Totals) -> String {
    poll::ask_all(site, &Client::new(None)).await;
    let now = site.traffic.totals();
    match (now.requests - before.requests, now.failed - before.failed) {
        (0, _) => String::new(),
        (requests, failed) => format!("requests {requests}, failed {failed}"),
    }
}

/// A server that is off will not come by waiting: the site is degraded, not late.
fn waiting_exit(site: &Site) -> Exit {
    match site.provider.off().is_empty() {
        true => Exit::Timeout,
        false => Exit::Degraded,
    }
}

/// Why servers could not be switched on.
fn power_trouble(site: &Site) -> Option<String> {
    let trouble = site.provider.trouble();
    let words: Vec<String> = trouble
        .iter()
        .map(|(server, why)| format!("{server} cannot be switched on: {why}"))
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// Why the store does not come, as far as its servers show it.
fn store_trouble(site: &Site) -> Option<String> {
    let order = site.order.borrow().clone()?;
    site.provider.store_trouble(&order.placement)
}

fn outcome(site: &Site, exit: Exit, message: String) -> Outcome {
    Outcome {
        exit,
        message,
        status: Some(Box::new(status(site))),
    }
}

async fn tell_servers(
    status: &Status,
    told: &mut BTreeMap<ServerName, String>,
    steps: &mut Steps,
) -> Result<(), Gone> {
    let mut states: BTreeMap<ServerName, String> = told
        .keys()
        .map(|server| (*server, "removed".to_string()))
        .collect();
    states.extend(
        status
            .servers
            .iter()
            .map(|server| (server.name, in_words(server))),
    );
    for (name, state) in states {
        if told.get(&name) != Some(&state) {
            steps
                .say(Progress::Server {
                    name,
                    state: state.clone(),
                })
                .await?;
            told.insert(name, state);
        }
    }
    Ok(())
}

fn in_words(server: &ServerStatus) -> String {
    let mut words = server.state.in_words().to_string();
    if !server.reason.is_empty() {
        words.push_str(": ");
        words.push_str(&server.reason);
    }
    if let Some(database) = server
        .database
        .as_ref()
        .filter(|_| server.state == ServerState::Serving)
    {
        words.push_str(", ");
        words.push_str(database.role.in_words());
    }
    words
}

/// Removes what is not used any more.
fn prune_releases(site: &Rc<Site>) {
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
async fn prune(
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

fn random_token() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::config::{App, Database};
    use gaiola_model::placement::Failure;

    const RUNS: &str = "app: the release command runs first, once, on one application server";

    /// A site whose release 3 is in force, as it was prepared last.
    fn site(command: Option<&str>, released: Option<u64>) -> (Desired, Placement) {
        let app = App {
            release: command.map(Into::into),
            ..App::new("run")
        };
        let release = Release {
            number: ReleaseNumber(3),
            digest: String::new(),
        };
        let desired = Desired::first(Config::new("site".parse().unwrap(), app), release);
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
            reason: "exit status 1".into(),
        });
        let again = planned_run(&held.config, &held, false, Some(&placement));
        let given_up = "app: release 3 was given up: exit status 1: it is tried again";
        assert_eq!(again, [given_up, RUNS]);
        assert_eq!(
            planned_run(&held.config, &held, true, Some(&placement)),
            [RUNS]
        );
    }

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
        crate::slow_disk::carry_out(pruned, || assert!(old.iter().all(|path| path.exists())));
        assert!(!old.iter().any(|path| path.exists()));
        assert!(kept.iter().all(|path| path.exists()));
    }
}
