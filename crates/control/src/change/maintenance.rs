//! Maintenance: balancers refuse clients. It waits for no other change, and no other change fails by it.

use super::{Work, refused, step};
use crate::api::{NewMaintenance, Outcome};
use crate::monitor::status::status;
use crate::site::Site;
use gaiola_core::topology;
use gaiola_model::placement::{Desired, Maintenance, Placement, Revision};
use gaiola_model::{Exit, ServerName, Tier};
use gaiola_store::events;
use gaiola_store::view::{Keys, View};
use gaiola_store::{Expected, StoreError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Changes of others that may come in between.
const MOST_TRIES: usize = 20;
/// How long a balancer that does not answer is waited for once all others have followed.
const SILENT_LIMIT: Duration = Duration::from_secs(5);

/// Why it is not taken, whatever command line it comes from.
fn refusal(asked: &NewMaintenance) -> Option<String> {
    let page = asked.page.as_ref().map_or(0, |page| page.body.len());
    let (largest, networks) = (Maintenance::LARGEST_PAGE, asked.allow.len());
    if page > largest {
        Some(format!(
            "the page has {page} bytes; it has {largest} at most"
        ))
    } else if networks > Maintenance::MOST_NETWORKS {
        let most = Maintenance::MOST_NETWORKS;
        Some(format!("{networks} networks are allowed; {most} may be"))
    } else if !(1..=Maintenance::LONGEST_WAIT).contains(&asked.retry_after) {
        let most = Maintenance::LONGEST_WAIT;
        Some(format!(
            "clients may be asked to retry after 1 to {most} seconds"
        ))
    } else {
        None
    }
}

impl Work<'_> {
    /// Switches it on with these settings, or off, beside whatever else is desired by then.
    pub(super) async fn set_maintenance(
        &mut self,
        asked: Option<NewMaintenance>,
    ) -> Result<Revision, Outcome> {
        if let Some(why) = asked.as_ref().and_then(refusal) {
            return Err(refused(Exit::Usage, why));
        }
        let (store, ..) = self.desired().await?;
        let key = Keys::of(&self.site.name).desired();
        for _ in 0..MOST_TRIES {
            // The view may be older than the last `on` or `off`.
            let stored = store.get_json::<Desired>(&key).await;
            let stored = stored.map_err(|error| unwritten(&error))?;
            let gone = "the site's desired state is not in the store any more";
            let stored = stored.ok_or_else(|| refused(Exit::Failed, gone))?;
            let (at, held) = (stored.modified, stored.value);
            let maintenance = asked.clone().map(|asked| begun(asked, &held));
            if maintenance.is_some() && held.config.balancer.is_none() {
                let why = "the site has no balancers, which would refuse clients: add [balancer] to the file";
                return Err(refused(Exit::Failed, why));
            }
            if held.maintenance == maintenance {
                step(self.steps, "nothing to change".into()).await;
                return Ok(at);
            }
            let new = Desired {
                maintenance,
                ..held
            };
            match store.put_json_if(&key, Expected::At(at), &new, None).await {
                Err(StoreError::CompareAndSwap { .. }) => {}
                written => return written.map_err(|error| unwritten(&error)),
            }
        }
        let why = "other changes came first again and again; try again";
        Err(refused(Exit::ChangeUnderWay, why))
    }
}

fn unwritten(error: &StoreError) -> Outcome {
    let why = gaiola_os::chain(error);
    refused(
        Exit::Failed,
        format!("cannot change the desired state: {why}"),
    )
}

/// What is on already has been on since then.
fn begun(asked: NewMaintenance, held: &Desired) -> Maintenance {
    let held = held.maintenance.as_ref();
    Maintenance {
        since: held.map_or_else(events::now, |held| held.since.clone()),
        by: asked.by.chars().take(100).collect(),
        page: asked.page,
        allow: asked.allow,
        retry_after: asked.retry_after,
    }
}

/// Waits until every balancer has what is desired since this revision; one that is silent is named, and follows when it is back.
pub(super) async fn follow(site: &Site, since: Revision, deadline: Instant) -> Outcome {
    let mut views = site.view.subscribe();
    let mut first_at = None;
    let mut patience = None;
    loop {
        let view = views.borrow_and_update().clone();
        let mut until = deadline;
        if let Some((at, placement)) = placed(&view, since) {
            let behind = behind(&view, placement, *first_at.get_or_insert(at));
            if behind.is_empty() {
                return done(site, placement);
            }
            let patience = patience_with(&behind, &view, &mut patience);
            until = patience.map_or(deadline, |patience| patience.min(deadline));
            if Instant::now() >= until {
                return late(&behind, placement);
            }
        } else if Instant::now() >= deadline {
            let why = "no conductor has passed it on yet: see what is missing with gaiola status";
            return refused(Exit::Timeout, why);
        }
        let _ = timeout_at(until, views.changed()).await;
    }
}

/// The placement, if it has what is desired, and what is desired is seen.
fn placed(view: &View, since: Revision) -> Option<(Revision, &Placement)> {
    let (_, desired) = view.desired.as_ref().filter(|(at, _)| *at >= since)?;
    let (at, placement) = view.placement.as_ref()?;
    (placement.maintenance == desired.maintenance).then_some((*at, placement))
}

/// Until when these are waited for, if none of them reports at all.
fn patience_with(
    behind: &[ServerName],
    view: &View,
    patience: &mut Option<Instant>,
) -> Option<Instant> {
    let mut behind = behind.iter();
    if behind.any(|server| view.observed.contains_key(server)) {
        *patience = None;
    } else {
        patience.get_or_insert_with(|| Instant::now() + SILENT_LIMIT);
    }
    *patience
}

/// Balancers whose workers do not all have the configuration of this revision.
fn behind(view: &View, placement: &Placement, at: Revision) -> Vec<ServerName> {
    let has = |server: &ServerName| {
        let observed = view.observed.get(server);
        let proxy = observed.and_then(|(_, observed)| observed.proxy.as_ref());
        proxy.is_some_and(|proxy| proxy.revision >= at)
    };
    let balancers = topology::servers_of(placement, Tier::Balancer);
    balancers.filter(|server| !has(server)).collect()
}

fn names(servers: impl IntoIterator<Item = ServerName>) -> String {
    let names = servers.into_iter().map(|server| server.to_string());
    names.collect::<Vec<_>>().join(", ")
}

fn done(site: &Site, placement: &Placement) -> Outcome {
    let balancers = names(topology::servers_of(placement, Tier::Balancer));
    let message = match placement.maintenance.is_some() {
        true => {
            format!("maintenance is on: 503 from {balancers}; end it with: gaiola maintenance off")
        }
        false => format!("maintenance is off: {balancers} serve clients"),
    };
    Outcome {
        exit: Exit::Ok,
        message,
        status: Some(Box::new(status(site))),
    }
}

fn late(behind: &[ServerName], placement: &Placement) -> Outcome {
    let is_on = placement.maintenance.is_some();
    let state = if is_on { "on" } else { "off" };
    let behind = names(behind.iter().copied());
    let why = format!(
        "maintenance is {state}, but not confirmed by {behind}: a balancer that is silent follows as soon as it is reached"
    );
    refused(Exit::Degraded, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::proxy::InlinePage;

    fn asked() -> NewMaintenance {
        NewMaintenance {
            by: "ann@laptop".into(),
            page: None,
            allow: Vec::new(),
            retry_after: 60,
        }
    }

    #[test]
    fn what_documents_have_no_room_for_is_refused() {
        assert_eq!(refusal(&asked()), None);
        let page = |bytes: usize| NewMaintenance {
            page: Some(InlinePage {
                content_type: "text/html".into(),
                body: "x".repeat(bytes),
            }),
            ..asked()
        };
        assert_eq!(refusal(&page(65536)), None);
        let said = refusal(&page(65537)).unwrap();
        assert_eq!(said, "the page has 65537 bytes; it has 65536 at most");
        let allow = vec!["10.0.0.0/8".parse().unwrap(); 65];
        let said = refusal(&NewMaintenance { allow, ..asked() }).unwrap();
        assert_eq!(said, "65 networks are allowed; 64 may be");
        for retry_after in [0, 86_401] {
            let asked = NewMaintenance {
                retry_after,
                ..asked()
            };
            assert!(refusal(&asked).unwrap().contains("1 to 86400 seconds"));
        }
    }
}
