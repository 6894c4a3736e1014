use super::super::{Scale, changes, kept, merge as merged, refusals, scale};
use super::*;
use crate::rollout;
use gaiola_model::config::{App, Balancer, Config, Database, Web};
use gaiola_model::placement::{Release, ReleaseNumber};
use gaiola_model::{Desired, Inventory};
use proptest::prelude::*;
use std::net::IpAddr;

/// A file as it is decoded: `web: a b | app: a | spare: m`, each machine a letter with an address of its own.
fn file(text: &str) -> Config {
    let mut config = Config::new("site".parse().unwrap(), App::new("run"));
    let mut machines = Machines::default();
    for list in text.split('|') {
        let (key, names) = list.split_once(':').unwrap();
        let on = names.split_whitespace().map(machine);
        match key.trim() {
            "spare" => machines.spare.extend(on),
            tier => {
                let tier: Tier = tier.parse().unwrap();
                match tier {
                    Tier::Balancer => config.balancer = Some(without_vips()),
                    Tier::Web => config.web = Some(Web::default()),
                    Tier::App => {}
                    Tier::Database => config.database = Some(Database::default()),
                }
                let names = (1..).map(|number| ServerName::new(tier, number));
                machines.servers.extend(names.zip(on));
            }
        }
    }
    config.set_machines(machines);
    config
}

fn without_vips() -> Balancer {
    Balancer {
        vips: Some(Vec::new()),
        ..Balancer::default()
    }
}

fn machine(name: &str) -> Machine {
    Machine {
        address: Some(IpAddr::from([192, 0, 2, name.as_bytes()[0]])),
        ..Machine::new(name)
    }
}

/// Which machine each server stands on, and which are spare: `web1=a web2=b spare: m`.
fn shown(config: &Config) -> String {
    let machines = config.machines.as_ref().unwrap();
    let servers = machines.servers.iter();
    let mut words: Vec<String> = servers
        .map(|(name, on)| format!("{name}={}", on.ssh))
        .collect();
    if !machines.spare.is_empty() {
        words.push("spare:".into());
        words.extend(machines.spare.iter().map(|spare| spare.ssh.clone()));
    }
    words.join(" ")
}

fn scaled(config: &Config, to: &str) -> Config {
    scale(config, &to.parse().unwrap(), None).unwrap()
}

fn refused(config: &Config, to: &str) -> String {
    let error = to.parse().and_then(|to: Scale| scale(config, &to, None));
    error.unwrap_err().to_string()
}

/// The servers of a configuration, all placed.
fn placed(config: &Config) -> Placement {
    let release = Release {
        number: ReleaseNumber(1),
        digest: String::new(),
    };
    let inventory = Inventory::on_machines(config, None).unwrap();
    rollout::first(
        &Desired::first(config.clone(), release, inventory),
        "test".into(),
    )
}

fn in_words(old: &Config, new: &Config) -> Vec<String> {
    changes(old, new).iter().map(ToString::to_string).collect()
}

#[test]
fn a_server_keeps_its_name_while_its_machine_has_the_tier() {
    let base = file("app: a b c");
    // The order of the list does not matter, and a new machine takes no number that is in use.
    let after = |theirs| shown(&merged(&base, &base, &file(theirs), None));
    assert_eq!(after("app: c a b"), "app1=a app2=b app3=c");
    assert_eq!(after("app: d b c"), "app2=b app3=c app4=d");
    assert_eq!(after("app: b | spare: a c"), "app2=b spare: a c");
    assert_eq!(
        after("app: a b c | web: a d"),
        "web1=a web2=d app1=a app2=b app3=c"
    );
    let held = merged(&base, &base, &file("app: d b c"), None);
    let again = merged(&file("app: d b c"), &held, &file("app: d b c e"), None);
    assert_eq!(shown(&again), "app1=e app2=b app3=c app4=d");
}

#[test]
fn whether_the_tiers_speak_tls_is_what_the_file_says() {
    let plain = file("web: a | app: a b");
    let mut encrypted = plain.clone();
    encrypted.machines.as_mut().unwrap().encrypt = true;
    let on = merged(&plain, &plain, &encrypted, None);
    assert!(on.encrypts());
    let words = in_words(&plain, &on);
    assert!(
        words.len() == 1 && words[0].contains("the tiers speak TLS"),
        "{words:?}"
    );
    assert!(scaled(&on, "app=1").encrypts());
    let off = merged(&encrypted, &on, &plain, None);
    assert!(!off.encrypts());
    let words = in_words(&on, &off);
    assert!(
        words.len() == 1 && words[0].contains("plain text"),
        "{words:?}"
    );
}

#[test]
fn a_number_is_free_only_once_its_server_has_left() {
    let base = file("app: a b | spare: m");
    let stands = placed(&base);
    let held = merged(&base, &base, &file("app: b | spare: m"), Some(&stands));
    assert_eq!(shown(&held), "app2=b spare: m");
    let next = scale(&held, &"app=2".parse().unwrap(), Some(&stands)).unwrap();
    assert_eq!(shown(&next), "app2=b app3=m");
    let later = scale(&held, &"app=2".parse().unwrap(), Some(&placed(&held))).unwrap();
    assert_eq!(shown(&later), "app1=m app2=b");
    // A server that comes back to its machine while it is leaving is still the same.
    let back = merged(&file("app: b | spare: m"), &held, &base, Some(&stands));
    assert_eq!(shown(&back), "app1=a app2=b spare: m");
}

#[test]
fn a_machine_at_another_address_has_another_server() {
    let base = file("app: a b");
    let mut theirs = base.clone();
    let machines = theirs.machines.as_mut().unwrap();
    for machine in machines.servers.values_mut().filter(|on| on.ssh == "a") {
        machine.address = Some([192, 0, 2, 200].into());
    }
    let after = merged(&base, &base, &theirs, None);
    assert_eq!(shown(&after), "app2=b app3=a");
    assert_eq!(
        in_words(&base, &after),
        [
            "app: app3 is added on a",
            "app: app1 leaves a",
            "machines: a address changes: its servers are replaced one by one",
        ]
    );
}

#[test]
fn scaling_takes_spare_machines_in_order_and_gives_the_highest_back() {
    let base = file("web: a b | app: a b | spare: m n");
    let three = scaled(&base, "web=3");
    assert_eq!(shown(&three), "web1=a web2=b web3=m app1=a app2=b spare: n");
    let one = scaled(&three, "web=1");
    // b is not spare: app2 stands on it.
    assert_eq!(shown(&one), "web1=a app1=a app2=b spare: n m");
    let named = scaled(&base, "app=+n");
    assert_eq!(shown(&named), "web1=a web2=b app1=a app2=b app3=n spare: m");
    let none = scaled(&scaled(&base, "web=1"), "app=1");
    assert_eq!(shown(&none), "web1=a app1=a spare: m n b");
    assert_eq!(scaled(&base, "app=2x3").app.instances, 3);
}

#[test]
fn a_scale_that_the_machines_do_not_allow_is_refused_with_what_to_do() {
    let base = file("web: a b | app: a b | spare: m");
    for (to, words) in [
        (
            "web=5",
            "cannot scale web to 5 servers: that takes 3 more machines, and 1 is spare; add some to `spare` of [machines]",
        ),
        (
            "app=+b",
            "cannot add b to app: the spare machines are m; add it to `spare`",
        ),
        ("app=+1", "cannot read \"app=+1\""),
        ("app=+", "cannot read \"app=+\""),
        (
            "database=+m",
            "cannot scale database: the site has no [database]",
        ),
        ("web=2x2", "cannot scale web to NxM"),
    ] {
        let error = refused(&base, to);
        assert!(error.starts_with(words), "{error}");
    }
    let all = scaled(&base, "web=3");
    let error = refused(&all, "web=4");
    assert!(
        error.contains("takes 1 more machine, and 0 are spare"),
        "{error}"
    );
    assert!(refused(&all, "app=+m").contains("the spare machines are none"));
    let lab = Config::new("site".parse().unwrap(), App::new("run"));
    let error = refused(&lab, "app=+m");
    assert_eq!(
        error,
        "cannot add m to app: the lab provides the servers; write app=N"
    );
}

#[test]
fn an_unchanged_list_keeps_what_was_scaled_and_spare_what_is_not_in_use() {
    let base = file("web: a b | app: c | spare: m n");
    let hand = scaled(&scaled(&base, "web=+n"), "app=2");
    assert_eq!(shown(&hand), "web1=a web2=b web3=n app1=c app2=m");
    assert_eq!(merged(&base, &hand, &base, None), hand);
    let words: Vec<String> = kept(&base, &hand).iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "web: servers stay a, b, n as scaled by hand (the file says a, b)",
            "app: servers stay c, m as scaled by hand (the file says c)",
        ]
    );
    // The list of web changes: its machines are the file's, and what it had by hand is spare again.
    let after = |theirs| shown(&merged(&base, &hand, &file(theirs), None));
    assert_eq!(
        after("web: a d | app: c | spare: m n"),
        "web1=a web4=d app1=c app2=m spare: n"
    );
    // Another spare machine comes; those in use are not spare.
    assert_eq!(
        after("web: a b | app: c | spare: o m n"),
        "web1=a web2=b web3=n app1=c app2=m spare: o"
    );
    // A machine that the file does not have any more is left, even where its tier's list is unchanged.
    assert_eq!(
        after("web: a b | app: c | spare: m"),
        "web1=a web2=b app1=c app2=m"
    );
    let down = scaled(&base, "web=1");
    let kept_down = merged(
        &base,
        &down,
        &file("web: a b | app: c | spare: m n o"),
        None,
    );
    assert_eq!(shown(&kept_down), "web1=a app1=c spare: m n o b");
}

#[test]
fn tiers_of_one_machine_are_split_by_names_alone() {
    let one = file("lb: a | web: a | app: a | db: a");
    let three = file("lb: a b | web: a b | app: a b | db: b c");
    let split = merged(&one, &one, &three, None);
    assert_eq!(
        shown(&split),
        "lb1=a lb2=b web1=a web2=b app1=a app2=b db2=b db3=c"
    );
    assert_eq!(
        in_words(&one, &split),
        [
            "balancer: lb2 is added on b",
            "web: web2 is added on b",
            "app: app2 is added on b",
            "database: db2 is added on b",
            "database: db3 is added on c",
            "database: db1 leaves a, after a switchover where it is the primary",
        ]
    );
    assert!(refusals(&one, &split).is_empty());
    // A machine loses one tier and gets another.
    let swapped = merged(
        &three,
        &split,
        &file("lb: a b | web: b | app: a b c | db: b c"),
        None,
    );
    assert_eq!(
        in_words(&split, &swapped),
        ["web: web1 leaves a", "app: app3 is added on c"]
    );
}

#[test]
fn changes_name_tiers_and_machines() {
    let old = file("web: a b | app: a b | spare: m");
    let mut new = merged(&old, &old, &file("app: a c | db: a | spare: d"), None);
    let machines = new.machines.as_mut().unwrap();
    machines
        .servers
        .values_mut()
        .for_each(|on| on.interface = Some("ens4".into()));
    assert_eq!(
        in_words(&old, &new),
        [
            "web: removed with web1 and web2: clients come to the tier below",
            "web: web1 leaves a",
            "web: web2 leaves b",
            "app: app3 is added on c",
            "app: app2 leaves b",
            "database: added with db1: instances are replaced one at a time and get a DATABASE_URL",
            "database: db1 is added on a",
            "machines: a interface changes: VIPs are added to the new one",
            "machines: d is spare",
            "machines: b leaves the site",
            "machines: m leaves the site",
        ]
    );
    let gone: Vec<String> = refusals(&new, &old)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(gone[0].starts_with("database: db1 is removed"), "{gone:?}");
}

#[test]
fn a_prefix_of_a_vip_is_told() {
    let mut old = file("lb: a | app: a");
    let vip: IpAddr = [192, 0, 2, 1].into();
    old.balancer.as_mut().unwrap().vips = Some(vec![vip]);
    let mut new = old.clone();
    new.balancer.as_mut().unwrap().prefixes.insert(vip, 24);
    let words = "balancer: vips: the prefix of 192.0.2.1 changes: /32 -> /24";
    assert_eq!(in_words(&old, &new), [words]);
}

/// Files that name machines `a` to `h`.
fn files() -> impl Strategy<Value = Config> {
    let names: Vec<String> = ('a'..='h').map(String::from).collect();
    let list = || proptest::sample::subsequence(names.clone(), 0..=4).prop_shuffle();
    let all = (list(), list(), list(), list(), list());
    all.prop_map(|(balancer, web, mut app, database, spare)| {
        if app.is_empty() {
            app.push("a".into());
        }
        let used = [&balancer, &web, &app, &database]
            .map(Clone::clone)
            .concat();
        let spare: Vec<String> = spare
            .into_iter()
            .filter(|name| !used.contains(name))
            .collect();
        let tiers = [
            ("lb", balancer),
            ("web", web),
            ("app", app),
            ("db", database),
        ];
        let tiers = tiers.into_iter().filter(|(_, list)| !list.is_empty());
        let lists = tiers.chain([("spare", spare)]);
        let lists: Vec<String> = lists
            .map(|(key, list)| format!("{key}: {}", list.join(" ")))
            .collect();
        file(&lists.join("|"))
    })
}

/// A file and what a few `scale`s made of it.
fn with_hand() -> impl Strategy<Value = (Config, Config)> {
    let scales = prop::collection::vec((0..4_usize, 1..5_u16, any::<bool>()), 0..5);
    (files(), scales).prop_map(|(base, scales)| {
        let mut mine = base.clone();
        for (tier, servers, named) in scales {
            let tier = Tier::ALL[tier];
            let spare = mine.machines.as_ref().unwrap().spare.last().cloned();
            let to = match spare.filter(|_| named) {
                Some(machine) => format!("{tier}=+{}", machine.ssh),
                None => format!("{tier}={servers}"),
            };
            mine = scale(&mine, &to.parse().unwrap(), None).unwrap_or(mine);
        }
        (base, mine)
    })
}

/// Every machine of the file once: it has servers or is spare; counts agree, and no tier is twice on a machine.
fn check(config: &Config, theirs: &Config) {
    let machines = config.machines.as_ref().unwrap();
    let known = theirs.machines.as_ref().unwrap();
    let names = |machines: &Machines| {
        let mut names: Vec<String> = machines.all().iter().map(|on| on.ssh.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names(machines), names(known));
    for spare in &machines.spare {
        assert!(!machines.has_server(&spare.ssh));
    }
    for tier in Tier::ALL {
        let mut on: Vec<&str> = machines.of(tier).map(|(_, on)| on.ssh.as_str()).collect();
        let count = on.len();
        on.sort_unstable();
        on.dedup();
        assert_eq!(
            (on.len(), usize::from(config.servers(tier))),
            (count, count)
        );
        assert_eq!(config.has_tier(tier), count > 0);
    }
}

proptest! {
    #[test]
    fn an_unchanged_file_keeps_the_hand((base, mine) in with_hand()) {
        check(&mine, &base);
        prop_assert_eq!(merged(&base, &mine, &base, None), mine);
    }

    #[test]
    fn applying_a_file_again_changes_nothing((base, mine) in with_hand(), theirs in files()) {
        let stands = placed(&mine);
        let once = merged(&base, &mine, &theirs, Some(&stands));
        check(&once, &theirs);
        prop_assert_eq!(merged(&theirs, &once, &theirs, Some(&stands)), once);
    }

    #[test]
    fn a_server_that_stays_is_where_it_was((base, mine) in with_hand(), theirs in files()) {
        let stands = placed(&mine);
        let once = merged(&base, &mine, &theirs, Some(&stands));
        for (name, on) in &once.machines.as_ref().unwrap().servers {
            let before = mine.machines.as_ref().unwrap().servers.get(name);
            prop_assert!(before.is_none_or(|before| before == on), "{name} moved");
        }
        let held = Inventory::on_machines(&mine, None).unwrap();
        let next = Inventory::on_machines(&once, Some(&held)).unwrap();
        for (name, at) in &next.servers {
            prop_assert!(held.servers.get(name).is_none_or(|before| before == at), "{name} has other ports");
        }
    }

    #[test]
    fn members_of_the_store_stand_on_different_machines(config in files()) {
        let members = rollout::store_members(&config);
        let machines = config.machines.as_ref().unwrap();
        let hosts = |names: &[ServerName]| {
            let hosts = names.iter().map(|name| machines.servers[name].ssh.clone());
            hosts.collect::<std::collections::BTreeSet<_>>().len()
        };
        let all: Vec<ServerName> = config.server_names().collect();
        let expected = if hosts(&all) < 3 { 1 } else { 3 };
        prop_assert_eq!((members.len(), hosts(&members)), (expected, expected));
    }
}
