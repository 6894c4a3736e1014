//! Changes: writes the desired state to the store, and follows it until it is observed.

mod aside;
mod deploys;
mod first;
mod follow;
mod maintenance;
mod plan;
mod release;
mod replace;
mod secrets;

pub use deploys::known as releases;
pub use plan::plan;
pub use release::has_release;
pub(crate) use release::prune_releases;
pub use secrets::{check_secret, list as secrets};

use crate::api::steps::Steps;
use crate::api::{Change, ChangeRequest, Digest, NewSecrets, Outcome, Progress, refused};
use crate::monitor::status::see;
use crate::provider::Parcel;
use crate::site::Site;
use first::{found, is_new};
use follow::follow;
use gaiola_core::merge::{self, Scale};
use gaiola_core::rollout;
use gaiola_model::inventory::Host;
use gaiola_model::placement::{Desired, Placement, Revision};
use gaiola_model::{Config, Exit, Inventory, ServerName, Tier};
use gaiola_store::view::Keys;
use gaiola_store::{Expected, Store, StoreError};
use http_body_util::channel::Channel;
use release::{has_certificates, make_release, spread};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long a change waits for the store.
const STORE_LIMIT: Duration = Duration::from_secs(30);

/// Carries out a change and reports its steps. A second concurrent change is refused, but for maintenance.
pub async fn carry_out(site: &Rc<Site>, asked: ChangeRequest, steps: &mut Steps) -> Outcome {
    let is_maintenance = matches!(asked.change, Change::Maintenance(_));
    let held = site.change.try_lock();
    if held.is_err() && !is_maintenance {
        return refused(
            Exit::ChangeUnderWay,
            "another change is in progress; wait for it, or see: gaiola status",
        );
    }
    let deadline = Instant::now() + Duration::from_millis(asked.timeout_ms);
    let began = Instant::now();
    let (since, deploys, deployed) = match begin(site, asked, deadline, steps).await {
        Ok((since, ..)) if is_maintenance => {
            return maintenance::follow(site, since, deadline).await;
        }
        Ok(begun) => begun,
        Err(outcome) => return outcome,
    };
    let followed = follow(site, since, deploys, deadline, steps).await;
    if let Some(generation) = deployed {
        deploys::ended(site, generation, began.elapsed(), &followed).await;
    }
    followed.outcome
}

/// As `gaiola replace`, without an operator. It writes what is desired then and does not follow it, so that operators can change the site
/// meanwhile. `decided_on`: the desired state that this was decided on.
pub(crate) async fn replace_unattended(
    site: &Rc<Site>,
    (gone, onto): (&Host, &Host),
    decided_on: Revision,
) -> Result<(), Outcome> {
    let Ok(_held) = site.change.try_lock() else {
        return Err(refused(
            Exit::ChangeUnderWay,
            "another change is in progress",
        ));
    };
    // Nobody reads the steps: the event log has what is done.
    let (sender, _) = Channel::new(1);
    let mut work = Work {
        site,
        deadline: Instant::now() + STORE_LIMIT,
        steps: &mut Steps::new(sender),
        by: String::new(),
        deploys: false,
        deployed: None,
    };
    let (_, at, _) = work.desired().await?;
    if at != decided_on {
        let why = "the site was changed meanwhile";
        return Err(refused(Exit::ChangeUnderWay, why));
    }
    let written = replace::replace(&mut work, &gone.0, Some(&onto.0), false).await;
    written.map(drop)
}

/// The site as `up` has it.
struct Local<'a> {
    config: Config,
    /// The digest of its directory's contents.
    contents: &'a Digest,
    /// Machines that were replaced and have been emptied since.
    emptied: &'a [String],
    /// Secrets that were set before the site was up.
    secrets: NewSecrets,
}

/// The context of a change.
struct Work<'a> {
    site: &'a Rc<Site>,
    deadline: Instant,
    steps: &'a mut Steps,
    /// Who asked for it.
    by: String,
    /// Whether instances are given something new that they may not come up with.
    deploys: bool,
    /// The generation of a change that puts out another release.
    deployed: Option<u64>,
}

/// Writes the desired state, and returns the revision of that write, whether a release or what it runs with is new, and the generation if it puts
/// out another release.
async fn begin(
    site: &Rc<Site>,
    asked: ChangeRequest,
    deadline: Instant,
    steps: &mut Steps,
) -> Result<(Revision, bool, Option<u64>), Outcome> {
    let mut work = Work {
        site,
        deadline,
        steps,
        by: asked.by,
        deploys: matches!(asked.change, Change::Apply { .. } | Change::Rollback { .. }),
        deployed: None,
    };
    let written = match asked.change {
        Change::Apply {
            config,
            release,
            yes,
            emptied,
            secrets,
        } => {
            let local = Local {
                config: *config,
                contents: &release,
                emptied: &emptied,
                secrets,
            };
            work.apply(local, yes).await
        }
        Change::SetSecrets(new) => work.set_secrets(new).await,
        Change::UnsetSecret(name) => work.unset_secret(&name).await,
        Change::Replace { what, onto, yes } => {
            replace::replace(&mut work, &what, onto.as_deref(), yes).await
        }
        Change::Scale { to, yes } => work.scale(&to, yes).await,
        Change::Drain(server) => work.set_drained(server, true).await,
        Change::Undrain(server) => work.set_drained(server, false).await,
        Change::Restart(what) => work.restart(&what).await,
        Change::SetAside(aside) => work.set_aside(aside).await,
        Change::TakeBack => work.take_back().await,
        Change::Maintenance(set) => work.set_maintenance(set).await,
        Change::Rollback { to, yes } => work.roll_back(to, yes).await,
    };
    Ok((written?, work.deploys, work.deployed))
}

impl Work<'_> {
    /// The current desired state, once the store has reported it.
    async fn desired(&mut self) -> Result<(Store, Revision, Desired), Outcome> {
        desired(self.site, self.deadline, self.steps).await
    }

    async fn apply(&mut self, local: Local<'_>, yes: bool) -> Result<Revision, Outcome> {
        let site = self.site;
        site.provider.retry();
        has_certificates(site, &local.config)?;
        if is_new(site, self.deadline).await? {
            self.deployed = Some(1);
            return found(site, local, self.by.clone(), self.deadline, self.steps).await;
        }
        let Local {
            config,
            contents,
            emptied,
            secrets,
        } = local;
        let (store, at, held) = self.desired().await?;
        let wanted = merge::merge(
            &held.applied,
            &merge::readmit(&held.config, emptied),
            &config,
            placed(site).as_deref(),
        );
        refuse(&held.config, &wanted, yes)?;
        refuse_lost(&wanted)?;
        let inventory = inventory(site, &wanted, &held)?;
        let last = Some(held.release.clone());
        let highest = deploys::highest(&held);
        let release = make_release(site, &config, contents, (last, highest), self.steps).await?;
        // They may have been removed while the release was being numbered.
        has_certificates(site, &config)?;
        let mut new = Desired {
            applied: config,
            inventory,
            config: wanted,
            release,
            attempt: attempt(site, &held),
            secrets: secrets::with(site, &held.secrets, secrets).await?,
            ..held.clone()
        };
        secrets::refuse_missing(&new.config, &new.secrets)?;
        refuse_all_drained(&new.config, &new.drained)?;
        if new == held {
            step(self.steps, "nothing to change".into()).await;
            return Ok(at);
        }
        let parcel = Parcel {
            config: &new.config,
            inventory: &new.inventory,
            release: &new.release,
        };
        spread(site, parcel, self.steps).await;
        if new.release != held.release {
            self.deployed = Some(deploys::remember(&mut new, &held, &self.by));
        }
        store_desired(site, &store, at, new).await
    }

    async fn scale(&mut self, to: &[String], yes: bool) -> Result<Revision, Outcome> {
        let (store, at, held) = self.desired().await?;
        let mut config = held.config.clone();
        let placed = placed(self.site);
        for text in to {
            let scale: Result<Scale, merge::ScaleError> = text.parse();
            let scaled = scale.and_then(|to| merge::scale(&config, &to, placed.as_deref()));
            config = scaled.map_err(|error| refused(Exit::Usage, error.to_string()))?;
        }
        refuse(&held.config, &config, yes)?;
        if config == held.config {
            step(self.steps, "nothing to change".into()).await;
            return Ok(at);
        }
        let kept: BTreeSet<ServerName> = config.server_names().collect();
        let drained = held.drained.intersection(&kept).copied().collect();
        refuse_all_drained(&config, &drained)?;
        let new = Desired {
            config,
            drained,
            ..held
        };
        store_desired(self.site, &store, at, new).await
    }

    async fn restart(&mut self, what: &str) -> Result<Revision, Outcome> {
        let (store, at, held) = self.desired().await?;
        let servers = to_restart(what, &held.config);
        let mut new = held;
        for server in servers.map_err(|why| refused(Exit::Usage, why.to_string()))? {
            *new.restarts.entry(server).or_default() += 1;
        }
        store_desired(self.site, &store, at, new).await
    }

    async fn set_drained(
        &mut self,
        server: ServerName,
        drained: bool,
    ) -> Result<Revision, Outcome> {
        let (store, at, held) = self.desired().await?;
        if !held.config.server_names().any(|name| name == server) {
            return Err(refused(Exit::Usage, no_server(server)));
        }
        if drained && !held.drained.contains(&server) {
            may_drain(self.site, server)?;
        }
        let mut new = held;
        let changed = if drained {
            new.drained.insert(server)
        } else {
            aside::forget(&mut new.aside, server) | new.drained.remove(&server)
        };
        if changed {
            store_desired(self.site, &store, at, new).await
        } else {
            step(self.steps, "nothing to change".into()).await;
            Ok(at)
        }
    }
}

/// Why `restart` is refused.
#[derive(Debug, thiserror::Error)]
enum RestartError {
    #[error("{0:?} is neither `app` nor a server; see which there are with: gaiola status")]
    Unknown(String),
    #[error("{}", no_server(*.0))]
    Absent(ServerName),
    #[error(
        "{0} has no instances of the site's: `restart` takes `app`, or an application server such as app1"
    )]
    OtherTier(ServerName),
}

/// The application servers that `restart` names.
fn to_restart(what: &str, config: &Config) -> Result<Vec<ServerName>, RestartError> {
    let apps = config.server_names();
    let mut apps = apps.filter(|server| server.tier == Tier::App);
    if what == Tier::App.section() {
        return Ok(apps.collect());
    }
    let server: ServerName = (what.parse()).map_err(|_| RestartError::Unknown(what.into()))?;
    match server.tier {
        Tier::App if apps.any(|app| app == server) => Ok(vec![server]),
        Tier::App => Err(RestartError::Absent(server)),
        _ => Err(RestartError::OtherTier(server)),
    }
}

fn no_server(server: ServerName) -> String {
    format!("there is no server {server}; see which there are with: gaiola status")
}

/// The attempt at what is put out now: what was given up gets another one.
fn attempt(site: &Site, held: &Desired) -> u64 {
    let order = site.order.borrow();
    let failed = order
        .as_ref()
        .is_some_and(|order| order.placement.failed.is_some());
    held.attempt + u64::from(failed)
}

/// The placement, as far as it is known.
fn placed(site: &Site) -> Option<Rc<Placement>> {
    let view = site.view.borrow();
    view.placement.as_ref().map(|(_, placed)| Rc::clone(placed))
}

/// Where the servers of `config` will stand, where `held` is desired so far.
fn inventory(site: &Site, config: &Config, held: &Desired) -> Result<Inventory, Outcome> {
    let held = standing(&held.inventory, placed(site).as_deref());
    let inventory = site.provider.inventory(config, Some(&held));
    inventory.map_err(|error| refused(Exit::Failed, error.to_string()))
}

/// Where servers stand and should stand: those that are leaving still have their ports.
fn standing(desired: &Inventory, placed: Option<&Placement>) -> Inventory {
    let mut standing = desired.clone();
    let servers = placed.into_iter().flat_map(|placed| &placed.servers);
    let servers = servers.map(|(name, placed)| (*name, placed.location.clone()));
    standing.servers.extend(servers);
    standing
}

/// Refuses to drain all servers of a tier, which would never become ready.
fn refuse_all_drained(config: &Config, drained: &BTreeSet<ServerName>) -> Result<(), Outcome> {
    match rollout::all_drained(config, drained) {
        None => Ok(()),
        Some(tier) => Err(refused(
            Exit::Failed,
            format!(
                "all remaining {tier} servers would be drained; return one to traffic first: gaiola undrain"
            ),
        )),
    }
}

async fn store(site: &Site) -> Result<Store, Outcome> {
    site.store
        .borrow()
        .clone()
        .ok_or_else(|| refused(Exit::Failed, "the store is not connected yet"))
}

/// The current desired state, once the store has answered.
async fn desired(
    site: &Rc<Site>,
    deadline: Instant,
    steps: &mut Steps,
) -> Result<(Store, Revision, Desired), Outcome> {
    let mut views = site.view.subscribe();
    if !views.borrow().is_current() {
        step(steps, "waiting for the store".into()).await;
    }
    found_store(site, deadline, STORE_LIMIT).await?;
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
                "the site's first `up` did not reach the store; run `gaiola down` and try again",
            )),
            Err(error) => Err(refused(
                Exit::Failed,
                format!(
                    "cannot read the desired state: {}",
                    gaiola_os::chain(&error)
                ),
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
    let mut new = Desired {
        generation: new.generation + 1,
        inventory: inventory(site, &new.config, &new)?,
        ..new
    };
    aside::without_removed(&mut new);
    tracing::Span::current().record("generation", new.generation);
    let key = Keys::of(&site.name).desired();
    let mut at = at;
    loop {
        let error = match store.put_json_if(&key, Expected::At(at), &new, None).await {
            Ok(revision) => return Ok(revision),
            Err(error) => error,
        };
        if !matches!(error, StoreError::CompareAndSwap { .. }) {
            let why = gaiola_os::chain(&error);
            let why = format!("cannot write the desired state: {why}");
            return Err(refused(Exit::Failed, why));
        }
        // Maintenance and the ends of releases alone leave the generation as it is: they are kept, and nothing else came in between.
        let stored = store.get_json::<Desired>(&key).await.ok().flatten();
        match stored.filter(|stored| stored.value.generation + 1 == new.generation) {
            Some(stored) if stored.modified > at => {
                at = stored.modified;
                new.maintenance = stored.value.maintenance;
                deploys::keep_ends(&mut new.deploys, stored.value.deploys);
            }
            _ => {
                return Err(refused(
                    Exit::ChangeUnderWay,
                    "another change came first; see `gaiola status` and try again",
                ));
            }
        }
    }
}

/// Refuses at once what the conductor would never do, instead of waiting for it.
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

/// A machine that gave its place away still has what it had: it is emptied before it gets a server again.
fn refuse_lost(wanted: &Config) -> Result<(), Outcome> {
    let Some((server, machine)) = merge::on_lost_machine(wanted) else {
        return Ok(());
    };
    let ssh = &machine.ssh;
    let why = format!(
        "{server} cannot stand on {ssh}, which was replaced: switch {ssh} on, so that `gaiola up` can empty it, or name the machine that took its place (gaiola status)"
    );
    Err(refused(Exit::Failed, why))
}

async fn step(steps: &mut Steps, text: String) {
    // If the client has disconnected, the change continues.
    let _ = steps.say(Progress::Step(text)).await;
}

/// Waits until the store answers.
async fn found_store(site: &Site, deadline: Instant, limit: Duration) -> Result<(), Outcome> {
    let until = deadline.min(Instant::now() + limit);
    loop {
        let known = site.store.borrow().clone();
        let answer = match known {
            Some(store) => store
                .revision()
                .await
                .map_err(|error| gaiola_os::chain(&error)),
            None => Err("its servers are off".into()),
        };
        match answer {
            Ok(_) => return Ok(()),
            Err(why) if Instant::now() >= until => {
                let (exit, why) = (
                    if until == deadline {
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
                        "the store does not answer: {why}; for etcd's log run: gaiola logs --all"
                    ),
                ));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
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

/// Why the store does not start, as far as its servers show it.
fn store_trouble(site: &Site) -> Option<String> {
    let order = site.order.borrow().clone()?;
    site.provider.store_trouble(&order.placement)
}
