//! Documents of every schema that is still read: what an older version has stored is understood, and what this one writes does not
//! change unnoticed.
//!
//! `documents/SCHEMA/NAME.json` are kept for good. `UPDATE=1` writes those of the present schema: where that changes a file, give
//! the schema a new number (`gaiola_store::document::SCHEMA`) unless the one before reads the new form as well.

use gaiola_agent::state::{Boot, Order, State};
use gaiola_model::inventory::Location;
use gaiola_model::keeper::{KeeperConfig, KeeperState};
use gaiola_model::placement::{
    DatabaseRole, InstanceState, ObservedDatabase, ObservedInstance, ObservedProxy, Release,
    ReleaseNumber,
};
use gaiola_model::proxy::{SharedTickets, TicketKey};
use gaiola_model::schema::SCHEMA;
use gaiola_model::{Desired, Inventory, Observed, Placement, Revision};
use gaiola_wire::document::{decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const SITE: &str = r#"
site = "shop"
[balancer]
servers = 2
[web]
servers = 2
root = "public"
[app]
servers = 2
instances = 2
run = "bin/shop"
release = "bin/shop migrate"
[database]
servers = 2
maxconn = 50
[drill]
rate = 10
page = "/"
"#;

fn folder(schema: u64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/documents/{schema}"))
}

fn desired() -> Desired {
    let config = gaiola_wire::config::load(SITE).unwrap();
    let release = Release {
        number: ReleaseNumber(3),
        digest: "5f".into(),
    };
    let inventory = Inventory::numbered(&config, [10, 77]);
    let mut desired = Desired::first(config, release, inventory);
    desired.drained.insert("web2".parse().unwrap());
    desired
}

fn placement() -> Placement {
    let mut placement = gaiola_core::rollout::first(&desired(), "a1".into());
    placement.released = Some(ReleaseNumber(3));
    placement
}

fn observed() -> Observed {
    let mut observed = Observed::nothing_on("app1".parse().unwrap());
    observed.revision = Revision(17);
    observed.proxy = Some(ObservedProxy {
        revision: Revision(17),
        in_flight: [("primary".into(), 2)].into(),
        up: ["db1".into()].into(),
        busy: ["app1.1".into()].into(),
    });
    let instance = ObservedInstance {
        release: ReleaseNumber(3),
        run: "bin/shop".into(),
        state: InstanceState::Ready,
        restarts: 1,
        reason: String::new(),
    };
    observed
        .instances
        .insert("app1.1".parse().unwrap(), instance);
    observed.database = Some(ObservedDatabase {
        role: DatabaseRole::SyncStandby,
        state: "streaming".into(),
        timeline: 2,
        lag_bytes: Some(0),
        replayed: None,
        history: Some("2 at 0/50000A0".into()),
    });
    observed
}

fn boot() -> Boot {
    Boot {
        site: "shop".parse().unwrap(),
        server: "lb1".parse().unwrap(),
        number: gaiola_model::placement::BootNumber(1_764_460_800_000),
        location: Location::at([10, 77, 1, 1].into()),
        interface: "eth0".into(),
        prefix_length: 16,
        directories: State::at("/var/lib/gaiola/shop".into()).directories("lb1".parse().unwrap()),
        store_token: "a1".into(),
        database_user: None,
        site_user: None,
        keeper_key: Some("5a".repeat(32)),
        path: "/usr/bin:/bin".into(),
        disk: Some(4 << 30),
    }
}

fn tickets() -> SharedTickets {
    SharedTickets {
        keys: vec![TicketKey([7; 32])],
        made: 1_764_460_800,
    }
}

/// Every document is read; of the present schema also written as it is kept.
fn check<T>(name: &str, present: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let written = encode(present, SCHEMA).unwrap();
    let json: Value = serde_json::from_slice(&written).unwrap();
    let path = folder(SCHEMA).join(format!("{name}.json"));
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(folder(SCHEMA)).unwrap();
        let text = serde_json::to_string_pretty(&json).unwrap();
        fs::write(&path, text + "\n").unwrap();
    }
    let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        serde_json::from_slice::<Value>(&kept).unwrap(),
        json,
        "{name} is written in another form"
    );
    assert_eq!(&decode::<T>(&kept).unwrap(), present, "{name}");
    for schema in 1..SCHEMA {
        let path = folder(schema).join(format!("{name}.json"));
        let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let read = decode::<T>(&kept);
        assert!(read.is_ok(), "{name} of schema {schema}: {:?}", read.err());
    }
}

#[test]
fn every_document_of_every_schema_is_read() {
    check("desired", &desired());
    check("placement", &placement());
    check("observed", &observed());
    check("tickets", &tickets());
    check("boot", &boot());
    check(
        "order",
        &Order {
            revision: Revision(17),
            placement: placement(),
        },
    );
    check("keeper", &keeper());
    check("keeper-state", &keeper_state());
}

fn keeper() -> KeeperConfig {
    serde_json::from_value(serde_json::json!({
        "schema": SCHEMA,
        "interface": "eth0",
        "address": "10.77.1.1",
        "key": "5a",
        "interval_ms": 100,
        "vips": [{
            "vip": "10.77.0.100", "vrid": 1, "priority": 250, "preempt": false, "yields": 2, "holds_back": false
        }],
        "maintenance": false
    }))
    .unwrap()
}

fn keeper_state() -> KeeperState {
    serde_json::from_value(serde_json::json!({
        "schema": SCHEMA, "pid": 12, "ready": true, "reason": "", "config_problem": "",
        "vips": { "10.77.0.100": {
            "state": "active", "owner": "10.77.1.1", "since_ms": 1764460800000u64, "reason": "released", "yields": 2,
            "is_yielding": false, "is_holding_back": false, "standby": "10.77.1.2", "settled": null,
            "takeovers": { "released": 1 }
        } },
        "rejected": { "stale": 3 }
    }))
    .unwrap()
}
