//! A machine that is lost for good gives its place to a spare one, and a machine that leaves a site is as it was before.

use crate::said;
use gaiola_e2e::machines::{Image, MachineSite};
use std::time::{Duration, Instant};

const RATE: u32 = 60;
const LIMIT: Duration = Duration::from_secs(240);

/// How many units of the servers of m3 run there.
const ACTIVE: &str = "systemctl is-active gaiola-agent@web3 gaiola-agent@db3 gaiola-database@db3 gaiola-keeper@lb3 | grep -c '^active'; true";
/// What a site leaves on a machine; packages, and Patroni where it is one, stay.
const LEFT: &str = "ls -d /var/lib/gaiola /opt/gaiola/current /etc/needrestart/conf.d/gaiola.conf 2>/dev/null; \
     ls /etc/systemd/system /etc/systemd/system/*.wants | grep '^gaiola'; systemctl list-units --all --plain --no-legend 'gaiola-*'; \
     getent passwd gaiola-site gaiola-store; nft list tables | grep gaiola; ip -o address | grep 10.78.0.100; true";

#[test]
#[ignore = "make machines runs it"]
fn a_lost_machine_gives_its_place_to_a_spare_one_under_load() {
    let Some(site) = MachineSite::start("replace", 4, Image::Prepared) else {
        return;
    };
    let three: &[&str] = &["m1", "m2", "m3"];
    site.write([three; 4], "[machines]\nspare = [\"m4\"]\n");
    site.up();
    site.gaiola(&["replace", "m3"])
        .expect(1, &["m3 still answers", "gaiola replace m3 --yes"]);
    site.gaiola(&["replace", "db9"])
        .expect(2, &["db9 is neither"]);
    site.gaiola(&["replace", "db3", "m2"])
        .expect(2, &["m2 is no spare machine"]);

    site.machines().crash("m3");
    until(&site, "a primary is left and m3 is silent", || {
        let status = site.status();
        let servers = status["servers"].as_array().unwrap();
        let silent = servers.iter().filter(|it| it["state"] == "lost").count();
        silent >= 4 && !status["primary"].is_null()
    });
    let client = site.client(RATE);
    site.gaiola(&["replace", "db3"])
        .expect(0, &["m4 takes the place of m3: lb3, web3, app3, db3"]);
    let seen = client.end();
    println!("a lost machine was replaced: {seen:?}");
    seen.assert_nothing_failed();
    assert!(site.is_healthy());

    // It comes back and stops, and is accepted no more.
    site.machines().on("m3");
    until(&site, "what m3 has is stopped", || {
        said(site.machines().ssh("m3", ACTIVE)) == "0"
    });
    assert!(site.is_healthy());
    shut_out(&site);

    // The file names it as a spare machine: it is emptied and is one.
    let now: &[&str] = &["m1", "m2", "m4"];
    site.write([now; 4], "[machines]\nspare = [\"m3\"]\n");
    site.gaiola(&["up"])
        .expect(0, &["it was replaced, and is a new machine now"]);
    assert!(site.is_healthy());
    assert_eq!(
        said(
            site.machines()
                .ssh("m3", "ls /var/lib/gaiola/guestbook/servers")
        ),
        ""
    );

    // One that is alive is drained, and left as it was.
    let client = site.client(RATE);
    site.gaiola(&["replace", "m2", "--yes"])
        .expect(0, &["m3 takes the place of m2"]);
    let seen = client.end();
    println!("a machine that is alive was replaced: {seen:?}");
    seen.assert_nothing_lost();
    assert_eq!(said(site.machines().ssh("m2", LEFT)), "");

    // A machine that the file names no more.
    let two: &[&str] = &["m1", "m3"];
    site.write([two; 4], "");
    site.gaiola(&["up"])
        .expect(0, &["it is no machine of the site"]);
    assert_eq!(said(site.machines().ssh("m4", LEFT)), "");

    purged(&site);
}

#[test]
#[ignore = "make machines runs it"]
fn a_machine_that_is_gone_is_replaced_without_an_operator() {
    let Some(site) = MachineSite::start("auto", 4, Image::Prepared) else {
        return;
    };
    let three: &[&str] = &["m1", "m2", "m3"];
    let machines = "[machines]\nspare = [\"m4\"]\nreplace = \"auto\"\nreplace_after = \"40s\"\n";
    site.write([three; 4], machines);
    site.up();
    assert!(site.is_healthy());
    assert_eq!(warning(&site, "m3"), None);

    let client = site.client(RATE);
    site.machines().crash("m3");
    until(&site, "the status says what will become of m3", || {
        warning(&site, "m3 has been gone")
            .is_some_and(|it| it.ends_with("m4 takes its place after 40 s"))
    });
    until(&site, "m4 has the servers of m3", || {
        servers_on(&site, "m4") == ["lb3", "web3", "app3", "db3"]
            && servers_on(&site, "m3").is_empty()
    });
    until(&site, "the site is whole", || site.is_healthy());
    let seen = client.end();
    println!("a machine was replaced without an operator: {seen:?}");
    assert!(seen.acknowledged > 0, "{seen:?}");
    seen.assert_nothing_lost();
    let events = site.gaiola(&["events", "--last", "1000"]);
    events.expect(0, &["m3 has been gone for", "m4 takes its place"]);

    // It comes back, stops, and is accepted no more; nothing is replaced again.
    site.machines().on("m3");
    until(&site, "what m3 has is stopped", || {
        said(site.machines().ssh("m3", ACTIVE)) == "0"
    });
    assert!(site.is_healthy());
    shut_out(&site);
    assert_eq!(servers_on(&site, "m4").len(), 4);

    // Another one is lost, and none is spare.
    site.machines().crash("m2");
    until(&site, "the status says why m2 is not replaced", || {
        warning(&site, "m2 is gone").is_some_and(|it| it.contains("no machine is spare"))
    });
    site.machines().on("m2");
    until(&site, "the site is whole again", || site.is_healthy());
    assert_eq!(warning(&site, "m2"), None);
}

/// The servers that the status has on a machine, in the order of the tiers.
fn servers_on(site: &MachineSite, machine: &str) -> Vec<String> {
    let status = site.status();
    let servers = status["servers"].as_array().expect("servers").iter();
    let on_it = servers.filter(|it| it["host"] == machine);
    let names = on_it.filter_map(|it| it["name"].as_str());
    names.map(String::from).collect()
}

/// The first warning of the status that begins so.
fn warning(site: &MachineSite, begins: &str) -> Option<String> {
    let status = site.status();
    let warnings = status["warnings"].as_array()?.iter();
    let mut texts = warnings.filter_map(|it| it.as_str());
    texts
        .find(|text| text.starts_with(begins))
        .map(String::from)
}

/// From m3 the inner ports are closed, except that at which it learns that it is out.
#[track_caller]
fn shut_out(site: &MachineSite) {
    let machines = site.machines();
    let m1 = said(machines.ssh("m1", "hostname -I | cut -d' ' -f1"));
    let knock = |port: u16| {
        let knock = format!("timeout 3 bash -c '</dev/tcp/{m1}/{port}' 2>/dev/null; echo $?");
        said(machines.ssh("m3", &knock))
    };
    for port in [2379, 5432, 8008, 9181] {
        assert_eq!(knock(port), "124", "{port}");
    }
    assert_eq!(knock(7071), "0");
    // By its name it is refused everything else.
    let pki = "/var/lib/gaiola/guestbook/pki";
    let ask = |path: &str| {
        let ask = format!(
            "printf 'GET {path} HTTP/1.1\\r\\nHost: m1\\r\\nConnection: close\\r\\n\\r\\n' | timeout 10 openssl s_client -quiet \
             -connect {m1}:7071 -CAfile {pki}/ca.pem -cert {pki}/cert.pem -key {pki}/key.pem 2>/dev/null | head -n 1"
        );
        said(machines.ssh("m3", &ask))
    };
    assert!(ask("/order").contains(" 200 "), "{}", ask("/order"));
    for path in ["/power", "/authority", "/secrets"] {
        assert!(ask(path).contains(" 403 "), "{path}: {}", ask(path));
    }
}

/// Everything is removed, and the next `up` founds a new site.
#[track_caller]
fn purged(site: &MachineSite) {
    site.gaiola(&["down", "--purge"])
        .expect(1, &["repeat it with --yes"]);
    assert!(site.is_healthy());
    site.gaiola(&["down", "--purge", "--yes"])
        .expect(0, &["m1: removed", "m3: removed"]);
    for machine in ["m1", "m3"] {
        assert_eq!(said(site.machines().ssh(machine, LEFT)), "", "{machine}");
    }
    site.up();
    assert!(site.is_healthy());
}

#[track_caller]
fn until(site: &MachineSite, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "still not: {what}\n{:#}",
            site.status()
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}
