//! Documents of every schema that is still read: what an older version has stored is understood, and what this one writes does not
//! change unnoticed.
//!
//! `documents/SCHEMA/NAME.json` are kept for good. `UPDATE=1` writes those of the present schema: where that changes a file, give
//! the schema a new number (`gaiola_model::schema::SCHEMA`) unless the one before reads the new form as well.

use gaiola_agent::engine::{KeeperDatabase, KeeperReport, Secret, Secrets};
use gaiola_agent::state::{Boot, Order, State};
use gaiola_model::inventory::Location;
use gaiola_model::keeper::{KeeperConfig, KeeperState};
use gaiola_model::placement::{
    DatabaseRole, InstanceState, ObservedDatabase, ObservedInstance, ObservedProvider,
    ObservedProxy, Release, ReleaseNumber,
};
use gaiola_model::proxy::{ControlRequest, ProxyConfig, SharedTickets, TicketKey};
use gaiola_model::schema::SCHEMA;
use gaiola_model::{Desired, Event, Inventory, Observed, Placement, Revision};
use gaiola_wire::document::{decode, decode_message, encode, encode_message};
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
maxconn = "none"
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

const ON_MACHINES: &str = r#"
site = "shop"
[balancer]
servers = [{ ssh = "lb-a", address = "10.0.0.11", interface = "ens4" }]
vips = ["203.0.113.100/24"]
[app]
maxconn = "none"
servers = [{ ssh = "deploy@app-a", address = "10.0.0.31" }, { ssh = "lb-a" }]
run = "bin/shop"
[machines]
spare = [{ ssh = "m-9", address = "2001:db8::9" }]
"#;

/// On machines; app1 has left.
fn desired_on_machines() -> Desired {
    let config = gaiola_wire::config::load(ON_MACHINES).unwrap();
    let release = Release {
        number: ReleaseNumber(3),
        digest: "5f".into(),
    };
    let inventory = Inventory::on_machines(&config, None).unwrap();
    let mut desired = Desired::first(config, release, inventory);
    let mut machines = desired.config.machines.clone().unwrap();
    machines
        .spare
        .extend(machines.servers.remove(&"app1".parse().unwrap()));
    desired.config.set_machines(machines);
    desired.inventory = Inventory::on_machines(&desired.config, Some(&desired.inventory)).unwrap();
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
        ..ObservedProxy::default()
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
        requires_tls: Some(true),
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
        further: Vec::new(),
        directories: State::at("/var/lib/gaiola/shop".into()).directories("lb1".parse().unwrap()),
        store_token: "a1".into(),
        database_user: None,
        site_user: None,
        keeper_key: Some("5a".repeat(32)),
        program: Some("/var/lib/gaiola/shop/servers/lb1/gaiola".into()),
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
    check_since(1, name, present);
}

/// As [`check`], of a document that there is since this schema.
fn check_since<T>(first: u64, name: &str, present: &T)
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
    for schema in first..SCHEMA {
        let path = folder(schema).join(format!("{name}.json"));
        let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let read = decode::<T>(&kept);
        assert!(read.is_ok(), "{name} of schema {schema}: {:?}", read.err());
    }
}

#[test]
fn every_document_of_every_schema_is_read() {
    check("desired", &desired());
    check_since(SCHEMA, "desired-machines", &desired_on_machines());
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
    check_since(2, "provider", &ObservedProvider { reads: SCHEMA });
    check("secrets", &secrets());
    check("keeper", &keeper());
    check("keeper-state", &keeper_state());
    check("database", &database());
    check("database-keeper", &database_keeper());
    check("event", &event());
    check_message("control-configure", &control(1));
    check_message("control-report", &control(2));
}

fn secrets() -> Secrets {
    let secret = |digit: &str| Secret::from(digit.repeat(48));
    Secrets {
        superuser: secret("a"),
        replication: secret("b"),
        rewind: secret("c"),
        site: secret("d"),
    }
}

fn database() -> KeeperDatabase {
    serde_json::from_value(serde_json::json!({
        "schema": SCHEMA, "generation": 3, "wanted": "run", "patroni": "/usr/bin/patroni",
        "config": "/run/gaiola/database/patroni.yml", "psql": "/usr/bin/psql", "api": "10.77.4.1:8008",
        "pki": "/var/lib/gaiola/shop/servers/db1/pki", "owner": { "uid": 101, "gid": 104 },
        "data": "/var/lib/gaiola/shop/servers/db1/postgres/data", "port": 5432, "log": "/var/lib/gaiola/shop/servers/db1/log",
        "leadership": { "store": ["10.77.1.1:2379"], "key": "/patroni/shop/leader", "me": "db1" },
        "clones": 1, "forked": false
    }))
    .unwrap()
}

fn database_keeper() -> KeeperReport {
    serde_json::from_value(serde_json::json!({
        "schema": SCHEMA, "reads": SCHEMA, "generation": 3, "state": "running", "restarts": 1, "last_end": "was killed", "clones": 1
    }))
    .unwrap()
}

fn event() -> Event {
    serde_json::from_value(serde_json::json!({
        "time": "2026-11-30T00:00:00Z", "subject": { "server": "app1" }, "kind": "process.ended", "text": "app1.1 exit status 1",
        "severity": "warning"
    }))
    .unwrap()
}

fn control(revision: u64) -> ControlRequest {
    let config = ProxyConfig {
        revision: Revision(revision),
        server: "lb1".into(),
        ..ProxyConfig::default()
    };
    match revision {
        1 => ControlRequest::Configure(Box::new(config)),
        _ => ControlRequest::Report,
    }
}

/// As [`check`], for what is sent as a message.
fn check_message(name: &str, present: &ControlRequest) {
    let written = encode_message(present, SCHEMA).unwrap();
    let json: Value = serde_json::from_slice(&written).unwrap();
    let path = folder(SCHEMA).join(format!("{name}.json"));
    if std::env::var_os("UPDATE").is_some() {
        let text = serde_json::to_string_pretty(&json).unwrap();
        fs::write(&path, text + "\n").unwrap();
    }
    for schema in 1..=SCHEMA {
        let path = folder(schema).join(format!("{name}.json"));
        let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let read = decode_message::<ControlRequest>(&kept);
        assert_eq!(
            read.unwrap(),
            (present.clone(), schema),
            "{name} of schema {schema}"
        );
    }
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
        "schema": SCHEMA, "reads": SCHEMA, "pid": 12, "ready": true, "reason": "", "config_problem": "",
        "vips": { "10.77.0.100": {
            "state": "active", "owner": "10.77.1.1", "since_ms": 1764460800000u64, "reason": "released", "yields": 2,
            "is_yielding": false, "is_holding_back": false, "standby": "10.77.1.2", "settled": null,
            "takeovers": { "released": 1 }
        } },
        "rejected": { "stale": 3 }
    }))
    .unwrap()
}
