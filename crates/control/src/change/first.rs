//! The first `up`: makes a placement that switches the servers on and so creates the store.

use super::release::{make_release, spread};
use super::{Local, STORE_LIMIT, found_store, secrets, step, store};
use crate::api::steps::Steps;
use crate::api::{Outcome, refused};
use crate::provider::{Elsewhere, Parcel};
use crate::site::Site;
use gaiola_agent::state::Order;
use gaiola_core::rollout;
use gaiola_model::inventory::Host;
use gaiola_model::placement::{Desired, ReleaseNumber, Revision};
use gaiola_model::{Exit, Placement, SiteName};
use gaiola_store::events;
use gaiola_store::view::Keys;
use gaiola_store::{Expected, Store, StoreError, Txn};
use gaiola_wire::hex;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the other machines are asked whether they know the site: the processes of some may have started just now.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// How long the members of a new store have to elect a leader: their machines may be busy with everything else that begins.
const FOUND_LIMIT: Duration = Duration::from_secs(90);
/// Between two attempts to write.
const WRITE_AGAIN: Duration = Duration::from_millis(100);
/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Whether no `up` of this site has reached the store yet.
pub(super) async fn is_new(site: &Site, deadline: Instant) -> Result<bool, Outcome> {
    if site.order.borrow().is_none() {
        ask_others(site, deadline.min(Instant::now() + ASK_LIMIT)).await?;
    }
    match site.order.borrow().as_ref() {
        None => return Ok(true),
        Some(order) if order.revision > Revision(0) => return Ok(false),
        Some(_) => {}
    }
    found_store(site, deadline, STORE_LIMIT).await?;
    let stored = store(site)
        .await?
        .get_json::<Desired>(&Keys::of(&site.name).desired())
        .await;
    stored.map(|stored| stored.is_none()).map_err(|error| {
        refused(
            Exit::Failed,
            format!(
                "cannot read the desired state: {}",
                gaiola_os::chain(&error)
            ),
        )
    })
}

/// Takes the orders that others know. That nobody knows one is certain only once all have answered: a second founding would
/// start the site anew beside the first.
async fn ask_others(site: &Site, deadline: Instant) -> Result<(), Outcome> {
    loop {
        let Elsewhere { orders, silent } = site.provider.orders_elsewhere().await;
        let is_known = !orders.is_empty();
        orders.into_iter().for_each(|order| site.take_order(order));
        if is_known || silent.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(refused(Exit::Failed, unsure(&silent)));
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Why a site is not founded while machines are silent.
fn unsure(silent: &[Host]) -> String {
    let names: Vec<&str> = silent.iter().map(|host| host.0.as_str()).collect();
    let names = names.join(", ");
    format!(
        "cannot tell whether the site exists already, because these machines do not answer: {names}; switch them on, or take them out of the file, and try again"
    )
}

/// The first `up`: makes a placement that switches the servers on and so creates the store. If an earlier `up`
/// did not reach the store, its servers are used.
pub(super) async fn found(
    site: &Rc<Site>,
    local: Local<'_>,
    by: String,
    deadline: Instant,
    steps: &mut Steps,
) -> Result<Revision, Outcome> {
    let Local {
        config, contents, ..
    } = local;
    let inventory = site.provider.inventory(&config, None);
    let inventory = inventory.map_err(|error| refused(Exit::Failed, error.to_string()))?;
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
                "the store was created on other servers and is still empty: run `gaiola down`, remove {state}, and try again"
            ),
        ));
    }
    let secrets = secrets::with(site, &BTreeMap::new(), local.secrets).await?;
    secrets::refuse_missing(&config, &secrets)?;
    let release = make_release(site, &config, contents, (None, ReleaseNumber(0)), steps).await?;
    let parcel = Parcel {
        config: &config,
        inventory: &inventory,
        release: &release,
    };
    spread(site, parcel, steps).await;
    let mut desired = Desired {
        secrets,
        ..Desired::first(config, release, inventory)
    };
    gaiola_core::deploys::remember(&mut desired, None, events::now(), by);
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
    found_store(site, deadline, FOUND_LIMIT).await?;
    let store = store(site).await?;
    let order = site.order.borrow().clone();
    let order = order.ok_or_else(|| refused(Exit::Failed, "the site has no placement"))?;
    let put = async || put_first(&site.name, &store, &desired, &order.placement).await;
    until_written(deadline, put).await.map_err(|error| {
        let is_late = matches!(error, StoreError::Unreachable { .. });
        let exit = if is_late { Exit::Timeout } else { Exit::Failed };
        let why = gaiola_os::chain(&error);
        refused(exit, format!("cannot write to the store: {why}"))
    })
}

/// Writes until the deadline where the store does not answer: members that have just been founded on a busy machine may still elect
/// their leader.
async fn until_written(
    deadline: Instant,
    put: impl AsyncFn() -> Result<Revision, StoreError>,
) -> Result<Revision, StoreError> {
    loop {
        match put().await {
            Err(StoreError::Unreachable { .. }) if Instant::now() < deadline => {
                sleep(WRITE_AGAIN).await;
            }
            written => return written,
        }
    }
}

/// Writes a new site into the store. One that is there already, and the same, was written by an attempt whose answer was lost.
async fn put_first(
    site: &SiteName,
    store: &Store,
    desired: &Desired,
    placement: &Placement,
) -> Result<Revision, StoreError> {
    let keys = Keys::of(site);
    let (desired_key, placement_key) = (keys.desired(), keys.placement());
    let txn = Txn::new()
        .expect(&desired_key, Expected::Absent)
        .put(&desired_key, store.to_json(&desired_key, desired)?, None)
        .put(
            &placement_key,
            store.to_json(&placement_key, placement)?,
            None,
        );
    match store.commit(&txn).await {
        Err(StoreError::CompareAndSwap {
            found: Some(revision),
            ..
        }) if is_stored(store, &desired_key, desired).await? => Ok(revision),
        committed => committed,
    }
}

async fn is_stored(store: &Store, key: &str, desired: &Desired) -> Result<bool, StoreError> {
    let stored = store.get_json::<Desired>(key).await?;
    Ok(stored.is_some_and(|stored| stored.value == *desired))
}

fn random_token() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_store::MemberError;

    #[test]
    fn machines_that_do_not_answer_are_named() {
        let silent = ["a", "deploy@b"].map(|name| Host(name.into()));
        let why = unsure(&silent);
        assert!(why.contains("do not answer: a, deploy@b;"), "{why}");
    }

    fn unreachable() -> StoreError {
        StoreError::Unreachable {
            what: "a write".into(),
            waited: Duration::from_secs(5),
            maybe_done: true,
            source: Box::new(MemberError::Unavailable {
                member: "lb1".into(),
                message: "no leader".into(),
            }),
        }
    }

    /// What comes of writes that end so, one after another.
    async fn written(ends: Vec<Result<Revision, StoreError>>) -> Result<Revision, StoreError> {
        let ends = std::cell::RefCell::new(ends.into_iter());
        let end = || ends.borrow_mut().next();
        let deadline = Instant::now() + Duration::from_millis(200);
        until_written(deadline, async || {
            end().unwrap_or_else(|| Err(unreachable()))
        })
        .await
    }

    #[tokio::test]
    async fn a_store_that_is_slow_to_begin_with_is_written_to_until_the_deadline() {
        let at = Revision(7);
        let slow = written(vec![Err(unreachable()), Ok(at)]).await;
        assert_eq!(slow.unwrap(), at);
        let of_another = StoreError::CompareAndSwap {
            key: "desired".into(),
            expected: Expected::Absent,
            found: Some(at),
        };
        let of_another = written(vec![Err(unreachable()), Err(of_another)]).await;
        assert!(matches!(of_another, Err(StoreError::CompareAndSwap { .. })));
        let never = written(Vec::new()).await;
        assert!(matches!(never, Err(StoreError::Unreachable { .. })));
    }
}
