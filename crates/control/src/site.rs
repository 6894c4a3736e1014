//! The known state of a site: its documents in the store, its events, and what its processes
//! count. And who has power over its servers.

use crate::api::SiteInfo;
use crate::provider::Provider;
use crate::traffic::Traffic;
use gaiola_agent::state::{Order, State};
use gaiola_core::rollout::Facts;
use gaiola_model::event::Event;
use gaiola_model::inventory::Host;
use gaiola_model::placement::{Placement, Revision};
use gaiola_model::{SiteName, Time};
use gaiola_net::pki::PkiError;
use gaiola_store::events::Events;
use gaiola_store::view::{self, Keys, View};
use gaiola_store::{Store, etcd};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Events that are kept in memory.
const EVENTS: usize = 40;
/// How long the site's processes are polled after somebody has asked, where every machine has a process that could poll them.
const WATCHED: Duration = Duration::from_secs(30);

/// A site. All that use it run on one thread.
pub struct Site {
    /// Its name.
    pub name: SiteName,
    /// Where it is reached, as its process was started.
    info: SiteInfo,
    /// Its state directory.
    pub state: State,
    /// Who has power over its servers.
    pub provider: Provider,
    /// The newest placement that is known; the provider follows it.
    pub order: watch::Sender<Option<Rc<Order>>>,
    /// What the store holds.
    pub view: watch::Sender<View>,
    /// The store, as soon as it is known where it is.
    pub store: RefCell<Option<Store>>,
    /// What was seen so far, and since when.
    pub facts: RefCell<Facts>,
    /// Machines that answered when it was last asked whether one that is gone may be replaced.
    pub answering: RefCell<BTreeSet<Host>>,
    /// The last events, the newest last.
    pub events: RefCell<VecDeque<Event>>,
    /// What proxies and agents count.
    pub traffic: Traffic,
    /// Held while a change is in progress.
    pub change: tokio::sync::Mutex<()>,
    /// Held while old releases are removed, beside everything else.
    pub pruning: tokio::sync::Mutex<()>,
    /// Held while a release or certificates are sent.
    pub receiving: tokio::sync::Mutex<()>,
    /// Figures are polled until then.
    watched_until: Cell<Option<Instant>>,
    /// Somebody asks for figures that were not polled.
    watched: Notify,
    started: Instant,
}

impl Site {
    /// A site of which nothing is known but this. The provider follows the same `order`, and reads the same `view`.
    pub fn new(
        info: SiteInfo,
        state: State,
        provider: Provider,
        order: watch::Sender<Option<Rc<Order>>>,
        view: watch::Sender<View>,
    ) -> Self {
        Self {
            name: info.site.clone(),
            info,
            state,
            provider,
            order,
            view,
            store: RefCell::default(),
            facts: RefCell::default(),
            answering: RefCell::default(),
            events: RefCell::default(),
            traffic: Traffic::default(),
            change: tokio::sync::Mutex::new(()),
            pruning: tokio::sync::Mutex::new(()),
            receiving: tokio::sync::Mutex::new(()),
            watched_until: Cell::new(None),
            watched: Notify::new(),
            started: Instant::now(),
        }
    }

    /// Where the site is reached.
    pub fn info(&self) -> SiteInfo {
        SiteInfo {
            entry: self.provider.entry().unwrap_or(self.info.entry),
            ..self.info.clone()
        }
    }

    /// Somebody looks at the site: its processes are polled for a while.
    pub fn watch(&self) {
        let until = Instant::now() + WATCHED;
        if self.watched_until.replace(Some(until)).is_none() {
            self.watched.notify_waiters();
        }
    }

    /// Whether the site's processes are to be polled now.
    pub(crate) fn is_watched(&self) -> bool {
        let until = self.watched_until.get();
        !self.provider.polls_on_request() || until.is_some_and(|until| Instant::now() < until)
    }

    /// Waits until somebody looks at the site again. What was known of its processes is forgotten: it would pass for their silence.
    pub(crate) async fn until_watched(&self) {
        if self.is_watched() {
            return;
        }
        self.watched_until.set(None);
        self.traffic.forget_answers();
        self.watched.notified().await;
    }

    /// The time since this was made.
    pub fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }

    /// Takes a new order: the provider and the copy on disk follow it.
    pub fn take_order(&self, order: Order) {
        if self
            .order
            .borrow()
            .as_ref()
            .is_some_and(|held| !held.yields_to(&order))
        {
            return;
        }
        self.put_order(order);
    }

    /// As [`take_order`](Self::take_order), whatever was held before.
    pub fn put_order(&self, order: Order) {
        let text = self.view.borrow().placement_text(order.revision);
        if let Err(error) = order.save(&self.state.placement(), text.as_deref()) {
            let path = self.state.placement();
            tracing::error!(path = %path.display(), %error, "cannot save the placement");
        }
        self.order.send_replace(Some(Rc::new(order)));
    }

    /// Finds the store by the order that is known, and follows it from then on.
    pub async fn follow_store(
        self: Rc<Self>,
        open: impl FnOnce(&Placement) -> Result<Store, PkiError>,
    ) {
        let mut orders = self.order.subscribe();
        let known = orders.wait_for(Option::is_some).await;
        let Ok(Some(order)) = known.map(|order| order.clone()) else {
            return;
        };
        let store = match open(&order.placement) {
            Ok(store) => store,
            Err(error) => {
                let error = gaiola_os::chain(&error);
                tracing::error!(
                    error,
                    "cannot open the store: the provider has no certificate"
                );
                return;
            }
        };
        store.set_schema(order.placement.schema);
        *self.store.borrow_mut() = Some(store.clone());
        let events = Events::new(store.clone(), &self.name);
        tokio::task::spawn_local(Rc::clone(&self).follow_events(events));
        let (keys, view) = (Keys::of(&self.name), self.view.clone());
        tokio::task::spawn_local(view::follow(store.clone(), keys, view));
        let mut views = self.view.subscribe();
        loop {
            let seen = views.borrow_and_update().placement.clone();
            if let Some((revision, placement)) = seen {
                self.take_order(Order {
                    revision,
                    placement: (*placement).clone(),
                });
            }
            if let Some(order) = &*self.order.borrow() {
                store.set_schema(order.placement.schema);
                store.set_endpoints(etcd::endpoints(&order.placement));
            }
            // A machine may know an order before the store that it is in is found again.
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                changed = orders.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Keeps the last events in memory: showing them asks nobody.
    async fn follow_events(self: Rc<Self>, events: Events) {
        loop {
            let Ok(last) = events.last(EVENTS).await else {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let after = last.last().map_or(Revision(0), |logged| logged.revision);
            self.events
                .replace(last.into_iter().map(|logged| logged.event).collect());
            let mut following = events.follow(after);
            while let Ok(logged) = following.next().await {
                let mut held = self.events.borrow_mut();
                held.push_back(logged.event);
                let surplus = held.len().saturating_sub(EVENTS);
                held.drain(..surplus);
            }
        }
    }
}
