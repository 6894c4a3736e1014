//! A spare machine takes the place of one that is gone, where the file says `replace = "auto"`. The process beside the conductor does it.
//!
//! Each machine's process counts how long another machine has been gone from what it reads of the store itself. When another server becomes
//! the conductor, the process of its machine goes on with its own count, which began no earlier than that process.

use crate::api::Outcome;
use crate::change;
use crate::monitor::status::{auto_replace, see};
use crate::provider::machine::Machine;
use crate::site::Site;
use gaiola_core::rollout::{self, AutoReplace};
use gaiola_model::ServerName;
use gaiola_model::event::{Severity, Subject};
use gaiola_model::inventory::Host;
use gaiola_model::placement::{Placement, Revision};
use gaiola_store::events::Events;
use gaiola_store::view::View;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Between two decisions.
const EVERY: Duration = Duration::from_secs(5);
/// Before a replacement that was refused is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Decides, without end.
pub(super) async fn run(machine: Rc<Machine>, site: Rc<Site>) {
    // Why nothing is done, as it was reported last.
    let mut reported: Option<String> = None;
    loop {
        sleep(EVERY).await;
        ask(&machine, &site).await;
        let Some((decided_on, found)) = decide(&machine, &site) else {
            reported = None;
            continue;
        };
        let words = found.in_words().unwrap_or_default();
        match found {
            AutoReplace::Due { gone, onto, .. } => {
                match change::replace_unattended(&site, (&gone, &onto), decided_on).await {
                    Ok(()) => log(&site, Severity::Warning, "machine.replaced", words).await,
                    Err(why) => {
                        report(&site, refused(&gone, &onto, &why), &mut reported).await;
                        sleep(AGAIN).await;
                    }
                }
            }
            AutoReplace::Kept { silent, after, .. } if silent >= after => {
                report(&site, words, &mut reported).await;
            }
            AutoReplace::Nothing
            | AutoReplace::Waits { .. }
            | AutoReplace::UnderWay { .. }
            | AutoReplace::Kept { .. } => reported = None,
        }
    }
}

/// Asks the machines on which a replacement depends whether they answer.
pub(super) async fn ask(machine: &Rc<Machine>, site: &Site) {
    let mut questions = JoinSet::new();
    for host in to_ask(site) {
        let machine = Rc::clone(machine);
        questions.spawn_local(async move { machine.answers(&host).await.then_some(host) });
    }
    let mut answering = BTreeSet::new();
    while let Some(answer) = questions.join_next().await {
        answering.extend(answer.ok().flatten());
    }
    site.answering.replace(answering);
}

fn to_ask(site: &Site) -> BTreeSet<Host> {
    let view = site.view.borrow().clone();
    let mut facts = site.facts.borrow_mut();
    let seen = see(site, &view, &mut facts);
    seen.map(|(desired, _, placement)| rollout::machines_to_ask(&desired, &placement, &facts))
        .unwrap_or_default()
}

/// What becomes of a machine that is gone, and the desired state that this holds for; `None`: it is not for this process to say.
pub(super) fn decide(machine: &Machine, site: &Site) -> Option<(Revision, AutoReplace)> {
    let view = site.view.borrow().clone();
    if !machine.power().is_up || !view.is_current() {
        return None;
    }
    let mut facts = site.facts.borrow_mut();
    let (desired, at, placement) = see(site, &view, &mut facts)?;
    let (decided_on, _) = view.desired.as_ref()?;
    is_beside_conductor(&machine.host(), &view, &placement).then(|| {
        (
            *decided_on,
            auto_replace(site, &desired, (at, &placement), &facts),
        )
    })
}

fn is_beside_conductor(host: &Host, view: &View, placement: &Placement) -> bool {
    let conductor = view.conductor.as_deref();
    let conductor = conductor.and_then(|name| name.parse::<ServerName>().ok());
    let placed = conductor.and_then(|server| placement.servers.get(&server));
    placed.is_some_and(|placed| placed.location.host == *host)
}

fn refused(gone: &Host, onto: &Host, why: &Outcome) -> String {
    let why = &why.message;
    format!("{onto} was to take the place of {gone}, which was refused: {why}")
}

/// Logs it unless that is what was logged last.
async fn report(site: &Site, text: String, reported: &mut Option<String>) {
    if reported.as_ref() != Some(&text) {
        *reported = Some(text.clone());
        log(site, Severity::Warning, "machine.not_replaced", text).await;
    }
}

async fn log(site: &Site, severity: Severity, kind: &str, text: String) {
    tracing::warn!(kind, "{text}");
    let store = site.store.borrow().clone();
    let Some(store) = store else { return };
    let events = Events::new(store, &site.name);
    if let Err(error) = events.log(Subject::Site, severity, kind, text).await {
        let error = gaiola_os::chain(&error);
        tracing::error!(error, "cannot store an event");
    }
}
