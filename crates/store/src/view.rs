//! The site's documents in the store, mirrored in memory and kept up to date by a watch.

use crate::{Change, Item, Store, StoreError, Update};
use gaiola_model::placement::{
    BootNumber, Desired, Observed, ObservedProvider, Placement, Revision,
};
use gaiola_model::proxy::SharedTickets;
use gaiola_model::{ServerName, SiteName};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The keys of one site.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The site.
    pub site: SiteName,
    prefix: String,
}

impl Keys {
    /// The keys of `site`.
    pub fn of(site: &SiteName) -> Self {
        Self {
            site: site.clone(),
            prefix: format!("/gaiola/{site}/site/"),
        }
    }

    /// Common prefix of all keys.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of [`Desired`].
    pub fn desired(&self) -> String {
        format!("{}desired", self.prefix)
    }

    /// The key of [`Placement`].
    pub fn placement(&self) -> String {
        format!("{}placement", self.prefix)
    }

    /// The key of one server's [`Observed`].
    pub fn observed(&self, server: ServerName) -> String {
        format!("{}observed/{server}", self.prefix)
    }

    /// The key of a server's last boot that is over: written by the process that powers it.
    pub fn over(&self, server: ServerName) -> String {
        format!("{}over/{server}", self.prefix)
    }

    /// The key of [`ObservedProvider`].
    pub fn provider(&self) -> String {
        format!("{}provider", self.prefix)
    }

    /// The key of [`SharedTickets`].
    pub fn tickets(&self) -> String {
        format!("{}tickets", self.prefix)
    }

    /// The key that the conductor acquires.
    pub fn conductor(&self) -> String {
        format!("{}conductor", self.prefix)
    }
}

/// The store's content when it last answered.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The operator's desired state, and its last change.
    pub desired: Option<(Revision, Rc<Desired>)>,
    /// The conductor's decision, and its last change.
    pub placement: Option<(Revision, Rc<Placement>)>,
    /// The placement's text, with what newer programs have added to it.
    pub placement_text: Option<Rc<[u8]>>,
    /// The agents' reports, and the revision of each; servers whose agent holds no lease are missing.
    pub observed: BTreeMap<ServerName, (Revision, Rc<Observed>)>,
    /// The last boot of each server that is over.
    pub over: BTreeMap<ServerName, BootNumber>,
    /// The newest schema that the provider of the servers reads; `None`: it has not reported.
    pub provider_reads: Option<u64>,
    /// The keys of session tickets.
    pub tickets: Option<(Revision, Rc<SharedTickets>)>,
    /// The conductor's name.
    pub conductor: Option<String>,
    /// Why documents cannot be read, by key, such as those that a newer program wrote; the ones before them hold.
    pub unreadable: BTreeMap<String, String>,
    /// The store's lifetime.
    pub incarnation: String,
    /// `None` while the store answers.
    pub silence: Option<Silence>,
}

/// A store that does not answer.
#[derive(Clone, Debug)]
pub struct Silence {
    /// Since when.
    pub since: Instant,
    /// Why the last request failed, in words.
    pub why: String,
}

impl View {
    /// The text of the placement of this revision, with what newer programs have added to it.
    pub fn placement_text(&self, at: Revision) -> Option<Rc<[u8]>> {
        let (of, _) = self.placement.as_ref()?;
        self.placement_text.clone().filter(|_| *of == at)
    }

    /// Whether this is the store's current content.
    pub fn is_current(&self) -> bool {
        self.silence.is_none() && !self.incarnation.is_empty()
    }
}

/// Interval between two attempts to follow a store that is gone.
const RETRY: Duration = Duration::from_secs(1);
/// Interval between two checks that the store answers.
const ASK: Duration = Duration::from_secs(2);

/// Mirrors the store until `sender` has no reader left. While the store does not answer, or is another one than before,
/// the last view stays: a lost store is never an empty site.
pub async fn follow(store: Store, keys: Keys, sender: watch::Sender<View>) {
    let asking = tokio::task::spawn_local(ask(store.clone(), sender.clone()));
    while !sender.is_closed() {
        let Err(error) = mirror(&store, &keys, &sender).await else {
            break;
        };
        silent(&sender, &error);
        tokio::time::sleep(RETRY).await;
    }
    asking.abort();
}

async fn mirror(
    store: &Store,
    keys: &Keys,
    sender: &watch::Sender<View>,
) -> Result<(), StoreError> {
    let mut watch = store.follow(keys.prefix());
    loop {
        tokio::select! {
            update = watch.next() => match update? {
                Update::Snapshot(listing) => {
                    let incarnation = store.known().map(|known| known.incarnation());
                    let view = snapshot(&sender.borrow(), keys, &listing.items);
                    sender.send_replace(View {
                        incarnation: incarnation.unwrap_or_default(),
                        ..view
                    });
                }
                Update::Changed(changes) => sender.send_modify(|view| {
                    for change in &changes {
                        match change {
                            Change::Put(item) => take(view, keys, &item.key, Some(item)),
                            Change::Deleted { key, .. } => take(view, keys, key, None),
                        }
                    }
                }),
            },
            () = sender.closed() => return Ok(()),
        }
    }
}

/// The view that all items of the store make. A document that cannot be parsed leaves the one that was known before: it is no
/// empty site.
fn snapshot(before: &View, keys: &Keys, items: &[Item]) -> View {
    let is_there = |key: &str| items.iter().any(|item| item.key == key);
    let mut view = View {
        desired: before.desired.clone().filter(|_| is_there(&keys.desired())),
        placement: (before.placement.clone()).filter(|_| is_there(&keys.placement())),
        placement_text: (before.placement_text.clone()).filter(|_| is_there(&keys.placement())),
        ..View::default()
    };
    for item in items {
        take(&mut view, keys, &item.key, Some(item));
    }
    view
}

/// A watch is silent both when nothing happens and when the store is down, so the store is polled.
async fn ask(store: Store, sender: watch::Sender<View>) {
    loop {
        tokio::time::sleep(ASK).await;
        match store.revision().await {
            Err(error) => silent(&sender, &error),
            Ok(_) => {
                sender.send_if_modified(|view| view.silence.take().is_some());
            }
        }
    }
}

fn silent(sender: &watch::Sender<View>, error: &StoreError) {
    sender.send_if_modified(|view| {
        let before = view.silence.take();
        let is_new = before.is_none();
        let since = before.map_or_else(Instant::now, |silence| silence.since);
        let why = gaiola_os::chain(error);
        view.silence = Some(Silence { since, why });
        is_new
    });
}

/// Updates one key in the view; `None`: it was deleted.
fn take(view: &mut View, keys: &Keys, key: &str, item: Option<&Item>) {
    let Some(name) = key.strip_prefix(keys.prefix()) else {
        return;
    };
    if item.is_none() {
        view.unreadable.remove(key);
    }
    match name {
        "desired" => {
            view.desired = item
                .and_then(|item| parse(item, &mut view.unreadable))
                .or(view.desired.take())
        }
        "placement" => {
            let parsed = item.and_then(|item| parse(item, &mut view.unreadable));
            if let (Some(item), Some(_)) = (item, &parsed) {
                view.placement_text = Some(item.value.as_slice().into());
            }
            view.placement = parsed.or(view.placement.take());
        }
        "tickets" => view.tickets = item.and_then(|item| parse(item, &mut view.unreadable)),
        "provider" => {
            let parsed = item.and_then(|item| parse(item, &mut view.unreadable));
            view.provider_reads =
                parsed.map(|(_, provider): (_, Rc<ObservedProvider>)| provider.reads);
        }
        "conductor" => {
            view.conductor = item.map(|item| String::from_utf8_lossy(&item.value).into_owned())
        }
        _ if name.starts_with("over/") => {
            let server = name.strip_prefix("over/").map(str::parse);
            let over = item.and_then(|item| parse::<BootNumber>(item, &mut view.unreadable));
            if let (Some(Ok(server)), Some((_, boot))) = (server, over) {
                view.over.insert(server, *boot);
            }
        }
        _ => {
            let server = name
                .strip_prefix("observed/")
                .and_then(|server| server.parse().ok());
            let Some(server) = server else { return };
            match item.and_then(|item| parse(item, &mut view.unreadable)) {
                Some(observed) => drop(view.observed.insert(server, observed)),
                None => drop(view.observed.remove(&server)),
            }
        }
    }
}

/// Reads a document. Whether it can be read, and why not, is kept in `unreadable`.
fn parse<T: DeserializeOwned>(
    item: &Item,
    unreadable: &mut BTreeMap<String, String>,
) -> Option<(Revision, Rc<T>)> {
    let parsed = item.json::<T>();
    match &parsed {
        Ok(_) => drop(unreadable.remove(&item.key)),
        Err(error) => {
            let why = gaiola_os::chain(error);
            tracing::error!(
                key = item.key,
                error = why,
                "cannot read a document of the site"
            );
            unreadable.insert(item.key.clone(), why);
        }
    }
    parsed
        .ok()
        .map(|stored| (stored.modified, Rc::new(stored.value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::Config;
    use gaiola_model::Inventory;
    use gaiola_model::config::App;
    use gaiola_model::placement::{Release, ReleaseNumber};

    fn item(key: String, value: Vec<u8>) -> Item {
        Item {
            key,
            value,
            created: Revision(1),
            modified: Revision(2),
            lease: None,
        }
    }

    #[test]
    fn a_document_that_cannot_be_parsed_is_no_empty_site() {
        let keys = Keys::of(&"site".parse().unwrap());
        let config = Config::new("site".parse().unwrap(), App::new("run"));
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = Inventory::numbered(&config, [10, 77]);
        let desired = Desired::first(config, release, inventory);
        let good = item(keys.desired(), serde_json::to_vec(&desired).unwrap());
        let before = snapshot(&View::default(), &keys, &[good]);
        assert_eq!(
            before.desired.as_ref().map(|(_, held)| &**held),
            Some(&desired)
        );
        let odd = item(
            keys.desired(),
            b"{\"written by\": \"a newer version\"}".into(),
        );
        let after = snapshot(&before, &keys, &[odd]);
        assert_eq!(
            after.desired.map(|(_, held)| (*held).clone()),
            Some(desired)
        );
        assert!(snapshot(&before, &keys, &[]).desired.is_none());
    }
}
