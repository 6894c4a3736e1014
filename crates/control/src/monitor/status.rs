//! The site's current status.

use crate::site::Site;
use gaiola_core::rollout::{self, AutoReplace, Facts};
use gaiola_model::Revision;
use gaiola_model::placement::{Desired, Placement, ReleaseNumber};
use gaiola_model::status::{Generation, ReleaseStatus, SCHEMA, Status};
use gaiola_store::view::{Silence, View};
use std::rc::Rc;

/// Updates `facts` from `view`.
pub fn see(
    site: &Site,
    view: &View,
    facts: &mut Facts,
) -> Option<(Rc<Desired>, Revision, Rc<Placement>)> {
    let (_, desired) = view.desired.clone()?;
    let (at, placement) = view.placement.clone()?;
    let observed = view
        .observed
        .iter()
        .filter(|(server, (reported, _))| {
            site.provider
                .outdated(**server)
                .is_none_or(|outdated| *reported > outdated)
        })
        .map(|(server, (_, observed))| (*server, (**observed).clone()))
        .collect();
    facts.over.clone_from(&view.over);
    facts.provider_reads = view.provider_reads;
    facts.wall = gaiola_agent::clock::now();
    facts.observe(site.now(), &placement, at, observed);
    facts.store_members = placement.store.iter().copied().collect();
    Some((desired, at, placement))
}

/// Updates the facts regularly, so that a server that vanishes between two requests is known to have existed.
pub fn poll(site: &Site) {
    let view = site.view.borrow().clone();
    see(site, &view, &mut site.facts.borrow_mut());
}

/// The site's current status.
pub fn status(site: &Site) -> Status {
    site.watch();
    let view = site.view.borrow().clone();
    let mut facts = site.facts.borrow_mut();
    let Some((desired, at, placement)) = see(site, &view, &mut facts) else {
        return unknown(site);
    };
    let mut status = gaiola_core::status::status(&desired, &placement, at, &facts);
    let replaced = auto_replace(site, &desired, (at, &placement), &facts);
    status.warnings.extend(replaced.in_words());
    if !view.is_current() {
        status.missing.push(match &view.silence {
            Some(Silence { since, why }) => {
                let seconds = since.elapsed().as_secs();
                format!("the store has not answered for {seconds} s: {why}")
            }
            None => "the store has not answered yet".into(),
        });
    }
    let now = site.now();
    gaiola_core::status::mark_silent(&mut status, &site.traffic.silent(now));
    gaiola_core::status::mark_off(&mut status, &site.provider.off());
    status.events = site.events.borrow().iter().cloned().collect();
    status
}

/// What becomes of a machine that is gone, as far as this process can see it.
pub(crate) fn auto_replace(
    site: &Site,
    desired: &Desired,
    (at, placement): (Revision, &Placement),
    facts: &Facts,
) -> AutoReplace {
    rollout::auto_replace(desired, placement, at, facts, &site.answering.borrow())
}

/// Nothing is known of the site but its name.
fn unknown(site: &Site) -> Status {
    Status {
        schema: SCHEMA,
        site: site.name.clone(),
        healthy: false,
        missing: vec!["nothing has been read from the store yet".into()],
        warnings: Vec::new(),
        may_fail: Vec::new(),
        waiting: Vec::new(),
        failed: None,
        generation: Generation {
            desired: 0,
            placed: 0,
            revision: Revision(0),
        },
        release: ReleaseStatus {
            desired: ReleaseNumber(0),
            released: None,
            running: Vec::new(),
        },
        servers: Vec::new(),
        crons: Vec::new(),
        vips: Vec::new(),
        primary: None,
        store: Vec::new(),
        doors: Vec::new(),
        aside: None,
        maintenance: None,
        documents: 0,
        events: Vec::new(),
    }
}
