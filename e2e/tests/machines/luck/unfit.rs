//! Machines that cannot carry a site: each is named, none is changed, and what is found there stays.

use super::{ALL, forget_connections, line, on, until, until_let_go, up, while_it_runs};
use crate::said;
use gaiola_e2e::Ran;
use gaiola_e2e::machines::{Image, MachineSite};
use std::time::Instant;

const SUDOERS: &str = "/etc/sudoers.d/ops";
/// What `up` brings first.
const BROUGHT: &str = "ls -d /opt/gaiola/current /opt/gaiola/0* /var/lib/gaiola/guestbook /etc/needrestart 2>/dev/null; true";
/// Every file of the cluster and its contents.
const CLUSTER: &str =
    "cd /var/lib/postgresql && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum";
const ROWS: &str = "cd / && su postgres -c \"psql -p 5499 -Atc 'select count(*) from kept'\"";
/// Holds the lock of packages, as dpkg does.
const HOLDS_LOCK: &str = "systemd-run --quiet --unit=holds-lock perl -e 'use Fcntl; open F, \">>\", \"/var/lib/dpkg/lock-frontend\"; \
     my $lock = pack(\"s s x4 q q i\", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $lock) or die; sleep shift' ";

#[test]
#[ignore = "make machines runs it"]
fn machines_that_cannot_carry_a_site_are_named_and_left_as_they_are() {
    let Some(site) = MachineSite::start("unfit", 3, Image::Prepared) else {
        return;
    };
    site.write([ALL; 4], "");
    no_way_in(&site);
    not_what_the_file_says(&site);
    let cluster = something_is_there_already(&site);
    for machine in ALL {
        assert_eq!(on(&site, machine, BROUGHT), "", "{machine}");
    }
    packages_do_not_come(&site);
    one_is_cut_off_while_it_is_prepared(&site);
    one_is_cut_off_while_the_site_begins(&site);
    up(&site);
    assert_eq!(on(&site, "m2", CLUSTER), cluster);
    on(&site, "m2", "systemctl start postgresql@15-main");
    assert_eq!(on(&site, "m2", ROWS), "3");
    until("the site is healthy", || site.is_healthy());
}

/// `up`, which must not begin.
#[track_caller]
fn refused(site: &MachineSite) -> Ran {
    let began = Instant::now();
    let ran = site.gaiola(&["up", "-d"]);
    let ran = ran.expect(1, &["gaiola: the machines cannot carry the site yet"]);
    println!("refused after {:.1?}", began.elapsed());
    ran
}

/// All machines are ready.
#[track_caller]
fn ready(site: &MachineSite) {
    site.gaiola(&["doctor"]).expect(0, &[]);
}

fn no_way_in(site: &MachineSite) {
    on(site, "m1", "systemctl stop ssh");
    let another = "rm /etc/ssh/ssh_host_ed25519_key && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key && systemctl restart ssh";
    on(site, "m2", another);
    on(site, "m3", &format!("sed -i s/NOPASSWD:// {SUDOERS}"));
    site.edit("\"m3\"", "\"ops@m3\"");
    let ran = refused(site);
    let off = ["refused", "it is not reached by ssh", "Connection refused"];
    line(&ran, "m1", &off);
    line(&ran, "m1", &["see that the machine is on", "ssh m1"]);
    let key =
        "its host key is not the one that is known: if the machine was installed anew: ssh-keygen";
    let key = line(&ran, "m2", &["refused", key]);
    let asks = "the user cannot become root (sudo: a password is required): let the user become root without a password";
    line(&ran, "ops@m3", &["refused", asks, "or name root@m3"]);

    // Each remedy, as it is written.
    on(site, "m1", "systemctl start ssh");
    let (_, forget) = key.split_once("anew: ").unwrap();
    let (forget, _) = forget.split_once("; otherwise").unwrap();
    let compared = "ssh-keyscan -t ed25519 m2 2>/dev/null >>~/.ssh/known_hosts";
    let machines = site.machines();
    said(machines.run(&["sh", "-c", &format!("{forget} && {compared}")]));
    on(
        site,
        "m3",
        &format!("sed -i s/ALL$/NOPASSWD:ALL/ {SUDOERS}"),
    );
    ready(site);
    site.write([ALL; 4], "");

    on(site, "m1", "mv /root/.ssh/authorized_keys /root/keys");
    forget_connections(site);
    let ran = site.gaiola(&["doctor"]).expect(1, &[]);
    let none = ["refused", "it accepts none of the keys", "ssh-add"];
    line(&ran, "m1", &none);
    on(site, "m1", "mv /root/keys /root/.ssh/authorized_keys");
    ready(site);
}

fn not_what_the_file_says(site: &MachineSite) {
    // Machines of this rack share one clock: this one says another time to whoever asks.
    let ahead = "printf '#!/bin/sh\\nexec /usr/bin/date -d \"5 minutes\" \"$@\"\\n' >/usr/local/bin/date; chmod +x /usr/local/bin/date";
    on(site, "m1", ahead);
    let id = on(site, "m1", "cat /etc/machine-id");
    on(
        site,
        "m2",
        &format!("cp /etc/machine-id /root/; echo {id} >/etc/machine-id"),
    );
    site.edit(
        "[database]\nservers = [\"m1\", \"m2\", \"m3\"]",
        "[database]\nservers = [\"m1\", \"m2\", { ssh = \"m3\", address = \"10.78.0.99\" }]",
    );
    on(
        site,
        "m3",
        "mkdir -p /var/lib/gaiola/blog && touch /var/lib/gaiola/blog/machine.json",
    );
    let ran = refused(site);
    let clock = line(
        &ran,
        "m1",
        &[
            "refused",
            "its clock is ",
            " s ahead",
            "timedatectl set-ntp true",
        ],
    );
    assert!(clock.contains("300.") || clock.contains("299."), "{clock}");
    let cloned = line(&ran, "m2", &["refused", "its machine id is that of m1"]);
    let address =
        "it does not have the address 10.78.0.99, but 10.78.0.13: name the right one in the file";
    line(&ran, "m3", &["refused", address]);
    line(
        &ran,
        "m3",
        &[
            "refused",
            "part of another site, blog",
            "use another machine, or remove it from blog",
        ],
    );

    on(site, "m1", "rm /usr/local/bin/date");
    let (_, remedy) = cloned.split_once("on one of them: ").unwrap();
    let (anew, _) = remedy.split_once(", then restart").unwrap();
    on(site, "m2", anew);
    site.machines().reboot("m2");
    assert_ne!(on(site, "m2", "cat /etc/machine-id"), id);
    on(site, "m3", "rm -r /var/lib/gaiola");
    site.write([ALL; 4], "");
    ready(site);
}

/// Returns what the cluster that was there is like.
fn something_is_there_already(site: &MachineSite) -> String {
    let small = |folder: &str, size: &str| {
        let there = format!(
            "mkdir -p {folder} /small{folder} && mount -t tmpfs -o size={size} small /small{folder} && \
             cp -a {folder}/. /small{folder} && mount --bind /small{folder} {folder}"
        );
        on(site, "m1", &there);
    };
    small("/var/lib", "600M");
    small("/opt", "200M");
    let cluster = "pg_createcluster -p 5499 15 main >/dev/null && systemctl start postgresql@15-main && cd / && \
                   su postgres -c \"psql -qp 5499 -c 'create table kept as select generate_series(1, 3)'\"";
    on(site, "m2", cluster);
    on(site, "m3", &format!("{HOLDS_LOCK} 600"));
    let ran = refused(site);
    line(
        &ran,
        "m1",
        &["refused", "MiB are free below /var/lib/gaiola: make room"],
    );
    line(
        &ran,
        "m1",
        &["refused", "MiB are free below /opt/gaiola: make room"],
    );
    let postgres = line(
        &ran,
        "m2",
        &["refused", "postgres runs there already, and may hold data"],
    );
    line(
        &ran,
        "m3",
        &["warning", "perl holds the lock of apt", "up waits for it"],
    );
    assert_eq!(on(site, "m2", ROWS), "3");

    on(
        site,
        "m1",
        "umount -l /var/lib /opt /small/var/lib /small/opt",
    );
    let (_, stop) = postgres.split_once("move its data, then: ").unwrap();
    on(site, "m2", stop);
    on(site, "m3", "systemctl stop holds-lock");
    ready(site);
    on(site, "m2", CLUSTER)
}

/// No mirror on one machine, and on another one the lock of apt is held for a while.
fn packages_do_not_come(site: &MachineSite) {
    let lacks = "dpkg --purge --force-depends nftables >/dev/null 2>&1";
    on(
        site,
        "m2",
        &format!("{lacks}; mv /etc/apt/apt.conf.d/90proxy /root/"),
    );
    on(site, "m3", &format!("{lacks}; {HOLDS_LOCK} 20"));
    let ran = site.gaiola(&["up", "-d"]).expect(1, &[]);
    line(
        &ran,
        "m2",
        &["cannot install packages: ", "nftables", "mirror"],
    );
    on(site, "m3", "command -v nft");
    // The next one finds the mirror, and what a power cut in the middle of an installation leaves.
    on(
        site,
        "m2",
        "mv /root/90proxy /etc/apt/apt.conf.d/; touch /var/lib/dpkg/updates/0001",
    );
}

/// Pulls the cable of m3 in the middle of an `up`, once that is so there, and plugs it in when `up` has ended.
fn cut_off(site: &MachineSite, once: &str) -> Ran {
    let began = Instant::now();
    let ran = while_it_runs(site, &["up", "-d", "--timeout", "60s"], |ended| {
        until(once, || {
            ended() || site.machines().shell("m3", once).code == 0
        });
        site.machines().cable("m3", false);
        println!("m3 is cut off after {:.1?}", began.elapsed());
    });
    println!("up ended after {:.1?} with {}", began.elapsed(), ran.code);
    site.machines().cable("m3", true);
    until_let_go(site, "m3");
    ran
}

fn one_is_cut_off_while_it_is_prepared(site: &MachineSite) {
    let ran = cut_off(site, "ls /opt/gaiola/0*").expect(1, &[]);
    line(&ran, "m3", &["cannot ", "it is not reached by ssh"]);
    line(&ran, "m3", &["see that the machine is on"]);
}

/// Nothing is founded while it is not known whether m3 has the site already; and once it is founded, m3 is named.
fn one_is_cut_off_while_the_site_begins(site: &MachineSite) {
    let ran = cut_off(site, "systemctl is-active gaiola-database@db3");
    let named = [
        "machines do not answer: m3",
        "m3 is silent, with lb3 web3 app3 db3",
    ];
    let names = |words: &&str| ran.stderr.contains(words);
    assert!(ran.code != 0 && named.iter().any(names), "{ran:#?}");
}
