//! A network as clouds have it, where an address is where the provider's API says: `vip_command` moves it.

use crate::said;
use gaiola_e2e::machines::cloud::PORT;
use gaiola_e2e::machines::{Image, MachineSite};
use serde_json::Value;
use std::time::{Duration, Instant};

const VIP: &str = "10.78.0.100";
const RATE: u32 = 30;
const LIMIT: Duration = Duration::from_secs(120);
/// Longer than two calls of the API, the second of which is 40 s after the first.
const CALLS: Duration = Duration::from_secs(45);

/// Asks the API one thing; in bash, since the image has no client for it.
fn ask(what: &str) -> String {
    format!("exec 3<>/dev/tcp/10.78.0.1/{PORT}; echo {what} >&3; read -r said <&3; echo $said")
}

fn site() -> Option<MachineSite> {
    let site = MachineSite::start("cloud", 3, Image::Prepared)?;
    let balancers: &[&str] = &["m1", "m2"];
    site.write([balancers, balancers, &["m2", "m3"], &["m1", "m3"]], "");
    let command = ask("assign $GAIOLA_VIP $GAIOLA_ADDRESS");
    let command =
        format!(r#"bash -c "{command}" | {{ read -r said; echo $said >&2; [ "$said" = ok ]; }}"#);
    site.edit("[web]", &format!("vip_command = '''{command}'''\n[web]"));
    Some(site)
}

#[test]
#[ignore = "make machines runs it"]
fn an_address_is_moved_by_a_clouds_api() {
    let Some(site) = site() else {
        return;
    };
    let _api = site.cloud();
    site.up();
    leads_to_its_holder(&site);
    a_balancer_is_drained(&site);
    a_balancer_loses_power(&site);
    they_are_split_for_a_moment(&site);
    for manner in ["slow", "broken", "hung"] {
        the_api_is(&site, manner);
    }
}

fn operator(site: &MachineSite, what: &str) -> String {
    said(site.machines().run(&["bash", "-c", &ask(what)]))
}

/// The address of the server that reports that it holds the VIP, if exactly one does.
fn holder(site: &MachineSite) -> Option<String> {
    let status = site.status();
    let servers = status["servers"].as_array()?.iter();
    let holds = |server: &&Value| {
        let vips = server["vips"].as_array();
        vips.is_some_and(|vips| vips.iter().any(|vip| vip == VIP))
    };
    let mut holders = servers.filter(holds);
    let holder = holders.next()?["address"].as_str()?.to_string();
    holders.next().is_none().then_some(holder)
}

/// The VIP is where the API says, and clients reach the site by it.
#[track_caller]
fn leads_to_its_holder(site: &MachineSite) {
    let url = site.url("/");
    let curl = ["curl", "-sS", "-o", "/dev/null", "--max-time", "5", &url];
    let deadline = Instant::now() + LIMIT;
    loop {
        let given = operator(site, &format!("holder {VIP}"));
        let holder = holder(site);
        let reached = site.machines().run(&curl).code == 0;
        if reached && holder.as_ref() == Some(&given) && site.is_healthy() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the API says {given}, {holder:?} holds it, reached: {reached}\n{:#}",
            site.status()
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn a_balancer_is_drained(site: &MachineSite) {
    let client = site.client(RATE);
    for verb in ["drain", "undrain"] {
        site.gaiola(&[verb, "lb1"]).expect(0, &[]);
        leads_to_its_holder(site);
    }
    let seen = client.end();
    println!("a balancer was drained in a cloud: {seen:?}");
    seen.assert_nothing_lost();
}

fn a_balancer_loses_power(site: &MachineSite) {
    let client = site.client(RATE);
    let machine = machine_of(&holder(site).expect("one holds it"));
    site.machines().crash(&machine);
    std::thread::sleep(Duration::from_secs(5));
    site.machines().on(&machine);
    leads_to_its_holder(site);
    let seen = client.end();
    println!("a balancer lost power in a cloud: {seen:?}");
    seen.assert_nothing_lost();
}

fn machine_of(address: &str) -> String {
    let number: u8 = address
        .rsplit('.')
        .next()
        .and_then(|it| it.parse().ok())
        .expect("an address");
    format!("m{}", number - 10)
}

/// The other balancer hears nobody and calls the API, last; the holder, which never lost the VIP, calls it again.
fn they_are_split_for_a_moment(site: &MachineSite) {
    let holding = machine_of(&holder(site).expect("one holds it"));
    let other = if holding == "m1" { "m2" } else { "m1" };
    let cut = "nft 'add table ip split; add chain ip split in { type filter hook input priority -200; }; \
               add rule ip split in udp dport 9181 drop; add rule ip split in ip protocol 112 drop'";
    said(site.machines().ssh(other, cut));
    std::thread::sleep(Duration::from_secs(3));
    said(site.machines().ssh(other, "nft delete table ip split"));
    std::thread::sleep(CALLS);
    leads_to_its_holder(site);
}

/// The API takes its time, refuses or hangs while the VIP moves; the call is repeated until the address has moved.
fn the_api_is(site: &MachineSite, manner: &str) {
    assert_eq!(operator(site, &format!("be {manner}")), "ok");
    let before = holder(site).expect("one holds it");
    let machine = machine_of(&before);
    site.machines().crash(&machine);
    if manner == "slow" {
        leads_elsewhere(site, &before);
    } else {
        says_that_the_command_fails(site);
        assert_eq!(operator(site, &format!("holder {VIP}")), before);
    }
    assert_eq!(operator(site, "be prompt"), "ok");
    site.machines().on(&machine);
    leads_to_its_holder(site);
}

/// The API has ended the slow call.
#[track_caller]
fn leads_elsewhere(site: &MachineSite, before: &str) {
    let deadline = Instant::now() + LIMIT;
    while operator(site, &format!("holder {VIP}")) == before {
        assert!(Instant::now() < deadline, "{:#}", site.status());
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[track_caller]
fn says_that_the_command_fails(site: &MachineSite) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let ran = site.gaiola(&["status"]);
        if ran.stdout.contains("vip_command") {
            return;
        }
        assert!(Instant::now() < deadline, "{ran:#?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}
