use super::*;
use gaiola_model::Inventory;
use gaiola_model::config::Variables;
use gaiola_model::config::{BalancerTls, Drill, Limits, MAX_INSTANCES, MAX_SERVERS};
use gaiola_model::proxy::Compression;
use proptest::option;
use proptest::prelude::*;
use std::net::IpAddr;
use std::time::Duration;

fn whole() -> Config {
    Config {
        site: "guestbook".parse().unwrap(),
        balancer: Some(Balancer::default()),
        web: Some(Web::default()),
        app: App::new("bin/guestbook"),
        workers: Default::default(),
        crons: Default::default(),
        database: Some(Database::default()),
        drill: None,
        env: Default::default(),
        env_file: None,
        machines: None,
    }
}

fn scaled(config: &Config, to: &str) -> Config {
    scale(config, &to.parse().unwrap(), None).unwrap()
}

/// With VIPs as a provider chooses them.
fn resolved(config: &Config) -> Config {
    Inventory::numbered(config, [10, 77]).resolve(config)
}

fn in_words(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (resolved(old), resolved(new));
    changes(&old, &new)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn one_change(change: impl FnOnce(&mut Config)) -> String {
    let mut new = whole();
    change(&mut new);
    in_words(&whole(), &new).join("\n")
}

#[test]
fn a_file_that_did_not_change_keeps_what_was_scaled() {
    let hand = scaled(&scaled(&whole(), "app=3x4"), "web=5");
    let merged = merge(&whole(), &hand, &whole(), None);
    assert_eq!(merged, hand);
    let kept: Vec<String> = kept(&whole(), &merged)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        kept,
        [
            "web: servers stay 5 as scaled by hand (the file says 2)",
            "app: servers stay 3 as scaled by hand (the file says 2)",
            "app: instances stay 4 as scaled by hand (the file says 1)",
        ]
    );
}

#[test]
fn a_value_changed_in_the_file_wins_and_others_keep_theirs() {
    let hand = scaled(&scaled(&whole(), "app=3x4"), "web=5");
    let mut file = whole();
    file.app.servers = 1;
    file.app.health = "/health".into();
    let merged = merge(&whole(), &hand, &file, None);
    assert_eq!(merged.app.servers, 1);
    assert_eq!(merged.app.instances, 4);
    assert_eq!(merged.servers(Tier::Web), 5);
    assert_eq!(merged.app.health, "/health");
}

#[test]
fn a_tier_that_the_file_removes_is_gone_and_one_it_adds_is_as_written() {
    let hand = scaled(&whole(), "web=5");
    let mut without = whole();
    without.web = None;
    assert_eq!(merge(&whole(), &hand, &without, None).web, None);
    assert_eq!(merge(&without, &without, &whole(), None).web, whole().web);
}

#[test]
fn a_third_balancer_brings_a_third_default_vip() {
    assert_eq!(
        in_words(&whole(), &scaled(&whole(), "balancer=3")),
        [
            "balancer: servers 2 -> 3: lb3 is added",
            "balancer: vips: 10.77.0.102 is added and announced",
        ]
    );
}

#[test]
fn changes_of_size_name_the_servers() {
    for (to, words) in [
        ("web=4", "web: servers 2 -> 4: web3 and web4 are added"),
        ("app=6", "app: servers 2 -> 6: app3 to app6 are added"),
        (
            "app=1",
            "app: servers 2 -> 1: app2 is drained, then removed",
        ),
        (
            "app=2x3",
            "app: instances 1 -> 3 on each server: they are added",
        ),
        (
            "database=1",
            "database: servers 2 -> 1: db2 is removed, after a switchover where it is the primary; no standby is left",
        ),
    ] {
        assert_eq!(in_words(&whole(), &scaled(&whole(), to)).join("\n"), words);
    }
}

#[test]
fn changes_of_values_tell_their_effect() {
    let vip = |last| IpAddr::from([10, 77, 0, last]);
    let said = [
        one_change(|new| {
            new.balancer.as_mut().unwrap().vips = Some(vec![vip(100), vip(120), vip(121)]);
        }),
        one_change(|new| new.balancer.as_mut().unwrap().listen = vec![80, 8080]),
        one_change(|new| new.web.as_mut().unwrap().root = "dist".into()),
        one_change(|new| new.web.as_mut().unwrap().files.tries = vec!["/index.html".into()]),
        one_change(|new| new.web.as_mut().unwrap().compress = Some(Compression::default())),
        one_change(|new| new.app.run = "bin/other".into()),
        one_change(|new| new.app.release = Some("bin/other migrate".into())),
        one_change(|new| new.app.maxconn = Some(10)),
        one_change(|new| new.app.grace = Duration::from_secs(1)),
        one_change(|new| {
            new.app.limits = Limits {
                memory: Some(512 << 20),
                cpu: Some(1500),
                tasks: None,
            };
        }),
        one_change(|new| new.app.deploy.errors = 1),
        one_change(|new| new.database.as_mut().unwrap().strict = true),
        one_change(|new| new.database.as_mut().unwrap().maxconn = Some(4)),
        one_change(|new| new.database.as_mut().unwrap().wait = Duration::from_millis(500)),
        one_change(|new| new.drill = Some(Drill::default())),
        one_change(|new| {
            new.balancer.as_mut().unwrap().tls = Some(BalancerTls::new(vec!["a.pem".into()]))
        }),
    ];
    assert_eq!(
        said,
        [
            "balancer: vips: 10.77.0.120, 10.77.0.121 are added and announced, then 10.77.0.101 is removed",
            "balancer: listen :80 -> :80, :8080: the proxies take it over; no connection is lost",
            "web: root public -> dist: the proxies take it over; no connection is lost",
            "web: try none -> /index.html: the proxies take it over; no connection is lost",
            "web: compress false -> zstd 3, gzip 5, br 5: the proxies take it over; no connection is lost",
            "app: run changes: instances are replaced one at a time",
            "app: release changes: it runs before the instances of the next release",
            "app: maxconn 1000 -> 10: the proxies take it over; no connection is lost",
            "app: grace changes: it holds from the next stop on",
            "app: no limits -> 512 MiB of memory, 1.5 processors for an instance: that holds at once, without a restart",
            "deploy: changes: the next release is compared with the old one so",
            "database: strict is set: writes stop when no synchronous standby is left",
            "database: maxconn no limit -> 4: the proxies take it over; no connection is lost",
            "database: wait 5000 ms -> 500 ms: the proxies take it over; no connection is lost",
            "drill: changes: the next drill loads the site so",
            "balancer: tls is set: HTTPS is served on port 443",
        ]
    );
}

#[test]
fn a_disk_is_no_load() {
    let mut old = whole();
    old.drill = Some(Drill::default());
    let mut new = old.clone();
    new.drill = Some(Drill {
        disk: Some(4 << 30),
        ..Drill::default()
    });
    let said: Vec<String> = changes(&old, &new)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        said,
        ["drill: disk changes: it holds for database servers that have no data yet"]
    );
}

#[test]
fn a_tier_that_comes_or_goes_says_who_leads_where() {
    assert_eq!(
        one_change(|new| new.web = None),
        "web: removed with web1 and web2: balancer leads past it"
    );
    assert_eq!(
        one_change(|new| new.balancer = None),
        "balancer: removed with lb1 and lb2: clients come to the tier below"
    );
    let mut without = whole();
    without.database = None;
    without.web = None;
    assert_eq!(
        in_words(&without, &whole()),
        [
            "web: added with web1 and web2: balancer leads to it",
            "database: added with db1 and db2: instances are replaced one at a time and get a DATABASE_URL",
        ]
    );
}

#[test]
fn only_what_endangers_data_needs_a_yes() {
    let one = scaled(&whole(), "database=1");
    let three = scaled(&whole(), "database=3");
    let mut none = whole();
    none.database = None;
    let shrinks = |from| vec![Refusal::DatabaseShrinks { from, to: 1 }];
    assert_eq!(refusals(&whole(), &one), shrinks(2));
    assert_eq!(refusals(&three, &one), shrinks(3));
    assert_eq!(
        refusals(&whole(), &none),
        [Refusal::DatabaseRemoved {
            servers: whole().servers_of(Tier::Database).collect()
        }]
    );
    for (old, new) in [
        (&three, &whole()),
        (&one, &one),
        (&none, &one),
        (&one, &three),
    ] {
        assert_eq!(refusals(old, new), []);
    }
}

#[test]
fn a_scale_that_cannot_be_is_refused_with_what_to_write() {
    for (text, words) in [
        ("app", "cannot read \"app\""),
        ("app=", "cannot read \"app=\""),
        ("app=-1", "cannot read \"app=-1\""),
        ("app=+1", "cannot read \"app=+1\""),
        ("app=2x", "cannot read \"app=2x\""),
        ("app=2x2x2", "cannot read \"app=2x2x2\""),
        ("cache=2", "cannot scale \"cache\", which is not a tier"),
        ("app=0", "cannot scale app to 0 servers; it is from 1 to 99"),
        ("app=100", "cannot scale app to 100 servers"),
        (
            "app=99999999999999999999",
            "cannot read \"app=99999999999999999999\"",
        ),
        (
            "app=1x51",
            "cannot scale app to 51 instances; it is from 1 to 50",
        ),
        (
            "web=2x2",
            "cannot scale web to NxM: only app has instances; write web=N",
        ),
        (
            "database=2",
            "cannot scale database: the site has no [database]",
        ),
    ] {
        let mut config = whole();
        config.database = None;
        let error = text
            .parse()
            .and_then(|to| scale(&config, &to, None))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(words), "{error}");
    }
}

#[test]
fn a_tier_may_be_called_as_its_servers_are() {
    assert_eq!(scaled(&whole(), "db=3").servers(Tier::Database), 3);
    assert_eq!(scaled(&whole(), "lb=1").servers(Tier::Balancer), 1);
}

fn variables() -> impl Strategy<Value = Variables> {
    prop::collection::btree_map("[AB]", "[ab]", 0..3)
}

prop_compose! {
    fn app_tier()(
        servers in 1..=MAX_SERVERS, instances in 1..=MAX_INSTANCES, run in "[ab]", release in option::of("[ab]"),
        health in "/[ab]", maxconn in option::of(1..3u32), grace in 0..3u64, env in variables(),
    ) -> App {
        App { servers, instances, run, release, health, maxconn, grace: Duration::from_secs(grace), env, ..App::new("") }
    }
}

prop_compose! {
    fn config()(
        balancer in option::of((1..=MAX_SERVERS, option::of(Just(vec![IpAddr::from([10, 77, 0, 200])])), 80..82u16)),
        web in option::of((1..=MAX_SERVERS, "[ab]")),
        app in app_tier(),
        database in option::of((1..=MAX_SERVERS, any::<bool>())),
        drill in option::of(Just(Drill::default())),
        env in variables(),
    ) -> Config {
        Config {
            site: "a".parse().unwrap(),
            balancer: balancer.map(|(servers, vips, port)| Balancer { servers, vips, listen: vec![port], ..Balancer::default() }),
            web: web.map(|(servers, root)| Web { servers, root, ..Web::default() }),
            app,
            workers: Default::default(),
            crons: Default::default(),
            database: database.map(|(servers, strict)| Database { servers, strict, ..Database::default() }),
            drill,
            env,
            env_file: None,
            machines: None,
        }
    }
}

/// A configuration and what a few `scale`s made of it.
fn with_hand() -> impl Strategy<Value = (Config, Config)> {
    let scales = prop::collection::vec(
        (0..4usize, 1..=MAX_SERVERS, option::of(1..=MAX_INSTANCES)),
        0..4,
    );
    (config(), scales).prop_map(|(base, scales)| {
        let mut mine = base.clone();
        for (tier, servers, instances) in scales {
            let tier = Tier::ALL[tier];
            let to = match instances {
                Some(instances) if tier == Tier::App => {
                    ScaleTo::ServersAndInstances { servers, instances }
                }
                _ => ScaleTo::Servers(servers),
            };
            mine = scale(&mine, &Scale { tier, to }, None).unwrap_or(mine);
        }
        (base, mine)
    })
}

proptest! {
    #[test]
    fn an_unchanged_file_keeps_the_hand((base, mine) in with_hand()) {
        prop_assert_eq!(merge(&base, &mine, &base, None), mine);
    }

    #[test]
    fn without_a_hand_the_file_is_what_holds(base in config(), theirs in config()) {
        prop_assert_eq!(merge(&base, &base, &theirs, None), theirs);
    }

    #[test]
    fn each_value_is_the_files_where_it_changed_and_the_hands_where_not(
        (base, mine) in with_hand(), theirs in config()
    ) {
        let merged = merge(&base, &mine, &theirs, None);
        for tier in Tier::ALL {
            let of = |config: &Config| config.servers(tier);
            let expected = if of(&theirs) == of(&base) { of(&mine) } else { of(&theirs) };
            prop_assert_eq!(of(&merged), expected);
        }
        prop_assert_eq!(&merged.app.run, &theirs.app.run);
        prop_assert_eq!(merge(&theirs, &merged, &theirs, None), merged, "applying it again changes nothing");
    }

    #[test]
    fn there_is_a_change_to_tell_exactly_where_something_differs(old in config(), new in config()) {
        let (old, new) = (resolved(&old), resolved(&new));
        prop_assert!(changes(&old, &old).is_empty());
        prop_assert_eq!(changes(&old, &new).is_empty(), old == new);
    }

    #[test]
    fn a_scale_is_read_as_it_is_written(tier in 0..4usize, servers in 1..=MAX_SERVERS, instances in 1..=MAX_INSTANCES) {
        for to in [ScaleTo::Servers(servers), ScaleTo::ServersAndInstances { servers, instances }] {
            let scale = Scale { tier: Tier::ALL[tier], to };
            prop_assert_eq!(scale.to_string().parse(), Ok(scale));
        }
    }

    #[test]
    fn no_text_makes_a_scale_panic(text in any::<String>()) {
        let _ = text.parse::<Scale>();
    }
}
