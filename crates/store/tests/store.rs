//! The store against real etcd: what happens when members are lost, hang, forget, or are others than before.

mod etcd;
#[path = "store/membership.rs"]
mod membership;

use etcd::{Cluster, eventually, installed, soon};
use gaiola_model::Inventory;
use gaiola_model::config::{App, Config};
use gaiola_model::event::{Severity, Subject};
use gaiola_model::placement::{Desired, Placement, Release, ReleaseNumber};
use gaiola_model::schema::SCHEMA;
use gaiola_net::client::{Client, Request};
use gaiola_net::pki::{self, Authority};
use gaiola_store::etcd::Join;
use gaiola_store::events::{Events, KEPT};
use gaiola_store::view::{self, Keys, View};
use gaiola_store::{
    Change, Expected, KnownStore, Lease, Revision, Settings, Store, StoreError, Txn, Update, Watch,
    campaign, leader,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;

/// Reads updates until each of `keys` was put, and checks that no change is reported twice or out of order. A key may have
/// been put more than once in a row: who puts it tries again when the answer is lost.
async fn puts_of(watch: &mut Watch, keys: &[String]) {
    let mut last = Revision(0);
    let mut seen = Vec::new();
    while seen.len() < keys.len() {
        let update = soon("a change", watch.next()).await.unwrap();
        let Update::Changed(changes) = update else {
            panic!("{update:?}")
        };
        for change in changes {
            let Change::Put(item) = change else {
                panic!("{change:?}")
            };
            assert!(item.modified > last, "{item:?} after {last}");
            last = item.modified;
            if seen.last() != Some(&item.key) {
                seen.push(item.key);
            }
        }
    }
    assert_eq!(seen, keys);
}

/// Puts keys under `/w/` and says which.
async fn put_keys(store: &Store, name: &str) -> Vec<String> {
    let keys: Vec<_> = (0..3).map(|n| format!("/w/{name}{n}")).collect();
    for key in &keys {
        eventually(|| store.put(key, "x", None)).await;
    }
    keys
}

#[tokio::test]
async fn a_change_needs_the_revision_that_it_was_decided_on() {
    let Some(program) = installed("compare-and-swap") else {
        return;
    };
    let (_cluster, store) = Cluster::start(program, 1).await;
    assert_eq!(store.get("/a").await.unwrap(), None);
    let first = store
        .put_json_if("/a", Expected::Absent, &1, None)
        .await
        .unwrap();
    let again = store.put_json_if("/a", Expected::Absent, &2, None).await;
    assert!(
        matches!(again, Err(StoreError::CompareAndSwap { found: Some(at), .. }) if at == first)
    );

    let second = store
        .put_json_if("/a", Expected::At(first), &2, None)
        .await
        .unwrap();
    let late = store.put_json_if("/a", Expected::At(first), &3, None).await;
    assert!(matches!(late, Err(StoreError::CompareAndSwap { .. })));
    let stored = store.get_json::<u8>("/a").await.unwrap().unwrap();
    assert_eq!(
        (stored.value, stored.modified, stored.created),
        (2, second, first)
    );

    // All or nothing.
    let txn = Txn::new()
        .expect("/a", Expected::At(second))
        .expect("/b", Expected::At(Revision(1)))
        .put("/a", "9", None);
    let error = store.commit(&txn).await.unwrap_err();
    assert!(matches!(error, StoreError::CompareAndSwap { key, .. } if key == "/b"));
    assert_eq!(store.get("/a").await.unwrap().unwrap().value, b"2");

    store.delete_if("/a", first).await.unwrap_err();
    store.delete_if("/a", second).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap(), None);
}

#[tokio::test]
async fn a_listing_is_one_moment_however_many_pages_it_has() {
    let Some(program) = installed("paging") else {
        return;
    };
    let (_cluster, store) = Cluster::start(program, 1).await;
    for hundred in 0..12 {
        let keys = (0..100).map(|n| format!("/many/{hundred:02}{n:02}"));
        let txn = keys.fold(Txn::new(), |txn, key| txn.put(&key, "x", None));
        store.commit(&txn).await.unwrap();
    }
    store.put("/manyother", "x", None).await.unwrap();
    let listing = store.list("/many/").await.unwrap();
    assert_eq!(listing.items.len(), 1200);
    assert!(listing.items.is_sorted_by_key(|item| item.key.clone()));
    assert_eq!(listing.revision, store.revision().await.unwrap());
}

#[tokio::test]
async fn what_stands_under_a_lease_goes_with_it_and_a_new_term_fences_the_old_one() {
    let Some(program) = installed("leases") else {
        return;
    };
    let (_cluster, store) = Cluster::start(program, 1).await;
    let short = Duration::from_secs(2);
    let (one, two) = (
        store.lease_grant(short).await.unwrap(),
        Lease::hold(&store, short).await.unwrap(),
    );
    let old = campaign(&store, "/conductor", "app1", one)
        .await
        .unwrap()
        .unwrap();
    let same = campaign(&store, "/conductor", "app1", one).await.unwrap();
    assert_eq!(same.as_ref(), Some(&old));
    assert_eq!(
        campaign(&store, "/conductor", "app2", two.id())
            .await
            .unwrap(),
        None
    );
    let write = Txn::new().within(&old).put("/placement", "1", None);
    store.commit(&write).await.unwrap();

    // Nobody speaks for the first lease; the second one is held for longer than its length.
    let new = soon("the second candidate leads", async {
        loop {
            match campaign(&store, "/conductor", "app2", two.id())
                .await
                .unwrap()
            {
                Some(term) => return term,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    assert!(new.created > old.created && two.is_alive());
    let error = store.commit(&write).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    let error = store.lease_keepalive(one).await.unwrap_err();
    assert!(matches!(error, StoreError::LeaseExpired(_)), "{error}");
    let error = store.put("/x", "x", Some(one)).await.unwrap_err();
    assert!(matches!(error, StoreError::LeaseExpired(_)), "{error}");

    store.lease_revoke(two.id()).await.unwrap();
    store.lease_revoke(two.id()).await.unwrap();
    assert_eq!(leader(&store, "/conductor").await.unwrap(), None);
    let mut two = two;
    soon("the held lease is known to be gone", two.expired()).await;
}

#[tokio::test]
async fn a_watch_goes_on_when_its_member_is_killed_or_hangs() {
    let Some(program) = installed("watch") else {
        return;
    };
    let (mut cluster, store) = Cluster::start(program, 3).await;
    let mut watch = store.watch("/w/", store.revision().await.unwrap());
    let first = put_keys(&store, "before").await;
    puts_of(&mut watch, &first).await;

    let killed = cluster.first_asked(&store);
    cluster.kill(killed);
    let second = put_keys(&store, "killed").await;
    puts_of(&mut watch, &second).await;
    cluster.run(killed, Join::Bootstrap(cluster.members.clone()));

    let hung = cluster.first_asked(&store);
    let killed = cluster.members[killed].target();
    eventually(|| store.status(&killed)).await;
    cluster.pause(hung);
    let third = put_keys(&store, "hung").await;
    puts_of(&mut watch, &third).await;
    cluster.resume(hung);
}

#[tokio::test]
async fn a_watch_outlives_a_lost_quorum() {
    let Some(program) = installed("watch without a quorum") else {
        return;
    };
    let (cluster, store) = Cluster::start(program, 3).await;
    // To the member that is watched this looks like a partition.
    let watched = cluster.first_asked(&store);
    let mut watch = store.follow("/w/");
    let update = soon("the snapshot", watch.next()).await.unwrap();
    assert!(matches!(update, Update::Snapshot(listing) if listing.items.is_empty()));
    let others: Vec<_> = (0..3).filter(|&index| index != watched).collect();
    others.iter().for_each(|&index| cluster.pause(index));
    let error = store.put("/w/lost", "x", None).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    others.iter().for_each(|&index| cluster.resume(index));
    cluster.pause(watched);
    eventually(|| store.put("/w/found", "x", None)).await;
    soon("the change that the others made", async {
        loop {
            match watch.next().await.unwrap() {
                Update::Changed(changes) => {
                    let found = |change: &Change| matches!(change, Change::Put(item) if item.key == "/w/found");
                    if changes.iter().any(found) {
                        return;
                    }
                }
                Update::Snapshot(_) => {}
            }
        }
    })
    .await;
    cluster.resume(watched);
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_begins_with_what_stands_now() {
    let Some(program) = installed("compaction") else {
        return;
    };
    let (cluster, store) = Cluster::start(program, 1).await;
    let before = store.revision().await.unwrap();
    let keys = put_keys(&store, "a").await;
    let now = store.put("/w/a0", "y", None).await.unwrap();
    let client = Client::new(cluster.settings().tls);
    let body = format!(r#"{{"revision":"{now}","physical":true}}"#);
    let request = Request::post("/v3/kv/compaction", body);
    let target = cluster.members[0].target();
    let answer = client
        .request(&target, &request, Duration::from_secs(20))
        .await;
    assert_eq!(answer.unwrap().status, 200);

    let mut watch = store.watch("/w/", before);
    let update = soon("the snapshot", watch.next()).await.unwrap();
    let Update::Snapshot(listing) = update else {
        panic!("{update:?}")
    };
    let found: Vec<_> = listing.items.into_iter().map(|item| item.key).collect();
    assert_eq!((found, listing.revision), (keys, now));
    let after = put_keys(&store, "b").await;
    puts_of(&mut watch, &after).await;
}

#[tokio::test]
async fn without_a_quorum_calls_end_in_an_error_and_with_one_they_go_on() {
    let Some(program) = installed("quorum") else {
        return;
    };
    let (mut cluster, store) = Cluster::start(program, 3).await;
    store.put("/a", "1", None).await.unwrap();
    cluster.pause(0);
    cluster.kill(1);
    let read = soon("a read's error", store.get("/a")).await.unwrap_err();
    assert!(matches!(read, StoreError::Unreachable { .. }), "{read}");
    let write = soon("a write's error", store.put("/a", "2", None))
        .await
        .unwrap_err();
    assert!(
        matches!(
            write,
            StoreError::Unreachable {
                maybe_done: true,
                ..
            }
        ),
        "{write}"
    );

    cluster.resume(0);
    let value = eventually(|| store.get("/a")).await.unwrap().value;
    assert!(value == b"1" || value == b"2");
    eventually(|| store.put("/a", "3", None)).await;
    assert_eq!(store.get("/a").await.unwrap().unwrap().value, b"3");
}

#[tokio::test]
async fn another_store_in_the_same_place_is_gone_and_never_empty() {
    let Some(program) = installed("incarnation") else {
        return;
    };
    let (mut cluster, store) = Cluster::start(program, 1).await;
    for n in 0..5 {
        store.put("/a", n.to_string(), None).await.unwrap();
    }
    let known = store.known().unwrap();
    let mut watch = store.watch("/", known.revision);

    // The data is lost, and etcd is bootstrapped with the same token: the same cluster id, an earlier revision.
    let restart = |cluster: &mut Cluster| {
        cluster.kill(0);
        cluster.wipe(0);
        cluster.run(0, Join::Bootstrap(cluster.members.clone()));
    };
    restart(&mut cluster);
    let fresh = cluster.store();
    eventually(|| fresh.revision()).await;
    assert_eq!(fresh.known().unwrap().cluster_id, known.cluster_id);
    let error = store.get("/a").await.unwrap_err();
    assert!(matches!(error, StoreError::Gone(_)), "{error}");
    let error = soon("the watch's end", watch.next()).await.unwrap_err();
    assert!(matches!(error, StoreError::Gone(_)), "{error}");

    // A new bootstrap with a token of its own: another cluster id. What an earlier process kept is believed.
    cluster.token = "second".into();
    restart(&mut cluster);
    let fresh = cluster.store();
    eventually(|| fresh.revision()).await;
    assert_ne!(fresh.known().unwrap().cluster_id, known.cluster_id);
    let settings = Settings {
        known: Some(KnownStore {
            revision: Revision(0),
            ..known
        }),
        ..cluster.settings()
    };
    let error = Store::new(settings).list("/").await.unwrap_err();
    assert!(matches!(error, StoreError::Gone(_)), "{error}");
}

#[tokio::test]
async fn etcd_turns_away_whoever_has_no_certificate_of_the_site() {
    let Some(program) = installed("mutual TLS") else {
        return;
    };
    let (cluster, _store) = Cluster::start(program, 1).await;
    let dir = tempfile::tempdir().unwrap();
    let other = Authority::create_or_load(&dir.path().join("ca")).unwrap();
    other.issue("client", &[], dir.path()).unwrap();
    let settings = Settings {
        tls: Some(pki::client_config(dir.path()).unwrap()),
        deadline: Duration::from_secs(2),
        ..cluster.settings()
    };
    let error = Store::new(settings).revision().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn of_many_who_write_at_once_each_sees_every_other() {
    let Some(program) = installed("contention") else {
        return;
    };
    let (cluster, store) = Cluster::start(program, 3).await;
    store.put_json("/sum", &0, None).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = cluster.store();
        writers.spawn(async move {
            let mut conflicts = 0;
            let mut added = 0;
            while added < 10 {
                let stored = store.get_json::<u32>("/sum").await.unwrap().unwrap();
                let expected = Expected::At(stored.modified);
                match store
                    .put_json_if("/sum", expected, &(stored.value + 1), None)
                    .await
                {
                    Ok(_) => added += 1,
                    Err(StoreError::CompareAndSwap { .. }) => conflicts += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            conflicts
        });
    }
    let conflicts: BTreeMap<_, _> = writers.join_all().await.into_iter().enumerate().collect();
    let sum = store.get_json::<u32>("/sum").await.unwrap().unwrap().value;
    assert_eq!(sum, 40, "conflicts: {conflicts:?}");
}

#[tokio::test]
async fn programs_of_neighbouring_schemas_share_a_site_until_all_read_the_newer_one() {
    let Some(program) = installed("schemas") else {
        return;
    };
    let (cluster, older) = Cluster::start(program, 1).await;
    let newer = cluster.store();
    let (desired, placement) = documents();
    let keys = Keys::of(&desired.config.site);
    let (sender, mut seen) = watch::channel(View::default());
    let tasks = tokio::task::LocalSet::new();
    tasks.spawn_local(view::follow(older.clone(), keys.clone(), sender));
    let shared = async {
        // The newer one writes in the schema of the site, and what it adds is kept by the older one.
        newer.set_schema(SCHEMA);
        let mut text: Value = json(&newer, &placement);
        text["motto"] = "open late".into();
        let text = serde_json::to_vec(&text).unwrap();
        let at = newer.put(&keys.placement(), text, None).await.unwrap();
        let is_there = |view: &View| view.placement.as_ref().is_some_and(|(of, _)| *of == at);
        soon("the placement", seen.wait_for(is_there))
            .await
            .unwrap();
        let changed = Placement {
            generation: 2,
            ..placement.clone()
        };
        let key = keys.placement();
        let put = older.put_json_if(&key, Expected::At(at), &changed, None);
        let at = put.await.unwrap();
        let stored = newer.get(&key).await.unwrap().unwrap();
        let stored: Value = serde_json::from_slice(&stored.value).unwrap();
        assert_eq!(stored["motto"], "open late");
        // A placement that raises the schema is written in the raised one, whatever the writer's store was set to.
        newer.set_schema(1);
        let raised = newer.to_json_over(&key, &placement, at, SCHEMA).await;
        let raised: Value = serde_json::from_slice(&raised.unwrap()).unwrap();
        assert_eq!(
            (&raised["schema"], &raised["motto"]),
            (&SCHEMA.into(), &"open late".into())
        );
        // A document of a schema that the older one does not read changes nothing for it, and is named.
        newer.set_schema(SCHEMA + 1);
        let beyond = Placement {
            generation: 3,
            ..placement.clone()
        };
        let text = newer.to_json(&key, &beyond).unwrap();
        newer.put(&key, text, None).await.unwrap();
        let is_named = |view: &View| !view.unreadable.is_empty();
        let view = soon("what cannot be read", seen.wait_for(is_named)).await;
        let view = view.unwrap().clone();
        let why = &view.unreadable[&key];
        assert!(why.contains("upgrade it on this server"), "{why}");
        assert_eq!(view.placement.unwrap().1.generation, 2);
        let put = older.put_json_if(&key, Expected::At(at), &changed, None);
        assert!(
            put.await.is_err(),
            "it writes nothing over what it cannot read"
        );
    };
    tasks.run_until(shared).await;
}

fn json(store: &Store, placement: &Placement) -> Value {
    serde_json::from_slice(&store.to_json("/placement", placement).unwrap()).unwrap()
}

fn documents() -> (Desired, Placement) {
    let config = Config::new("site".parse().unwrap(), App::new("run"));
    let release = Release {
        number: ReleaseNumber(1),
        digest: String::new(),
    };
    let inventory = Inventory::numbered(&config, [10, 77]);
    let desired = Desired::first(config, release, inventory);
    let placement = gaiola_core::rollout::first(&desired, "a1".into());
    (desired, placement)
}

#[tokio::test]
async fn events_are_logged_in_order_followed_and_pruned() {
    let Some(program) = installed("events") else {
        return;
    };
    let (_cluster, store) = Cluster::start(program, 1).await;
    let site = "guestbook".parse().unwrap();
    let events = Events::new(store.clone(), &site);
    let mut follow = events.follow(store.revision().await.unwrap());
    for n in 0..KEPT + 150 {
        let text = format!("is event {n}");
        let logged = events.log(Subject::Site, Severity::Info, "test.happened", text);
        logged.await.unwrap();
    }
    for n in 0..KEPT + 150 {
        let logged = soon("an event", follow.next()).await.unwrap();
        assert_eq!(logged.event.text, format!("is event {n}"));
    }
    assert_eq!(events.prune().await.unwrap(), 150);
    assert_eq!(events.prune().await.unwrap(), 0);
    let last = events.last(KEPT).await.unwrap();
    assert_eq!(last.len(), KEPT);
    assert_eq!(last[0].event.text, "is event 150");
    assert!(last.is_sorted_by_key(|logged| logged.revision));
    let last = events.last(2).await.unwrap();
    assert_eq!(last[1].event.text, format!("is event {}", KEPT + 149));
}
