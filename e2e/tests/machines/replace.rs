//! A machine that is lost for good gives its place to a spare one, and a machine that leaves a site is as it was before.

use crate::said;
use gaiola_e2e::machines::{Image, MachineSite};
use std::time::{Duration, Instant};

const RATE: u32 = 60;
const LIMIT: Duration = Duration::from_secs(120);

/// What a site leaves on a machine; packages, and Patroni where it is one, stay.
const LEFT: &str = "ls -d /var/lib/gaiola /opt/gaiola/current /run/gaiola /etc/needrestart/conf.d/gaiola.conf 2>/dev/null; \
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
        let silent = servers.iter().filter(|it| it["state"] == "silent").count();
        silent >= 4 && !status["primary"].is_null()
    });
    let client = site.client(RATE);
    site.gaiola(&["replace", "db3"])
        .expect(0, &["m4 takes the place of m3: lb3, web3, app3, db3"]);
    let seen = client.end();
    println!("a lost machine was replaced: {seen:?}");
    seen.assert_nothing_failed();
    assert!(site.is_healthy());

    // It comes back and stops; from its address nothing is accepted, nor its certificate from another one.
    site.machines().on("m3");
    let active = "systemctl is-active gaiola-agent@web3 gaiola-agent@db3 gaiola-database@db3 gaiola-keeper@lb3 | grep -c '^active'; true";
    until(&site, "what m3 has is stopped", || {
        said(site.machines().ssh("m3", active)) == "0"
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

/// From m3 the store's port is closed, and its certificate is for its own address alone.
#[track_caller]
fn shut_out(site: &MachineSite) {
    let machines = site.machines();
    let m1 = said(machines.ssh("m1", "hostname -I | cut -d' ' -f1"));
    let knock = format!("timeout 3 bash -c '</dev/tcp/{m1}/2379' 2>&1; echo $?");
    assert!(said(machines.ssh("m3", &knock)).ends_with("124"));
    let pki = "/var/lib/gaiola/guestbook/servers/lb3/pki";
    let stolen = said(machines.ssh("m3", &format!("tar -C {pki} -c . | base64 -w0")));
    let ask = format!(
        "mkdir -p /tmp/stolen && echo {stolen} | base64 -d | tar -C /tmp/stolen -x && cd /tmp/stolen && \
         ETCDCTL_API=3 timeout 5 etcdctl --endpoints https://{m1}:2379 --cacert ca.pem --cert cert.pem --key key.pem endpoint health 2>&1; \
         echo $?; rm -rf /tmp/stolen"
    );
    let answer = said(machines.ssh("m4", &ask));
    assert!(!answer.ends_with("\n0"), "{answer}");
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
