//! A spare machine takes the place of one that is gone, where the file says `replace = "auto"`.

use crate::api::steps::Steps;
use crate::api::{Change, ChangeRequest};
use crate::change;
use crate::monitor::status::see;
use crate::provider::machine::Machine;
use crate::site::Site;
use gaiola_core::rollout::{self, GONE};
use gaiola_model::event::{Severity, Subject};
use gaiola_model::inventory::Host;
use gaiola_store::events::Events;
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::sleep;

/// Between two looks, and between two attempts.
const EVERY: Duration = Duration::from_secs(15);
/// How long one is followed: a large database is cloned, and nothing else is begun meanwhile.
const LIMIT: Duration = Duration::from_secs(3600);
/// Steps that are not read yet.
const STEPS: usize = 16;

/// Looks, without end.
pub(super) async fn run(machine: Rc<Machine>, site: Rc<Site>) {
    loop {
        sleep(EVERY).await;
        let Some((gone, spare)) = due(&machine, &site) else {
            continue;
        };
        // The store may have lost sight of it, and the site too: whoever answers is not gone.
        if machine.answers(&gone).await {
            continue;
        }
        for onto in spare {
            if machine.answers(&onto).await {
                replace(&site, &gone, &onto).await;
                break;
            }
        }
    }
}

/// The machine that is gone, and the spare ones. One machine of the site decides: the first on which a server lives.
fn due(machine: &Machine, site: &Rc<Site>) -> Option<(Host, Vec<Host>)> {
    let view = site.view.borrow().clone();
    if !machine.power().is_up || !view.is_current() {
        return None;
    }
    let mut facts = site.facts.borrow_mut();
    let (desired, at, placement) = see(site, &view, &mut facts)?;
    let live = placement.servers.iter();
    let live = live.filter(|(name, _)| facts.observed.contains_key(name));
    let first = live.map(|(_, placed)| &placed.location.host).min()?;
    if *first != machine.host() {
        return None;
    }
    let gone = rollout::due(&desired, &placement, at, &facts)?;
    let machines = desired.config.machines.as_ref()?;
    let spare = machines
        .spare
        .iter()
        .map(gaiola_model::config::Machine::host);
    Some((gone, spare.collect()))
}

async fn replace(site: &Rc<Site>, gone: &Host, onto: &Host) {
    let minutes = GONE.as_secs() / 60;
    let text = format!("{gone} was gone for {minutes} minutes: {onto} takes its place");
    tracing::warn!("{text}");
    let store = site.store.borrow().clone();
    if let Some(store) = store {
        let told = Events::new(store, &site.name);
        let told = told.log(Subject::Site, Severity::Warning, "machine.replaced", text);
        if let Err(error) = told.await {
            let error = gaiola_os::chain(&error);
            tracing::error!(error, "cannot store an event");
        }
    }
    let asked = ChangeRequest {
        change: Change::Replace {
            what: gone.0.clone(),
            onto: Some(onto.0.clone()),
            yes: false,
        },
        timeout_ms: u64::try_from(LIMIT.as_millis()).unwrap_or(u64::MAX),
    };
    let (sender, mut body) = Channel::new(STEPS);
    // Nobody reads the steps: the events tell the same.
    let reading = spawn_local(async move { while body.frame().await.is_some() {} });
    let outcome = change::carry_out(site, asked, &mut Steps::new(sender)).await;
    reading.abort();
    let (exit, message) = (outcome.exit, outcome.message);
    tracing::warn!(%gone, %onto, ?exit, message, "the replacement of a machine ended");
}
