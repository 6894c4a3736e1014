//! The tiers of a site come to speak TLS with each other, and plain text again, under load.

use crate::said;
use gaiola_e2e::machines::{Image, MachineSite};

const RATE: u32 = 30;
const ALL: &[&str] = &["m1", "m2", "m3"];
const ENCRYPT: &str = "[machines]\nencrypt = true\n";

/// Addresses at which instances listen themselves.
const LISTENING: &str = "ss -ltnpH | grep guestbook | awk '{print $4}' | sort";

/// The sessions of the site's own role, as an instance's URL shows them: how many are encrypted, and how many are not.
const SESSIONS: &str = "pid=$(pgrep -x guestbook | head -n 1); \
    url=$(tr '\\0' '\\n' </proc/$pid/environ | sed -n 's/^DATABASE_URL=//p'); \
    PGSSLMODE=disable psql -XAtc \"select count(*) filter (where ssl) || ' ' || count(*) filter (where not ssl) \
    from pg_stat_ssl join pg_stat_activity using (pid) where usename = current_user\" \"$url\"";

/// What the web server of m2 answers to a request in plain text: the first letters.
const PLAIN: &str = "exec 3<>/dev/tcp/10.78.0.12/8000; printf 'GET /.gaiola/probe HTTP/1.1\\r\\nHost: m2\\r\\n\\r\\n' >&3; \
    timeout 5 head -c 4 <&3 | tr -cd A-Z";

#[test]
#[ignore = "make machines runs it"]
fn the_tiers_speak_tls_and_plain_text_again_under_load() {
    let Some(site) = MachineSite::start("encrypt", 3, Image::Prepared) else {
        return;
    };
    site.write([ALL; 4], "");
    site.up();
    everything_is_plain(&site);
    for round in 1..=2 {
        let client = site.client(RATE);
        site.write([ALL; 4], ENCRYPT);
        site.up();
        let seen = client.end();
        println!("round {round}, encrypted: {seen:?}");
        seen.assert_nothing_failed();
        everything_is_encrypted(&site);

        let client = site.client(RATE);
        site.write([ALL; 4], "");
        site.up();
        let seen = client.end();
        println!("round {round}, plain again: {seen:?}");
        seen.assert_nothing_failed();
        everything_is_plain(&site);
    }
    a_site_that_encrypts_loses_a_machine(&site);
}

fn listening(site: &MachineSite, machine: &str) -> Vec<String> {
    let said = said(site.machines().ssh(machine, LISTENING));
    said.lines().map(str::to_owned).collect()
}

/// How many sessions of instances are encrypted, and how many are not.
fn sessions(site: &MachineSite) -> (u32, u32) {
    let said = said(site.machines().ssh("m1", SESSIONS));
    let (encrypted, plain) = said.split_once(' ').expect("two numbers");
    let number = |text: &str| text.parse().expect("a number");
    (number(encrypted), number(plain))
}

/// What another machine gets for a request in plain text.
fn plain_answer(site: &MachineSite) -> String {
    let command = format!("bash -c {}", quoted(PLAIN));
    site.machines().ssh("m1", &command).stdout.trim().to_owned()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn everything_is_encrypted(site: &MachineSite) {
    for machine in ALL {
        let listening = listening(site, machine);
        assert_eq!(listening.len(), 2, "{machine}: {listening:?}");
        let inside = listening.iter().all(|at| at.starts_with("127.0.0.1:"));
        assert!(inside, "{machine}: {listening:?}");
    }
    let (encrypted, plain) = sessions(site);
    assert!(encrypted > 0 && plain == 0, "{encrypted} {plain}");
    assert_ne!(plain_answer(site), "HTTP");
}

fn everything_is_plain(site: &MachineSite) {
    for machine in ALL {
        let listening = listening(site, machine);
        assert_eq!(listening.len(), 2, "{machine}: {listening:?}");
        let outside = listening.iter().all(|at| at.starts_with("10.78.0."));
        assert!(outside, "{machine}: {listening:?}");
    }
    // The one that asks, at least: those of instances that were started before the last step may still be encrypted.
    let (_, plain) = sessions(site);
    assert!(plain > 0);
    assert_eq!(plain_answer(site), "HTTP");
}

/// Whatever happens to a site happens to one that encrypts too.
fn a_site_that_encrypts_loses_a_machine(site: &MachineSite) {
    site.write([ALL; 4], ENCRYPT);
    site.up();
    let client = site.client(RATE);
    site.machines().crash("m3");
    site.machines().on("m3");
    site.gaiola(&["up", "-d"]).expect(0, &[]);
    let seen = client.end();
    println!("a machine crashed: {seen:?}");
    seen.assert_nothing_lost();
    everything_is_encrypted(site);
}
